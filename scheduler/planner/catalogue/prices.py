"""Price sheets: what a provider charges for a function configuration, as data with source and date.

Three meters exist. `gb-s` charges memory times time. `resources` charges vCPU, memory and GPU memory separately, and
may round the time of a GPU function up to coarser steps. `cu` converts vCPU, memory, disk and GPU into compute units
(CU) and charges those. The JSON files in `prices/` ship with the package; any other sheet is named by its path. The
local Function Compute endpoint meters with the same files.
"""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import ANY_BYTES, Price

_LARGEST_RATE = 1e9
"""Of any figure of a sheet; products of larger ones could be infinite."""
_LEAST_GRAIN_S = 1e-12
"""A picosecond stands for none, as where a source does not round."""
SHIPPED = Path(__file__).parents[1] / "prices"


class PriceSheetError(EdgeburstError):
    """A price sheet is missing or contains an impossible value. The message names sheet and field."""


@dataclass(frozen=True, slots=True)
class ComputeUnits:
    """Compute units (CU) of a second of each resource, active and idle (provisioned, CPU not allocated)."""

    per_call: float
    per_vcpu_s: float
    idle_per_vcpu_s: float
    per_memory_gb_s: float
    per_disk_gb_s: float
    per_gpu_gb_s: Mapping[str, float]
    idle_per_gpu_gb_s: Mapping[str, float]
    price_per_cu: float
    """Price in the first step of the monthly volume steps, which is the highest: a plan never promises a discount."""


@dataclass(frozen=True, slots=True)
class ResourceRates:
    """Prices of each resource of a function in the sheet's currency. All meters are linear in them.

    Attributes:
        per_vcpu_s: a vCPU, a second.
        per_memory_gb_s: a GB of memory, a second.
        per_gpu_gb_s: a GB of GPU memory, a second.
        fixed_per_s: what does not depend on the size (the disk), a second.
        per_call: an invocation.
        grain_s: seconds that a duration is rounded up to.
    """

    per_vcpu_s: float
    per_memory_gb_s: float
    per_gpu_gb_s: float
    fixed_per_s: float
    per_call: float
    grain_s: float


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """The prices of one provider.

    Attributes:
        name: name of the sheet; every figure of money in the program names it.
        currency: currency of all rates.
        source: the document that the rates were taken from.
        date: date of that document, YYYY-MM-DD.
        note: what the sheet leaves out.
        grain_s: seconds that a duration is rounded up to.
        per_call: fee of one invocation (meters `gb-s` and `resources`).
        per_memory_gb_s: a GB of memory, a second (meters `gb-s` and `resources`).
        idle_per_memory_gb_s: the same for a provisioned instance without a request.
        units: the `cu` meter; None for the others.
        per_vcpu_s: a vCPU, a second (meter `resources`).
        per_gpu_gb_s: a GB of GPU memory, a second (meter `resources`); None: the sheet has no GPU.
        gpu_grain_s: seconds that a duration of a GPU function is rounded up to; None: as for all others.
        request_limit_bytes: largest request of a call that the platform accepts; None: not known.
        base64: whether a request is sent as text in base64, which takes four bytes for three.
    """

    name: str
    currency: str
    source: str
    date: str
    note: str
    grain_s: float
    per_call: float = 0.0
    per_memory_gb_s: float = 0.0
    idle_per_memory_gb_s: float = 0.0
    units: ComputeUnits | None = field(default=None)
    per_vcpu_s: float = 0.0
    per_gpu_gb_s: float | None = None
    gpu_grain_s: float | None = None
    request_limit_bytes: int | None = None
    base64: bool = False

    def max_body_bytes(self, *, beside: int) -> int:
        """Returns the most bytes of requests that a call can carry.

        Args:
            beside: bytes that a call has beside its requests.

        >>> load_sheet("fc3-cu-usd").max_body_bytes(beside=4096), load_sheet("lambda-mbs-usd").max_body_bytes(beside=0)
        (33550336, 4718592)
        """
        if self.request_limit_bytes is None:
            return ANY_BYTES
        raw = self.request_limit_bytes // 4 * 3 if self.base64 else self.request_limit_bytes
        return max(1, raw - beside)

    def tier_price(
        self, *, memory_gb: float, vcpu: float = 0.0, gpu_gb: float = 0.0, disk_gb: float = 0.5, gpu_type: str = ""
    ) -> Price:
        """Returns the price of calls of one function configuration.

        Args:
            memory_gb: memory of the instance, GB.
            vcpu: its vCPUs; the `gb-s` meter does not charge them.
            gpu_gb: its share of GPU memory, GB.
            disk_gb: its disk, GB.
            gpu_type: the provider's name of the card; by default "fc.gpu.tesla.1".

        Raises:
            PriceSheetError: the sheet has no price for this configuration.

        >>> round(load_sheet("cny-gbs-2023").tier_price(memory_gb=1.0).cost(0.2156) * 1e6, 4)
        3.6432
        """
        _positive("memory_gb", memory_gb)
        if self.units is not None or self.per_vcpu_s > 0:
            _positive("vcpu", vcpu)
        rates = self.rates(gpu=gpu_gb > 0, disk_gb=disk_gb, gpu_type=gpu_type)
        per_s = (
            vcpu * rates.per_vcpu_s
            + memory_gb * rates.per_memory_gb_s
            + max(0.0, gpu_gb) * rates.per_gpu_gb_s
            + rates.fixed_per_s
        )
        return Price(
            per_s=per_s, per_call=rates.per_call, grain_s=rates.grain_s, currency=self.currency, sheet=self.name
        )

    def rates(self, *, gpu: bool, disk_gb: float = 0.5, gpu_type: str = "") -> ResourceRates:
        """Returns the price of each resource, for pricing thousands of configurations at once.

        Args:
            gpu: whether the function has a GPU.
            disk_gb: its disk, GB.
            gpu_type: the provider's name of the card; by default "fc.gpu.tesla.1".

        Raises:
            PriceSheetError: the sheet has no price for GPUs, or not for this card.
        """
        if self.units is None:
            per_gpu_gb_s = self._gpu_rate() if gpu else 0.0
            grain_s = self.gpu_grain_s if gpu and self.gpu_grain_s is not None else self.grain_s
            return ResourceRates(self.per_vcpu_s, self.per_memory_gb_s, per_gpu_gb_s, 0.0, self.per_call, grain_s)
        units, per_cu = self.units, self.units.price_per_cu
        return ResourceRates(
            per_vcpu_s=units.per_vcpu_s * per_cu,
            per_memory_gb_s=units.per_memory_gb_s * per_cu,
            per_gpu_gb_s=_gpu_factor(self, units.per_gpu_gb_s, gpu_gb=float(gpu), gpu_type=gpu_type) * per_cu,
            fixed_per_s=disk_gb * units.per_disk_gb_s * per_cu,
            per_call=units.per_call * per_cu,
            grain_s=self.grain_s,
        )

    def idle_per_s(
        self, *, memory_gb: float, vcpu: float = 0.0, gpu_gb: float = 0.0, disk_gb: float = 0.5, gpu_type: str = ""
    ) -> float:
        """Returns the price of a second of a provisioned instance without requests, in the sheet's currency.

        Where the function keeps CPU or GPU allocated (the default of the SDK) the provider bills the active rate,
        `tier_price(...).per_s`, instead.

        Args:
            memory_gb: as for `tier_price`.
            vcpu: as for `tier_price`.
            gpu_gb: as for `tier_price`.
            disk_gb: as for `tier_price`.
            gpu_type: as for `tier_price`.
        """
        if self.units is None:
            if gpu_gb > 0:
                self._gpu_rate()
            return _positive("memory_gb", memory_gb) * self.idle_per_memory_gb_s
        units = self.units
        gpu = _gpu_factor(self, units.idle_per_gpu_gb_s, gpu_gb=gpu_gb, gpu_type=gpu_type)
        cu_per_s = vcpu * units.idle_per_vcpu_s + gpu + _memory_and_disk(units, memory_gb, disk_gb)
        return cu_per_s * units.price_per_cu

    def _gpu_rate(self) -> float:
        if self.per_gpu_gb_s is None:
            raise PriceSheetError(f"price sheet {self.name!r} has no price for GPU memory; choose a sheet that does")
        return self.per_gpu_gb_s


@cache
def shipped_sheets() -> tuple[str, ...]:
    """Returns the names of the sheets that ship with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def load_sheet(name_or_path: str | Path) -> PriceSheet:
    """Reads a price sheet.

    Args:
        name_or_path: name of a shipped sheet, or the path of a JSON file.

    Raises:
        PriceSheetError: there is no such sheet, it is not JSON, or a field is missing, unknown or out of range.

    >>> load_sheet("fc3-cu-usd").currency
    'USD'
    """
    path = _locate(name_or_path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise PriceSheetError(f"price sheet {path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise PriceSheetError(f"price sheet {path} must be one JSON object")
    return _sheet(_Fields(content, where=f"price sheet {path.name}"))


def _locate(name_or_path: str | Path) -> Path:
    if isinstance(name_or_path, str) and name_or_path in shipped_sheets():
        return SHIPPED / f"{name_or_path}.json"
    path = Path(name_or_path)
    if path.is_file():
        return path
    close = difflib.get_close_matches(str(name_or_path), shipped_sheets(), n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped are {', '.join(shipped_sheets())}"
    raise PriceSheetError(f"no price sheet {str(name_or_path)!r}: neither a shipped name nor a file; {hint}")


class _Fields:
    """Reads the fields of a sheet one by one, so that the error for a wrong or missing field names it."""

    def __init__(self, content: Mapping[str, object], *, where: str) -> None:
        self._left = dict(content)
        self._where = where

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str) or not value:
            raise PriceSheetError(f"{self._where}: {key} must be a text that is not empty")
        return value

    def rate(self, key: str) -> float:
        return _rate(self._take(key), f"{self._where}: {key}")

    def rates(self, key: str) -> Mapping[str, float]:
        value = self._take(key)
        if not isinstance(value, dict):
            raise PriceSheetError(f"{self._where}: {key} must be an object of numbers")
        return MappingProxyType({name: _rate(rate, f"{self._where}: {key}.{name}") for name, rate in value.items()})

    def first_step(self, key: str) -> float:
        value = self._take(key)
        if not isinstance(value, Sequence) or not value or not isinstance(value[0], dict):
            raise PriceSheetError(f"{self._where}: {key} must be a list of objects with up_to_cu_a_month and price")
        return _rate(value[0].get("price"), f"{self._where}: {key}[0].price")

    def limit_bytes(self, key: str) -> int | None:
        value = self._left.pop(key, None)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise PriceSheetError(f"{self._where}: {key} must be a whole number of bytes above 0, not {value!r}")
        return value

    def is_base64(self, key: str) -> bool:
        value = self._left.pop(key, "binary")
        if value not in ("binary", "base64"):
            raise PriceSheetError(f"{self._where}: {key} is {value!r}; it must be 'binary' or 'base64'")
        return value == "base64"

    def done(self) -> None:
        if self._left:
            raise PriceSheetError(f"{self._where}: unknown field {next(iter(self._left))!r}; remove it")

    def _take(self, key: str) -> object:
        if key not in self._left:
            raise PriceSheetError(f"{self._where}: field {key!r} is missing")
        return self._left.pop(key)


def _sheet(fields: _Fields) -> PriceSheet:
    name, currency, source = fields.text("name"), fields.text("currency"), fields.text("source")
    date, note, meter = fields.text("date"), fields.text("note"), fields.text("meter")
    limit_bytes, base64 = fields.limit_bytes("request_limit_bytes"), fields.is_base64("request_encoding")
    grain_s = _grain_s(fields, "grain_s")
    if meter == "gb-s":
        sheet = PriceSheet(
            name=name,
            currency=currency,
            source=source,
            date=date,
            note=note,
            grain_s=grain_s,
            per_call=fields.rate("per_call"),
            per_memory_gb_s=fields.rate("per_memory_gb_s"),
            idle_per_memory_gb_s=fields.rate("idle_per_memory_gb_s"),
        )
    elif meter == "resources":
        sheet = PriceSheet(
            name=name,
            currency=currency,
            source=source,
            date=date,
            note=note,
            grain_s=grain_s,
            per_call=fields.rate("per_call"),
            per_memory_gb_s=fields.rate("per_memory_gb_s"),
            idle_per_memory_gb_s=fields.rate("idle_per_memory_gb_s"),
            per_vcpu_s=fields.rate("per_vcpu_s"),
            per_gpu_gb_s=fields.rate("per_gpu_gb_s"),
            gpu_grain_s=_grain_s(fields, "gpu_grain_s"),
        )
    elif meter == "cu":
        units = _units(fields)
        sheet = PriceSheet(
            name=name, currency=currency, source=source, date=date, note=note, grain_s=grain_s, units=units
        )
    else:
        raise PriceSheetError(f"price sheet {name!r}: meter is {meter!r}; it must be 'gb-s', 'resources' or 'cu'")
    fields.done()
    return replace(sheet, request_limit_bytes=limit_bytes, base64=base64)


def _grain_s(fields: _Fields, key: str) -> float:
    grain_s = fields.rate(key)
    if 0 < grain_s < _LEAST_GRAIN_S:
        raise PriceSheetError(f"{key} must be at least {_LEAST_GRAIN_S:g} s, not {grain_s:g}")
    return _positive(key, grain_s)


def _units(fields: _Fields) -> ComputeUnits:
    return ComputeUnits(
        per_call=fields.rate("cu_per_call"),
        per_vcpu_s=fields.rate("cu_per_vcpu_s"),
        idle_per_vcpu_s=fields.rate("idle_cu_per_vcpu_s"),
        per_memory_gb_s=fields.rate("cu_per_memory_gb_s"),
        per_disk_gb_s=fields.rate("cu_per_disk_gb_s"),
        per_gpu_gb_s=fields.rates("cu_per_gpu_gb_s"),
        idle_per_gpu_gb_s=fields.rates("idle_cu_per_gpu_gb_s"),
        price_per_cu=fields.first_step("price_per_cu"),
    )


def _memory_and_disk(units: ComputeUnits, memory_gb: float, disk_gb: float) -> float:
    return _positive("memory_gb", memory_gb) * units.per_memory_gb_s + disk_gb * units.per_disk_gb_s


def _gpu_factor(sheet: PriceSheet, factors: Mapping[str, float], *, gpu_gb: float, gpu_type: str) -> float:
    if gpu_gb <= 0:
        return 0.0
    card = gpu_type or "fc.gpu.tesla.1"
    if card not in factors:
        raise PriceSheetError(
            f"price sheet {sheet.name!r} has no confirmed factor for the card {card!r}; it knows {', '.join(factors)}"
        )
    return gpu_gb * factors[card]


def _rate(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _LARGEST_RATE:
        raise PriceSheetError(
            f"{what} must be a number of at least 0, and at most {_LARGEST_RATE:g}, not {str(value)[:40]}"
        )
    return float(value)


def _positive(name: str, value: float) -> float:
    if not math.isfinite(value) or value <= 0:
        raise PriceSheetError(f"{name} must be above 0 to be priced, not {value!r}")
    return value

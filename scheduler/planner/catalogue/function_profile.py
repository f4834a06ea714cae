"""Function profiles, read from JSON: latency models over grids of configurations, with source and date.

A profile has one or more families. A family has a `kind` (cpu or gpu), a `form` of latency (exponential, slices,
polynomial, table) with its coefficients, the `grid` of configurations to choose from, and the range that was
`measured`. A grid beyond that range is refused, because a fit is not valid there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations, Family
from scheduler.planner.catalogue.function_path import AT_ONCE, FunctionPath
from scheduler.planner.catalogue.json_fields import Fields, PlanInputError
from scheduler.planner.catalogue.latency_models import (
    ConfigurationLatency,
    ExponentialLatency,
    PolynomialLatency,
    SliceLatency,
    TableLatency,
)
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.queueing.matrices import Array

KINDS = ("cpu", "gpu")
_GRIDS = ("vcpu", "gpu_gb", "memory_gb")
_MAX_CONFIGURATIONS = 4096
"""Largest grid of one family. Judgement: 4000 configurations with 4 caps are planned in hundredths of a second; the
work grows with the caps as well, and 500 configurations with 512 caps take 20 s."""
_MAX_ITEMS = 512
"""Largest batch of a form without a table of batch sizes: 4096 configurations x 512 sizes x 9 atoms of 8 bytes are
150 MB, and their weights as many."""


@dataclass(frozen=True, slots=True)
class FunctionProfile:
    """The functions that can be deployed, and their latency models.

    Attributes:
        name: name of the profile.
        source: where its figures come from.
        date: date of the source.
        families: the configurations by kind.
        path: uplink and cold starts.
        sizes_bytes: size classes for which tables have measured services; empty: services do not depend on the size.
        sized: families with the services of one size class, by size class.
    """

    name: str
    source: str
    date: str
    families: tuple[Family, ...]
    path: FunctionPath = AT_ONCE
    sizes_bytes: tuple[float, ...] = ()
    sized: Mapping[float, tuple[Family, ...]] = field(default_factory=dict)

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...] = KINDS) -> tuple[Configurations, ...]:
        """Returns the configurations of these kinds with services and prices; empty if the profile has none."""
        return tuple(family.tabulated(sheet, self.path) for family in self.families if family.kind in kinds)

    def tabulated_for(
        self, size_bytes: float, sheet: PriceSheet, *, kinds: tuple[str, ...] = KINDS
    ) -> tuple[Configurations, ...]:
        """Returns the configurations with the services of requests of one size.

        Args:
            size_bytes: size of a request; it counts as the next larger measured class.
            sheet: the prices.
            kinds: kinds to return.

        Raises:
            PlanInputError: the size is beyond the largest measured class.
        """
        families = self.families
        if self.sizes_bytes:
            larger = [size for size in self.sizes_bytes if size >= size_bytes]
            if not larger:
                raise PlanInputError(
                    f"app.sizes: {size_bytes:g} bytes is beyond the largest that profile {self.name!r} was measured "
                    f"for, {self.sizes_bytes[-1]:g}"
                )
            families = self.sized[larger[0]]
        path = replace(self.path, item_bytes=size_bytes)
        return tuple(family.tabulated(sheet, path) for family in families if family.kind in kinds)


def parse_profile(content: object, *, of: str) -> FunctionProfile:
    """Returns a profile from parsed JSON.

    Args:
        content: the parsed file.
        of: its name, for messages.

    Raises:
        PlanInputError: a field is missing, unknown or out of range; the message names it.
    """
    fields = Fields(content, where="", of=of)
    name, source, date = fields.text("name"), fields.text("source"), fields.text("date")
    for free in ("note", "model"):
        fields.text(free, "-")
    parts = fields.tables("families")
    sizes = _sizes(fields) if fields.has("sizes_bytes") else ()
    families = tuple(_family(part, sizes=len(sizes)) for part in parts)
    path = _path(fields.part("way")) if fields.has("way") else AT_ONCE
    fields.done()
    sized = {size: tuple(choices[i] for choices in families) for i, size in enumerate(sizes)}
    return FunctionProfile(name, source, date, tuple(choices[-1] for choices in families), path, sizes, sized)


def _sizes(fields: Fields) -> tuple[float, ...]:
    sizes = fields.numbers("sizes_bytes")
    if any(b <= a for a, b in zip((0.0, *sizes), sizes, strict=False)):
        raise fields.wrong("sizes_bytes", "must ascend from above 0")
    return sizes


def _path(fields: Fields) -> FunctionPath:
    path = FunctionPath(
        # A bandwidth of 0 means no limit: it is what a profile without an uplink says.
        bytes_per_s=fields.at_least("bytes_per_s", 0, 0.0) or None,
        item_bytes=fields.at_least("item_bytes", 0, 0.0),
        rtt_s=fields.at_least("rtt_s", 0, 0.0),
        busy=fields.at_least("busy", 0, 0.0),
        cold_probability=fields.at_least("cold_probability", 0, 0.0),
        cold_s=fields.at_least("cold_s", 0, 0.0),
    )
    if path.busy >= 1:
        raise fields.wrong("busy", f"must be below 1, not {path.busy:g}")
    if path.cold_probability > 1:
        raise fields.wrong("cold_probability", f"must be at most 1, not {path.cold_probability:g}")
    fields.done()
    return path


def _family(fields: Fields, *, sizes: int) -> tuple[Family, ...]:
    """Returns one family for each size class, or one family in all."""
    kind = fields.text("kind")
    if kind not in KINDS:
        raise fields.wrong("kind", f"is {kind!r}, an unknown tier; it must be one of {', '.join(KINDS)}")
    over, values = _grid(fields.part("grid"))
    form = fields.text("form")
    if form not in _FORMS:
        raise fields.wrong("form", f"is {form!r}; it must be one of {', '.join(_FORMS)}")
    latencies, max_items = _FORMS[form](_LatencyFields(fields, over, len(values), sizes))
    max_batch = fields.count("max_batch", max_items)
    if max_batch > max_items:
        raise fields.wrong("max_batch", f"is {max_batch}, but the latency model reaches to {max_items}")
    _within_measured(fields, over, values, max_batch)
    gpu_gb = values if over == "gpu_gb" else np.zeros(len(values))
    if (kind == "gpu") != (over == "gpu_gb"):
        raise fields.wrong("grid.over", f"is {over!r}; a {kind} family goes over {_over_of(kind)}")
    vcpu = values if over == "vcpu" else _vcpu(fields, values)
    memory_gb = _memory(fields, over=over, values=values, vcpu=vcpu, max_batch=max_batch)
    largest = _largest(fields, gpu_gb, max_batch)
    gpu_type, disk_gb = fields.text("gpu_type", " ").strip(), fields.at_least("disk_gb", 0, 0.5)
    fields.done()
    return tuple(Family(kind, latency, vcpu, gpu_gb, memory_gb, largest, gpu_type, disk_gb) for latency in latencies)


def _over_of(kind: str) -> str:
    return "gpu_gb" if kind == "gpu" else "vcpu or memory_gb"


def _grid(fields: Fields) -> tuple[str, Array]:
    over = fields.text("over")
    if over not in _GRIDS:
        raise fields.wrong("over", f"is {over!r}; it must be one of {', '.join(_GRIDS)}")
    if fields.has("values"):
        values = np.array(fields.numbers("values"))
    else:
        low, high, step = fields.number("from", above=0), fields.number("to", above=0), fields.number("step", above=0)
        if high < low:
            raise fields.wrong("to", f"is {high:g}, below from, which is {low:g}")
        if (high - low) / step > _MAX_CONFIGURATIONS:
            raise fields.wrong("step", f"makes more than {_MAX_CONFIGURATIONS} configurations; choose a larger one")
        values = np.round(low + step * np.arange(int((high - low) / step + 1e-9) + 1), 9)
    fields.done()
    if (values <= 0).any() or (np.diff(values) <= 0).any():
        raise fields.wrong("values", "must ascend from above 0")
    return over, values


def _within_measured(fields: Fields, over: str, values: Array, max_batch: int) -> None:
    if not fields.has("measured"):
        return
    measured = fields.part("measured")
    for key, low, high in ((over, values[0], values[-1]), ("batch", 1, max_batch)):
        if not measured.has(key):
            continue
        low_measured, high_measured = measured.numbers(key, min_length=2)[:2]
        if low < low_measured - 1e-9 or high > high_measured + 1e-9:
            field_name = "max_batch" if key == "batch" else "grid"
            measured_range = f"{key} was measured from {low_measured:g} to {high_measured:g} only"
            raise fields.wrong(field_name, f"reaches from {low:g} to {high:g}, but {measured_range}")
    measured.done()


def _vcpu(fields: Fields, values: Array) -> Array:
    given = fields.take("vcpu", 1.0)
    if isinstance(given, dict):
        part = fields.part("vcpu")
        each = part.number("each", above=0)
        part.done()
        return values * each
    return np.full(len(values), fields.number("vcpu", 1.0, above=0))


def _memory(fields: Fields, *, over: str, values: Array, vcpu: Array, max_batch: int) -> Array:
    caps = np.arange(1, max_batch + 1)
    if over == "memory_gb":
        return np.repeat(values[:, None], max_batch, axis=1)
    if not isinstance(fields.take("memory_gb"), dict):
        return np.full((len(values), max_batch), fields.number("memory_gb", above=0))
    part = fields.part("memory_gb")
    base, each = part.at_least("base", 0, 0.0), part.at_least("per_item", 0, 0.0)
    per_vcpu, step = part.at_least("per_vcpu", 0, 0.0), part.number("step", above=0)
    part.done()
    needed_gb = np.maximum(base + each * caps[None, :], per_vcpu * vcpu[:, None])
    return np.asarray(np.ceil(np.round(needed_gb / step, 9)) * step)


def _largest(fields: Fields, gpu_gb: Array, max_batch: int) -> Array:
    """Returns the largest batch by GPU memory: 1 GB for a batch of one, and 1 GB more beyond each of the listed batch
    sizes.
    """
    if not fields.has("another_gpu_gb_beyond_batch"):
        return np.full(len(gpu_gb), float(max_batch))
    steps = fields.take("another_gpu_gb_beyond_batch")
    beyond = np.array(fields.numbers("another_gpu_gb_beyond_batch", min_length=0) if steps else ())
    needed_gb = 1 + (beyond[None, :] < np.arange(1, max_batch + 1)[:, None]).sum(axis=1)
    return np.asarray((needed_gb[None, :] <= gpu_gb[:, None] + 1e-9).sum(axis=1).astype(np.float64))


_Latencies = tuple[tuple[ConfigurationLatency, ...], int]


@dataclass(frozen=True, slots=True)
class _LatencyFields:
    """What a latency model is read from: fields of the family, variable of the grid, numbers of configurations and
    classes.
    """

    fields: Fields
    over: str
    count: int
    sizes: int

    def only_over(self, wanted: str) -> Fields:
        """Returns the fields.

        Raises:
            PlanInputError: the grid is not over the variable of this form of latency.
        """
        if self.over != wanted:
            raise self.fields.wrong("grid.over", f"is {self.over!r}; this form of latency goes over {wanted!r}")
        return self.fields


def _exponential(given: _LatencyFields) -> _Latencies:
    fields = given.only_over("vcpu")
    mean = fields.rows("mean")
    worst = fields.rows("worst") if fields.has("worst") else mean
    for key, rows in (("mean", mean), ("worst", worst)):
        if len(rows[0]) != 3 or len(rows) != len(mean):
            raise fields.wrong(key, "must have a row [g0, g1, g2] for every batch size from 1")
        if any(g1 <= 0 or g2 <= 0 for _, g1, g2 in rows):
            raise fields.wrong(key, "needs g1 and g2 above 0 in every row")
    latency = ExponentialLatency(tuple((a, b, c) for a, b, c in mean), tuple((a, b, c) for a, b, c in worst))
    return (latency,), len(mean)


def _slices(given: _LatencyFields) -> _Latencies:
    fields = given.only_over("gpu_gb")
    latency = SliceLatency(
        slope_s=fields.number("slope_s", above=0),
        constant_s=fields.number("constant_s"),
        slice_s=fields.number("slice_s", above=0),
        card_gb=fields.number("card_gb", above=0),
        on_gpu=fields.at_least("on_gpu", 0, 1.0),
        on_cpu=fields.at_least("on_cpu", 0, 0.0),
        worst_factor=fields.at_least("worst_factor", 1, 1.0),
        fluid=fields.flag("fluid"),
    )
    if latency.slope_s + latency.constant_s <= 0:
        raise fields.wrong("constant_s", f"is {latency.constant_s:g}: a batch of one would take no time")
    return (latency,), _MAX_ITEMS


def _polynomial(given: _LatencyFields) -> _Latencies:
    fields = given.only_over("memory_gb")
    latency = PolynomialLatency(fields.numbers("coefficients", min_length=3))
    if (latency.degree + 1) * (latency.degree + 2) // 2 != len(latency.coefficients):
        raise fields.wrong("coefficients", f"has {len(latency.coefficients)} terms; it must be 3, 6, 10, 15, ...")
    return (latency,), _MAX_ITEMS


def _table(given: _LatencyFields) -> _Latencies:
    """Reads `seconds` by configuration and batch size; with size classes, one such list for each of them."""
    fields, sizes, count = given.fields, given.sizes, given.count
    sigma = fields.at_least("sigma", 0, 0.0)
    content = fields.take("seconds")
    lists = content if sizes and isinstance(content, list) else [content]
    if len(lists) != max(1, sizes):
        raise fields.wrong("seconds", f"must have one list for each of the {sizes} sizes_bytes")
    latencies = []
    for one in lists:
        rows = Fields({"seconds": one}, where="", of="").rows("seconds") if sizes else fields.rows("seconds")
        if len(rows) != count or any(x <= 0 for row in rows for x in row):
            raise fields.wrong("seconds", f"must have a row of seconds above 0 for each of the {count} configurations")
        latencies.append(TableLatency(tuple(rows), sigma))
    return tuple(latencies), len(latencies[0].seconds[0])


_FORMS = {"exponential": _exponential, "slices": _slices, "polynomial": _polynomial, "table": _table}

"""Measured profiles: rows of latency by batch size, the fitted latency model, and the source of both."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date as calendar_date
from functools import cache
from pathlib import Path

from models.errors import ModelError

BACKENDS = ("edge", "function")
SHIPPED = Path(__file__).parent / "profiles"
WORTH = 0.5
"""Part of the throughput of single batches that one more at once must add. Judgement: one more that is served adds
nearly all of it, one that only waits in the server adds what its transfer took."""
_LARGEST_BATCH = 65_536
"""Items; tables have an entry for each size."""
_LARGEST_FILE_BYTES = 1_000_000


class ProfileError(ModelError):
    """Error: a profile is missing, is not JSON, or has an impossible value; the message names the field."""


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Measurement at one batch size.

    Attributes:
        batch: items in a batch.
        p50_s: median service time of a batch, seconds.
        p95_s: 95th percentile, seconds.
        items_per_s: throughput, items a second.
        samples: number of batches measured.
        p99_s: 99th percentile, seconds; None if the source has none.
    """

    batch: int
    p50_s: float
    p95_s: float
    items_per_s: float
    samples: int
    p99_s: float | None = None

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ProfileError: a value is impossible.
        """
        _at_least_one("batch", self.batch)
        _at_least_one("samples", self.samples)
        for name in ("p50_s", "p95_s", "items_per_s"):
            _not_negative(name, getattr(self, name))
        if self.p95_s < self.p50_s:
            raise ProfileError(f"field p95_s is {self.p95_s} and below p50_s, which is {self.p50_s}; correct one")
        if self.p99_s is not None and self.p99_s < self.p95_s:
            raise ProfileError(f"field p99_s is {self.p99_s} and below p95_s, which is {self.p95_s}; correct one")


@dataclass(frozen=True, slots=True)
class AtOnceRow:
    """Measurement of batches of one size while several are under way all the time.

    Attributes:
        parallel: batches at once, at least 2.
        batch: items in a batch.
        p50_s: median latency of a batch, seconds.
        p95_s: 95th percentile, seconds.
        items_per_s: throughput of all of them together, items a second.
        samples: number of batches measured.
    """

    parallel: int
    batch: int
    p50_s: float
    p95_s: float
    items_per_s: float
    samples: int

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ProfileError: a value is impossible.
        """
        for name in ("parallel", "batch", "samples"):
            _at_least_one(name, getattr(self, name))
        for name in ("p50_s", "p95_s", "items_per_s"):
            _not_negative(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class Profile:
    """Profile of one model on one device: rows, latency model and source.

    Attributes:
        name: name of the profile; a shipped profile is found by its name.
        backend: "edge" or "function".
        model: the neural network that was measured.
        device: the device on which it was measured.
        source: the author of the measurement, and where to find it.
        date: date of the measurement or publication, YYYY-MM-DD.
        note: known limitations.
        rows: measured rows by ascending batch size; empty if only a fit is published.
        alpha_s: constant of the latency model, seconds a batch.
        beta_s: slope of the latency model, seconds an item.
        alpha_stderr_s: standard error of alpha_s; None if it is unknown.
        beta_stderr_s: standard error of beta_s; None if it is unknown.
        max_batch: the largest batch for which the latency model is valid.
        environment: clocks, power mode and similar facts, as texts.
        at_once: rows of several batches at once; empty: not measured.
        decode_s: seconds that a batch is decoded beside the device, which serves others; in neither rows nor fit.

    Raises:
        ProfileError: a field is out of range; the message names it.
    """

    name: str
    backend: str
    model: str
    device: str
    source: str
    date: str
    note: str
    rows: tuple[ProfileRow, ...]
    alpha_s: float
    beta_s: float
    alpha_stderr_s: float | None
    beta_stderr_s: float | None
    max_batch: int
    environment: Mapping[str, str]
    at_once: tuple[AtOnceRow, ...] = ()
    decode_s: float = 0.0

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
            ProfileError: a field is out of range.
        """
        if self.backend not in BACKENDS:
            raise ProfileError(f"field backend is {self.backend!r}; it must be one of {', '.join(BACKENDS)}")
        _calendar_day(self.date)
        for name in ("alpha_s", "beta_s", "decode_s"):
            _not_negative(name, getattr(self, name))
        for name in ("alpha_stderr_s", "beta_stderr_s"):
            if getattr(self, name) is not None:
                _not_negative(name, getattr(self, name))
        _at_least_one("max_batch", self.max_batch)
        batches = [row.batch for row in self.rows]
        if max(self.max_batch, *batches, 0) > _LARGEST_BATCH:
            raise ProfileError(f"a batch of over {_LARGEST_BATCH} items is none; correct max_batch and rows")
        if any(later <= earlier for earlier, later in zip(batches, batches[1:], strict=False)):
            raise ProfileError(f"field rows has the batch sizes {batches}; list each once, smallest first")

    def predict_s(self, items: int) -> float:
        """Returns the predicted service time of a batch of `items`, seconds."""
        return self.alpha_s + self.beta_s * items

    def parallel(self) -> int | None:
        """Returns how many batches of the largest size that was measured so are worth sending at once.

        Each of them adds at least half of what one alone answers; what a server only queues adds nearly nothing. None:
        several batches at once were not measured.
        """
        largest = max((row.batch for row in self.at_once), default=0)
        alone = next((row.items_per_s for row in self.rows if row.batch == largest), None)
        if alone is None:
            return None
        number, reached = 1, alone
        rows = (row for row in self.at_once if row.batch == largest)
        for row in sorted(rows, key=lambda row: row.parallel):
            if row.items_per_s - reached < WORTH * (row.parallel - number) * alone:
                break
            number, reached = row.parallel, row.items_per_s
        return number


@cache
def shipped_profiles() -> tuple[str, ...]:
    """Returns the names of the profiles that ship with the package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))


def load_profile(path_or_name: str | Path) -> Profile:
    """Reads a profile from a file, or a shipped profile by its name.

    Args:
        path_or_name: a shipped profile's name, or the path of a JSON file.

    Raises:
        ProfileError: there is no such profile or file, it is not JSON, a key is missing or unknown, or a value is out
            of range.

    >>> round(load_profile("orin-resnet50").predict_s(20), 4)
    0.2056
    """
    path = _locate(path_or_name)
    try:
        return _from_json(_read(path))
    except ProfileError as error:
        raise ProfileError(f"profile {path}: {error}") from error


def save_profile(profile: Profile, path: Path) -> None:
    """Writes a profile as JSON; the file is replaced at once, so that no reader sees an incomplete profile.

    Raises:
        ProfileError: the file cannot be written.
    """
    text = json.dumps(_to_json(profile), indent=2) + "\n"
    draft = path.with_name(path.name + ".new")
    try:
        draft.write_text(text)
        os.replace(draft, path)
    except OSError as error:
        raise ProfileError(f"profile {path} cannot be written ({error.strerror}); name another file") from error


def _locate(path_or_name: str | Path) -> Path:
    name = str(path_or_name)
    if name in shipped_profiles():
        return SHIPPED / f"{name}.json"
    path = Path(path_or_name)
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, shipped_profiles(), n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"name a file, or one of {', '.join(shipped_profiles())}"
    raise ProfileError(f"there is no profile or file {name!r}: {hint}")


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise ProfileError(f"the file has over {_LARGEST_FILE_BYTES} bytes; a profile has a few thousand")
        return json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_refuse_constant)
    except OSError as error:
        raise ProfileError(f"the file cannot be read ({error.strerror}); name another") from error
    except ProfileError:
        raise
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"this is not JSON ({error}); write it with `edgeburst profile`") from error


def _refuse_constant(word: str) -> object:
    raise ProfileError(f"{word} is not a number of JSON; write a finite one")


def _to_json(profile: Profile) -> dict[str, object]:
    """Returns the profile as a JSON object without unknown values, which a null would not express better."""
    values = asdict(profile)
    values["rows"] = [_known(row) for row in values["rows"]]
    values["at_once"] = values["at_once"] or None
    return _known(values)


def _known(values: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in values.items() if value is not None}


def _from_json(document: object) -> Profile:
    values = _object(document, "the profile", {field.name for field in fields(Profile)})
    rows = _required(values, "rows")
    if not isinstance(rows, list):
        raise ProfileError("field rows must be a list of objects; use [] where only a fit is published")
    return Profile(
        name=_text(values, "name"),
        backend=_text(values, "backend"),
        model=_text(values, "model"),
        device=_text(values, "device"),
        source=_text(values, "source"),
        date=_text(values, "date"),
        note=_text(values, "note"),
        rows=tuple(_row(row, position) for position, row in enumerate(rows)),
        alpha_s=_number(values, "alpha_s"),
        beta_s=_number(values, "beta_s"),
        alpha_stderr_s=_number_or_unknown(values, "alpha_stderr_s"),
        beta_stderr_s=_number_or_unknown(values, "beta_stderr_s"),
        max_batch=_count(values, "max_batch"),
        environment=_words(values, "environment"),
        at_once=tuple(_at_once(row, position) for position, row in enumerate(_rows_at_once(values))),
        decode_s=_number(values, "decode_s") if "decode_s" in values else 0.0,
    )


def _rows_at_once(values: Mapping[str, object]) -> list[object]:
    rows = values.get("at_once", [])
    if not isinstance(rows, list):
        raise ProfileError("field at_once must be a list of objects; leave it out where it was not measured")
    return rows


def _at_once(document: object, position: int) -> AtOnceRow:
    try:
        values = _object(document, "the row", {field.name for field in fields(AtOnceRow)})
        counts = {name: _count(values, name) for name in ("parallel", "batch", "samples")}
        return AtOnceRow(**counts, **{name: _number(values, name) for name in ("p50_s", "p95_s", "items_per_s")})  # type: ignore[arg-type]
    except ProfileError as error:
        raise ProfileError(f"at_once[{position}]: {error}") from error


def _row(document: object, position: int) -> ProfileRow:
    try:
        values = _object(document, "the row", {field.name for field in fields(ProfileRow)})
        return ProfileRow(
            batch=_count(values, "batch"),
            p50_s=_number(values, "p50_s"),
            p95_s=_number(values, "p95_s"),
            items_per_s=_number(values, "items_per_s"),
            samples=_count(values, "samples"),
            p99_s=_number_or_unknown(values, "p99_s"),
        )
    except ProfileError as error:
        raise ProfileError(f"rows[{position}]: {error}") from error


def _object(document: object, what: str, keys: set[str]) -> Mapping[str, object]:
    if not isinstance(document, dict):
        raise ProfileError(f"{what} must be a JSON object; write it with `edgeburst profile`")
    for key in document:
        if key not in keys:
            near = difflib.get_close_matches(key, sorted(keys), n=1) or sorted(keys)
            raise ProfileError(f"key {key!r} is not known; did you mean {near[0]!r}?")
    return document


def _required(values: Mapping[str, object], key: str) -> object:
    if key not in values:
        raise ProfileError(f"key {key} is missing; add it")
    return values[key]


def _text(values: Mapping[str, object], key: str) -> str:
    value = _required(values, key)
    if not isinstance(value, str) or (not value and key != "note"):
        raise ProfileError(f"field {key} must be a text that is not empty")
    return value


def _number(values: Mapping[str, object], key: str) -> float:
    value = _required(values, key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProfileError(f"field {key} is {value!r}; it must be a number")
    try:
        return float(value)
    except OverflowError as error:
        raise ProfileError(f"field {key} is too large to be a number of seconds or items; correct it") from error


def _number_or_unknown(values: Mapping[str, object], key: str) -> float | None:
    return None if values.get(key) is None else _number(values, key)


def _count(values: Mapping[str, object], key: str) -> int:
    value = _required(values, key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ProfileError(f"field {key} is {value!r}; it must be a whole number")
    return value


def _words(values: Mapping[str, object], key: str) -> dict[str, str]:
    value = _required(values, key)
    if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
        raise ProfileError(f"field {key} must be an object of texts; use {{}} if nothing is known")
    return dict(value)


def _not_negative(name: str, value: float) -> None:
    if not 0 <= value < math.inf:
        raise ProfileError(f"field {name} is {value}; it must be a finite number of at least 0")


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ProfileError(f"field {name} is {value}; it must be at least 1")


def _calendar_day(text: str) -> None:
    try:
        calendar_date.fromisoformat(text)
    except ValueError as error:
        raise ProfileError(f"field date is {text!r}; write a day as YYYY-MM-DD") from error

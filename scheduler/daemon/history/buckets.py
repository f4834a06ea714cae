"""One stretch of time: the counts of its requests, money and estimates; added up, written as JSON and read back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from scheduler.daemon.history.counting import COUNTS, REST, Cell, Key

MOST_NAMES = 512
"""Keys with a number of their own. A bound of memory: names change at reloads only."""


class Names:
    """Numbers for keys, so that a bucket holds numbers only."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        """Begins with these, in order."""
        self.keys: list[Key] = list(keys[:MOST_NAMES])
        self._numbers = {key: number for number, key in enumerate(self.keys)}

    def number(self, key: Key) -> int:
        """Returns a key's number, a new one at first; that of the rest where there are too many."""
        number = self._numbers.get(key)
        if number is None:
            if len(self.keys) >= MOST_NAMES - 1:
                key = Key(REST, REST, REST, REST)
                if key in self._numbers:
                    return self._numbers[key]
            number = self._numbers[key] = len(self.keys)
            self.keys.append(key)
        return number


@dataclass(slots=True)
class Bucket:
    """A second, or several added up."""

    cells: dict[int, Cell] = field(default_factory=dict)
    """By the number of their key."""
    money: dict[str, float] = field(default_factory=dict)
    """Spent, by purpose; "saved": what the edge's answers would have cost by function."""
    cold: int = 0
    """Function batches that met a cold start."""
    calls: int = 0
    """Function batches."""
    queued: int = 0
    """Most requests that waited."""
    gauges: dict[str, float] = field(default_factory=dict)
    """Estimates at its end: "rate" (items/s), "bandwidth" (bytes/s), "rtt" (s), "pace MODEL PLACE" (times profile)."""

    def add(self, later: "Bucket") -> None:
        """Adds a later stretch."""
        for number, cell in later.cells.items():
            mine = self.cells.get(number)
            if mine is None:
                mine = self.cells[number] = Cell()
            mine.add(cell)
        for purpose, amount in later.money.items():
            self.money[purpose] = self.money.get(purpose, 0.0) + amount
        self.cold += later.cold
        self.calls += later.calls
        self.queued = max(self.queued, later.queued)
        self.gauges.update(later.gauges)

    def values(self) -> dict[str, Any]:
        """Returns it in the types of JSON; what is nothing is left out."""
        found: dict[str, Any] = {"c": [_cell_values(number, cell) for number, cell in self.cells.items()]}
        if self.money:
            found["m"] = {purpose: float(f"{amount:.6g}") for purpose, amount in self.money.items() if amount}
        found |= {name: value for name, value in (("k", self.cold), ("n", self.calls), ("q", self.queued)) if value}
        if self.gauges:
            found["g"] = {name: float(f"{value:.4g}") for name, value in self.gauges.items()}
        return found

    def dumped(self) -> bytes:
        """Returns it as JSON."""
        return orjson.dumps(self.values())


def short(value: float, digits: int = 4) -> float:
    """Returns a value with so many digits, which is short in JSON."""
    return float(f"{value:.{digits}g}")


def bucket_of(values: Mapping[str, Any]) -> Bucket:
    """Returns what `values` was made of.

    Raises:
        ValueError: it is no bucket.
    """
    try:
        cells = {int(row[0]): _cell_of(row) for row in values["c"][:MOST_NAMES]}
        money = {str(name): float(amount) for name, amount in values.get("m", {}).items()}
        gauges = {str(name): float(value) for name, value in values.get("g", {}).items()}
        cold, calls, queued = (int(values.get(name, 0)) for name in ("k", "n", "q"))
        return Bucket(cells, money, cold, calls, queued, gauges)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"no bucket: {error}") from None


def loaded(blob: bytes) -> Bucket | None:
    """Returns the bucket in JSON; None where it is none."""
    try:
        return bucket_of(orjson.loads(blob))
    except ValueError:
        return None


def _cell_values(number: int, cell: Cell) -> list[Any]:
    """Returns number, counts, the first bin that is not empty, and the counts from there on."""
    counts = [getattr(cell, name) for name in COUNTS]
    if not cell.bins:
        return [number, *counts]
    first, last = min(cell.bins), max(cell.bins)
    return [number, *counts, first, *[cell.bins.get(index, 0) for index in range(first, last + 1)]]


def _cell_of(row: Sequence[Any]) -> Cell:
    counts, bins = row[1 : 1 + len(COUNTS)], row[1 + len(COUNTS) :]
    found = Cell()
    for name, count in zip(COUNTS, counts, strict=True):
        setattr(found, name, int(count))
    if bins:
        found.bins = {int(bins[0]) + index: int(count) for index, count in enumerate(bins[1:]) if count}
    return found

"""A span of the history as columns for charts, of the requests that a filter lets through, with a summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.daemon.history.buckets import Bucket, short
from scheduler.daemon.history.counting import Cell, Key
from scheduler.daemon.history.latency_bins import quantile_s
from scheduler.daemon.history.rings import History, Selection

A_PIECE = 24
"""Buckets that are read without a pause. Measured: 1 ms."""
QUANTILES = (0.5, 0.95, 0.99)
_PACE = "pace "


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which requests are counted; empty: all."""

    model: str = ""
    class_name: str = ""
    tenant: str = ""
    place: str = ""

    def has(self, key: Key) -> bool:
        """Returns whether a key's requests are counted."""
        return (
            self.model in ("", key.model)
            and self.class_name in ("", key.class_name)
            and self.tenant in ("", key.tenant)
            and self.place in ("", key.place)
        )


@dataclass(slots=True)
class _Point:
    """What is added up in one point."""

    total: Cell = field(default_factory=Cell)
    edge: int = 0
    function: int = 0
    bucket: Bucket = field(default_factory=Bucket)


class Columns:
    """Adds up a selection, piece by piece."""

    def __init__(self, history: History, selection: Selection, wanted: Wanted) -> None:
        """Stores what is read."""
        self._keys = history.names.keys
        self._selection = selection
        self._wanted = wanted
        self._points: dict[int, _Point] = {}
        self._classes: dict[tuple[str, ...], Cell] = {}
        self._tenants: dict[tuple[str, ...], Cell] = {}
        self._places: dict[tuple[str, ...], Cell] = {}

    def read(self) -> Iterator[None]:
        """Reads everything; yields after each piece."""
        for index, (point, bucket) in enumerate(self._selection.rows):
            self._take(self._points.setdefault(point, _Point()), bucket)
            if index % A_PIECE == A_PIECE - 1:
                yield

    def _take(self, point: _Point, bucket: Bucket) -> None:
        for number, cell in bucket.cells.items():
            if number >= len(self._keys) or not self._wanted.has(key := self._keys[number]):
                continue
            point.total.add(cell)
            answered = cell.within + cell.late
            if key.place.startswith("edge"):
                point.edge += answered
            else:
                point.function += answered
            _sum(self._classes, (key.model, key.class_name), cell)
            _sum(self._tenants, (key.tenant,), cell)
            if key.place:
                _sum(self._places, (key.place,), cell)
        point.bucket.add(Bucket({}, bucket.money, bucket.cold, bucket.calls, bucket.queued, bucket.gauges))

    def values(self, *, with_columns: bool = True) -> dict[str, Any]:
        """Returns step, begin and columns, each as long as there are points, null in gaps; and the summary."""
        selection = self._selection
        found: dict[str, Any] = {"step_s": selection.step_s, "from_s": selection.from_s, "points": selection.points}
        if with_columns:
            found["columns"] = self._columns()
        return {**found, "summary": self._summary()}

    def _columns(self) -> dict[str, list[Any]]:
        points = [self._points.get(index) for index in range(self._selection.points)]

        def column(of: Any) -> list[Any]:
            return [None if point is None else of(point) for point in points]

        counts = {name: column(lambda p, n=name: getattr(p.total, n)) for name in ("arrived", "late", "refused")}
        latencies = {
            f"p{fraction * 100:g}_ms": column(lambda p, f=fraction: _milliseconds(quantile_s(p.total.bins, f)))
            for fraction in QUANTILES
        }
        gauges = {
            name for point in points if point is not None for name in point.bucket.gauges if self._wants_gauge(name)
        }
        purposes = sorted({name for point in points if point is not None for name in point.bucket.money})
        return {
            **counts,
            "within": column(lambda p: p.total.within),
            "edge": column(lambda p: p.edge),
            "function": column(lambda p: p.function),
            **latencies,
            **{f"money {name}": column(lambda p, n=name: short(p.bucket.money.get(n, 0.0))) for name in purposes},
            "cold": column(lambda p: p.bucket.cold),
            "calls": column(lambda p: p.bucket.calls),
            "queued": column(lambda p: p.bucket.queued),
            **{name: column(lambda p, n=name: p.bucket.gauges.get(n)) for name in sorted(gauges)},
        }

    def _wants_gauge(self, name: str) -> bool:
        if not name.startswith(_PACE):
            return True
        model, _, place = name.removeprefix(_PACE).rpartition(" ")
        return self._wanted.model in ("", model) and self._wanted.place in ("", place)

    def _summary(self) -> dict[str, Any]:
        return {
            "classes": [_summed(names, cell) for names, cell in sorted(self._classes.items())],
            "tenants": [_summed(names, cell) for names, cell in sorted(self._tenants.items())],
            "places": [_summed(names, cell) for names, cell in sorted(self._places.items())],
            "money": self._money(),
        }

    def _money(self) -> dict[str, float]:
        total: dict[str, float] = {}
        for point in self._points.values():
            for name, amount in point.bucket.money.items():
                total[name] = total.get(name, 0.0) + amount
        return {name: short(amount) for name, amount in sorted(total.items())}


def _sum(into: dict[tuple[str, ...], Cell], names: tuple[str, ...], cell: Cell) -> None:
    into.setdefault(names, Cell()).add(cell)


def _summed(names: Sequence[str], cell: Cell) -> dict[str, Any]:
    """Returns a row of the summary: counts, percentiles, and the bins, from which other SLOs can be judged."""
    first = min(cell.bins, default=0)
    return {
        "names": list(names),
        "arrived": cell.arrived,
        "within": cell.within,
        "late": cell.late,
        "refused": cell.refused,
        "cancelled": cell.cancelled,
        "p_ms": [_milliseconds(quantile_s(cell.bins, fraction)) for fraction in QUANTILES],
        "bins": [first, *[cell.bins.get(index, 0) for index in range(first, max(cell.bins, default=-1) + 1)]],
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else short(1000 * seconds, 3)

"""Counts of requests since the last second ended, by model, class, tenant and place: the part on the hot path."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.daemon.history.latency_bins import bin_of
from scheduler.domain.tenants import tenant_label

MOST_CELLS = 32
"""Combinations of one bucket that are told apart; the rest is one: a bound of memory and of bytes on the wire."""
MOST_KEYS = 1024
"""Keys that are kept after they were made. A bound of memory."""
ENDS_KEPT = 128
"""Misses and refusals. A bound of memory."""
REST = "(rest)"
"""Stands for the models, classes, tenants and places that are not told apart."""


class Key(NamedTuple):
    """What is told apart."""

    model: str
    class_name: str
    tenant: str = ""
    """Empty while none is configured."""
    place: str = ""
    """Where it was answered, as in records; empty for arrivals and for what was not answered."""


COUNTS = ("arrived", "within", "late", "refused", "rejected", "cancelled", "items")


@dataclass(slots=True)
class Cell:
    """Counts of one key."""

    arrived: int = 0
    within: int = 0
    """Answered in time."""
    late: int = 0
    refused: int = 0
    rejected: int = 0
    """Refused for what the client sent; does not count against the objective."""
    cancelled: int = 0
    items: int = 0
    """Answered."""
    bins: dict[int, int] = field(default_factory=dict)
    """Latencies of the answered, as `latency_bins` counts them."""

    def add(self, other: "Cell") -> None:
        """Adds the counts of another one."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        bins = self.bins
        for index, count in other.bins.items():
            bins[index] = bins.get(index, 0) + count


class End(NamedTuple):
    """One request that was late or was refused."""

    number: int
    """Rises with each."""
    request_id: int | None
    """By which it is explained; None: the engine never had it."""
    at_s: float
    """On the daemon's clock."""
    kind: str
    """"late", or the kind of the refusal."""
    key: Key
    latency_s: float
    slo_s: float
    reason: str
    """What decided where offers were compared."""


class Counting:
    """Counts what ends, and keeps the latest misses and refusals."""

    def __init__(self) -> None:
        """Starts with nothing."""
        self.cells: dict[Key, Cell] = {}
        self.ends: deque[End] = deque(maxlen=ENDS_KEPT)
        self._tenants: Collection[str] = ()
        self._keys: dict[tuple[str, str, str, str], Key] = {}
        """Those that were made, by what they were made from: few, and one for each request."""
        self._ended = 0

    def configure(self, tenants: Collection[str]) -> None:
        """Takes over the names of the configured tenants."""
        self._tenants = tenants
        self._keys.clear()

    def arrived(self, model: str, class_name: str, tenant: str) -> None:
        """Counts an arrival."""
        key = self.key(model, class_name, tenant)
        cell = self.cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
        cell.arrived += 1

    def answered(
        self,
        key: Key,
        *,
        request_id: int,
        at_s: float,
        latency_s: float,
        slo_s: float,
        items: int,
    ) -> None:
        """Counts an answer."""
        cell = self.cells.get(key)
        if cell is None:
            cell = self._new_cell(key)
        cell.items += items
        index = bin_of(latency_s)
        cell.bins[index] = cell.bins.get(index, 0) + 1
        if latency_s <= slo_s:
            cell.within += 1
        else:
            cell.late += 1
            self._end(request_id, at_s, "late", key, latency_s, slo_s, "")

    def ended(
        self,
        column: str,
        key: Key,
        *,
        kind: str,
        request_id: int | None,
        at_s: float,
        latency_s: float,
        reason: str,
    ) -> None:
        """Counts what ended without an answer, in the column "refused", "rejected" or "cancelled"."""
        cell = self.cells.get(key) or self._new_cell(key)
        setattr(cell, column, getattr(cell, column) + 1)
        if column == "refused":
            self._end(request_id, at_s, kind, key, latency_s, 0.0, reason)

    def key(self, model: str, class_name: str, tenant: str, place: str = "") -> Key:
        """Returns the key of a request; tenants that are not configured count as one."""
        named = model, class_name, tenant if self._tenants else "", place
        known = self._keys.get(named)
        if known is None:
            if len(self._keys) >= MOST_KEYS:
                self._keys.clear()  # names of tenants that are not configured are the clients' own
            label = tenant_label(tenant, self._tenants) if self._tenants else ""
            known = self._keys[named] = Key(model, class_name, label, place)
        return known

    def take(self) -> Mapping[Key, Cell]:
        """Returns what was counted since the last call, and begins anew."""
        taken, self.cells = self.cells, {}
        return taken

    def ends_after(self, number: int, most: int) -> list[End]:
        """Returns the latest misses and refusals above a number, oldest first."""
        return [end for end in self.ends if end.number > number][-most:]

    def _new_cell(self, key: Key) -> Cell:
        if len(self.cells) >= MOST_CELLS:
            key = Key(REST, REST, REST if key.tenant else "", REST if key.place else "")
        return self.cells.setdefault(key, Cell())

    def _end(
        self,
        request_id: int | None,
        at_s: float,
        kind: str,
        key: Key,
        latency_s: float,
        slo_s: float,
        reason: str,
    ) -> None:
        self._ended += 1
        self.ends.append(End(self._ended, request_id, at_s, kind, key, latency_s, slo_s, reason))

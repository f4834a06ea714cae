"""Requests that wait behind the edge's next batch, and which of them are looked at next.

However many wait, only the next few batches' worth of each rank is looked at when a batch leaves; the rest keeps its
place. `WaitingLine.ranks` is the one place that says which requests come next; another order than that of priorities
and deadlines is made there.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge

from scheduler.dispatch.queue import Changes, DeadlineOrder, QueuedRequest, deadline_order
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place

LOOK_BATCHES = 4
"""Batches' worth of waiting requests of each rank that are looked at when an edge batch leaves. The batch that leaves
and the one after it are made of the first two batches' worth, unless requests of many items do not fit. Judgement: it
bounds work; no simulation of `scripts.command_hash` differs from a search of all."""
LOOK_LEAST = 64
"""The same at least, where batches are small."""

Key = tuple[bool, int, str, str, tuple[Place, ...]]
"""Whether a function may take the request; its rank among those alike; what tells its kind from others of that rank;
its tenant; the places that have failed it."""


class WaitingLine:
    """Requests in deadline order, kept apart by a key, so that those of one kind are found without a search."""

    __slots__ = ("_changes", "_key", "_orders", "body_bytes", "items", "state")

    def __init__(self, state: State, key: Callable[[QueuedRequest], Key], changes: Changes | None = None) -> None:
        """Starts empty.

        Args:
            state: what a request that is added enters.
            key: of a request; it does not change while the request is in the line.
            changes: counts its changes; None: they are counted for nothing.
        """
        self._changes = changes
        self.state = state
        self.items = 0
        self.body_bytes = 0
        self._key = key
        self._orders: dict[Key, DeadlineOrder] = {}

    def __len__(self) -> int:
        """Number of requests."""
        return sum([len(order) for order in self._orders.values()])

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Earliest deadline first."""
        return in_order([order.members for order in self._orders.values()])

    @property
    def first(self) -> QueuedRequest:
        """The request with the earliest deadline; ValueError if empty."""
        if len(self._orders) == 1:
            return next(iter(self._orders.values())).first
        return min([order.first for order in self._orders.values()], key=deadline_order)

    def of(self, may_leave: bool, number: int) -> Iterable[QueuedRequest]:
        """Returns the requests whose keys begin so, earliest deadline first; not to be changed meanwhile."""
        return in_order([order.members for key, order in self._orders.items() if key[:2] == (may_leave, number)])

    def kinds(self) -> list[Sequence[QueuedRequest]]:
        """Returns the requests, each kind by itself; not to be changed."""
        return [order.members for order in self._orders.values()]

    def add(self, queued: QueuedRequest) -> None:
        """Adds a request."""
        key = self._key(queued)
        order = self._orders.get(key)
        if order is None:
            self._orders[key] = order = DeadlineOrder(self.state, self._changes)
        order.add(queued)
        self.items += queued.request.items
        self.body_bytes += queued.request.body_bytes

    def remove(self, queued: QueuedRequest) -> None:
        """Takes a request out; KeyError if it is not in."""
        key = self._key(queued)
        order = self._orders[key]
        order.remove(queued)
        if not order.items:
            del self._orders[key]
        self.items -= queued.request.items
        self.body_bytes -= queued.request.body_bytes

    def remove_all(self, leaving: Iterable[QueuedRequest]) -> None:
        """Takes several requests out."""
        for queued in leaving:
            self.remove(queued)

    def take_all(self) -> tuple[QueuedRequest, ...]:
        """Empties the line and returns its requests, earliest deadline first."""
        taken = tuple(self)
        for order in self._orders.values():
            order.take_all()
        self._orders.clear()
        self.items = self.body_bytes = 0
        return taken

    def ranks(
        self, others: Sequence[QueuedRequest], *, has_functions: bool, stuck: bool = False, there: Place | None = None
    ) -> list["Rank"]:
        """Returns which come next, rank by rank: first those that only the edge can serve, then by priority.

        Args:
            others: requests in deadline order that are in no queue and come in between.
            has_functions: whether a function takes requests at present; without one, only the edge serves any.
            stuck: whether all count as if only the edge could serve them, as those of the line at present: otherwise
                one tenant whose data stays on the site could keep another, whose money is spent, from all places, and
                the backlog of one the newcomers of another.
            there: for which edge server; those that it has failed are left out. None: for any.
        """
        kinds: dict[tuple[bool, int], dict[Key, DeadlineOrder]] = {}
        for key, order in self._orders.items():
            if there is not None and key[4] and there in key[4]:
                continue
            kinds.setdefault((has_functions and key[0] and not stuck, key[1]), {})[key] = order
        beside: dict[tuple[bool, int], list[QueuedRequest]] = {}
        for queued in others:
            key = self._key(queued)
            beside.setdefault((has_functions and key[0] and not stuck, key[1]), []).append(queued)
        return [
            Rank(may_leave, beside.get((may_leave, number), ()), tuple(kinds.get((may_leave, number), {}).values()))
            for may_leave, number in sorted({*kinds, *beside})
        ]


@dataclass(frozen=True, slots=True)
class Rank:
    """The requests of one rank, earliest deadline first: some that are in no queue, and those of the line.

    Attributes:
        may_leave: whether functions may take them.
        others: those in no queue.
        orders: those of the line, by kind.
    """

    may_leave: bool
    others: Sequence[QueuedRequest]
    orders: tuple[DeadlineOrder, ...]

    def __iter__(self) -> Iterator[QueuedRequest]:
        """Earliest deadline first; the line must not be changed while this is read."""
        return in_order([self.others, *[order.members for order in self.orders]])

    def next_few(self, items: int) -> list[QueuedRequest]:
        """Returns the first of them, with so many items together."""
        few: list[QueuedRequest] = []
        for queued in self:
            if items <= 0:
                break
            few.append(queued)
            items -= queued.request.items
        return few

    def kinds(self) -> list[Sequence[QueuedRequest]]:
        """Returns those of the line, each kind by itself; not to be changed."""
        return [order.members for order in self.orders if order.items]

    @property
    def last_deadline_s(self) -> float:
        """The latest deadline; -inf if it is empty."""
        parts = [part for part in (self.others, *[order.members for order in self.orders]) if part]
        return max([part[-1].request.deadline_s for part in parts], default=-math.inf)

    @property
    def most_items(self) -> int:
        """At least the items of its largest request."""
        return max([*[order.most_items for order in self.orders], *[q.request.items for q in self.others]], default=0)


def looked_at(batch_items: int) -> int:
    """Returns how many items of those that wait are looked at when a batch of at most so many items leaves."""
    return max(LOOK_LEAST, LOOK_BATCHES * batch_items)


NO_RANK = Rank(False, (), ())


def in_order(parts: Iterable[Sequence[QueuedRequest]]) -> Iterator[QueuedRequest]:
    """Iterates over requests, earliest deadline first, of parts that are each in that order."""
    filled = [part for part in parts if part]
    if not filled:
        return iter(())
    return iter(filled[0]) if len(filled) == 1 else merge(*filled, key=deadline_order)

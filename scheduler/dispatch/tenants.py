"""Tenants and the edge's time that each has used: under overload whichever has used the least for its share is next."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.requests import Request
from scheduler.domain.tenants import TenantSettings, shares_of, tenant_label

MOST_BEHIND_S = 1.0
"""How far a tenant may be behind the one ahead of all, in seconds of the edge for a whole share: what it left unused
counts for no more when it comes back, so that others wait for it no longer. Judgement: about one batch, below which
chance decides which is behind."""


class Turns(NamedTuple):
    """What the tenants took in turns."""

    taken: list[QueuedRequest]
    levels_s: dict[str, float]
    """The levels that this would lead to."""
    unsatisfied: set[str]
    """Tenants of which something is left."""


@dataclass(slots=True)
class Tenants:
    """The configured tenants, their shares, and the levels to which they have used the edge.

    A tenant's level rises by the edge's seconds divided by its share. The least level is next (weighted fair queueing),
    so tenants that all have more to do than they get are served in the ratio of their shares; one that has less to do
    leaves the rest to the others, in the ratio of theirs.

    >>> tenants = Tenants()
    >>> tenants.configure([TenantSettings("a", 3.0), TenantSettings("b", 1.0)])
    >>> {name: round(share, 3) for name, share in tenants.shares.items()}
    {'a': 0.6, 'b': 0.2, 'other': 0.2}
    """

    shares: dict[str, float] = field(default_factory=dict)
    """By tenant, of 1; empty: requests are not told apart."""
    levels_s: dict[str, float] = field(default_factory=dict)
    """By tenant: seconds of the edge for a whole share, above the one that is furthest behind."""
    edge_s: dict[str, float] = field(default_factory=dict)
    """By tenant: seconds of the edge since the start."""
    open: dict[str, tuple[int, int]] = field(default_factory=dict)
    """By tenant: requests that have not ended, and their bytes."""

    def configure(self, tenants: Sequence[TenantSettings], waiting: Iterable[QueuedRequest] = ()) -> None:
        """Takes over tenants and shares; those that stay keep their levels. Without tenants nothing is told apart.

        What is not configured counts as `other`, with the least share that any tenant has.

        Args:
            tenants: the configured ones.
            waiting: all requests that have not ended.
        """
        self.shares = shares_of(tenants)
        self.levels_s = {name: self.levels_s.get(name, 0.0) for name in self.shares}
        self.edge_s = {name: self.edge_s.get(name, 0.0) for name in self.shares}
        self.open = dict.fromkeys(self.shares, (0, 0))
        for queued in waiting:
            self.came(queued.request)

    def label(self, queued: QueuedRequest) -> str:
        """Returns the tenant that a request counts as."""
        return tenant_label(queued.request.tenant, self.shares)

    def label_of(self, request: Request) -> str:
        """Returns the tenant that a request counts as."""
        return tenant_label(request.tenant, self.shares)

    def came(self, request: Request) -> None:
        """Counts a request that arrived."""
        if self.shares:
            label = self.label_of(request)
            requests, body_bytes = self.open[label]
            self.open[label] = requests + 1, body_bytes + request.body_bytes

    def went(self, request: Request) -> None:
        """Counts a request out that has ended."""
        if self.shares:
            label = self.label_of(request)
            requests, body_bytes = self.open[label]
            self.open[label] = requests - 1, body_bytes - request.body_bytes

    def labels(self, kinds: Iterable[Sequence[QueuedRequest]], others: Iterable[QueuedRequest]) -> set[str]:
        """Returns the tenants of requests: of kinds that are each of one tenant, and of others."""
        return {self.label(kind[0]) for kind in kinds if kind} | {self.label(queued) for queued in others}

    def several(self, kinds: Iterable[Sequence[QueuedRequest]], others: Iterable[QueuedRequest]) -> bool:
        """Whether these requests are of more than one tenant."""
        return bool(self.shares) and len(self.labels(kinds, others)) > 1

    def least_level_s(self, kinds: Iterable[Sequence[QueuedRequest]], others: Iterable[QueuedRequest]) -> float:
        """Returns the level of the tenant of these requests that is furthest behind; inf without requests."""
        return min((self.levels_s[label] for label in self.labels(kinds, others)), default=math.inf)

    def charge(self, members: Sequence[QueuedRequest], seconds: float) -> None:
        """Counts an edge batch that is sent: each member's part of its seconds, by items."""
        if not self.shares:
            return
        per_item_s = seconds / sum(q.request.items for q in members)
        used_s, counts = dict.fromkeys(self.shares, 0.0), dict.fromkeys(self.shares, 0)
        for queued in members:
            label = self.label(queued)
            used_s[label] += per_item_s * queued.request.items
            counts[label] += 1
        rises_s = {label: seconds_used / self.shares[label] for label, seconds_used in used_s.items()}
        for label, rise_s in rises_s.items():
            self.edge_s[label] += used_s[label]
            self.levels_s[label] += rise_s
        most_behind_s = MOST_BEHIND_S
        if any(self.open[label][0] > count for label, count in counts.items()):
            # Others waited meanwhile: what this one batch took from them is not forgotten.
            most_behind_s = max(most_behind_s, *rises_s.values())
        floor_s = max(self.levels_s.values()) - most_behind_s
        if floor_s > 0.0:
            self.levels_s = {name: max(0.0, level_s - floor_s) for name, level_s in self.levels_s.items()}

    def by_tenant(self, waiting: Iterable[QueuedRequest]) -> dict[str, list[QueuedRequest]]:
        """Returns the requests of each tenant, in their order."""
        queues: dict[str, list[QueuedRequest]] = {}
        for queued in waiting:
            queues.setdefault(self.label(queued), []).append(queued)
        return queues

    def take_turns(
        self,
        queues: Mapping[str, Sequence[QueuedRequest]],
        starts: Mapping[str, int],
        *,
        items: float,
        per_item_s: float,
    ) -> Turns:
        """Lets the tenants take turns until so many items are taken; whichever has the least level is next.

        Args:
            queues: by tenant, in the order in which its requests are taken; not empty.
            starts: by tenant, how many of them are left out.
            items: most items; a request that does not fit any more is passed over.
            per_item_s: the edge's seconds for an item.
        """
        taken: list[QueuedRequest] = []
        levels_s, passed_over = dict(self.levels_s), set()
        next_of = dict(starts)
        turns = [(levels_s[label], label) for label, queue in queues.items() if starts[label] < len(queue)]
        heapify(turns)
        while turns and items > 0:
            level_s, label = heappop(turns)
            queued = queues[label][next_of[label]]
            next_of[label] += 1
            size = queued.request.items
            if size <= items:
                taken.append(queued)
                items -= size
                level_s += per_item_s * size / self.shares[label]
                levels_s[label] = level_s
            else:
                passed_over.add(label)
            if next_of[label] < len(queues[label]):
                heappush(turns, (level_s, label))
        return Turns(taken, levels_s, passed_over | {label for _, label in turns})

    def in_turn(self, streams: Mapping[str, Iterator[QueuedRequest]], *, per_item_s: float) -> Iterator[QueuedRequest]:
        """Yields all requests of the tenants by their turns; each stream is read as far as it is needed."""
        turns = [(self.levels_s[label], label) for label in streams]
        heapify(turns)
        while turns:
            level_s, label = heappop(turns)
            queued = next(streams[label], None)
            if queued is not None:
                yield queued
                heappush(turns, (level_s + per_item_s * queued.request.items / self.shares[label], label))

"""Which requests are let in when no more can be held: a tenant within its share takes the place of one beyond it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge

from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.queue import QueuedRequest, deadline_order
from scheduler.dispatch.refusals import crowded_out, expected_drain_s, no_room
from scheduler.dispatch.request_table import RequestTable
from scheduler.dispatch.tenant_memory import tenants_part
from scheduler.domain.errors import Refusal
from scheduler.domain.memory import Remembered
from scheduler.domain.requests import Request
from scheduler.domain.tenants import TenantSettings

MOST_PUT_OUT = 16
"""Waiting requests that may be refused to make room for one. Bounds the work of an arrival. Judgement: bodies differ in
size, and a large one may need the room of several."""


@dataclass(slots=True)
class TenantAdmission:
    """Lets requests in, and words the refusal of those for which there is no room."""

    table: RequestTable
    function: FunctionSide
    lanes: Lanes

    def configure(self, tenants: Sequence[TenantSettings]) -> None:
        """Takes over reloaded tenants."""
        self.function.ledger.tenants.configure(tenants, self.table.open.values())

    def remembered(self) -> Remembered:
        """Returns what the next process is told: what tenants spent."""
        return tenants_part(self.function.ledger)

    def has_room(self, request: Request) -> bool:
        """Whether a request may come in; refuses waiting ones of tenants that hold more for their share, if need be."""
        admission, tenants = self.table.admission, self.table.tenants
        if admission.has_room(request.body_bytes):
            return True
        if not tenants.shares or request.body_bytes > admission.max_bytes:
            return False
        victims = self._making_room(request)
        for victim in victims:
            self.lanes.of(victim.request).remove(victim)
            self.table.refuse(victim, crowded_out(tenants.label(victim), self._drain_s()))
        return bool(victims)

    def _making_room(self, request: Request) -> list[QueuedRequest]:
        """Returns the waiting requests whose places one takes that has no room otherwise; empty if it gets none."""
        admission, tenants = self.table.admission, self.table.tenants
        label, held = tenants.label_of(request), dict(tenants.open)
        own = self._load(label, held[label][0] + 1, held[label][1] + request.body_bytes)
        latest = {name: self._latest(name) for name in held}
        victims: list[QueuedRequest] = []
        freed_bytes = 0
        while len(victims) < MOST_PUT_OUT:
            loads = {name: self._load(name, *counts) for name, counts in held.items()}
            heaviest = max(loads, key=lambda name: (loads[name], name))
            victim = next(latest[heaviest], None) if loads[heaviest] > own else None
            if victim is None:
                return []
            victims.append(victim)
            requests, body_bytes = held[heaviest]
            held[heaviest] = requests - 1, body_bytes - victim.request.body_bytes
            freed_bytes += victim.request.body_bytes
            if admission.has_room(request.body_bytes, without=len(victims), without_bytes=freed_bytes):
                return victims
        return []

    def refusal(self) -> Refusal:
        """Returns what a request is told for which there is no room; it is counted in already."""
        return no_room(self.table.admission, self._drain_s())

    def _drain_s(self) -> float:
        return expected_drain_s(self.lanes, self.function.max_in_flight)

    def _load(self, label: str, requests: int, body_bytes: int) -> float:
        """Returns how much that is of what may be held, for a tenant's share: requests or bytes, whichever is more."""
        admission = self.table.admission
        held = max(requests / admission.max_requests, body_bytes / admission.max_bytes)
        return held / self.table.tenants.shares[label]

    def _latest(self, label: str) -> Iterator[QueuedRequest]:
        """Yields the waiting requests of a tenant, those first that are least likely to be answered soon."""
        tenants = self.table.tenants
        for queues in self.lanes.all:
            for line in (queues.overdue, queues.edge_later):
                own = [reversed(kind) for kind in line.kinds() if tenants.label(kind[0]) == label]
                yield from merge(*own, key=deadline_order, reverse=True)
            for order in (queues.deferred, *[buffer.queue for buffer in queues.buffers], *queues.next_batches):
                yield from (queued for queued in reversed(order.members) if tenants.label(queued) == label)

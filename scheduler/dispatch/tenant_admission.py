"""Who is let in when no more can be held: a tenant within its share takes the place of one beyond it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest, deadline_order
from scheduler.dispatch.refusals import crowded_out, expected_drain_s, no_room
from scheduler.dispatch.request_table import RequestTable
from scheduler.domain.errors import Refusal
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
    all_queues: Mapping[str, ModelQueues]

    def configure(self, tenants: Sequence[TenantSettings]) -> None:
        """Takes over reloaded tenants."""
        self.function.ledger.tenants.configure(tenants, self.table.open.values())

    def has_room(self, request: Request) -> bool:
        """Whether a request may come in; refuses waiting ones of tenants that hold more for their share, if need be."""
        admission, tenants = self.table.admission, self.table.tenants
        if admission.has_room(request.body_bytes):
            return True
        if not tenants.shares or request.body_bytes > admission.max_bytes:
            return False
        label = tenants.label_of(request)
        for _ in range(MOST_PUT_OUT):
            loads = {name: self._load(name) for name in tenants.shares}
            heaviest = max(loads, key=lambda name: (loads[name], name))
            if loads[heaviest] <= self._load(label, request):
                return False
            victim = self._latest(heaviest)
            if victim is None:
                return False
            self.all_queues[victim.request.model].remove(victim)
            self.table.refuse(victim, crowded_out(heaviest, self._drain_s()))
            if admission.has_room(request.body_bytes):
                return True
        return False

    def refusal(self) -> Refusal:
        """Returns what a request is told for which there is no room; it is counted in already."""
        return no_room(self.table.admission, self._drain_s())

    def _drain_s(self) -> float:
        return expected_drain_s(self.all_queues.values(), self.function.max_in_flight)

    def _load(self, label: str, more: Request | None = None) -> float:
        """Returns how much of what may be held a tenant holds for its share: requests or bytes, whichever is more."""
        admission, tenants = self.table.admission, self.table.tenants
        requests, body_bytes = tenants.open[label]
        if more is not None:
            requests, body_bytes = requests + 1, body_bytes + more.body_bytes
        held = max(requests / admission.max_requests, body_bytes / admission.max_bytes)
        return held / tenants.shares[label]

    def _latest(self, label: str) -> QueuedRequest | None:
        """Returns a waiting request of a tenant, one of those least likely to be answered soon; None if none waits."""
        tenants = self.table.tenants
        for queues in self.all_queues.values():
            for line in (queues.overdue, queues.edge_later):
                last = [kind[-1] for kind in line.kinds() if tenants.label(kind[0]) == label]
                if last:
                    return max(last, key=deadline_order)
            for order in (queues.deferred, *[buffer.queue for buffer in queues.buffers], queues.next_batch):
                found = next((q for q in reversed(order.members) if tenants.label(q) == label), None)
                if found is not None:
                    return found
        return None

"""How requests end: when their batches come back, and when their deadlines pass while no batch has."""

import math
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.outbox import InFlightBatch
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.refusals import Refusals, not_served
from scheduler.dispatch.request_table import RequestTable
from scheduler.domain.lifecycle import State

GRACE_S = 0.01
"""How long after its client's deadline a request still takes an answer. Judgement: a client that waits until then has
use for an answer that is on its way; it is told within 50 ms, whatever the shell adds to this."""
SLACK = 64
"""Entries of requests that have ended are dropped when they are more than the open requests and this. A bound of
memory, amortized over the arrivals."""


@dataclass(slots=True)
class Endings:
    """Ends requests by the answers and failures of their batches, and by their deadlines.

    A request of a class that is not served late is refused at its deadline, plus GRACE_S, wherever it is: its batch may
    hang on any side, and stays in flight, because its answer will be billed and learned from.
    """

    lanes: Lanes
    table: RequestTable
    refusals: Refusals
    longest_s: float = 3600.0
    """The longest deadline that a client may ask for: a request waits no longer for its second try either."""
    _due: list[tuple[float, int]] = field(default_factory=list)
    """Heap of (when it is refused, request id); those that have ended are dropped when they come up, or all at once."""

    def watch(self, queued: QueuedRequest) -> None:
        """Notes the deadline of a request that arrived."""
        request, due = queued.request, self._due
        if request.class_name in self.lanes.first[request.model].served_late:
            return
        if len(due) > 2 * len(self.table.open) + SLACK:
            self._due = due = [entry for entry in due if entry[1] in self.table.open]
            heapify(due)
        heappush(due, (request.deadline_s + request.reserve_s + GRACE_S, request.request_id))

    def watch_second_try(self, queued: QueuedRequest) -> None:
        """Notes until when a request that may be late waits for its second try, and for the answer to it."""
        heappush(self._due, (self._waits_until_s(queued), queued.request.request_id))

    def watch_anew(self, longest_s: float) -> None:
        """Notes the deadlines of the open requests whose classes a reload lets be late no longer.

        One whose deadline is over hears at once, unless it was queued to be answered late.
        """
        self.longest_s = longest_s
        watched = {request_id for _, request_id in self._due}
        for request_id, queued in self.table.open.items():
            queues = self.lanes.get(queued.request)
            if queues is not None and request_id not in watched and not queues.serves_late(queued):
                heappush(self._due, (_refused_at_s(queued), request_id))

    def next_s(self) -> float:
        """Returns when the next request is refused if it is not answered before; inf for never."""
        due, waiting = self._due, self.table.open
        while due and due[0][1] not in waiting:
            heappop(due)
        return due[0][0] if due else math.inf

    def expire(self, now_s: float) -> None:
        """Refuses the requests whose time is over."""
        while self._due and self._due[0][0] <= now_s:
            queued = self.table.open.get(heappop(self._due)[1])
            if queued is None or queued.cancelled:
                continue
            if queued.kept and self._waits_until_s(queued) <= now_s:
                self._refuse(queued, now_s, waits_no_longer=True)
            elif not queued.late_allowed:
                self._refuse(queued, now_s)

    def cancelled(self, request_id: int) -> None:
        """Ends a request whose client went away: at once while it waits, and when its batches are back otherwise."""
        queued = self.table.open.get(request_id)
        if queued is None:
            return
        queued.cancel()
        if queued.state is not State.IN_FLIGHT:
            self.lanes.of(queued.request).remove(queued)
            self.table.cancel(queued)

    def answer(self, sent: InFlightBatch) -> None:
        """Answers the members of a batch that came back, but for those that have ended: another batch was faster."""
        for queued in sent.members:
            if queued.state is State.IN_FLIGHT:
                self.table.answer(queued, sent.batch.batch_id)

    def failed(self, sent: InFlightBatch) -> None:
        """Ends the members of a batch that failed which nothing else is to be done for, and which no other carries.

        Their client went away, or a reload took their model away.
        """
        for queued in sent.members:
            if queued.copies:
                continue
            if queued.cancelled and queued.state is State.IN_FLIGHT:
                self.table.cancel(queued)
            elif queued.open and sent.batch.model not in self.lanes:
                self.table.requeue(queued)
                self.table.refuse(queued, not_served(sent.batch.model))

    def _waits_until_s(self, queued: QueuedRequest) -> float:
        return queued.request.arrived_at_s + self.longest_s

    def _refuse(self, queued: QueuedRequest, now_s: float, *, waits_no_longer: bool = False) -> None:
        queues = self.lanes.get(queued.request)
        if queues is not None and queues.serves_late(queued) and not waits_no_longer:
            return
        refusal = self.refusals.no_answer(queues, queued, now_s=now_s)
        if queued.state is not State.IN_FLIGHT and queues is not None:
            queues.remove(queued)
        self.table.refuse(queued, refusal)


def _refused_at_s(queued: QueuedRequest) -> float:
    request = queued.request
    return request.deadline_s + request.reserve_s + GRACE_S

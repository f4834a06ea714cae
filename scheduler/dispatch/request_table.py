"""The requests that are not yet answered, and how they end."""

from dataclasses import dataclass, field

from scheduler.dispatch.decision_ring import ANSWERED, CANCELLED
from scheduler.dispatch.ends_counted import EndsCounted
from scheduler.dispatch.outbox import Outbox
from scheduler.dispatch.queue import Admission, QueuedRequest
from scheduler.dispatch.tenants import Tenants
from scheduler.domain.errors import Refusal
from scheduler.domain.lifecycle import State
from scheduler.domain.messages import AnswerRequest, RefuseRequest
from scheduler.domain.requests import Request


@dataclass(slots=True)
class RequestTable:
    """Owns the requests from their arrival to their one end."""

    admission: Admission
    outbox: Outbox
    tenants: Tenants = field(default_factory=Tenants)
    counts: EndsCounted | None = None
    """Where the ends count; None: nowhere."""
    now_s: float = 0.0
    """Time of the present call."""
    open: dict[int, QueuedRequest] = field(default_factory=dict)
    """By request id."""

    def take_in(self, request: Request) -> QueuedRequest:
        """Counts a request that arrived."""
        queued, admission = QueuedRequest(request), self.admission
        admission.requests += 1
        admission.body_bytes += request.body_bytes
        if self.tenants.shares:
            self.tenants.came(request)
        self.open[request.request_id] = queued
        return queued

    def requeue(self, queued: QueuedRequest) -> None:
        """Counts a request that came back unanswered as waiting again."""
        queued.requeue()
        self.admission.wait_again()

    def answer(self, queued: QueuedRequest, batch_id: int) -> None:
        """Ends a request with its part of a batch's answer; one whose client went away ends without."""
        if queued.cancelled:
            self._cancelled(queued)
            return
        if self.counts is not None:
            self.counts.answered(queued, now_s=self.now_s)
        self._close(queued, ANSWERED)
        self.outbox.command(AnswerRequest(queued.request.request_id, batch_id))

    def refuse(self, queued: QueuedRequest, refusal: Refusal) -> None:
        """Ends a request without an answer, while it waits or while its batches are in flight."""
        if self.counts is not None:
            self.counts.refused(queued, refusal, now_s=self.now_s)
        if queued.state is not State.IN_FLIGHT:
            self.admission.stop_waiting()
        self._close(queued, refusal.kind.value)
        self.outbox.command(RefuseRequest(queued.request.request_id, refusal))

    def cancel(self, queued: QueuedRequest) -> None:
        """Ends a request whose client went away while it waited or after its last copy failed; it is in no queue."""
        if queued.state is State.NEW:
            self.admission.stop_waiting()
        self._cancelled(queued)

    def _cancelled(self, queued: QueuedRequest) -> None:
        if self.counts is not None:
            self.counts.cancelled(queued, now_s=self.now_s)
        self._close(queued, CANCELLED)

    def _close(self, queued: QueuedRequest, outcome: str) -> None:
        queued.enter(State.ENDED)
        self.outbox.ring.ended(queued.request, self.now_s, outcome)
        self.admission.body_bytes -= queued.request.body_bytes
        if self.tenants.shares:
            self.tenants.went(queued.request)
        del self.open[queued.request.request_id]

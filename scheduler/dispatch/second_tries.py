"""Whether a request that one side has failed is tried once more on that side, because no other can help."""

from dataclasses import dataclass

from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.failures import HANDLING
from scheduler.domain.requests import FUNCTIONS, Backend, Place

MOST_ATTEMPTS = 8
"""Sends of a request that never arrived are no tries, but no request is sent more often in all. It bounds work where a
backend answers probes and takes no batch; nothing else feels it."""


@dataclass(slots=True)
class SecondTries:
    """Inference may run twice, so a request may be sent again: once, and only where the other side cannot have it."""

    lanes: Lanes
    edges: Edges
    function: FunctionSide

    def granted(self, queued: QueuedRequest, failed: Place, failure: Failure, *, now_s: float) -> bool:
        """Notes a second try and returns True, if one is left, may help, and comes in time where that is asked.

        A request whose class is served late waits for it as long as its side is away. What quotas refuse has been sent
        several times before it is here.

        Args:
            queued: in no queue and in no batch; the other side does not take it.
            failed: the edge server that failed it, or FUNCTIONS.
            failure: how.
            now_s: the present.
        """
        if not HANDLING[failure.kind].again or failure.of_model or over_quota(failed, failure):
            return False
        queues, attempts = self.lanes.of(queued.request), queued.attempts
        late = queues.serves_late(queued)
        counts = not (late and failure.kind is FailureKind.UNREACHABLE and len(attempts) < MOST_ATTEMPTS)
        if counts and queued.tried_again:
            return False
        others = dict.fromkeys([attempt.endpoint for attempt in attempts if attempt.endpoint != failed])
        elsewhere = tuple(others)
        if any(self._serves(endpoint, queues) for endpoint in elsewhere):
            return False
        failed_on, kept, tried_again = queued.failed_on, queued.kept, queued.tried_again
        queued.try_again(elsewhere, counts=counts)
        if late or self._in_time(queues, queued, failed, now_s=now_s):
            return True
        queued.failed_on, queued.kept, queued.tried_again = failed_on, kept, tried_again
        return False

    def _serves(self, endpoint: Place, queues: ModelQueues) -> bool:
        known = endpoint is FUNCTIONS or endpoint.name in self.edges.circuits.edges
        return known and self.edges.circuits.of(endpoint).serves(queues.model.name)

    def _in_time(self, queues: ModelQueues, queued: QueuedRequest, failed: Place, *, now_s: float) -> bool:
        """Whether the side, from when on it takes batches again, could answer within the deadline."""
        if failed.backend is Backend.EDGE:
            begins_s = max(now_s, self.edges.not_before_s())
            return self.edges.all.could_answer(queues, queued, now_s=begins_s)
        begins_s = max(now_s, self.function.circuit.not_before_s)
        return self.function.in_time(queues, queued, now_s=begins_s)


def over_quota(failed: Place, failure: Failure) -> bool:
    """Whether functions refused a batch for want of capacity."""
    return failed.backend is Backend.FUNCTION and failure.kind is FailureKind.THROTTLED

"""What becomes of the requests of a batch that failed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import Place, QueuedRequest
from scheduler.dispatch.request_table import Sender, Sent
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.requests import Backend


@dataclass(slots=True)
class Failures:
    """Each request of a failed batch is sent to the other side once, if that still helps, and otherwise told."""

    all_queues: Mapping[str, ModelQueues]
    edge: EdgeSide
    function: FunctionSide
    sender: Sender
    place: Callable[[QueuedRequest, float, str], None]
    """Places a request anew, at a time, for a cause."""

    def give_back(self, sent: Sent, failure: Failure, *, now_s: float) -> None:
        """Decides what becomes of those whom no other batch carries."""
        living = [q for q in sent.members if q.place is Place.IN_FLIGHT and q.copies == 0 and not q.cancelled]
        for queued in living:
            self.sender.requeue(queued)
        if failure.kind is FailureKind.REJECTED:
            self._halve(living, sent, failure, now_s=now_s)
            return
        for queued in living:
            self._send_to_the_other(queued, sent.batch.backend, failure, now_s=now_s)

    def _send_to_the_other(self, queued: QueuedRequest, failed: Backend, failure: Failure, *, now_s: float) -> None:
        queues = self.all_queues[queued.request.model]
        if queued.failed_on is None:
            queued.failed_on = failed
            if failed is Backend.EDGE and self.function.in_time(queues, queued, now_s=now_s):
                self.place(queued, now_s, "failure")
                return
            if failed is Backend.FUNCTION and self.edge.could_answer(queues, queued, now_s=now_s):
                self.place(queued, now_s, "failure")
                return
        self.sender.refuse(queued, _failed(failed, failure))

    def _halve(self, members: list[QueuedRequest], sent: Sent, failure: Failure, *, now_s: float) -> None:
        """A refused content is found by halving: the halves go to the same backend, the culprit fails alone."""
        if len(sent.members) == 1:
            for queued in members:
                message = f"the {sent.batch.backend.value} refused the request: {failure.message}"
                self.sender.refuse(queued, Refusal(RefusalKind.BAD_REQUEST, message))
            return
        queues, backend = self.all_queues[sent.batch.model], sent.batch.backend
        middle = (len(members) + 1) // 2
        for half in filter(None, (tuple(members[:middle]), tuple(members[middle:]))):
            if self._takes_half(queues, backend, half):
                queues.halves[backend].append(half)
                continue
            for queued in half:
                self.place(queued, now_s, "failure")

    def _takes_half(self, queues: ModelQueues, backend: Backend, half: tuple[QueuedRequest, ...]) -> bool:
        """Whether limits, labels and circuit let the backend have it: they may have changed since the batch left."""
        items = sum(q.request.items for q in half)
        if backend is Backend.EDGE:
            return all(self.edge.usable(queues, q) for q in half) and items <= queues.edge_limit
        buffer = queues.buffer_of(half[0])
        return all(self.function.usable(queues, q) for q in half) and buffer is not None and items <= buffer.cap


def _failed(failed: Backend, failure: Failure) -> Refusal:
    message = f"the {failed.value} failed ({failure.message}) and nobody else can answer within the deadline"
    return Refusal(RefusalKind.BACKEND, message)

"""What becomes of the requests of a batch that failed."""

from dataclasses import dataclass, field, replace

from scheduler.dispatch.dispatcher import Dispatcher
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.endings import Endings
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import InFlightBatch, unanswered
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.refusals import too_many_items
from scheduler.dispatch.request_table import RequestTable
from scheduler.dispatch.second_tries import SecondTries, over_quota
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.decisions import Cause
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.failures import HANDLING
from scheduler.domain.messages import ModelBarred, ProbeMeasured
from scheduler.domain.requests import Backend, Place

MOST_SENDS = 3
"""How often a request is sent where quotas refuse it, before it may only go to the other side. Judgement: after the
second refusal the limit is below what is granted."""


UNUSABLE = "its part of the answer holds NaN or infinity, which the model's card does not allow"
"""Said where only some members of a batch have no answer."""


@dataclass(slots=True)
class Failures:
    """Each request of a failed batch is sent to each other place once, if that still helps, or else once more to the
    same place; and otherwise refused."""

    lanes: Lanes
    edges: Edges
    function: FunctionSide
    table: RequestTable
    dispatcher: Dispatcher
    endings: Endings
    most_sends: int = MOST_SENDS
    second_tries: SecondTries = field(init=False)

    def __post_init__(self) -> None:
        """Makes the part that grants second tries."""
        self.second_tries = SecondTries(self.lanes, self.edges, self.function)

    def bar(self, message: ModelBarred, *, now_s: float) -> None:
        """Keeps a model from a backend that serves another under its name, or lets it go there again."""
        circuit = self.edges.circuits.of(message.place)
        if message.barred:
            circuit.barred.add(message.model)
        else:
            circuit.barred.discard(message.model)
        self.dispatcher.reassign_all(Cause.FAILURE, now_s=now_s)

    def probed(self, probe: ProbeMeasured, *, now_s: float) -> None:
        """Places what waits again where a probe shows that a place, or a model on it, is away, or has other slots."""
        if self.edges.said(probe):
            self.dispatcher.follow_slots(now_s=now_s)
        if not probe.ok or probe.broken:
            self.dispatcher.reassign_all(Cause.FAILURE, now_s=now_s)

    def came_back(self, sent: InFlightBatch, unusable: frozenset[int], *, now_s: float) -> None:
        """Answers the members of a batch that came back, but for those whose part of the answer cannot be used."""
        self.dispatcher.offers.trials.answered(sent, now_s=now_s)
        batch = sent.batch
        if sent.members and batch.model in self.lanes:
            queues = self.lanes.of(sent.members[0].request)
            if batch.backend is Backend.EDGE:
                queues.returning.answered(batch.items, batch.predicted_service_s, now_s)
                if self.edges.learned.open and self.edges.answered(batch, now_s):
                    self.dispatcher.follow_slots(now_s=now_s)
            else:
                self.dispatcher.function.tried(sent, queues, now_s=now_s)
        if not unusable:
            self.endings.answer(sent)
            return
        fine = tuple(queued for queued in sent.members if queued.request.request_id not in unusable)
        left = replace(sent, members=tuple(queued for queued in sent.members if queued.request.request_id in unusable))
        self.endings.answer(replace(sent, members=fine))
        self.endings.failed(left)
        if sent.batch.model in self.lanes:
            self.give_back(left, Failure(FailureKind.BROKEN, UNUSABLE), now_s=now_s)

    def give_back(
        self, sent: InFlightBatch, failure: Failure, *, now_s: float, met_quota: bool = False, by_size: bool = False
    ) -> None:
        """Decides what becomes of the requests that no other batch carries.

        Args:
            sent: the batch.
            failure: what happened to it.
            now_s: the present.
            met_quota: whether it was refused because others run, by functions, or by an edge that one was sent ahead:
                it has not failed there, it was sent too early.
            by_size: whether the edge may have refused it for its size: smaller batches are sent to it.
        """
        if failure.largest_batch is not None and by_size:
            # Those that wait may be too large now; halves that wait are kept apart only until it is known why.
            self.dispatcher.reassign_all(Cause.LIMITS, now_s=now_s)
        if failure.kind is FailureKind.THROTTLED and not met_quota and self.edges.refused(sent.batch, now_s):
            self.dispatcher.follow_slots(now_s=now_s)
        living, failed = unanswered(sent), sent.batch.place.endpoint
        for queued in living:
            self.table.requeue(queued)
        if by_size and len(sent.members) == 1:
            for queued in living:
                queues = self.lanes.of(queued.request)
                too_large = too_many_items(queued.request, failure.largest_batch or queued.request.items - 1)
                # A 500 to one request may have any cause: the server's own words say more than its size.
                unsure = failure.kind is FailureKind.SERVER and failure.largest_batch is None
                refusal = None if queues.has_functions or unsure else too_large
                self._send_elsewhere(queued, failed, failure, now_s=now_s, refusal=refusal)
            return
        if by_size or failure.kind is FailureKind.REJECTED:
            self._bisect(living, sent, failure, now_s=now_s)
            return
        left: list[QueuedRequest] = []
        for queued in living:
            if met_quota and not queued.failed_on and len(queued.attempts) < self.most_sends:
                self.dispatcher.placing.assign(queued, now_s, Cause.QUOTA)
            elif not self._to_another(queued, failed, failure, now_s=now_s):
                left.append(queued)
        if left:
            self._once_more(left, sent, failure, now_s=now_s)

    def _send_elsewhere(
        self, queued: QueuedRequest, failed: Place, failure: Failure, *, now_s: float, refusal: Refusal | None = None
    ) -> None:
        if not self._to_another(queued, failed, failure, now_s=now_s):
            self._give_up(queued, failed, failure, now_s=now_s, refusal=refusal)

    def _to_another(self, queued: QueuedRequest, failed: Place, failure: Failure, *, now_s: float) -> bool:
        """Sends a request to a place where it has not been, if that still helps; returns whether it does."""
        queues, before = self.lanes.of(queued.request), queued.failed_on
        if len(before) >= len(self.edges.of_edge):
            return False
        queued.fail_on(failed, over_quota=over_quota(failed, failure))
        helps = self.edges.all.could_answer(queues, queued, now_s=now_s)
        helps = helps or self.function.in_time(queues, queued, now_s=now_s)
        if helps:
            self.dispatcher.placing.assign(queued, now_s, _cause(failed, failure))
        return helps

    def _give_up(
        self, queued: QueuedRequest, failed: Place, failure: Failure, *, now_s: float, refusal: Refusal | None = None
    ) -> None:
        queues = self.lanes.of(queued.request)
        refusal = refusal or self.dispatcher.refusals.failed(queues, queued, failed.backend, failure, now_s=now_s)
        self.dispatcher.placing.give_up(queued, refusal, now_s, _cause(failed, failure))

    def _once_more(self, members: list[QueuedRequest], sent: InFlightBatch, failure: Failure, *, now_s: float) -> None:
        """Asks the same side once more where no other can help: a crashed container in halves, that one request may
        have crashed it. Money is asked for as for any send."""
        failed, again = sent.batch.place.endpoint, []
        for queued in members:
            if self.second_tries.granted(queued, failed, failure, now_s=now_s):
                self.endings.watch_second_try(queued)
                again.append(queued)
            else:
                self._give_up(queued, failed, failure, now_s=now_s)
        if failure.kind is FailureKind.FUNCTION and len(again) > 1:
            self._halve(again, self.lanes.of(again[0].request), failed.backend, now_s=now_s)
            return
        for queued in again:
            self.dispatcher.placing.assign(queued, now_s, _cause(failed, failure))

    def _bisect(self, members: list[QueuedRequest], sent: InFlightBatch, failure: Failure, *, now_s: float) -> None:
        """A refused content is found by bisection: the halves go to the same backend, the culprit fails alone."""
        if len(sent.members) == 1:
            for queued in members:
                self._refuse_content(queued, sent.batch.place.endpoint, failure, now_s=now_s)
            return
        if members:
            self._halve(members, self.lanes.of(members[0].request), sent.batch.backend, now_s=now_s)

    def _refuse_content(self, queued: QueuedRequest, failed: Place, failure: Failure, *, now_s: float) -> None:
        """Tells a client that its request was refused; one that is only too large there may fit on the other side."""
        message = f"the {failed.backend.value} refused the request: {failure.message}"
        if failure.by_size:
            refusal = Refusal(RefusalKind.TOO_LARGE, message)
            self._send_elsewhere(queued, failed, failure, now_s=now_s, refusal=refusal)
            return
        self.table.refuse(queued, Refusal(HANDLING[failure.kind].told, message))

    def _halve(self, members: list[QueuedRequest], queues: ModelQueues, backend: Backend, *, now_s: float) -> None:
        middle = (len(members) + 1) // 2
        for half in filter(None, (tuple(members[:middle]), tuple(members[middle:]))):
            if self._takes_half(queues, backend, half):
                queues.bisect(backend, half)
                continue
            for queued in half:
                self.dispatcher.placing.assign(queued, now_s, Cause.FAILURE)

    def _takes_half(self, queues: ModelQueues, backend: Backend, half: tuple[QueuedRequest, ...]) -> bool:
        """Whether limits, labels and circuit let the backend have it: they may have changed since the batch left."""
        if backend is Backend.EDGE:
            return self.edges.takes_half(queues, half)
        items, buffer = sum(q.request.items for q in half), queues.buffer_of(half[0])
        return all(self.function.usable(queues, q) for q in half) and buffer is not None and items <= buffer.cap


def _cause(failed: Place, failure: Failure) -> Cause:
    return Cause.QUOTA if over_quota(failed, failure) else Cause.FAILURE

"""Batches on their way: carries each to its backend, gives it up at its time, and reports one outcome for each."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.daemon.backends.flight import Clock, Flight, InferenceBackend, Reply, SendFailed
from scheduler.daemon.bodies import Waiting, joined_inputs, parted_outputs
from scheduler.daemon.calls import Answer
from scheduler.daemon.logs import fields, log
from scheduler.daemon.records import BatchRecord, BatchRing, batch_cost, billed_s
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import BatchFailed, BatchFinished, BillArrived, Message, ProbeMeasured
from scheduler.domain.requests import Backend
from scheduler.wire import InferRequest, Tensor, WireError

_logger = logging.getLogger("edgeburst")

LATE_LIMIT_S = 30.0
"""How long an invocation that was given up may still come back, for the sake of its bill; then it is forgotten."""


@dataclass(slots=True)
class Journey:
    """A flight with its passengers, from the send to the outcome."""

    flight: Flight
    members: tuple[Waiting, ...]
    guard: asyncio.TimerHandle | None = None
    """Gives the batch up, and later cancels its task."""
    given_up: Failure | None = None
    """What was reported when it was given up; None while it is awaited."""
    report: BatchReport | None = None
    """Of the answer, once it is there."""
    read_at_s: float = 0.0
    parts: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict)
    """By request id: its rows of every output."""
    cost: float = 0.0

    @property
    def batch(self) -> Batch:
        """The batch, as the engine sent it."""
        return self.flight.batch

    def wait_s(self, waiting: Waiting) -> float:
        """Returns how long a passenger had waited at the send."""
        return self.batch.sent_at_s - waiting.call.received_at_s

    def answer(self, waiting: Waiting) -> Answer:
        """Returns a passenger's answer, once the batch has landed."""
        batch, report, flight = self.batch, self.report, self.flight
        assert report is not None
        written_at_s = flight.decided_at_s if flight.written_at_s is None else flight.written_at_s
        return Answer(
            request_id=waiting.request_id,
            outputs=self.parts[waiting.request_id],
            backend=batch.backend,
            tier=batch.tier,
            batch_id=batch.batch_id,
            batch_items=batch.items,
            wait_s=self.wait_s(waiting),
            service_s=report.service_s,
            elapsed_s=report.elapsed_s,
            cost=self.cost * waiting.call.items / batch.items,
            cold_start=report.cold_start,
            attempts=waiting.attempts,
            read_at_s=self.read_at_s,
            in_s=max(0.0, waiting.engine_at_s - waiting.call.received_at_s),
            out_s=max(0.0, written_at_s - flight.decided_at_s),
        )


class Journeys:
    """Every batch that is under way. Each ends with exactly one BatchFinished or BatchFailed."""

    def __init__(
        self,
        *,
        backends: Mapping[Backend, InferenceBackend],
        post: Callable[[Message], None],
        clock: Clock,
        ring: BatchRing,
    ) -> None:
        """Stores its parts.

        Args:
            backends: the places that answer; one that is missing fails its batches.
            post: takes each outcome to the engine.
            clock: monotonic seconds, of the same origin as the event loop's `time`.
            ring: where outcomes are recorded.
        """
        self._backends = dict(backends)
        self._post = post
        self._clock = clock
        self._ring = ring
        self._under_way: dict[int, Journey] = {}
        self._landed: dict[int, Journey] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.late_answers = 0
        """Answers that came after their batch was given up, and were dropped."""

    def __len__(self) -> int:
        """Returns the number of batches whose outcome is not known."""
        return len(self._under_way)

    def send(self, batch: Batch, tier: FunctionTier | None, members: tuple[Waiting, ...], *, now_s: float) -> None:
        """Sets a batch out; its outcome is posted later, at the latest at its `give_up_at_s`."""
        journey = Journey(Flight(batch, tier, now_s), members)
        self._under_way[batch.batch_id] = journey
        self._ring.sent(batch)
        task = self._start(self._carry(journey), name=f"batch-{batch.batch_id}")
        journey.guard = asyncio.get_running_loop().call_at(batch.give_up_at_s, self._give_up, journey, task)

    def landed(self, batch_id: int) -> Journey:
        """Returns an answered batch, whose answers are now handed out; KeyError once that is over."""
        return self._landed[batch_id]

    def forget_landed(self) -> None:
        """Lets the answers go: the engine has said whom they belong to."""
        self._landed.clear()

    def probe(self, backend: Backend) -> "asyncio.Task[None]":
        """Probes a backend; the measurement is posted."""
        return self._start(self._probe(backend), name=f"probe-{backend.value}")

    async def open(self) -> None:
        """Opens every backend."""
        await asyncio.gather(*(backend.open() for backend in self._backends.values()))

    def probe_all(self) -> "list[asyncio.Task[None]]":
        """Probes every backend."""
        return [self.probe(backend) for backend in self._backends]

    async def replace_backend(self, backend: Backend, replacement: InferenceBackend | None) -> None:
        """Sends from now on by another backend, or none; the old one is closed when its batches are back."""
        if replacement is not None:
            await replacement.open()
        old = self._backends.pop(backend, None)
        if replacement is not None:
            self._backends[backend] = replacement
        if old is not None:
            old_tasks = [task for task in self._tasks if task.get_name().startswith("batch-")]
            self._start(_close_after(old, old_tasks), name=f"close-{backend.value}")

    async def close(self) -> None:
        """Cancels what is under way and gives the backends' resources back."""
        for journey in self._under_way.values():
            _cancel_guard(journey)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(backend.close() for backend in self._backends.values()))

    def _start(self, work: Coroutine[object, object, None], *, name: str) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _carry(self, journey: Journey) -> None:
        """The outermost line of a batch's task: whatever happens in it becomes an outcome."""
        try:
            self._answered(journey, await self._round_trip(journey))
        except SendFailed as failed:
            self._failed(journey, failed.failure, failed.report)
        except Exception:
            _logger.exception("batch_bug", extra=fields(batch_id=journey.batch.batch_id))
            message = f"the daemon failed on an internal error with batch {journey.batch.batch_id}; its log tells more"
            self._failed(journey, Failure(FailureKind.SERVER, message), self._bare_report(journey))

    async def _round_trip(self, journey: Journey) -> Reply:
        batch = journey.batch
        backend = self._backends.get(batch.backend)
        if backend is None:
            message = f"no {batch.backend.value} backend is configured"
            raise SendFailed(Failure(FailureKind.UNREACHABLE, message), self._bare_report(journey))
        try:
            inputs = () if batch.warming else joined_inputs([waiting.call for waiting in journey.members])
        except WireError as error:
            # In halves, and halves again, the requests that do fit together find each other.
            raise SendFailed(Failure(FailureKind.REJECTED, str(error)), self._bare_report(journey)) from None
        request = InferRequest(id=str(batch.batch_id), inputs=inputs, binary_by_default=True)
        return await backend.send(journey.flight, request)

    def _answered(self, journey: Journey, reply: Reply) -> None:
        batch = journey.batch
        try:
            parts = parted_outputs(reply.outputs, [waiting.call.items for waiting in journey.members])
        except WireError as error:
            raise SendFailed(Failure(FailureKind.BROKEN, str(error)), reply.report) from None
        journey.cost = batch_cost(journey.flight, reply.report)
        if journey.given_up is not None:
            self._late(journey, reply.report)
            return
        self._land(journey)
        journey.report, journey.read_at_s = reply.report, reply.read_at_s
        journey.parts = dict(zip(batch.request_ids, parts, strict=True))
        self._landed[batch.batch_id] = journey
        self._record(journey, reply.report)
        self._post(BatchFinished(batch.batch_id, reply.report))

    def _failed(self, journey: Journey, failure: Failure, report: BatchReport) -> None:
        journey.cost = batch_cost(journey.flight, report, failure)
        if journey.given_up is not None:
            self._late(journey, report)
            return
        self._land(journey)
        self._report_failure(journey, failure, report)

    def _give_up(self, journey: Journey, task: "asyncio.Task[None]") -> None:
        batch = journey.batch
        waited_s = batch.give_up_at_s - batch.sent_at_s
        if journey.flight.written_at_s is None:
            failure = Failure(FailureKind.UNREACHABLE, f"the {_place(batch)} took nothing for {waited_s:.3g} s")
        else:
            failure = Failure(FailureKind.TIMEOUT, f"the {_place(batch)} did not answer within {waited_s:.3g} s")
        journey.given_up = failure
        del self._under_way[batch.batch_id]
        # An edge's answer costs nothing, so nobody waits for it; an invocation's bill is worth a while.
        late_limit_s = 0.0 if journey.flight.tier is None else LATE_LIMIT_S
        journey.guard = asyncio.get_running_loop().call_later(late_limit_s, task.cancel)
        report = self._bare_report(journey)
        journey.cost = batch_cost(journey.flight, report, failure)
        self._report_failure(journey, failure, report)

    def _late(self, journey: Journey, report: BatchReport) -> None:
        """An outcome after the end: nobody gets it, but its bill is known now."""
        _cancel_guard(journey)
        self.late_answers += 1
        self._record(journey, report, journey.given_up)
        if report.billed_duration_s is not None:
            self._post(BillArrived(journey.batch.batch_id, report.billed_duration_s))

    def _land(self, journey: Journey) -> None:
        _cancel_guard(journey)
        del self._under_way[journey.batch.batch_id]

    def _report_failure(self, journey: Journey, failure: Failure, report: BatchReport) -> None:
        batch = journey.batch
        self._record(journey, report, failure)
        what = {"batch_id": batch.batch_id, "backend": batch.backend.value, "tier": batch.tier, "items": batch.items}
        log(logging.WARNING, "batch_failed", **what, kind=failure.kind.value, message=failure.message)
        self._post(BatchFailed(batch.batch_id, failure, report))

    def _record(self, journey: Journey, report: BatchReport, failure: Failure | None = None) -> None:
        self._ring.add(
            BatchRecord(
                batch=journey.batch,
                finished_at_s=self._clock(),
                wait_max_s=max((journey.wait_s(waiting) for waiting in journey.members), default=0.0),
                report=report,
                billed_s=billed_s(journey.flight, report),
                cost=journey.cost,
                error="" if failure is None else f"{failure.kind.value}: {failure.message}",
            )
        )

    def _bare_report(self, journey: Journey) -> BatchReport:
        return BatchReport(elapsed_s=max(0.0, self._clock() - journey.batch.sent_at_s))

    async def _probe(self, backend: Backend) -> None:
        place = self._backends.get(backend)
        try:
            measured = ProbeMeasured(backend, ok=False) if place is None else await place.probe()
        except Exception:
            _logger.exception("probe_bug", extra=fields(backend=backend.value))
            measured = ProbeMeasured(backend, ok=False)
        self._post(measured)


async def _close_after(backend: InferenceBackend, tasks: "Sequence[asyncio.Task[None]]") -> None:
    if tasks:
        await asyncio.wait(tasks)
    await backend.close()


def _cancel_guard(journey: Journey) -> None:
    if journey.guard is not None:
        journey.guard.cancel()


def _place(batch: Batch) -> str:
    return f"function tier {batch.tier}" if batch.tier else "edge server"

"""Batches in flight: each is sent to its backend, given up at its deadline, and has exactly one outcome."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler import wire
from scheduler.daemon.backends.batch_send import BatchSend, Clock, InferenceBackend, Reply, SendFailed
from scheduler.daemon.bodies import PendingCall, joined_inputs, whole_failure
from scheduler.daemon.calls import Answer
from scheduler.daemon.finite_answers import BY_BACKEND, BY_INPUT, sorted_by_fault
from scheduler.daemon.logs import fields, log
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.daemon.model_trials import ModelTrials
from scheduler.daemon.records import BatchRecord, BatchRing, batch_bill, billed_s, items_by_tenant
from scheduler.daemon.spans import BatchSpans, Tracer
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.bills import Bill
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import BatchFailed, BatchFinished, BillArrived, Message, ProbeMeasured
from scheduler.domain.requests import Backend, Place
from scheduler.wire import InferRequest, Tensor, WireError

_logger = logging.getLogger("edgeburst")

LATE_LIMIT_S = 30.0
"""How long the sender still waits, for the bill only, for an invocation that was given up."""


@dataclass(slots=True)
class AnsweredBatch:
    """A batch with its answer, cut into one part for each member."""

    send: BatchSend
    report: BatchReport
    read_at_s: float
    parts: Mapping[int, tuple[Tensor, ...]]
    """By request id: the request's rows of every output."""
    cost: float
    refused: frozenset[int] = frozenset()
    """By request id: those whose inputs are not finite, so that their outputs are not either."""
    place: str = ""
    """Which edge server or function tier answered, as in records."""
    any_failed: bool = True
    """Whether any item may have failed."""

    def failure(self, request_id: int) -> str:
        """Returns why a request has no answer because of what it holds, in one sentence; empty if it has one."""
        if request_id in self.refused:
            return BY_INPUT
        return whole_failure(self.parts[request_id]) if self.any_failed else ""

    def answer(self, member: PendingCall) -> Answer:
        """Returns the answer to one member of the batch."""
        send, batch, report = self.send, self.send.batch, self.report
        written_at_s = send.decided_at_s if send.written_at_s is None else send.written_at_s
        return Answer(
            request_id=member.request_id,
            outputs=self.parts[member.request_id],
            backend=batch.backend,
            tier=batch.tier,
            batch_id=batch.batch_id,
            batch_items=batch.items,
            wait_s=batch.sent_at_s - member.call.received_at_s,
            service_s=report.service_s,
            elapsed_s=report.elapsed_s,
            cost=self.cost * member.call.items / batch.items,
            cold_start=report.cold_start,
            attempts=member.attempts,
            read_at_s=self.read_at_s,
            in_s=max(0.0, member.engine_at_s - member.call.received_at_s),
            out_s=max(0.0, written_at_s - send.decided_at_s),
            place=self.place,
        )


@dataclass(slots=True)
class _PendingBatch:
    """A batch that was sent, its members, and what limits its time."""

    send: BatchSend
    members: tuple[PendingCall, ...]
    spans: BatchSpans
    backend: InferenceBackend | None
    """The one at the send, which may have been replaced since; None: there was none."""
    guard: asyncio.TimerHandle | None = None
    """Gives the batch up; after that, cancels its task."""
    given_up: Failure | None = None
    """The failure that was reported when the batch was given up; None while its answer is awaited."""

    @property
    def batch(self) -> Batch:
        """The batch, as the engine sent it."""
        return self.send.batch

    def cancel_guard(self) -> None:
        """Stops the timer."""
        if self.guard is not None:
            self.guard.cancel()


class BatchSender:
    """The sender of batches to backends. Each batch ends with exactly one BatchFinished or BatchFailed."""

    def __init__(
        self,
        *,
        backends: Mapping[Place, InferenceBackend],
        post: Callable[[Message], None],
        clock: Clock,
        ring: BatchRing,
        tracer: Tracer,
        trials: ModelTrials | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            backends: by edge server, and of FUNCTIONS; a batch for one that is missing fails.
            post: gives each outcome to the engine.
            clock: monotonic seconds, with the same origin as the event loop's `time`.
            ring: where outcomes are recorded.
            tracer: is told of each batch.
            trials: tries the edge's models, and is told which identity of a model's card and files a place reports;
                None: the edge is only asked whether it is ready.
        """
        self._trials = ModelTrials(clock=clock) if trials is None else trials
        self._backends = dict(backends)
        self._post = post
        self._clock = clock
        self._ring = ring
        self._tracer = tracer
        self._pending: dict[int, _PendingBatch] = {}
        self._answered: dict[int, AnsweredBatch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.late_answers = 0
        """Answers that arrived after their batch was given up, and were dropped."""

    def __len__(self) -> int:
        """Returns the number of batches without an outcome."""
        return len(self._pending)

    def send(self, batch: Batch, tier: FunctionTier | None, members: tuple[PendingCall, ...], *, now_s: float) -> None:
        """Starts to send a batch; its outcome is posted later, at its `give_up_at_s` at the latest."""
        spans = self._tracer.sent(batch, members, now_s)
        outputs = members[0].call.outputs if members else ModelOutputs()
        send = BatchSend(batch, tier, now_s, outputs=outputs, trace=spans.context)
        sums: list[str] = []
        for member in members:
            sums.append(member.call.item_crc32)
            if member.call.log_tail:
                send.wants_log = True
        send.item_crc32 = "".join(sums) if all(sums) else ""
        pending = _PendingBatch(send, members, spans, self._backends.get(batch.place.endpoint))
        self._pending[batch.batch_id] = pending
        self._ring.sent(batch, [member.call.class_name for member in members])
        task = self._start(self._run(pending), name=f"batch-{batch.batch_id}")
        pending.guard = asyncio.get_running_loop().call_at(batch.give_up_at_s, self._give_up, pending, task)

    def placements(self) -> list[dict[str, object]]:
        """Returns how many requests were sent to each place for each reason."""
        return self._ring.placements()

    def left(self) -> list[dict[str, object]]:
        """Returns how many batches left for each place, by why they left when they did."""
        return self._ring.left()

    def disbelieved(self) -> list[dict[str, object]]:
        """Returns how many reports of functions could not be true, by tier and field."""
        return self._ring.disbelieved()

    def backend(self, place: Place) -> InferenceBackend | None:
        """Returns the present backend of an edge server or of FUNCTIONS; None where there is none."""
        return self._backends.get(place)

    def answered(self, batch_id: int) -> AnsweredBatch:
        """Returns an answered batch until `forget_answered`; KeyError after that."""
        return self._answered[batch_id]

    def forget_answered(self) -> None:
        """Drops the answered batches: the engine has named the requests that their answers belong to."""
        self._answered.clear()

    def probe(self, place: Place, models: Sequence[str] = ()) -> "asyncio.Task[None]":
        """Starts to probe a place, and these of its models where that is free; the measurement is posted."""
        return self._start(self._probe(place, models), name=f"probe-{place}")

    async def open(self) -> None:
        """Opens every backend."""
        await asyncio.gather(*(backend.open() for backend in self._backends.values()))

    def probe_all(self, *places: Place) -> "list[asyncio.Task[None]]":
        """Starts to probe these backends, or every one, and all models of the edge servers among them."""
        return [self.probe(place, self._trials.models_on(place)) for place in places or self._backends]

    async def replace_backend(self, place: Place, replacement: InferenceBackend | None) -> None:
        """Uses another backend, or none, from now on; closes the old one when its batches and probes have ended.

        What the engine knows of an edge server was said by the one before: probe it when the engine has its settings.
        """
        if replacement is not None:
            await replacement.open()
        old = self._backends.pop(place, None)
        if replacement is not None:
            self._backends[place] = replacement
        if old is not None:
            names = ("batch-", f"probe-{place}")
            old_tasks = [task for task in self._tasks if task.get_name().startswith(names)]
            self._start(_close_after(old, old_tasks), name=f"close-{place}")

    async def close(self) -> None:
        """Cancels every task and closes the backends."""
        for pending in self._pending.values():
            pending.cancel_guard()
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

    async def _run(self, pending: _PendingBatch) -> None:
        """Runs a batch's task; every exception becomes an outcome, so that none is lost."""
        try:
            self._succeed(pending, await self._exchange(pending))
        except SendFailed as failed:
            self._fail(pending, failed.failure, failed.report)
        except Exception:
            _logger.exception("batch_bug", extra=fields(batch_id=pending.batch.batch_id))
            message = f"the daemon failed on an internal error with batch {pending.batch.batch_id}; see its log"
            self._fail(pending, Failure(FailureKind.SERVER, message), self._bare_report(pending))

    async def _exchange(self, pending: _PendingBatch) -> Reply:
        batch, backend = pending.batch, pending.backend
        if backend is None:
            message = f"no {batch.backend.value} backend is configured"
            raise SendFailed(Failure(FailureKind.UNREACHABLE, message), self._bare_report(pending))
        try:
            inputs = () if batch.warming else joined_inputs([member.call for member in pending.members])
        except WireError as error:
            # The engine bisects a rejected batch, so requests whose inputs can be joined soon share a batch again.
            raise SendFailed(Failure(FailureKind.REJECTED, str(error)), self._bare_report(pending)) from None
        request = InferRequest(id=str(batch.batch_id), inputs=inputs, binary_by_default=True)
        return await backend.send(pending.send, request)

    def _succeed(self, pending: _PendingBatch, reply: Reply) -> None:
        batch = pending.batch
        refused = "" if batch.warming else self._trials.heard(batch.model, batch.place, reply.identity, batch.sent_at_s)
        if refused:
            raise SendFailed(Failure(FailureKind.BROKEN, refused, of_model=True), reply.report)
        try:
            counts = [member.call.items for member in pending.members]
            parts = wire.part_outputs(reply.outputs, counts, pending.send.outputs.ragged)
        except WireError as error:
            raise SendFailed(Failure(FailureKind.BROKEN, str(error)), reply.report) from None
        not_finite = sorted_by_fault(pending.members, reply.not_finite)
        if not_finite.by_backend and len(not_finite.by_backend) + len(not_finite.by_input) == len(pending.members):
            sentence = f"the answer of the {_place(batch)} cannot be used: {BY_BACKEND}"
            raise SendFailed(Failure(FailureKind.BROKEN, sentence), reply.report)
        if pending.given_up is not None:
            self._record_late(pending, reply.report)
            return
        self._end(pending)
        pending.spans.ended(reply.read_at_s, service_s=reply.report.service_s)
        bill = batch_bill(pending.send, reply.report)
        self._answered[batch.batch_id] = AnsweredBatch(
            send=pending.send,
            report=reply.report,
            read_at_s=reply.read_at_s,
            parts=dict(zip(batch.request_ids, parts, strict=True)),
            cost=bill.total,
            refused=not_finite.by_input,
            place=str(batch.place),
            any_failed=any(wire.item_errors(reply.outputs)),
        )
        self._record(pending, reply.report, bill)
        self._post(BatchFinished(batch.batch_id, reply.report, unusable=not_finite.by_backend))

    def _fail(self, pending: _PendingBatch, failure: Failure, report: BatchReport) -> None:
        if pending.given_up is not None:
            self._record_late(pending, report, failure)
            return
        self._end(pending)
        self._report_failure(pending, failure, report)

    def _give_up(self, pending: _PendingBatch, task: "asyncio.Task[None]") -> None:
        batch = pending.batch
        waited_s = batch.give_up_at_s - batch.sent_at_s
        if pending.send.written_at_s is None:
            failure = Failure(FailureKind.UNREACHABLE, f"the {_place(batch)} took nothing for {waited_s:.3g} s")
        else:
            failure = Failure(FailureKind.TIMEOUT, f"the {_place(batch)} did not answer within {waited_s:.3g} s")
        pending.given_up = failure
        del self._pending[batch.batch_id]
        # A late answer from the edge has no bill, so its task ends now; an invocation's bill is worth a wait.
        late_limit_s = 0.0 if pending.send.tier is None else LATE_LIMIT_S
        pending.guard = asyncio.get_running_loop().call_later(late_limit_s, task.cancel)
        self._report_failure(pending, failure, self._bare_report(pending))

    def _record_late(self, pending: _PendingBatch, report: BatchReport, failure: Failure | None = None) -> None:
        """Records the outcome of a batch that was given up: no client gets it, but its bill is now known."""
        pending.cancel_guard()
        self.late_answers += 1
        bill = batch_bill(pending.send, report, failure, final=True)
        self._record(pending, report, bill, error=pending.given_up, late=True)
        if pending.send.tier is not None:
            self._post(BillArrived(pending.batch.batch_id, report, None if failure is None else failure.kind))

    def _end(self, pending: _PendingBatch) -> None:
        pending.cancel_guard()
        del self._pending[pending.batch.batch_id]

    def _report_failure(self, pending: _PendingBatch, failure: Failure, report: BatchReport) -> None:
        batch = pending.batch
        self._record(pending, report, batch_bill(pending.send, report, failure), error=failure)
        pending.spans.ended(self._clock(), error=f"{failure.kind.value}: {failure.message}")
        what = {"batch_id": batch.batch_id, "backend": batch.backend.value, "tier": batch.tier, **_edge(batch)}
        what["items"] = batch.items
        said = {"said": failure.said} if failure.said else {}
        log(logging.WARNING, "batch_failed", **what, kind=failure.kind.value, **said, message=failure.message)
        self._post(BatchFailed(batch.batch_id, failure, report))

    def _record(
        self,
        pending: _PendingBatch,
        report: BatchReport,
        bill: Bill,
        *,
        error: Failure | None = None,
        late: bool = False,
    ) -> None:
        batch = pending.batch
        self._ring.add(
            BatchRecord(
                batch=batch,
                finished_at_s=self._clock(),
                wait_max_s=max([batch.sent_at_s - m.call.received_at_s for m in pending.members], default=0.0),
                report=report,
                billed_s=billed_s(pending.send, report),
                bill=bill,
                log_tail=pending.send.log_tail,
                error="" if error is None else f"{error.kind.value}: {error.message}",
                tenants=items_by_tenant([member.call for member in pending.members], self._ring.tenants),
            ),
            late=late,
        )

    def _bare_report(self, pending: _PendingBatch) -> BatchReport:
        """Returns a report that holds the elapsed time only."""
        return BatchReport(elapsed_s=max(0.0, self._clock() - pending.batch.sent_at_s))

    async def _probe(self, place: Place, models: Sequence[str]) -> None:
        probed, asked_at_s = self._backends.get(place), self._clock()
        try:
            measured = ProbeMeasured(place, ok=False) if probed is None else await probed.probe()
            if measured.ok and probed is not None and place.backend is Backend.EDGE and models:
                tried = await self._trials.on_edge(place, probed, models)
                measured = replace(measured, ok=not tried.away, broken=tried.broken, unasked=tried.unasked)
        except Exception:
            _logger.exception("probe_bug", extra=fields(place=str(place)))
            measured = ProbeMeasured(place, ok=False)
        self._post(replace(measured, asked_at_s=asked_at_s))


async def _close_after(backend: InferenceBackend, tasks: "Sequence[asyncio.Task[None]]") -> None:
    if tasks:
        await asyncio.wait(tasks)
    await backend.close()


def _place(batch: Batch) -> str:
    if batch.tier:
        return f"function tier {batch.tier}"
    return "edge server" if batch.place == Place.edge() else f"edge server {batch.place.name}"


def _edge(batch: Batch) -> dict[str, object]:
    return {} if batch.tier else {"edge": batch.place.name}

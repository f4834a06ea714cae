"""Performs what the engine asks for, and gives each call its one answer."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Protocol

from scheduler.daemon.backends.batch_send import Clock, InferenceBackend
from scheduler.daemon.bodies import BodyStore, PendingCall
from scheduler.daemon.calls import Answer, InferenceCall, Refused, class_of_call, request_of
from scheduler.daemon.edge_limits import log_edge_limit
from scheduler.daemon.engine_driver import EngineDriver, Hear
from scheduler.daemon.explain.requests import Explanations
from scheduler.daemon.in_flight import AnsweredBatch, BatchSender
from scheduler.daemon.logs import fields, log
from scheduler.daemon.model_trials import ModelTrials
from scheduler.daemon.plan_alarms import PlanAlarms
from scheduler.daemon.quotas import log_quota
from scheduler.daemon.records import BatchRing
from scheduler.daemon.spans import ANSWERED, CANCELLED, NoTracer, Tracer
from scheduler.daemon.status import PlanHistory, RunnerStatistics
from scheduler.domain.batches import Batch
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import (
    AnswerRequest,
    BillCorrected,
    Command,
    ComputePlan,
    DrainStarted,
    EdgeBatchLearned,
    Message,
    PlanAdopted,
    PlanComputed,
    QuotaLearned,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    RequestSpend,
    ReturnSpend,
    SendBatch,
    SendProbe,
    SettingsChanged,
    SpendGranted,
)
from scheduler.domain.plans import EngineSettings, Plan, ServiceClass
from scheduler.domain.requests import Place
from scheduler.domain.tenants import shares_of
from scheduler.engine import Engine

_logger = logging.getLogger("edgeburst")

PlanMaker = Callable[[ComputePlan], Awaitable[Plan]]
"""Runs the planner beside the event loop."""

ITEMS_BEFORE_ANSWERS = 4
"""A batch with at least this many items is written before the answers of the same engine call. Writing a batch delays
each answer by about 0.6 ms; writing an answer delays each item of the batch by about 0.17 ms."""

_STOPPED = Refusal(RefusalKind.DRAINING, "the daemon stopped before the request was answered; send it again", 1.0)
_CRASHED = Refusal(
    RefusalKind.BACKEND, "the daemon failed on an internal error and restarts; send the request again", 1.0
)


class SpendLedger(Protocol):
    """What leases money; see `state.keeper.StateKeeper`."""

    def request(self, command: RequestSpend) -> None:
        """Leases money; the engine gets SpendGranted."""

    def give_back(self, command: ReturnSpend) -> None:
        """Gives leased money back."""


class Runner:
    """The calls that have not ended, and the tasks that the engine's commands start for them."""

    def __init__(
        self,
        *,
        engine: Engine,
        settings: EngineSettings,
        backends: Mapping[Place, InferenceBackend],
        make_plan: PlanMaker,
        clock: Clock,
        explanations: Explanations,
        batches: BatchRing,
        plans: PlanHistory,
        answer_reserve_s: float = 0.0,
        ledger: SpendLedger | None = None,
        tracer: Tracer | None = None,
        trials: ModelTrials | None = None,
    ) -> None:
        """Stores its parts; `start` begins.

        Args:
            engine: makes every decision.
            settings: the engine's settings.
            backends: by edge server, and of FUNCTIONS; a batch for one that is missing fails.
            make_plan: runs the planner beside the loop.
            clock: monotonic seconds, with the same origin as the event loop's `time`.
            explanations: takes every request's arrival and end.
            batches: takes every batch that has ended.
            plans: takes every plan that the engine adopts.
            answer_reserve_s: part of every deadline for the daemon's own work, of which at most half is used.
            ledger: leases money; None: whatever the engine asks for is granted.
            tracer: records spans; None: none are.
            trials: tries the edges' models, and hears what places report; None: edges are only asked if they are ready.
        """
        self._settings, self._tiers = settings, _tiers(settings)
        self._make_plan = make_plan
        self._alarms = PlanAlarms()
        self._clock = self.now = clock
        """Returns monotonic seconds; `InferenceCall.received_at_s` is taken from it."""
        self._classes: dict[tuple[str, str], ServiceClass] = {}
        """By model and name, under the present settings: those of calls that came."""
        self._explanations, self._plans = explanations, plans
        self._answer_reserve_s, self._ledger = answer_reserve_s, ledger
        self._driver = EngineDriver(engine, clock=clock, perform=self._perform, fail=self._stop_for)
        self._tracer = NoTracer() if tracer is None else tracer
        self._sender = BatchSender(
            backends=backends, post=self._driver.post, clock=clock, ring=batches, tracer=self._tracer, trials=trials
        )
        self._batches = batches
        self._follow_tenants(settings)
        self._bodies = BodyStore()
        self._ids, self._started_at_s = count(1), 0.0
        self._planning: set[asyncio.Task[None]] = set()  # a reload asks anew while one is still made
        self._draining = False
        self._crashed = asyncio.Event()
        self._error: Exception | None = None
        self._over: Refusal | None = None
        """The refusal of every call once the runner has stopped; None before."""

    @property
    def draining(self) -> bool:
        """Whether the daemon stops and accepts no more calls."""
        return self._draining

    def start(self) -> None:
        """Calls the engine for the first time, soon. Call it on the loop that everything then runs on."""
        self._started_at_s = self._clock()
        self._driver.wake()

    async def submit(self, call: InferenceCall) -> Answer:
        """Returns the call's answer, once.

        Raises:
            Refused: there is no answer; the refusal holds the reason.
            asyncio.CancelledError: the caller was cancelled; the engine is told that the answer is not needed.
        """
        if self._over is not None:
            raise Refused(self._over)
        named = call.model, call.class_name
        service_class = self._classes.get(named)
        if service_class is None:
            service_class = self._classes[named] = class_of_call(call, self._settings)
        request_id = next(self._ids)
        if call.client_id or call.owner:
            self._explanations.arrived(request_id, call.client_id, call.owner)
        pending = PendingCall(request_id, call, asyncio.get_running_loop().create_future())
        pending.spans = self._tracer.begin(call, request_id)
        shape_id, reserve_s = self._bodies.add(pending), self._answer_reserve_s
        request = request_of(call, service_class, request_id=request_id, answer_reserve_s=reserve_s, shape_id=shape_id)
        self._driver.post(RequestArrived(request))
        try:
            return await pending.future
        except asyncio.CancelledError:
            # The body stays until the engine knows: an earlier message may just have made it send the request.
            if request_id in self._bodies:
                self._driver.post(RequestCancelled(request_id))
            raise

    def post(self, message: Message) -> None:
        """Gives the engine a message from another part of the daemon."""
        self._driver.post(message)

    def listen(self, hear: Hear) -> None:
        """Has the messages of each engine call told before the engine is given them."""
        self._driver.hearers.append(hear)

    def reload(self, settings: EngineSettings) -> None:
        """Continues with new settings."""
        self._settings = settings
        self._classes.clear()
        self._tiers |= _tiers(settings)  # requests planned for a removed tier may still be sent to it
        self._follow_tenants(settings)
        self._driver.post(SettingsChanged(settings))

    def _follow_tenants(self, settings: EngineSettings) -> None:
        self._batches.tenants = frozenset(tenant.name for tenant in settings.tenants)
        self._explanations.shares = shares_of(settings.tenants)

    async def open(self) -> None:
        """Opens the backends."""
        await self._sender.open()

    def edges(self) -> dict[str, InferenceBackend]:
        """Returns the present backends of the edge servers, by name."""
        names, backend = [edge.name for edge in self._settings.edges], self._sender.backend
        return {name: found for name in names if (found := backend(Place.edge(name))) is not None}

    def probe_backends(self, *places: Place) -> "list[asyncio.Task[None]]":
        """Starts to probe these backends, or every one; the engine gets the results."""
        return self._sender.probe_all(*places)

    async def replace_backend(self, place: Place, replacement: InferenceBackend | None) -> None:
        """Uses another backend, or none, from now on; closes the old one when its batches have ended."""
        await self._sender.replace_backend(place, replacement)

    async def drain(self, limit_s: float) -> int:
        """Accepts no more calls, and waits until every accepted call has ended, for at most `limit_s`.

        Returns:
            How many calls were refused because the time was over.
        """
        self._draining = True
        self._driver.post(DrainStarted())
        if len(self._bodies) > 0:
            try:
                await asyncio.wait_for(self._bodies.wait_until_empty(), limit_s)
            except asyncio.TimeoutError:
                # The engine is not called again: it would send requests that have just been refused.
                self._stop(_STOPPED)
                return self._refuse_all(_STOPPED)
        return 0

    async def close(self) -> None:
        """Refuses the calls that have not ended, ends every task, and closes the backends."""
        self._stop(_STOPPED)
        self._refuse_all(_STOPPED)
        for task in self._planning:
            task.cancel()
        await asyncio.gather(*self._planning, return_exceptions=True)
        await self._sender.close()
        await self._tracer.close()

    async def crashed(self) -> Exception:
        """Waits for a bug in the engine or the planner, and returns its exception: the daemon cannot continue."""
        await self._crashed.wait()
        assert self._error is not None
        return self._error

    def statistics(self) -> RunnerStatistics:
        """Returns a snapshot of the calls and batches that are held."""
        now_s = self._clock()
        return RunnerStatistics(
            now_s=now_s,
            uptime_s=now_s - self._started_at_s,
            draining=self._draining,
            waiting_requests=len(self._bodies),
            waiting_bytes=self._bodies.body_bytes,
            batches_under_way=len(self._sender),
            late_answers=self._sender.late_answers,
            placements=self._sender.placements(),
            batches_left=self._sender.left(),
            disbelieved=self._sender.disbelieved(),
        )

    def _perform(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        """Performs the commands that the engine answered these messages with."""
        cancelled, pending = [], self._bodies.pending
        for message in messages:
            if type(message) is RequestArrived:  # nearly all
                pending[message.request.request_id].engine_at_s = now_s
            elif isinstance(message, RequestCancelled):
                cancelled.append(message.request_id)
        self._perform_all(commands, now_s)
        for request_id in cancelled:
            self._end_awaited(request_id)
        self._sender.forget_answered()

    def _perform_all(self, commands: Sequence[Command], now_s: float) -> None:
        """Sends large batches before it gives answers out: the backend works while the answers are written."""
        answers: list[tuple[int, AnsweredBatch]] = []
        sent_items = 0
        for command in commands:
            match command:
                case SendBatch(batch):
                    sent_items += batch.items
                    self._send(batch, now_s)
                case AnswerRequest(request_id, batch_id):
                    answers.append((request_id, self._sender.answered(batch_id)))
                case RefuseRequest(request_id, refusal):
                    self._refuse(request_id, refusal)
                case ComputePlan():
                    planning = asyncio.get_running_loop().create_task(self._plan(command), name="plan")
                    self._planning.add(planning)
                    planning.add_done_callback(self._planning.discard)
                case SendProbe(place, models):
                    self._sender.probe(place, models)
                case RequestSpend() | ReturnSpend():
                    self._lease(command)
                case PlanAdopted(plan):
                    self._plans.add(plan)
                    log(logging.INFO, "plan_adopted", plan_id=plan.plan_id, cause=plan.cause, detail=plan.detail)
                    self._alarms.adopted(plan, self._settings.models)
                case QuotaLearned():
                    log_quota(command)
                case BillCorrected(batch_id, bill):
                    self._batches.correct(batch_id, bill)
                case EdgeBatchLearned(limit):
                    log_edge_limit(limit)
        if answers and sent_items >= ITEMS_BEFORE_ANSWERS:
            # A batch is written in its task's first step; before Python 3.12, in a task that this step starts.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._give_out, answers)
        elif answers:
            self._give_out(answers)

    def _send(self, batch: Batch, now_s: float) -> None:
        members = self._bodies.members(batch.request_ids)
        for member in members:
            member.attempts += 1
        self._sender.send(batch, self._tiers.get((batch.model, batch.tier)), members, now_s=now_s)

    def _lease(self, command: RequestSpend | ReturnSpend) -> None:
        match command:
            case ReturnSpend() if self._ledger is not None:
                self._ledger.give_back(command)
            case RequestSpend() if self._ledger is not None:
                self._ledger.request(command)
            case RequestSpend(amount):
                self._driver.post(SpendGranted(amount))

    def _give_out(self, answers: Sequence[tuple[int, AnsweredBatch]]) -> None:
        try:
            for request_id, batch in answers:
                self._answer(request_id, batch)
        except Exception as error:
            _logger.exception("answer_bug", extra=fields(answers=len(answers)))
            self._stop_for(error)

    def _answer(self, request_id: int, batch: AnsweredBatch) -> None:
        pending = self._end_awaited(request_id)
        if pending is None:
            return
        sentence = batch.failure(request_id)
        if sentence:
            pending.future.set_exception(Refused(Refusal(RefusalKind.BAD_REQUEST, sentence), request_id))
            pending.ended(RefusalKind.BAD_REQUEST.value, self._clock(), message=sentence)
        else:
            answer = batch.answer(pending)
            pending.future.set_result(answer)
            if pending.spans is not None:
                pending.spans.ended(ANSWERED, self._clock(), answer=answer)

    def _refuse(self, request_id: int, refusal: Refusal) -> None:
        pending = self._end_awaited(request_id)
        if pending is not None:
            pending.future.set_exception(Refused(refusal, request_id))
            pending.ended(refusal.kind.value, self._clock(), message=refusal.message)

    def _end(self, request_id: int) -> PendingCall | None:
        pending = self._bodies.pop(request_id)
        if pending is not None:
            self._explanations.ended(request_id)
        return pending

    def _end_awaited(self, request_id: int) -> PendingCall | None:
        """Ends a call; returns it if its client still waits."""
        pending = self._end(request_id)
        if pending is not None and pending.future.done():
            pending.ended(CANCELLED, self._clock())
            return None
        return pending

    def _refuse_all(self, refusal: Refusal) -> int:
        """Refuses every call that has not ended; returns their number."""
        left = list(self._bodies)
        for pending in left:
            self._refuse(pending.request_id, refusal)
        return len(left)

    async def _plan(self, command: ComputePlan) -> None:
        """Runs the planner; a planner never raises, so every exception is a bug."""
        try:
            self._driver.post(PlanComputed(await self._make_plan(command)))
        except Exception as error:
            _logger.exception("planner_bug", extra=fields(plan_id=command.plan_id, cause=command.cause))
            self._stop_for(error)

    def _stop(self, refusal: Refusal) -> None:
        """Stops calling the engine; from now on every call is refused, with the first such refusal."""
        self._over = self._over or refusal
        self._driver.stop()

    def _stop_for(self, error: Exception) -> None:
        """Stops for a bug: `crashed` returns its exception."""
        self._error = error
        self._stop(_CRASHED)
        self._refuse_all(_CRASHED)
        self._crashed.set()


def _tiers(settings: EngineSettings) -> dict[tuple[str, str], FunctionTier]:
    return {(model.name, tier.name): tier for model in settings.models for tier in model.tiers}

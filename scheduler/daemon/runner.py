"""Drives the engine in real time: performs what it asks, re-arms one timer, and hands each call its one answer.

Whatever happens during one iteration of the event loop goes to the engine in one `handle` call. Nobody else reads
the clock. On a loop with virtual time the same code runs as a simulation.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

from scheduler.daemon.backends.flight import Clock, InferenceBackend
from scheduler.daemon.bodies import BodyStore, Waiting, whole_failure
from scheduler.daemon.calls import Answer, InferenceCall, Refused, request_of
from scheduler.daemon.explain.requests import Explanations
from scheduler.daemon.in_flight import Journey, Journeys
from scheduler.daemon.logs import fields, log
from scheduler.daemon.own_latency import OwnLatency
from scheduler.daemon.records import BatchRing
from scheduler.daemon.status import jsonable
from scheduler.domain.batches import Batch
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import (
    AnswerRequest,
    Command,
    ComputePlan,
    DrainStarted,
    LimitsChanged,
    Message,
    PlanAdopted,
    PlanComputed,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SendBatch,
    SendProbe,
    SettingsChanged,
)
from scheduler.domain.plans import EngineSettings, Limits, Plan
from scheduler.domain.requests import Backend
from scheduler.engine import Engine

_logger = logging.getLogger("edgeburst")

PlanMaker = Callable[[ComputePlan], Awaitable[Plan]]
"""Runs the planner beside the event loop."""

PLANS_KEPT = 256

ITEMS_BEFORE_ANSWERS = 4
"""Batches of so many items are written before the answers that came with them. Writing a batch delays each answer by
about 0.6 ms, writing an answer delays each item of the batch by about 0.17 ms: from 4 items on the batch goes first."""

_STOPPED = Refusal(RefusalKind.DRAINING, "the daemon stopped before the request was answered; send it again")
_CRASHED = Refusal(RefusalKind.BACKEND, "the daemon failed on an internal error and restarts; send the request again")


class Runner:
    """Owns the engine, the bodies, the timer and the batches under way."""

    def __init__(
        self,
        *,
        engine: Engine,
        settings: EngineSettings,
        backends: Mapping[Backend, InferenceBackend],
        make_plan: PlanMaker,
        clock: Clock,
        explanations: Explanations,
        records: int = 10_000,
        answer_reserve_s: float = 0.0,
    ) -> None:
        """Stores its parts; `start` begins.

        Args:
            engine: decides everything.
            settings: the engine's own.
            backends: the places that answer; one that is missing fails its batches.
            make_plan: runs the planner beside the loop.
            clock: monotonic seconds, of the same origin as the event loop's `time`.
            explanations: is told of every request's arrival and end.
            records: how many past batches are kept.
            answer_reserve_s: kept of every deadline for the daemon's own work; half the deadline at most.
        """
        self._engine = engine
        self._settings = settings
        self._tiers = _tiers(settings)
        self._make_plan = make_plan
        self._clock = clock
        self._explanations = explanations
        self._answer_reserve_s = answer_reserve_s
        self._ring = BatchRing(records)
        self._journeys = Journeys(backends=backends, post=self._post, clock=clock, ring=self._ring)
        self._bodies = BodyStore()
        self._ids = count(1)
        self._inbox: list[Message] = []
        self._arrived: list[Waiting] = []
        self._cancelled: list[int] = []
        self._flush_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._engine_at_s = float("-inf")
        self._started_at_s = 0.0
        self._plan_task: asyncio.Task[None] | None = None
        self._plans: deque[Plan] = deque(maxlen=PLANS_KEPT)
        self._limits: dict[str, Limits] = {}
        self._draining = False
        self._empty = asyncio.Event()
        self._crashed = asyncio.Event()
        self._crash: Exception | None = None
        self._over: Refusal | None = None
        """What every call is told once nothing works any more; None while it does."""
        self.own_latency = OwnLatency()

    @property
    def settings(self) -> EngineSettings:
        """What the engine runs with now."""
        return self._settings

    @property
    def draining(self) -> bool:
        """Whether admission has stopped."""
        return self._draining

    def now(self) -> float:
        """Returns the clock: what `received_at_s` is taken from."""
        return self._clock()

    def start(self) -> None:
        """Lets the engine speak first. Must be called on the loop that everything then runs on."""
        self._started_at_s = self._clock()
        self._flush_soon()

    async def submit(self, call: InferenceCall) -> Answer:
        """Returns the call's answer, once.

        Raises:
            Refused: there is none; the refusal says why.
            asyncio.CancelledError: the caller was cancelled; the engine is told that nobody waits.
        """
        if self._over is not None:
            raise Refused(self._over)
        reserve_s = self._answer_reserve_s
        request = request_of(call, self._settings, request_id=next(self._ids), answer_reserve_s=reserve_s)
        self._explanations.arrived(request.request_id, call.client_id)
        waiting = Waiting(request.request_id, call, asyncio.get_running_loop().create_future())
        self._bodies.add(waiting)
        self._empty.clear()
        self._arrived.append(waiting)
        self._post(RequestArrived(request))
        try:
            return await waiting.future
        except asyncio.CancelledError:
            # Its body stays until the engine knows: what it heard before may have made it send the request just now.
            if request.request_id in self._bodies:
                self._cancelled.append(request.request_id)
                self._post(RequestCancelled(request.request_id))
            raise

    def answer_written(self, answer: Answer) -> None:
        """Records the daemon's own latency: ingress calls it when the client's answer is written."""
        self.own_latency.add(answer.in_s, answer.out_s, max(0.0, self._clock() - answer.read_at_s))

    def set_limits(self, model: str, limits: Limits) -> None:
        """Narrows or widens a model's window and batch caps from now on."""
        self._limits[model] = limits
        self._post(LimitsChanged(model, limits))

    def limits(self, model: str) -> Limits:
        """Returns a model's limits as they were set last; all None before."""
        return self._limits.get(model, Limits())

    def reload(self, settings: EngineSettings) -> None:
        """Goes on with new settings."""
        self._settings = settings
        # A tier that is gone may still have requests that were planned for it.
        self._tiers |= _tiers(settings)
        self._post(SettingsChanged(settings))

    async def open(self) -> None:
        """Loads what the backends need."""
        await self._journeys.open()

    def probe_backends(self) -> "list[asyncio.Task[None]]":
        """Probes every backend; the engine is told what came back."""
        return self._journeys.probe_all()

    async def replace_backend(self, backend: Backend, replacement: InferenceBackend | None) -> None:
        """Sends from now on by another backend, or none; the old one is closed when its batches are back."""
        await self._journeys.replace_backend(backend, replacement)

    async def drain(self, limit_s: float) -> int:
        """Stops admission and waits until every call has ended, at most `limit_s`.

        Returns:
            How many calls had to be refused because the time was over.
        """
        self._draining = True
        self._post(DrainStarted())
        if len(self._bodies) > 0:
            try:
                await asyncio.wait_for(self._empty.wait(), limit_s)
            except asyncio.TimeoutError:
                # The engine is not asked again: it would send whom nobody waits for any more.
                self._over = self._over or _STOPPED
                return self._refuse_all(_STOPPED)
        return 0

    async def close(self) -> None:
        """Ends every task and gives the backends' resources back; calls that still wait are refused."""
        self._over = self._over or _STOPPED
        self._refuse_all(_STOPPED)
        for handle in (self._timer, self._flush_handle):
            if handle is not None:
                handle.cancel()
        if self._plan_task is not None:
            self._plan_task.cancel()
            await asyncio.gather(self._plan_task, return_exceptions=True)
        await self._journeys.close()
        await self._explanations.close()

    async def crashed(self) -> Exception:
        """Waits for a bug in the engine or the planner, and returns it: the daemon cannot go on."""
        await self._crashed.wait()
        assert self._crash is not None
        return self._crash

    def status(self) -> dict[str, object]:
        """Returns what GET /v1/status shows."""
        now_s = self._clock()
        return {
            "now_s": now_s,
            "uptime_s": now_s - self._started_at_s,
            "draining": self._draining,
            "waiting_requests": len(self._bodies),
            "waiting_bytes": self._bodies.body_bytes,
            "batches_under_way": len(self._journeys),
            "late_answers": self._journeys.late_answers,
            "placements": self._ring.placements(),
            "engine": jsonable(self._engine.statistics()),
            "limits": jsonable(self._limits),
            "plans": [
                {"plan_id": plan.plan_id, "at_s": plan.made_at_s, "cause": plan.cause, "detail": plan.detail}
                for plan in self._plans
            ],
            "explanations": self._explanations.status(),
            "own_latency": jsonable(self.own_latency.summary()),
        }

    def batches(self, after_id: int, limit: int) -> list[dict[str, object]]:
        """Returns up to `limit` past batches with a record number above `after_id`, oldest first."""
        return self._ring.rows(after_id, limit)

    def explanations(self, name: str) -> list[dict[str, object]]:
        """Returns how the requests of that number or client's id were decided on, newest first."""
        return self._explanations.find(name)

    def _post(self, message: Message) -> None:
        self._inbox.append(message)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if self._flush_handle is None and self._over is None:
            self._flush_handle = asyncio.get_running_loop().call_soon(self._flush)

    def _wake_up(self, due_s: float) -> None:
        # Timers may fire early by the loop's resolution (uvloop: a millisecond); the engine gets the time it asked for.
        self._engine_at_s = max(self._engine_at_s, due_s)
        self._timer = None
        self._flush_soon()

    def _flush(self) -> None:
        """Tells the engine all that happened and performs what it asks: the shell's outermost line."""
        self._flush_handle = None
        if self._over is not None:
            return
        inbox, self._inbox = self._inbox, []
        arrived, self._arrived = self._arrived, []
        cancelled, self._cancelled = self._cancelled, []
        now_s = self._engine_at_s = max(self._engine_at_s, self._clock())
        for waiting in arrived:
            waiting.engine_at_s = now_s
        try:
            self._perform_all(self._engine.handle(inbox, now_s), now_s)
            self._arm(self._engine.next_wakeup_s())
        except Exception as error:
            _logger.exception("engine_bug", extra=fields(messages=len(inbox)))
            self._stop_for(error)
        for request_id in cancelled:
            self._end(request_id)
        self._journeys.forget_landed()

    def _perform_all(self, commands: Sequence[Command], now_s: float) -> None:
        """Batches leave before answers are handed out: the backend works while they are written, one by one."""
        answers = [(c.request_id, self._journeys.landed(c.batch_id)) for c in commands if isinstance(c, AnswerRequest)]
        sent_items = 0
        for command in commands:
            if isinstance(command, SendBatch):
                sent_items += command.batch.items
            self._perform(command, now_s)
        if answers and sent_items >= ITEMS_BEFORE_ANSWERS:
            # A batch is written by its task's first step, and before Python 3.12 by a task which that one starts.
            loop = asyncio.get_running_loop()
            loop.call_soon(loop.call_soon, self._hand_out, answers)
        else:
            self._hand_out(answers)

    def _arm(self, due_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_at(due_s, self._wake_up, due_s)

    def _perform(self, command: Command, now_s: float) -> None:
        match command:
            case SendBatch(batch):
                self._send(batch, now_s)
            case AnswerRequest():
                pass  # See _perform_all.
            case RefuseRequest(request_id, refusal):
                self._refuse(request_id, refusal)
            case ComputePlan():
                self._plan_task = asyncio.get_running_loop().create_task(self._plan(command), name="plan")
            case SendProbe(backend):
                self._journeys.probe(backend)
            case PlanAdopted(plan):
                self._plans.append(plan)
                log(logging.INFO, "plan_adopted", plan_id=plan.plan_id, cause=plan.cause, detail=plan.detail)

    def _send(self, batch: Batch, now_s: float) -> None:
        members = self._bodies.members(batch.request_ids)
        for waiting in members:
            waiting.attempts += 1
        self._journeys.send(batch, self._tiers.get((batch.model, batch.tier)), members, now_s=now_s)

    def _hand_out(self, answers: Sequence[tuple[int, Journey]]) -> None:
        try:
            for request_id, journey in answers:
                self._answer(request_id, journey)
        except Exception as error:
            _logger.exception("answer_bug", extra=fields(answers=len(answers)))
            self._stop_for(error)

    def _answer(self, request_id: int, journey: Journey) -> None:
        waiting = self._end(request_id)
        if waiting is None or waiting.future.done():
            return
        outputs = journey.parts[request_id]
        sentence = whole_failure(outputs)
        if sentence:
            waiting.future.set_exception(Refused(Refusal(RefusalKind.BAD_REQUEST, sentence), request_id))
        else:
            waiting.future.set_result(journey.answer(waiting))

    def _refuse(self, request_id: int, refusal: Refusal) -> None:
        waiting = self._end(request_id)
        if waiting is not None and not waiting.future.done():
            waiting.future.set_exception(Refused(refusal, request_id))

    def _end(self, request_id: int) -> Waiting | None:
        waiting = self._bodies.pop(request_id)
        if waiting is not None:
            self._explanations.ended(request_id)
        if len(self._bodies) == 0:
            self._empty.set()
        return waiting

    def _refuse_all(self, refusal: Refusal) -> int:
        left = list(self._bodies)
        for waiting in left:
            self._refuse(waiting.request_id, refusal)
        return len(left)

    async def _plan(self, command: ComputePlan) -> None:
        """The outermost line of a planning task: a planner never raises, so what it raises is a bug."""
        try:
            self._post(PlanComputed(await self._make_plan(command)))
        except Exception as error:
            _logger.exception("planner_bug", extra=fields(plan_id=command.plan_id, cause=command.cause))
            self._stop_for(error)

    def _stop_for(self, error: Exception) -> None:
        self._crash, self._over = error, _CRASHED
        self._refuse_all(_CRASHED)
        self._crashed.set()


def _tiers(settings: EngineSettings) -> dict[tuple[str, str], FunctionTier]:
    return {(model.name, tier.name): tier for model in settings.models for tier in model.tiers}

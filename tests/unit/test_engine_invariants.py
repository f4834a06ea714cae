"""Whatever happens, in whatever order, the engine keeps its promises: random worlds, one set of invariants.

A world is a list of steps: arrivals, cancellations, failures of every kind, changes of limits and settings, plans
that come late, a drain. Time is virtual. After every call of `handle` the promises are checked, and at the end, when
everything works again and time has passed, nobody may be left.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.engine_kit import PRICE

from scheduler.dispatch.queue import Place
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.laws import FunctionTier, LatencyLaw
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    Command,
    ComputePlan,
    DrainStarted,
    LimitsChanged,
    Message,
    PlanComputed,
    ProbeMeasured,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SendBatch,
    SendProbe,
    SettingsChanged,
)
from scheduler.domain.plans import EngineSettings, Limits, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scheduler.planner.planner import best_plan

EDGE_LAW = LatencyLaw(0.04, 0.01, 16)
FAST = FunctionTier("fast", "f", LatencyLaw(0.1, 0.05, 4), PRICE, max_in_flight=3)
SLOW = FunctionTier("slow", "s", LatencyLaw(0.2, 0.15, 8), PRICE)
CLASSES = (ServiceClass("default"), ServiceClass("late", slo_s=0.5, serve_late=True))
BOTH = ModelSettings("m0", 16, CLASSES, EDGE_LAW, (FAST, SLOW))
EDGE_ONLY = ModelSettings("m1", 16, CLASSES, EDGE_LAW, ())
CLOUD_ONLY = ModelSettings("m2", 8, CLASSES, None, (SLOW,))

VARIANTS = (
    EngineSettings((BOTH, EDGE_ONLY, CLOUD_ONLY), uplink_bytes_per_s=1e6, plan_expiry_s=30.0),
    EngineSettings((BOTH,), queue_max_requests=5, queue_max_bytes=100_000, max_function_in_flight=2),
    EngineSettings((replace(BOTH, tiers=()), CLOUD_ONLY), uplink_bytes_per_s=2e4, max_function_in_flight=1),
    EngineSettings((replace(BOTH, edge_law=None, tiers=(FAST,)), EDGE_ONLY), uplink_bytes_per_s=0.0),
    EngineSettings((replace(BOTH, edge_law=LatencyLaw(0.1, 0.02, 3)), CLOUD_ONLY), failures_to_open=1),
)
LIMITS = (
    Limits(),
    Limits(window_s=0.0),
    Limits(edge_batch_cap=2, function_batch_cap=1),
    Limits(edge_batch_cap=0),
    Limits(function_batch_cap=0, window_s=0.05),
)
SETTINGS = tuple(replace(variant, changepoints=False) for variant in VARIANTS)
"""Changes in rates and the like have tests of their own; here they would take most of the time."""
SPIN = 20
"""Wake-ups at one and the same moment that are still not called spinning."""


@dataclass(frozen=True)
class Mood:
    """How a backend treats batches from now on."""

    kind: FailureKind | None = None
    pace: float = 1.0
    """Factor on the service by its law."""
    hangs: bool = False
    retry_after_s: float | None = None
    poison: int = 0
    """Above 0: every so many-th request makes the batch it is in fail with 4xx."""


@dataclass
class World:
    """The shell and everything behind it, in virtual time."""

    settings: EngineSettings = SETTINGS[0]
    now_s: float = 0.0
    moods: dict[Backend, Mood] = field(default_factory=lambda: dict.fromkeys(Backend, Mood()))
    planning_s: float = 0.0
    limits: dict[str, Limits] = field(default_factory=dict)
    requests: dict[int, Request] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)
    in_flight: dict[int, Batch] = field(default_factory=dict)
    sends: dict[int, list[Backend]] = field(default_factory=dict)
    refused_content: set[int] = field(default_factory=set)
    script: list[tuple[tuple[Message, ...], float]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    draining: bool = False
    events: list[tuple[float, int, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine(self.settings)
        self._order, self._ids = count(), count(1)
        self._inbox: list[Message] = []
        self.handle()

    # What may happen

    def arrive(self, number: int, model: int, late: bool, items: int, slo_s: float) -> None:
        served = self.settings.models[model % len(self.settings.models)]
        for _ in range(number):
            request_id = next(self._ids)
            self.requests[request_id] = Request(
                request_id,
                served.name,
                self.now_s,
                self.now_s + slo_s,
                items=min(items, served.max_items),
                body_bytes=3000 * items,
                class_name="late" if late else "default",
                priority=1 + request_id % 2,
            )
            self._inbox.append(RequestArrived(self.requests[request_id]))

    def cancel(self, which: int) -> None:
        alive = [i for i in self.requests if i not in self.ended]
        if alive:
            request_id = alive[which % len(alive)]
            self.ended[request_id] = "cancelled"
            self._inbox.append(RequestCancelled(request_id))

    def limit(self, model: int, limits: Limits) -> None:
        self.handle()
        name = self.settings.models[model % len(self.settings.models)].name
        self.limits[name] = limits
        self._inbox.append(LimitsChanged(name, limits))

    def reload(self, new: EngineSettings) -> None:
        self.handle()
        self.settings = new
        self._inbox.append(SettingsChanged(new))

    def drain(self) -> None:
        self.draining = True
        self._inbox.append(DrainStarted())

    def treat(self, backend: Backend, mood: Mood) -> None:
        self.moods[backend] = mood

    def plan_in(self, seconds: float) -> None:
        self.planning_s = seconds

    def advance(self, seconds: float) -> None:
        """Lets time pass: wake-ups, outcomes, probes and plans come when they are due."""
        end_s, still = self.now_s + seconds, 0
        while True:
            wakeup_s = self.engine.next_wakeup_s()
            assert wakeup_s is None or wakeup_s >= self.now_s, "a wake-up in the past or no number"
            due_s = min(self.events[0][0] if self.events else end_s + 1, end_s + 1 if wakeup_s is None else wakeup_s)
            if due_s > end_s:
                break
            still = still + 1 if due_s == self.now_s and not self._due(due_s) else 0
            assert still < SPIN, f"{still} wake-ups at {due_s}"
            self.now_s = due_s
            while self._due(due_s):
                self._inbox.append(heapq.heappop(self.events)[2])
            self.handle()
        self.now_s = end_s
        self.handle()

    # The shell

    def handle(self) -> None:
        messages, self._inbox = tuple(self._inbox), []
        self.script.append((messages, self.now_s))
        for message in messages:
            if isinstance(message, (BatchFinished, BatchFailed)):
                batch = self.in_flight.pop(message.batch_id)
                if isinstance(message, BatchFailed) and message.failure.kind is FailureKind.REJECTED:
                    self.refused_content.update(batch.request_ids)
        gone = {m.request_id for m in messages if isinstance(m, RequestCancelled)}
        commands = self.engine.handle(messages, self.now_s)
        self.commands += commands
        for command in commands:
            self._perform(command, gone)
        self.check()

    def _perform(self, command: Command, gone: set[int]) -> None:
        if isinstance(command, SendBatch):
            self._send(command.batch, gone)
        elif isinstance(command, (AnswerRequest, RefuseRequest)):
            end = "answered" if isinstance(command, AnswerRequest) else command.refusal.message
            assert self.ended.get(command.request_id) is None or command.request_id in gone, "ended twice"
            self.ended.setdefault(command.request_id, end)
        elif isinstance(command, ComputePlan):
            plan = best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
            self._later(self.planning_s, PlanComputed(plan))
        elif isinstance(command, SendProbe):
            mood = self.moods[command.backend]
            well = not mood.hangs and mood.kind not in (FailureKind.UNREACHABLE, FailureKind.SERVER)
            self._later(0.02, ProbeMeasured(command.backend, ok=well, rtt_s=0.02, sent_bytes=100, transfer_s=1e-3))

    def _send(self, batch: Batch, gone: set[int]) -> None:
        self.in_flight[batch.batch_id] = batch
        members = [self.requests[i] for i in batch.request_ids]
        for request in members:
            assert self.ended.get(request.request_id) is None or request.request_id in gone, "sent after its end"
            assert request.model == batch.model
            late = any(c.name == request.class_name and c.serve_late for c in CLASSES)
            assert late or self.now_s <= request.deadline_s, f"sent {self.now_s - request.deadline_s} s late"
            self.sends.setdefault(request.request_id, []).append(batch.backend)
        assert batch.items == sum(r.items for r in members)
        assert batch.body_bytes == sum(r.body_bytes for r in members)
        self._check_caps(batch)
        outcome, delay_s = self._outcome(batch)
        self._later(delay_s, outcome)

    def _outcome(self, batch: Batch) -> tuple[Message, float]:
        mood = self.moods[batch.backend]
        rejected = mood.poison and any(i % mood.poison == 0 for i in batch.request_ids)
        kind = FailureKind.REJECTED if rejected else FailureKind.TIMEOUT if mood.hangs else mood.kind
        if kind is not None:
            delay_s = batch.give_up_at_s - self.now_s if mood.hangs else 0.03
            failure = Failure(kind, "made to fail", mood.retry_after_s)
            return BatchFailed(batch.batch_id, failure, BatchReport(delay_s)), delay_s
        service_s = self._law(batch).predict_s(batch.items) * mood.pace
        delay_s = min(service_s + (0.03 if batch.tier else 0.0), batch.give_up_at_s - self.now_s)
        report = BatchReport(delay_s, service_s=service_s, billed_duration_s=service_s, rtt_s=0.02, cold_start=False)
        return BatchFinished(batch.batch_id, report), delay_s

    def _later(self, seconds: float, message: Message) -> None:
        heapq.heappush(self.events, (self.now_s + seconds, next(self._order), message))

    def _due(self, now_s: float) -> bool:
        return bool(self.events) and self.events[0][0] <= now_s

    def _law(self, batch: Batch) -> LatencyLaw:
        model = next(m for m in self.settings.models if m.name == batch.model)
        law = model.tier(batch.tier).law if batch.tier else model.edge_law
        assert law is not None
        return law

    # The promises

    def _check_caps(self, batch: Batch) -> None:
        limits = self.limits.get(batch.model, Limits())
        edge = batch.backend is Backend.EDGE
        cap = limits.edge_batch_cap if edge else limits.function_batch_cap
        assert cap is None or batch.items <= cap, f"{batch.items} items, limit {cap}"
        assert batch.items <= self._law(batch).max_batch
        flying = [b for b in self.in_flight.values() if b.backend is batch.backend]
        assert len(flying) <= (1 if edge else self.settings.max_function_in_flight)

    def check(self) -> None:
        state, sender = self.engine.statistics(), self.engine._sender
        waiting = [q for q in sender.requests.values() if q.place is not Place.IN_FLIGHT]
        assert state.queued_requests == len(waiting)
        assert state.unanswered_bytes == sum(q.request.body_bytes for q in sender.requests.values())
        assert set(self.in_flight) == set(sender.in_flight)
        assert state.spent >= 0
        wakeup_s = self.engine.next_wakeup_s()
        for queued in waiting:
            request = queued.request
            if queued.place is not Place.LATE and request.class_name != "late":
                assert request.deadline_s > self.now_s, f"{request} still {queued.place} at {self.now_s}"
                assert wakeup_s is not None, f"{request} forgotten in {queued.place} at {self.now_s}"
                assert wakeup_s <= request.deadline_s, f"{request} forgotten in {queued.place} until {wakeup_s}"
        for request_id, backends in self.sends.items():
            moves = sum(a is not b for a, b in zip(backends, backends[1:], strict=False))
            assert moves <= 1, "re-sent more than once"
            assert len(backends) <= 1 + moves or request_id in self.refused_content, "re-sent to the same backend"

    def settle(self) -> None:
        """Everything works again and time passes: nobody is left, nothing is still counted."""
        for backend in Backend:
            self.treat(backend, Mood())
        self.planning_s = 0.0
        self.advance(200.0)
        left = [i for i in self.requests if i not in self.ended]
        assert not left, f"never ended: {[self.engine._sender.requests.get(i) for i in left]}"
        state = self.engine.statistics()
        assert (state.queued_requests, state.unanswered_bytes, state.requests_in_flight) == (0, 0, 0)
        assert not self.in_flight
        assert not self.engine._sender.requests


Step = Callable[[World], None]


def _step(method: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[str, tuple[object, ...]]]:
    return st.tuples(st.just(method), st.tuples(*arguments))


moods = st.builds(
    Mood,
    kind=st.sampled_from([None, None, *FailureKind]),
    pace=st.sampled_from([1.0, 0.3, 3.0, 30.0]),
    hangs=st.sampled_from([False, False, False, True]),
    retry_after_s=st.sampled_from([None, 0.2, 5.0]),
    poison=st.sampled_from([0, 0, 3, 1]),
)
arrivals = _step(
    "arrive",
    st.sampled_from([1, 2, 5, 30]),
    st.integers(0, 2),
    st.booleans(),
    st.sampled_from([1, 1, 1, 3, 8]),
    st.sampled_from([0.3, 1.0, 1.0, 4.0, 0.01]),
)
steps = st.one_of(
    arrivals,
    arrivals,
    _step("advance", st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.2, 1.0, 1.0, 40.0])),
    _step("advance", st.floats(0.0, 1.0)),
    _step("cancel", st.integers(0, 40)),
    _step("limit", st.integers(0, 2), st.sampled_from(LIMITS)),
    _step("reload", st.sampled_from(SETTINGS)),
    _step("treat", st.sampled_from(list(Backend)), moods),
    _step("plan_in", st.sampled_from([0.0, 0.1, 45.0])),
    _step("drain"),
)


def play(script: Sequence[tuple[str, tuple[object, ...]]]) -> World:
    world = World()
    for method, arguments in script:
        getattr(world, method)(*arguments)
    world.handle()
    world.settle()
    return world


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(steps, min_size=1, max_size=30))
def test_the_promises_hold_in_any_world(script: list[tuple[str, tuple[object, ...]]]) -> None:
    world = play(script)
    engine = Engine(SETTINGS[0])
    again = [command for messages, now_s in world.script for command in engine.handle(messages, now_s)]
    assert repr(again) == repr(world.commands), "the same messages gave other commands"

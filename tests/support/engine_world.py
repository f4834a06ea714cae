"""A shell and backends in virtual time in which anything may happen, and which watches the engine's promises.

After every call of `handle` the promises are checked; see `World.check` and `World.settle`.
"""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from support.engine_kit import PRICE

from scheduler.dispatch.decision_ring import ANSWERED, CANCELLED, SENDINGS_KEPT
from scheduler.dispatch.endings import GRACE_S
from scheduler.dispatch.second_tries import MOST_ATTEMPTS
from scheduler.dispatch.spend_cap import STATE, OverCap
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.bills import bill_of
from scheduler.domain.decisions import Decision
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.lifecycle import State
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
    RequestSpend,
    ReturnSpend,
    SendBatch,
    SendProbe,
    SettingsChanged,
    SpendGranted,
)
from scheduler.domain.plans import EdgeSettings, EngineSettings, Limits, LoadedBuffer, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.domain.tenants import TenantSettings
from scheduler.engine import Engine
from scheduler.planner.site.plan import best_plan
from scheduler.simulator.backends import ColdStarts, InstancePool

EDGE_LATENCY = LatencyModel(0.04, 0.01, 16)
FAST = FunctionTier("fast", "f", LatencyModel(0.1, 0.05, 4), PRICE, max_in_flight=3)
SLOW = FunctionTier("slow", "s", LatencyModel(0.2, 0.15, 8), PRICE)
CLASSES = (
    ServiceClass("default"),
    ServiceClass("late", slo_s=0.5, serve_late=True),
    ServiceClass("local", edge_only=True),
    ServiceClass("patient", slo_s=4.0, deferrable=True),
    ServiceClass("local and patient", slo_s=2.0, serve_late=True, edge_only=True, deferrable=True),
)
SERVED_LATE = {c.name for c in CLASSES if c.serve_late}
RELABELLED = tuple(replace(c, edge_only=not c.edge_only, deferrable=not c.deferrable) for c in CLASSES)
BOTH = ModelSettings("m0", 16, CLASSES, EDGE_LATENCY, (FAST, SLOW))
EDGE_ONLY = ModelSettings("m1", 16, CLASSES, EDGE_LATENCY, ())
CLOUD_ONLY = ModelSettings("m2", 8, CLASSES, None, (SLOW,))

LOADED = (
    LoadedBuffer(("default", "late"), "fast", 3, {"default": 0.4, "late": 0.1}, 1e-6, 9_000.0),
    LoadedBuffer(("default", "late"), "slow", 5, {"default": 0.3, "late": 0.0}, 1e-6),
    LoadedBuffer(("patient",), "slow", 8, {"patient": 2.0}, 1e-6),
)
"""As a plan that was made beforehand wants the buffers of CLASSES that may leave, those of the first two by size."""

CAP = 2e-5
"""Money for a few function batches."""
HOUR_S, DAY_S = 3600.0, 86_400.0
SENDERS = ("a", "b", "", "elsewhere")
"""Tenants that requests name; which of them are configured differs and changes."""
TENANTS = (TenantSettings("a", 3.0), TenantSettings("b", 1.0, per_hour=CAP / 2))
COLD_S, IDLE_S = 1.5, 20.0
"""Seconds of a cold start, and without a call after which an instance is gone."""

VARIANTS = (
    EngineSettings((BOTH, EDGE_ONLY, CLOUD_ONLY), uplink_bytes_per_s=1e6, plan_expiry_s=30.0),
    EngineSettings((BOTH,), queue_max_requests=5, queue_max_bytes=100_000, max_function_in_flight=2),
    EngineSettings((replace(BOTH, tiers=()), CLOUD_ONLY), uplink_bytes_per_s=2e4, max_function_in_flight=1),
    EngineSettings((replace(BOTH, edge_latency=None, tiers=(FAST,)), EDGE_ONLY), uplink_bytes_per_s=0.0),
    EngineSettings((replace(BOTH, edge_latency=LatencyModel(0.1, 0.02, 3)), CLOUD_ONLY), failures_to_open=1),
    EngineSettings((replace(BOTH, classes=RELABELLED), CLOUD_ONLY), uplink_bytes_per_s=1e6),
    # An edge that takes as long for any batch, and one that takes requests one by one.
    EngineSettings((replace(BOTH, edge_latency=LatencyModel(0.1, 0.0, 8)), CLOUD_ONLY)),
    EngineSettings((replace(BOTH, edge_latency=LatencyModel(0.1, 0.02, 1)),), uplink_bytes_per_s=1e6),
    EngineSettings((BOTH, EDGE_ONLY), spend_per_hour=CAP, over_cap="serve-late"),
    EngineSettings((BOTH, CLOUD_ONLY), spend_per_day=CAP, over_cap="refuse-low-priority"),
    EngineSettings((BOTH, CLOUD_ONLY), spend_per_hour=CAP, spend_per_day=2 * CAP),
    EngineSettings((replace(BOTH, buffers=LOADED), CLOUD_ONLY), uplink_bytes_per_s=1e6),
    EngineSettings(
        (replace(BOTH, edge_latency=None, buffers=LOADED),), max_function_in_flight=4, spend_per_hour=4 * CAP
    ),
    EngineSettings((BOTH, CLOUD_ONLY), spend_per_hour=4 * CAP, tenants=TENANTS),
    EngineSettings((BOTH, EDGE_ONLY), queue_max_requests=5, tenants=(TENANTS[1], TenantSettings("c"))),
    EngineSettings((BOTH, CLOUD_ONLY), spend_per_hour=4 * CAP, spend_leased=STATE, tenants=TENANTS[:1]),
    EngineSettings((BOTH, CLOUD_ONLY), spend_per_day=2 * CAP, over_cap="serve-late", spend_leased=STATE),
    EngineSettings((BOTH, EDGE_ONLY), uplink_bytes_per_s=1e6, edges=(EdgeSettings(parallel=3),)),
    EngineSettings((BOTH, EDGE_ONLY, CLOUD_ONLY), edges=(EdgeSettings(parallel=2), EdgeSettings("far"))),
    EngineSettings(
        (replace(BOTH, edge_latencies={"far": None}), replace(EDGE_ONLY, edge_latencies={"main": None})),
        edges=(EdgeSettings(), EdgeSettings("far", 2)),
    ),
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
    sends: dict[int, list[Batch]] = field(default_factory=dict)
    paid: dict[int, tuple[float, float]] = field(default_factory=dict)
    """Function batch -> when it was sent, and what it costs as far as is known."""
    pools: dict[str, InstancePool] = field(default_factory=dict)
    refused_content: set[int] = field(default_factory=set)
    script: list[tuple[tuple[Message, ...], float]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    leased: float = 0.0
    """Money leased and not given back, all in all."""
    lending_s: float | None = 0.01
    """Seconds that the ledger takes; None: it cannot be written."""
    draining: bool = False
    reloaded_at_s: float = -math.inf
    most_edges: int = 1
    """Edge servers that there were at one time."""
    shapes: int = 1
    """Of the requests that arrive: every request is of one of so many."""
    events: list[tuple[float, int, Message]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine, self.most_edges = Engine(self.settings), len(self.settings.edges)
        self._order, self._ids = count(), count(1)
        self._inbox: list[Message] = []
        self.handle()

    # What may happen

    def arrive(self, number: int, model: int, kind: int, items: int, slo_s: float) -> None:
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
                class_name=CLASSES[kind].name,
                tenant=SENDERS[request_id % 5 % len(SENDERS)],
                priority=1 + request_id % 2,
                shape_id=request_id % 11 % self.shapes,
            )
            self._inbox.append(RequestArrived(self.requests[request_id]))

    def vary(self, shapes: int) -> None:
        self.shapes = shapes

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
        self.settings, self.reloaded_at_s = new, self.now_s
        self.most_edges = max(self.most_edges, len({*new.edges, *SETTINGS[-1].edges}))
        self._inbox.append(SettingsChanged(new))

    def drain(self) -> None:
        self.draining = True
        self._inbox.append(DrainStarted())

    def treat(self, backend: Backend, mood: Mood) -> None:
        self.moods[backend] = mood

    def lend_in(self, seconds: float | None) -> None:
        self.lending_s = seconds

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
                self._back(message, batch)
        gone = {m.request_id for m in messages if isinstance(m, RequestCancelled)}
        commands = self.engine.handle(messages, self.now_s)
        self.commands += commands
        self.back = {m.batch_id for m in messages if isinstance(m, BatchFinished)}
        for command in commands:
            self._perform(command, gone)
        for request_id in gone - set(self.engine._table.open):
            if not any(isinstance(c, RefuseRequest) and c.request_id == request_id for c in commands):
                self._check_explanation(request_id, CANCELLED)
        self.check()

    def _back(self, message: BatchFinished | BatchFailed, batch: Batch) -> None:
        failure = message.failure.kind if isinstance(message, BatchFailed) else None
        if failure is FailureKind.REJECTED:
            self.refused_content.update(batch.request_ids)
        if batch.tier:
            self.paid[batch.batch_id] = batch.sent_at_s, bill_of(batch, PRICE, message.report, failure).total

    def _perform(self, command: Command, gone: set[int]) -> None:
        if isinstance(command, SendBatch):
            self._send(command.batch, gone)
        elif isinstance(command, (AnswerRequest, RefuseRequest)):
            end = ANSWERED if isinstance(command, AnswerRequest) else command.refusal.kind.value
            assert self.ended.get(command.request_id) is None or command.request_id in gone, "ended twice"
            self.ended.setdefault(command.request_id, end)
            self._check_explanation(command.request_id, end)
            if isinstance(command, AnswerRequest):
                assert command.batch_id in self.back, "answered by a batch that is not back"
                assert command.batch_id in [b.batch_id for b in self.sends[command.request_id]]
        elif isinstance(command, ComputePlan):
            plan = best_plan(command.snapshot, plan_id=command.plan_id, cause=command.cause, detail=command.detail)
            self._later(self.planning_s, PlanComputed(plan))
        elif isinstance(command, SendProbe):
            mood = self.moods[command.place.backend]
            well = not mood.hangs and mood.kind not in (FailureKind.UNREACHABLE, FailureKind.SERVER)
            self._later(0.02, ProbeMeasured(command.place, ok=well, rtt_s=0.02, sent_bytes=100, transfer_s=1e-3))
        elif isinstance(command, ReturnSpend):
            self.leased -= command.amount
        elif isinstance(command, RequestSpend):
            self._lease(command)

    def _lease(self, command: RequestSpend) -> None:
        if self.lending_s is None:
            self._later(0.01, SpendGranted(0.0, STATE, 5.0))
            return
        caps = [cap for cap in (command.per_hour, command.per_day) if cap is not None]
        debt = max(0.0, -command.left)
        room = max(0.0, min(caps) - self.leased - debt)
        given = min(max(0.0, command.amount - debt), room)
        self.leased += given + debt
        dry = given < command.amount - debt
        self._later(self.lending_s, SpendGranted(given + debt, "hour" if dry else "", 60.0 if dry else 0.0))

    def _send(self, batch: Batch, gone: set[int]) -> None:
        self.in_flight[batch.batch_id] = batch
        members = [self.requests[i] for i in batch.request_ids]
        for request in members:
            assert self.ended.get(request.request_id) is None or request.request_id in gone, "sent after its end"
            assert request.model == batch.model
            assert request.shape_id == members[0].shape_id, f"{members[0]} and {request} share a batch"
            kind = self._model(batch).service_class(request.class_name)
            assert batch.backend is Backend.EDGE or not kind.edge_only, f"{request} left the site"
            late = kind.serve_late or self._serves_late
            assert late or self.now_s <= request.deadline_s, f"sent {self.now_s - request.deadline_s} s late"
            self.sends.setdefault(request.request_id, []).append(batch)
        assert batch.items == sum(r.items for r in members)
        assert batch.body_bytes == sum(r.body_bytes for r in members)
        self._check_caps(batch)
        self._check_money(batch)
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
        service_s = 0.001 if batch.warming else self._law(batch).predict_s(batch.items) * mood.pace
        start_s = self._start_s(batch, service_s) if batch.tier else 0.0
        delay_s = min(start_s + service_s + (0.03 if batch.tier else 0.0), batch.give_up_at_s - self.now_s)
        report = BatchReport(delay_s, service_s, service_s, rtt_s=0.02, cold_start=start_s > 0)
        return BatchFinished(batch.batch_id, report), delay_s

    def _start_s(self, batch: Batch, service_s: float) -> float:
        pool = self.pools.setdefault(batch.tier, InstancePool(ColdStarts(COLD_S, IDLE_S)))
        start_s = pool.start_s(self.now_s)
        pool.release(self.now_s + start_s + service_s)
        return start_s

    def _later(self, seconds: float, message: Message) -> None:
        heapq.heappush(self.events, (self.now_s + seconds, next(self._order), message))

    def _due(self, now_s: float) -> bool:
        return bool(self.events) and self.events[0][0] <= now_s

    def _law(self, batch: Batch) -> LatencyModel:
        model = self._model(batch)
        law = model.tier(batch.tier).latency if batch.tier else model.edge_latency_on(batch.place.name)
        assert law is not None
        return law

    def _model(self, batch: Batch) -> ModelSettings:
        return next(m for m in self.settings.models if m.name == batch.model)

    @property
    def _serves_late(self) -> bool:
        """Whether a spend cap may have made the edge serve late."""
        capped = self.settings.spend_per_hour or self.settings.spend_per_day
        return capped is not None and self.settings.over_cap == OverCap.SERVE_LATE.value

    # The promises

    def _check_caps(self, batch: Batch) -> None:
        limits = self.limits.get(batch.model, Limits())
        edge = batch.backend is Backend.EDGE
        cap = limits.edge_batch_cap if edge else limits.function_batch_cap
        assert cap is None or batch.items <= cap, f"{batch.items} items, limit {cap}"
        assert batch.items <= self._law(batch).max_batch
        if edge:
            flying = [
                b for b in self.in_flight.values() if b.place == batch.place and b.sent_at_s >= self.reloaded_at_s
            ]
            assert len(flying) <= next(e.parallel or 1 for e in self.settings.edges if e.name == batch.place.name)
            assert self._model(batch).edge_latency_on(batch.place.name) is not None
        else:
            flying = [b for b in self.in_flight.values() if b.backend is batch.backend]
            assert len(flying) <= self.settings.max_function_in_flight

    def _check_money(self, batch: Batch) -> None:
        """No window that ends now exceeds its cap, as far as is known of what is not back yet."""
        if batch.backend is Backend.EDGE:
            return
        self.paid[batch.batch_id] = self.now_s, batch.expected_cost
        for cap, window_s in ((self.settings.spend_per_hour, HOUR_S), (self.settings.spend_per_day, DAY_S)):
            if cap is not None:
                spent = math.fsum(cost for at_s, cost in self.paid.values() if at_s > self.now_s - window_s)
                assert spent <= cap * (1 + 1e-6), f"{spent} of {cap} in {window_s} s"

    def _check_explanation(self, request_id: int, outcome: str) -> None:
        """What is kept of a request that ends now is what the commands said of it."""
        kept, sends = self.engine.explanation(request_id), self.sends.get(request_id, [])
        assert kept is not None
        assert (kept.outcome, kept.ended_at_s) == (outcome, self.now_s)
        assert [sending.batch for sending in kept.sendings] == sends[-SENDINGS_KEPT:]
        for sending in kept.sendings:
            assert (sending.settled_at_s is None) == (sending.batch.batch_id in self.in_flight), sending
            if sending.cost is not None and sending.batch.tier:
                assert sending.cost == self.paid[sending.batch.batch_id][1]
        if sends:
            self._check_placed(kept.decisions, sends)

    def _check_placed(self, decisions: Sequence[Decision], sends: Sequence[Batch]) -> None:
        """Before every first sending to a backend it was decided that the request should go there."""
        batch = sends[-1]
        before = [d for d in decisions if d.at_s <= batch.sent_at_s]
        assert before, f"{batch} was sent without a decision"
        choice = before[-1].choice
        assert choice is not None
        assert choice.queue is State.OVERDUE or choice.place.backend is batch.backend, f"{batch.backend} after {before}"

    def check(self) -> None:
        state, requests = self.engine.statistics(), self.engine._table.open
        waiting = [q for q in requests.values() if q.state is not State.IN_FLIGHT]
        assert state.queued_requests == len(waiting)
        assert state.unanswered_bytes == sum(q.request.body_bytes for q in requests.values())
        assert set(self.in_flight) == set(self.engine._outbox.in_flight)
        slots = [s.occupancy.batch_id for s in self.engine._edges.slots if s.occupancy.batch_id is not None]
        assert len(slots) == len(set(slots)), "a batch in two slots"
        queued_in = [q for lane in self.engine._queues.all for order in lane.orders for q in order]
        queued_in += [q for lane in self.engine._queues.all for q in lane.in_halves()]
        assert sorted(q.request.request_id for q in queued_in) == sorted(q.request.request_id for q in waiting)
        assert state.spent >= 0
        wakeup_s = self.engine.next_wakeup_s()
        for queued in waiting:
            request = queued.request
            if queued.state is not State.OVERDUE and request.class_name not in SERVED_LATE:
                assert request.deadline_s > self.now_s, f"{request} still {queued.state} at {self.now_s}"
                assert wakeup_s is not None, f"{request} forgotten in {queued.state} at {self.now_s}"
                assert wakeup_s <= request.deadline_s, f"{request} forgotten in {queued.state} until {wakeup_s}"
        for queued in requests.values():
            if not (queued.late_allowed or queued.cancelled or queued.request.class_name in SERVED_LATE):
                assert queued.request.deadline_s + GRACE_S > self.now_s, f"{queued} was not told by {self.now_s}"
                assert wakeup_s is not None, f"{queued} forgotten at {self.now_s}"
                assert wakeup_s <= queued.request.deadline_s + GRACE_S, f"{queued} forgotten until {wakeup_s}"
        for request_id, batches in self.sends.items():
            backends = [batch.place.endpoint for batch in batches]
            moves = sum(a != b for a, b in zip(backends, backends[1:], strict=False))
            assert moves <= self.most_edges, "re-sent more than once"
            # Once more where no other side can help; a class that is served late also after sends that never arrived.
            late = self.requests[request_id].class_name in SERVED_LATE
            most = MOST_ATTEMPTS + 1 if late else 2 + moves
            assert len(backends) <= most or request_id in self.refused_content, "re-sent to the same backend"

    def settle(self) -> None:
        """Everything works again and time passes: nobody is left, nothing is still counted."""
        for backend in Backend:
            self.treat(backend, Mood())
        self.planning_s, self.lending_s = 0.0, 0.01
        self.advance(200.0)
        left = [i for i in self.requests if i not in self.ended]
        assert not left, f"never ended: {[self.engine._table.open.get(i) for i in left]}"
        state = self.engine.statistics()
        assert (state.queued_requests, state.unanswered_bytes, state.requests_in_flight) == (0, 0, 0)
        assert not self.in_flight
        assert not self.engine._table.open

"""The engine: messages and the time go in, commands and the next wake-up come out.

No sockets, no threads, no clock, no randomness. Two shells drive it: the daemon in real time, the simulator in virtual
time; what is simulated is what runs. An exception out of `handle` is a bug, never a way to report a failure.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from scheduler.beliefs import Outages
from scheduler.control import Control
from scheduler.dispatch.batch_economics import BatchEconomics
from scheduler.dispatch.circuit_breaker import Circuits
from scheduler.dispatch.decision_ring import DecisionRing, Explanation
from scheduler.dispatch.dispatcher import NEVER, Dispatcher
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.endings import Endings
from scheduler.dispatch.failures import Failures
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.hedging import Hedging
from scheduler.dispatch.keep_warm import KeepWarm
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.largest_batches import LargestBatches
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.offers import Offers
from scheduler.dispatch.outbox import Outbox
from scheduler.dispatch.queue import Admission
from scheduler.dispatch.refusals import Refusals, expected_drain_s, not_served
from scheduler.dispatch.request_table import RequestTable
from scheduler.dispatch.spending import Spending
from scheduler.dispatch.tenant_admission import TenantAdmission
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Cause
from scheduler.domain.messages import (
    BatchFailed,
    BatchFinished,
    BillArrived,
    Command,
    ComputePlan,
    DrainStarted,
    LimitsChanged,
    Message,
    ModelBarred,
    PlanAdopted,
    PlanComputed,
    ProbeMeasured,
    RequestArrived,
    RequestCancelled,
    SettingsChanged,
    SpendGranted,
    UplinkCarried,
)
from scheduler.domain.plans import EngineSettings, Limits, Plan, Snapshot
from scheduler.domain.requests import Backend, Place, Request
from scheduler.domain.statistics import EngineStatistics
from scheduler.estimators.found_changes import CHANGES
from scheduler.planner.site.plan import best_plan
from scheduler.refreshing import Refreshing

LESSONS_WAITING = 8
"""Answered batches that may wait to be learned from: that takes longer than all else that an answer causes, and has a
call of its own, while the shell writes the answers. Judgement: the simulations have pauses and never reach it."""


class Engine:
    """Owns the state of the data plane and the control plane; see the module's docstring."""

    def __init__(
        self, settings: EngineSettings, control: Control | None = None, ring: DecisionRing | None = None
    ) -> None:
        """Stores the settings; the first call of `handle` makes the first plan.

        Args:
            settings: of the data plane and the control plane.
            control: None: one that learns.
            ring: where decisions are recorded; None: one of the size that the settings say.
        """
        self._queues = Lanes()
        self._admission = Admission(settings.queue_max_requests, settings.queue_max_bytes)
        self._outbox = Outbox(self._admission, DecisionRing(settings.explain_ring) if ring is None else ring)
        self._ledger = Ledger()
        self._table = RequestTable(self._admission, self._outbox, self._ledger.tenants.tenants)
        self._uplink = UplinkOccupancy()
        self._circuits = Circuits.closed(settings, {}, self._uplink)
        edges = self._edges = Edges.of(settings.edges, self._queues, self._circuits, self._outbox, self._table.tenants)
        self._function = FunctionSide(
            self._uplink,
            self._circuits.function,
            self._ledger,
            BatchEconomics(self._uplink),
            settings.max_function_in_flight,
        )
        self._quota = self._function.quota
        self._let_in = TenantAdmission(self._table, self._function, self._queues)
        self._sending = FunctionSending(self._function, self._outbox)
        self._spending = Spending(self._function, self._queues, self._outbox)
        self._keep_warm = KeepWarm(self._queues, self._sending)
        self._dispatcher = Dispatcher(
            self._queues,
            edges,
            self._sending,
            self._table,
            Hedging(self._queues, self._sending, self._outbox),
            Offers(edges, self._function),
            Refusals(edges, self._function),
        )
        self._endings = Endings(self._queues, self._table, self._dispatcher.refusals, settings.max_timeout_s)
        self._failures = Failures(self._queues, edges, self._function, self._table, self._dispatcher, self._endings)
        self._spending.configure(settings)
        self._let_in.configure(settings.tenants)
        self._control = Control(settings) if control is None else control
        self._largest = LargestBatches(self._queues, self._outbox, self._control.edge_takes)
        keepers = self._dispatcher, self._let_in, self._quota, self._largest, edges.learned
        self._control.remember_also(*[keeper.remembered() for keeper in keepers])
        self._quota.listeners = self._outbox.command, self._control.quota_changed
        self._beliefs = self._control.beliefs
        self._believed_away: frozenset[Place] = frozenset()
        self._refreshing = Refreshing(self._beliefs, self._dispatcher)
        self._plan: Plan | None = None
        self._now_s, self._draining = 0.0, False
        self._due_s: float | None = None
        """When something falls due that decides, as against refusals at deadlines; None: not worked out yet."""
        self._lessons: list[tuple[Batch, BatchReport, float, float]] = []

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes in all that has happened up to `now_s` and returns what to do.

        Args:
            messages: everything that arrived together, in order; empty when only time has passed.
            now_s: the shell's monotonic time; never less than in the call before.
        """
        self._now_s = now_s = max(now_s, self._now_s)
        only_refuses = not messages and self._endings.next_s() <= now_s < self._decides_at_s()
        due_s = None if self._lessons else self._due_s
        if due_s is not None and due_s <= now_s:
            self._sending.lateness.called(due_s=due_s, now_s=now_s)
        self._table.now_s = now_s
        if only_refuses:  # nothing is decided before something falls due, as without this wake-up
            self._endings.expire(self._now_s)
            return self._outbox.take_commands()
        self._due_s = None
        if self._plan is None:
            self._begin(self._now_s)
        self._control.advance(self._now_s)
        if self._circuits.suspicion.hung_at_s() <= now_s:
            self._circuits.suspect(now_s, self._dispatcher.reassign_all)
        if (outages := self._beliefs.outages(now_s)) is not None:
            self._follow(outages, now_s)
        for message in messages:
            self._take_in(message, self._now_s)
        self._endings.expire(self._now_s)
        if not messages or len(self._lessons) >= LESSONS_WAITING:
            self._learn()
        self._refreshing.refresh(self._now_s)
        self._dispatcher.dispatch(self._now_s)
        if self._draining:
            self._dispatcher.flush(self._now_s)
        self._ask(self._now_s)
        self._decides_at_s()  # what is worked out for it must not depend on whether, and when, a shell asks for it
        return self._outbox.take_commands()

    def _take_in(self, message: Message, now_s: float) -> None:
        match message:
            case RequestArrived(request):
                self._arrived(request, now_s)
            case BatchFinished():
                self._finished(message, now_s)
            case BatchFailed():
                self._failed(message, now_s)
            case RequestCancelled(request_id):
                self._endings.cancelled(request_id)
            case BillArrived(batch_id, report, failure):
                self._ledger.bill(batch_id, report, failure=failure)
            case ProbeMeasured():
                self._probed(message, now_s)
            case UplinkCarried():
                self._control.carried(message)
            case ModelBarred():
                self._failures.bar(message, now_s=now_s)
            case PlanComputed(plan):
                self._planned(plan, now_s)
            case LimitsChanged(model, limits):
                self._limits_changed(model, limits, now_s)
            case SettingsChanged(settings):
                self._settings_changed(settings, now_s)
            case SpendGranted():
                self._spending.granted(message, now_s=now_s)
            case DrainStarted():
                self._draining = True
                self._dispatcher.flush(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the absolute time at which `handle` wants to be called even if nothing happens; None: never."""
        due_s = None if self._lessons else self._due_s
        wakeup_s = min(self._decides_at_s() if due_s is None else due_s, self._endings.next_s())
        return None if wakeup_s == NEVER else max(wakeup_s, self._now_s)

    def _decides_at_s(self) -> float:
        if self._lessons:
            return self._now_s
        if self._due_s is None:
            due_s = min(self._dispatcher.next_wakeup_s(self._now_s), self._control.next_wakeup_s())
            due_s = min(due_s, self._circuits.next_s(self._now_s))
            self._due_s = due_s if self._ledger.cap.lease is None else min(due_s, self._spending.next_s())
        return self._due_s

    def statistics(self, now_s: float = 0.0) -> EngineStatistics:
        """Returns the engine's state in numbers; what instances cost idle is counted up to `now_s`, if it is later."""
        estimate = self._uplink.estimate
        return EngineStatistics(
            queued_requests=self._admission.requests,
            unanswered_bytes=self._admission.body_bytes,
            **self._outbox.figures(),
            **self._control.figures(self._now_s),
            uplink_bytes_per_s=estimate.bytes_per_s,
            uplink_rtt_s=estimate.rtt_s,
            **self._circuits.figures(self._queues.first),
            **self._spending.figures(max(now_s, self._now_s)),
            expected_drain_s=expected_drain_s(self._queues, self._function.max_in_flight),
            draining=self._draining,
            plan=self._plan,
            quotas=self._quota.quotas(),
            edge_limits=self._largest.limits(),
        )

    def explanation(self, request_id: int) -> Explanation | None:
        """Returns what was decided about a request and what came of it; None for one that is not kept any more."""
        return self._outbox.ring.explain(request_id)

    def _begin(self, now_s: float) -> None:
        self._ledger.idle.pass_time(now_s)
        self._control.begin(now_s)
        snapshot, plan = self._snapshot(now_s), self._control.first_plan(now_s)
        self._adopt(plan or best_plan(snapshot, plan_id=1, cause="start", detail="from profiles alone", at_once=True))

    def _follow(self, outages: Outages, now_s: float) -> None:
        """Opens and closes circuits by what is believed, where that is known otherwise than from failures."""
        self._circuits.follow(outages.edge_back, functions_back_s=outages.functions_back_s)
        if outages.away(now_s) != self._believed_away:
            self._believed_away = outages.away(now_s)
            self._dispatcher.raise_caution()
            self._dispatcher.reassign_all(Cause.FAILURE, now_s=now_s)

    def _arrived(self, request: Request, now_s: float) -> None:
        served = request.model in self._queues.first and not self._draining
        room = served and self._let_in.has_room(request)
        queued = self._table.take_in(request)
        if self._draining:
            self._table.refuse(queued, self._dispatcher.refusals.draining())
        elif not served:
            self._table.refuse(queued, not_served(request.model))
        elif not room:
            self._table.refuse(queued, self._let_in.refusal())
        else:
            self._count(request, now_s)
            self._endings.watch(queued)
            self._dispatcher.placing.assign(queued, now_s)

    def _count(self, request: Request, now_s: float) -> None:
        self._control.arrived(request, now_s)
        rate_rps = self._beliefs.recent_rps(request.model, now_s)
        item_bytes, lanes = self._beliefs.item_bytes(request.model), self._queues
        if request.shape_id or lanes.several:
            lanes.arrived(request, rate_rps=rate_rps, item_bytes=item_bytes)
        else:
            lanes.first[request.model].expect(rate_rps=rate_rps, item_bytes=item_bytes)

    def _finished(self, message: BatchFinished, now_s: float) -> None:
        sent, report = self._outbox.in_flight[message.batch_id], message.report
        self._sending.lateness.heard(read_at_s=sent.batch.sent_at_s + report.elapsed_s, now_s=now_s)
        self._uplink.answered(sent.batch, report)
        if self._quota.known:
            self._quota.answered(sent.batch, now_s=now_s)
        self._take_back(message.batch_id, now_s)
        self._circuits.succeeded(sent.batch)
        if sent.batch.backend is Backend.EDGE:
            self._largest.answered(sent.batch)
        learned = self._edges.learn(sent.batch, report, now_s=now_s)
        told = report if learned.others_s is None else replace(report, others_s=learned.others_s)
        self._came_back(sent.batch, told, None, self._ledger.settle(message.batch_id, report), now_s)
        if sent.batch.request_ids and self._control.learns_from(sent.batch, now_s):
            self._lessons.append((sent.batch, learned, now_s, self._outbox.open_since_s()))
        self._failures.came_back(sent, message.unusable, now_s=now_s)

    def _came_back(self, batch: Batch, report: BatchReport, kind: FailureKind | None, cost: float, at_s: float) -> None:
        self._outbox.ring.settled(batch.batch_id, report, kind, cost=cost, at_s=at_s)
        if batch.tier:
            self._control.came_back(batch, report, kind, at_s)

    def _learn(self) -> None:
        for batch, report, finished_at_s, open_since_s in self._lessons:
            self._control.batch_finished(batch, report, finished_at_s, open_since_s=open_since_s)
        self._lessons.clear()

    def _failed(self, message: BatchFailed, now_s: float) -> None:
        sent, failure = self._outbox.in_flight[message.batch_id], message.failure
        met_quota = self._quota.failed(sent.batch, failure.kind, now_s=now_s)
        met_quota = self._edges.too_many(sent.batch, failure.kind, now_s=now_s) or met_quota
        self._take_back(message.batch_id, now_s)
        by_size = sent.batch.backend is Backend.EDGE and self._largest.failed(sent.batch, failure)
        opened = self._circuits.failed(sent.batch, failure, now_s=now_s, met_limit=met_quota or by_size)
        if opened:
            self._dispatcher.raise_caution()
        cost = self._ledger.settle(message.batch_id, message.report, failure=failure.kind)
        self._came_back(sent.batch, message.report, failure.kind, cost, now_s)
        self._endings.failed(sent)
        if sent.batch.model in self._queues:
            self._failures.give_back(sent, failure, now_s=now_s, met_quota=met_quota, by_size=by_size)
        if opened:
            self._dispatcher.reassign_all(Cause.FAILURE, now_s=now_s)

    def _probed(self, message: ProbeMeasured, now_s: float) -> None:
        was_away = self._circuits.probed(message, now_s=now_s)
        self._control.probed(message, now_s)
        self._largest.probed(message, was_away=was_away)
        self._failures.probed(message, now_s=now_s)

    def _planned(self, plan: Plan, now_s: float) -> None:
        # One that was overtaken, as by a reload while it was made, may name models and tiers that are gone.
        if self._plan is None or plan.plan_id > self._plan.plan_id:
            waiting = self._dispatcher.withdraw_all()
            self._adopt(plan)
            if plan.cause in CHANGES:
                self._dispatcher.raise_caution()
            self._dispatcher.placing.assign_all(waiting, Cause.PLAN, now_s=now_s)

    def _limits_changed(self, model: str, limits: Limits, now_s: float) -> None:
        # A model that is away just now has them when it comes back.
        self._control.limits_changed(model, limits, served=model in self._queues)
        if model not in self._queues:
            return
        for lane in self._queues.of_model(model):
            lane.limit(self._control.limits(model))
        self._dispatcher.reassign_all(Cause.LIMITS, now_s=now_s)

    def _settings_changed(self, settings: EngineSettings, now_s: float) -> None:
        self._ledger.idle.pass_time(now_s)
        self._circuits.configure(settings)
        self._admission.configure(max_requests=settings.queue_max_requests, max_bytes=settings.queue_max_bytes)
        self._spending.configure(settings)
        self._let_in.configure(settings.tenants)
        self._control.settings_changed(settings)
        for queued in self._queues.drop({model.name for model in settings.models}):
            self._table.refuse(queued, not_served(queued.request.model))
        waiting = self._dispatcher.withdraw_from(settings.edges)
        snapshot, new = self._snapshot(now_s), self._control.next_plan_id()
        self._adopt(best_plan(snapshot, plan_id=new, cause="settings", detail="reloaded", at_once=True))
        self._endings.watch_anew(settings.max_timeout_s)
        self._dispatcher.placing.assign_all(waiting, Cause.LIMITS, now_s=now_s)

    def _adopt(self, plan: Plan) -> None:
        self._plan = plan
        for group in plan.groups:
            model, limits = self._control.model(group.model), self._control.limits(group.model)
            warm_pool = partial(self._beliefs.warm_pool, group.model)
            self._queues.adopt(model, group, warm_pool, limits=limits, tenants=self._table.tenants)
        self._dispatcher.follow(plan.plan_id)
        self._control.adopted(plan)
        self._refreshing.refresh(self._now_s, anew=True)
        self._outbox.command(PlanAdopted(plan))

    def _ask(self, now_s: float) -> None:
        wanted = self._control.plan_due(now_s)
        if wanted is not None:
            snapshot = self._snapshot(now_s)
            self._outbox.command(ComputePlan(snapshot, wanted.plan_id, wanted.cause, wanted.detail))
        if self._control.warming_due(now_s) and self._circuits.function.usable(now_s):
            self._keep_warm.send_calls(self._control, now_s)
        # A backend that does not answer is probed when its pause is over, not more often.
        quiet = not self._uplink.finishes_s and self._circuits.function.closed
        idle_link = quiet and self._control.probe_due(now_s, self._dispatcher.starved)
        if idle_link or now_s >= self._circuits.quiet_until_s:
            self._circuits.ask(self._outbox.command, now_s, idle_link=idle_link)
        if self._ledger.cap.lease is not None:
            self._spending.ask(now_s)

    def _take_back(self, batch_id: int, now_s: float) -> None:
        self._outbox.take_back(batch_id)
        self._edges.release(batch_id, now_s=now_s)
        self._uplink.release(batch_id, now_s=now_s)

    def _snapshot(self, now_s: float) -> Snapshot:
        known = self._control.snapshot(now_s, **self._circuits.for_snapshot(), quotas=self._quota.quotas())
        return replace(known, edge_parallel=dict(self._queues.edges), edge_leads_s=self._edges.leads.beside_s())

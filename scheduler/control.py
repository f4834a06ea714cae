"""The control plane: when to ask for a plan, why, and what the plan is made from.

A plan is asked for when a changepoint says that something really changed, when the present plan expires, or when the
operator changed limits. Never because a timer ticked: a host whose traffic is steady keeps its plan.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scheduler.beliefs import Beliefs, LearnedBeliefs, paces, shared_edges
from scheduler.dispatch.keep_warm import WarmingTerms
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.memory import Memory, Part, Remembered, saved, taken_up
from scheduler.domain.messages import ProbeMeasured, QuotaLearned, UplinkCarried
from scheduler.domain.plans import BufferPlan, EngineSettings, GroupPlan, Limits, ModelSettings, Plan, Snapshot
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import EDGE_NAME, Backend, Request
from scheduler.estimates import Estimates
from scheduler.estimators import findings, warming
from scheduler.estimators.findings import Finding
from scheduler.estimators.found_changes import FoundChanges
from scheduler.recollection import PlanMemory, estimates_parts

NEVER = float("inf")
TICK_S = 0.25
"""How often counting ticks are looked at while there is traffic. Judgement: halved or doubled, cost and lateness stay
within noise."""
TICKING_S = 60.0
"""How long after the last arrival the ticks go on. A silent host sleeps; the ticks it missed are closed later.
Judgement: a silent minute is longer than any detector needs; no simulation is that silent."""
CALM_S = 2.0
"""So long a silence is none yet: the ticks in it are looked at one by one. Judgement: what a batch waits for."""
SILENCE_PART = 0.5
"""A longer one is looked at again after such a part of it, so that what it tells is noticed so much later at most, and
the work grows with its logarithm. Judgement: nothing waits in a silence for what it tells."""
TELLING_ITEMS = 0.5
"""Silence is looked at not oftener than so many items would have come in meanwhile. Judgement: that they did not tells
half a nat; at two items a second and above it is each tick."""
TELLING_S = TICKING_S
"""But once in a silence however sparse requests are. Derived: then the host sleeps."""
YOUNG_PLAN_S = 10.0
"""The first plan, made from profiles alone, stands so long. Judgement: halved or doubled, cost and lateness stay within
noise."""
NEWS_PART = 0.25
"""A plan is not too old before a quarter as many requests came as it was made from. Judgement: as with its age."""
NEWS = 4
"""But so many are news for every plan. Judgement: sparse requests change estimates slowly."""
YOUNG_GROWTH = 4.0
"""Later plans stand so many times as long as there has been something to learn from, up to the configured expiry.
Judgement: halved or doubled, cost and lateness stay within noise."""
WARMING_LOOK_S = 1.0
"""Warming calls are weighed not oftener than this. Judgement: halved or doubled, cost and lateness stay within
noise."""
WARMING_REST_S = 10.0
"""Under traffic they are weighed not more seldom than this. Judgement: halved or doubled, cost and lateness stay within
noise."""
STARVED_PROBE_S = 0.5
"""A link that is thought too slow for the requests that want it is looked at so often. Judgement: in simulations of
3,000 requests halving it changes cost by +0.7 %, doubling it by +2.0 % (in time +0.3 points)."""
PLANNING_LIMIT_S = 30.0
"""A plan that has not come by then is asked for again. Judgement: a plan takes seconds at most; it guards a planner
that hangs, which no simulation has."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """A plan is wanted."""

    plan_id: int
    cause: str
    detail: str


class Control:
    """Owns the estimates and the decision to plan anew."""

    def __init__(
        self, settings: EngineSettings, limits: Mapping[str, Limits] | None = None, memory: Memory | None = None
    ) -> None:
        """Stores the settings.

        Args:
            settings: of the engine.
            limits: what operators have set already, by model.
            memory: what an earlier process knew; it is taken up at the first call, where it is still true.
        """
        self._settings, self._has_functions = settings, any(model.tiers for model in settings.models)
        self._memory = memory
        self._remembered_plan = PlanMemory()
        self._others: list[Remembered] = []
        self.recalled: tuple[str, ...] = ()
        """Names of the parts of the memory that were taken up."""
        self._estimates = Estimates(settings)
        self.beliefs: Beliefs = LearnedBeliefs(self._estimates)
        self._limits: dict[str, Limits] = dict(limits or {})
        self._edge_takes: dict[tuple[str, str], int] = {}
        """By model and edge server: most items in a batch, where the server limits them."""
        self._plan: Plan | None = None
        self._last_plan_id = 1
        self._finding: Finding | None = None
        self._asked: Finding | None = None
        """What the plan that is being made was asked for; None while none is."""
        self._asked_at_s = -NEVER
        self._first_arrival_s = NEVER
        self._last_arrival_s = -NEVER
        self._arrivals = self._arrivals_planned = 0
        """Requests that came, and those that had come when the last plan was asked for."""
        self._last_transfer_s = 0.0
        self._next_tick_s = NEVER
        self._warming_at_s = 0.0
        self._changes = FoundChanges()
        self._now_s = -NEVER

    def begin(self, now_s: float) -> None:
        """Notes the start of time, and takes up what an earlier process knew."""
        self._last_transfer_s = now_s
        if self._memory is not None:
            self.recalled, self._memory = taken_up(self._parts(now_s), self._memory, now_s), None
            self._estimates.note_change()
            if self._remembered_plan.seen_s > 0:
                self._first_arrival_s = now_s - self._remembered_plan.seen_s
        self.advance(now_s)

    def first_plan(self, now_s: float) -> Plan | None:
        """Returns the plan of an earlier process, to begin with; None where there is none that is still true."""
        return self._remembered_plan.first_plan(now_s=now_s, stands_s=YOUNG_PLAN_S)

    def remember_also(self, *parts: Remembered) -> None:
        """Has other parts remembered, of the data plane for instance. Call it before the engine's first call."""
        self._others += parts

    def saved(self, now_s: float) -> tuple[Part, ...]:
        """Returns what is known, for the engine of the next process."""
        return saved(self._parts(now_s), now_s)

    def _parts(self, now_s: float) -> Iterator[Remembered]:
        yield from estimates_parts(self._estimates, self._settings)
        yield from self._others
        yield self._remembered_plan.part(self._settings, self._plan, now_s - self._first_arrival_s)

    def advance(self, now_s: float) -> None:
        """Lets time pass: closes counting ticks and looks for changes in them."""
        self._now_s = now_s
        if now_s >= self._estimates.ticks_until_s:
            for finding in self._estimates.advance(now_s):
                self._found(finding)
        if now_s >= self._next_tick_s:
            silent_s = now_s - self._last_arrival_s
            # In silence the empty ticks are taken together.
            interval_s = max(TICK_S, SILENCE_PART * (silent_s - CALM_S), self._telling_s())
            self._next_tick_s = now_s + interval_s if silent_s < TICKING_S else NEVER

    def _telling_s(self) -> float:
        """Returns the seconds after which silence tells something, given how many items come; 0: not known."""
        rate_rps = sum(model.arrivals.regime_rps for model in self._estimates.models.values())
        return min(TELLING_ITEMS / rate_rps, TELLING_S) if rate_rps > 0 else 0.0

    def next_wakeup_s(self) -> float:
        """Returns when time matters to control; inf for never."""
        # While there is traffic the ticks are often enough for warming calls.
        if self._asked is not None:
            return min(self._next_tick_s, self._asked_at_s + PLANNING_LIMIT_S)
        wakeup_s, plan = self._next_tick_s, self._plan
        if plan is not None:
            soonest_s = plan.made_at_s + self._settings.replan_min_interval_s
            if max(plan.expires_at_s, soonest_s) < wakeup_s and self._has_news():
                wakeup_s = max(plan.expires_at_s, soonest_s)
            if self._finding is not None:
                wakeup_s = min(wakeup_s, soonest_s)
        return wakeup_s

    def arrived(self, request: Request, now_s: float) -> None:
        """Counts an arrival."""
        self._last_arrival_s = now_s
        self._arrivals += 1
        self._first_arrival_s = min(self._first_arrival_s, now_s)
        if self._next_tick_s > now_s + TICK_S:
            self._next_tick_s = min(self._next_tick_s, now_s + max(TICK_S, self._telling_s()))
        self._estimates.models[request.model].arrived(request, now_s)

    def learns_from(self, batch: Batch, now_s: float) -> bool:
        """Whether to call `batch_finished` for a batch that came back at this time."""
        learns = self._estimates.learns_from(batch, now_s)
        if batch.tier and not learns:
            self._last_transfer_s = now_s
        return learns

    def batch_finished(self, batch: Batch, report: BatchReport, now_s: float, *, open_since_s: float) -> None:
        """Learns from an answered batch; `open_since_s` as in Estimates.batch_finished."""
        if batch.tier:
            self._last_transfer_s = now_s
        for finding in self._estimates.batch_finished(batch, report, open_since_s=open_since_s):
            if self._settings.changepoints:
                self._found(finding)

    def came_back(self, batch: Batch, report: BatchReport, failure: FailureKind | None, now_s: float) -> None:
        """Learns which instances are warm from a function batch, at once: the next may leave in this very call."""
        pool = self.beliefs.warm_pool(batch.model, batch.tier)
        if pool is not None:
            idle_path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
            idle_path_s = idle_path_s if math.isfinite(idle_path_s) and not batch.warming else 0.0
            pool.came_back(batch.batch_id, report, now_s=now_s, failure=failure, expected_path_s=idle_path_s)
            self._started(batch, report, idle_path_s)
        self._warming_at_s = min(self._warming_at_s, now_s + WARMING_LOOK_S)

    def _started(self, batch: Batch, report: BatchReport, idle_path_s: float) -> None:
        if not report.cold_start or report.service_s is None or not self._settings.changepoints:
            return
        finding = self._estimates.started(batch.model, batch.tier, report.elapsed_s - report.service_s - idle_path_s)
        if finding is not None:
            self._found(finding)

    def warming_due(self, now_s: float) -> bool:
        """Whether it is time to weigh warming calls again."""
        return self._has_functions and now_s >= self._warming_at_s and now_s - self._last_arrival_s <= TICKING_S

    def weighing_warmth(self, now_s: float) -> None:
        """Notes that warming calls are weighed now, for every buffer."""
        self._warming_at_s = now_s + WARMING_REST_S

    def warming_calls(self, plan: GroupPlan, buffer: BufferPlan, terms: WarmingTerms, now_s: float) -> int:
        """Returns how many warming calls pay for a buffer now; asked again when another may."""
        pool = self.beliefs.warm_pool(plan.model, buffer.tier)
        if pool is None or not warming.worth_watching(pool, silent_s=now_s - self._last_arrival_s):
            return 0
        regime_rps = self._estimates.models[plan.model].arrivals.regime_rps
        planned_rps = plan.expected_spill_fraction * buffer.share * regime_rps
        demand_rps = max(planned_rps, terms.demand_rps)
        due = warming.warming_due(
            pool,
            now_s=now_s,
            batches_per_s=demand_rps / terms.batch_items,
            service_s=terms.service_s,
            call_cost=terms.call_cost,
            lateness_cost=terms.lateness_cost,
            provisioned=self.model(plan.model).tier(buffer.tier).provisioned,
        )
        self._warming_at_s = min(max(due.look_again_at_s, now_s + WARMING_LOOK_S), self._warming_at_s)
        return due.calls

    def probed(self, probe: ProbeMeasured, now_s: float) -> None:
        """Learns from a probe of the uplink; a probe of the edge says nothing about it."""
        if probe.place.backend is Backend.EDGE:
            return
        self._last_transfer_s = now_s
        if not probe.ok:
            return
        self._estimates.probed(sent_bytes=probe.sent_bytes, transfer_s=probe.transfer_s, rtt_s=probe.rtt_s, now_s=now_s)

    def carried(self, seen: UplinkCarried) -> None:
        """Learns what the uplink carried while it was under load."""
        bandwidth = self._estimates.bandwidth
        change = bandwidth.carried(start_s=seen.start_s, end_s=seen.end_s, carried_bytes=seen.carried_bytes)
        self._estimates.note_change()
        if change is not None and self._settings.changepoints:
            self._found(findings.of_bandwidth(change))

    def probe_due(self, now_s: float, starved: Callable[[float], bool]) -> bool:
        """Whether the uplink was silent so long, under traffic, that a probe pays; `starved`: requests wanted it."""
        idle_s, interval_s = now_s - self._last_transfer_s, self._settings.probe_interval_s
        if idle_s < min(STARVED_PROBE_S, interval_s) or now_s - self._last_arrival_s >= TICKING_S:
            return False
        return self._has_functions and (idle_s >= interval_s or starved(now_s))

    def limits(self, model: str) -> Limits:
        """Returns what an operator set for a model, served just now or not, within what the edge servers take."""
        takes = {edge: items for (name, edge), items in self._edge_takes.items() if name == model}
        return self._limits.get(model, Limits()).taking(takes)

    def operators_limits(self) -> dict[str, Limits]:
        """Returns what operators set, by model."""
        return dict(self._limits)

    def _planned_limits(self, model: str) -> Limits:
        return self.limits(model).widest(self._estimates.models[model].edges if model in self._estimates.models else ())

    def edge_takes(self, model: str, items: int | None, edge: str = EDGE_NAME) -> Limits:
        """Notes the largest batch of a model on an edge server, None for any, and plans anew; returns the limits."""
        if items != self._edge_takes.get((model, edge)):
            if items is None:
                del self._edge_takes[model, edge]
            else:
                self._edge_takes[model, edge] = items
            if self._plan is not None:
                which = f"edge {edge}" if len(self._settings.edges) > 1 else "the edge"
                self._found(Finding("limits", f"{model}: {which} takes {'any number of' if items is None else items}"))
        return self.limits(model)

    def limits_changed(self, model: str, limits: Limits, *, served: bool = True) -> None:
        """Plans anew under an operator's limits; those of a model that is not served just now are only noted."""
        if limits == self._limits.get(model, Limits()):
            return
        self._limits[model] = limits
        if served:
            self._found(Finding("limits", f"{model}: {limits.sentence()}"))

    def quota_changed(self, learned: QuotaLearned) -> None:
        """Plans anew within what the provider grants now."""
        granted = "as configured" if learned.granted is None else f"{learned.granted} at once"
        whose = f"{learned.model}: {learned.tier}" if learned.tier else "all functions together"
        self._found(Finding("quota", f"{whose}: {granted}"))

    def settings_changed(self, settings: EngineSettings) -> None:
        """Takes over a reloaded configuration.

        The plan that is made for it at once has one buffer for all classes of a model; a better one is asked for.
        """
        self._settings, self._has_functions = settings, any(model.tiers for model in settings.models)
        self._estimates.settings_changed(settings)
        if any(model.tiers and not model.buffers for model in settings.models):
            self._found(Finding("settings", "functions planned for the reloaded configuration"))

    def model(self, name: str) -> ModelSettings:
        """Returns a model's settings."""
        return self._estimates.models[name].settings

    def next_plan_id(self) -> int:
        """Returns a fresh plan id."""
        self._last_plan_id += 1
        return self._last_plan_id

    def plan_due(self, now_s: float) -> PlanRequest | None:
        """Returns what to ask the planner for, now; None if the present plan stands."""
        plan = self._plan
        if plan is None or (self._asked is not None and now_s < self._asked_at_s + PLANNING_LIMIT_S):
            return None
        if self._asked is not None:
            self._found(self._asked)
            self._asked = None
        if self._finding is None and now_s >= plan.expires_at_s and self._has_news():
            self._found(Finding("expiry", f"plan {plan.plan_id} is {now_s - plan.made_at_s:.0f} s old"))
        finding = self._finding
        if finding is None or now_s < plan.made_at_s + self._settings.replan_min_interval_s:
            return None
        self._finding, self._asked, self._asked_at_s = None, finding, now_s
        return PlanRequest(self.next_plan_id(), finding.cause, finding.detail)

    def _has_news(self) -> bool:
        """Whether enough requests came since the present plan that another one, for its age, may differ."""
        needed = min(NEWS, max(1.0, NEWS_PART * self._arrivals_planned))
        return self._arrivals - self._arrivals_planned >= needed

    def adopted(self, plan: Plan) -> None:
        """Notes the plan that is obeyed from now on."""
        self._plan, self._asked = plan, None

    def snapshot(
        self,
        now_s: float,
        *,
        edge_up: bool,
        function_up: bool,
        quotas: tuple[Quota, ...] = (),
        edges_away: tuple[str, ...] = (),
    ) -> Snapshot:
        """Freezes settings, estimates and limits."""
        uplink = self._estimates.uplink
        self._arrivals_planned = self._arrivals
        return Snapshot(
            taken_at_s=now_s,
            settings=self._settings,
            models={name: model.estimates() for name, model in self._estimates.models.items()},
            uplink_bytes_per_s=uplink.bytes_per_s,
            uplink_rtt_s=uplink.rtt_s + (uplink.excess_s + uplink.margin_s),
            limits={name: self._planned_limits(name) for name in (*self._limits, *(m for m, _ in self._edge_takes))},
            edge_up=edge_up,
            function_up=function_up,
            plan_expiry_s=self._plan_life_s(now_s - self._first_arrival_s),
            quotas=quotas,
            edges_away=edges_away,
            edge_takes=dict(self._edge_takes),
        )

    def _plan_life_s(self, seen_s: float) -> float:
        """Seconds that a plan stands: few where little has been seen; for ever only one that was made from enough."""
        expiry_s = self._settings.plan_expiry_s
        if seen_s >= YOUNG_PLAN_S / 2 and math.isinf(expiry_s):
            return expiry_s
        return min(expiry_s, max(YOUNG_PLAN_S, YOUNG_GROWTH * seen_s))

    def figures(self, now_s: float) -> dict[str, Any]:
        """Returns changes that were found, rates, and paces of places, as fields of the engine's statistics."""
        rates = {model: self.beliefs.recent_rps(model, now_s) for model in self._estimates.models}
        figures = {"rates_rps": rates, "rate_rps": sum(rates.values()), "paces": paces(self._estimates)}
        shared = shared_edges(self._estimates)
        return {**figures, "changes": self._changes.statistics(), "shared_edges": shared}

    def _found(self, finding: Finding) -> None:
        """Keeps the latest cause of each kind in one sentence: several changes at once are one re-plan."""
        self._changes.note(finding, at_s=self._now_s)
        if self._finding is None or self._finding.cause == finding.cause:
            self._finding = finding
        else:
            self._finding = Finding(self._finding.cause, f"{self._finding.detail}; {finding.cause}: {finding.detail}")

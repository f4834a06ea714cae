"""From a snapshot to a plan: deterministic, and never an error. What cannot be met gives a plan with a reason."""

import math
from dataclasses import dataclass

from scheduler.domain.plans import GroupPlan, Limits, ModelEstimates, ModelSettings, Plan, ServiceClass, Snapshot
from scheduler.planner.site.buffer_assignment import live_routes, loaded_routes
from scheduler.planner.site.buffer_planning import PlannedBuffer, Route, plan_buffer
from scheduler.planner.site.edge_capacity import NO_EDGE, EdgeShare, edge_share
from scheduler.planner.site.edge_machines import EdgeMachines, binding_slo_s, edge_machines
from scheduler.planner.site.outlook import Serving, outlook
from scheduler.planner.site.problem import BufferProblem, Uplink
from scheduler.planner.site.service_margin import Spread, margin_at


def best_plan(snapshot: Snapshot, *, plan_id: int, cause: str, detail: str, at_once: bool = False) -> Plan:
    """Returns the plan that keeps every class's percentile at the least expected money.

    The cap of edge batches is the largest batch in time, and the edge's share of the traffic follows from the fluid
    limit. The rest goes to the tier and batch with the lowest exact cost per request. Backends that are down are
    planned as if they were up, because the plan must serve when they come back; only the expected values exclude them.

    Args:
        snapshot: estimates, settings and limits.
        plan_id: number of the new plan.
        cause: why the plan was requested, one word.
        detail: the same with numbers.
        at_once: whether to plan in a fraction of the time, with one buffer for all classes of a model.
    """
    groups = tuple(_group(model, serving) for model, serving in _planned(snapshot, at_once=at_once))
    models = snapshot.settings.models
    currencies = [tier.price.currency for model in models for tier in model.tiers]
    return Plan(
        plan_id=plan_id,
        made_at_s=snapshot.taken_at_s,
        expires_at_s=snapshot.taken_at_s + snapshot.plan_expiry_s,
        cause=cause,
        detail=_with_loaded(detail, snapshot),
        groups=groups,
        currency=currencies[0] if currencies else "CNY",
    )


def servings(snapshot: Snapshot) -> tuple[Serving, ...]:
    """Returns how each model would be served by the best plan: what the edge keeps, and the function buffers."""
    return tuple(serving for _, serving in _planned(snapshot, at_once=False))


def _planned(snapshot: Snapshot, *, at_once: bool) -> list[tuple["_Model", Serving]]:
    snapshot = snapshot.within_quotas()
    models = [_model(settings, snapshot, at_once=at_once) for settings in snapshot.settings.models]
    works = [model.edge_work for model in models]
    edges = [model.edge_share(_part(work, sum(works))) for model, work in zip(models, works, strict=True)]
    sent_bytes_per_s = math.fsum(
        model.estimates.rate_rps * edge.spill_fraction * model.estimates.item_bytes
        for model, edge in zip(models, edges, strict=True)
        if model.settings.tiers
    )
    return [(model, _serving(model, edge, sent_bytes_per_s)) for model, edge in zip(models, edges, strict=True)]


def _with_loaded(detail: str, snapshot: Snapshot) -> str:
    """Returns the detail, and the models whose function buffers were loaded and not planned."""
    loaded = [model.name for model in snapshot.settings.models if model.buffers]
    return f"{detail}; functions of {', '.join(loaded)} as loaded" if loaded else detail


def _part(work: float, total: float) -> float:
    """Returns the part of the edge's time for a model: what others leave, or its share of the need if that is more."""
    return max(1.0 - (total - work), work / total) if total > 0 else 1.0


@dataclass(frozen=True, slots=True)
class _Model:
    """One model's part of a snapshot, with what follows from it directly."""

    settings: ModelSettings
    estimates: ModelEstimates
    snapshot: Snapshot
    limits: Limits
    percentile: float
    edge_spread: Spread
    edge_services_s: tuple[float, ...]
    """Expected seconds of an edge batch of 1, 2, ... items up to the largest allowed; empty without an edge."""
    edge_slo_s: float
    """The SLO that binds on the edge."""
    machines: EdgeMachines
    """All edge servers; the fields before are of the one that is planned with."""
    at_once: bool

    @property
    def edge_work(self) -> float:
        """Fraction of the edge's time that this model would need to keep as much as its deadlines allow."""
        edge = self.edge_share(1.0)
        if edge.capacity_rps <= 0:
            return 0.0
        return min(1.0, self.estimates.rate_rps / edge.capacity_rps)

    def edge_share(self, share: float) -> EdgeShare:
        """Returns what the edge keeps if this model gets `share` of its time."""
        if not self.snapshot.edge_up:
            return NO_EDGE
        return edge_share(
            self.edge_services_s,
            rate_rps=self.estimates.rate_rps,
            dispersion=self.estimates.dispersion,
            slo_s=self.edge_slo_s,
            margin=self.edge_spread.margin,
            share=share,
            machines=self.machines.count,
            lead_s=self.machines.lead_s,
        )

    @property
    def leaving(self) -> tuple[ServiceClass, ...]:
        """The classes whose requests may leave the site."""
        return tuple(c for c in self.settings.classes if not c.edge_only)

    def buffers(self, edge: EdgeShare, sent_bytes_per_s: float) -> tuple[PlannedBuffer, ...]:
        """Returns the function buffers; several buffers of one class are in ascending order of item size.

        Requests spill in runs at the full rate (while an edge batch is full), so that is the rate at which batches
        gather.
        """
        settings, snapshot, limits = self.settings, self.snapshot, self.limits
        max_items = _least(settings.max_items, limits.function_batch_cap)
        if not self.leaving or not settings.tiers or max_items < 1:
            return ()
        problem = BufferProblem(
            settings=settings,
            classes=self.leaving,
            estimates=self.estimates,
            uplink=Uplink(snapshot.uplink_bytes_per_s, snapshot.uplink_rtt_s, sent_bytes_per_s),
            gather_rps=self.estimates.rate_rps if edge.spill_fraction > 0 else 0.0,
            max_items=max_items,
            max_in_flight=snapshot.settings.max_function_in_flight,
            window_s=math.inf if limits.window_s is None else limits.window_s,
        )
        if settings.buffers:
            routes = loaded_routes(problem)
        elif self.at_once:
            routes = (Route(self.leaving, settings.tiers),)
        else:
            routes = live_routes(problem)
        return tuple(plan_buffer(route, problem) for route in routes)


def _model(settings: ModelSettings, snapshot: Snapshot, *, at_once: bool) -> _Model:
    estimates = snapshot.models[settings.name]
    limits = snapshot.limits.get(settings.name, Limits())
    percentile = max(c.percentile for c in settings.classes)
    machines = edge_machines(settings, snapshot, limits, percentile)
    return _Model(
        settings=settings,
        estimates=estimates,
        snapshot=snapshot,
        limits=limits,
        percentile=percentile,
        edge_spread=Spread(machines.margin, percentile),
        edge_services_s=machines.services_s,
        edge_slo_s=machines.slo_s or binding_slo_s(settings, 0.0),
        machines=machines,
        at_once=at_once,
    )


def _least(*values: int | None) -> int:
    return min(value for value in values if value is not None)


def _serving(model: _Model, edge: EdgeShare, sent_bytes_per_s: float) -> Serving:
    snapshot = model.snapshot
    return Serving(
        settings=model.settings,
        estimates=model.estimates,
        edge=edge,
        edge_spread=model.edge_spread,
        edge_services_s=model.edge_services_s,
        edge_factors=model.machines.factors,
        edge_slo_s=model.edge_slo_s,
        buffers=model.buffers(edge, sent_bytes_per_s),
        edge_up=snapshot.edge_up,
        function_up=snapshot.function_up,
        uplink_bytes_per_s=snapshot.uplink_bytes_per_s,
    )


def _group(model: _Model, serving: Serving) -> GroupPlan:
    expected = outlook(serving)
    factors, max_margin = model.machines.factors, model.edge_spread.margin
    return GroupPlan(
        model=model.settings.name,
        classes=tuple(c.name for c in model.settings.classes),
        edge_batch_cap=max(model.machines.caps.values(), default=0),
        edge_caps=model.machines.caps,
        edge_margins={c.name: min(margin_at(c.percentile, factors), max_margin) for c in model.settings.classes},
        percentile=model.percentile,
        buffers=tuple(buffer.plan(model.estimates) for buffer in serving.buffers),
        expected_cost_per_s=expected.cost_per_s,
        expected_within_slo=expected.within_slo,
        expected_spill_fraction=serving.edge.spill_fraction,
        feasible=not expected.reason,
        reason=expected.reason,
        outlooks=expected.classes,
    )

"""From a snapshot to a plan. Deterministic, never raises on what cannot be met: that is a plan with a reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.domain.plans import GroupPlan, Limits, ModelEstimates, ModelSettings, Plan, Snapshot
from scheduler.planner.edge_share import NO_EDGE, EdgeShare, edge_share, largest_in_time, tabulate
from scheduler.planner.function_choice import FunctionChoice, Way, choose_function
from scheduler.planner.quantiles import Spread, margin_at
from scheduler.planner.reasons import Shortfall, reason


def best_plan(snapshot: Snapshot, *, plan_id: int, cause: str, detail: str) -> Plan:
    """Returns the plan that keeps every class's percentile at the least expected money.

    Edge: caps from the largest batch in time, the share it keeps from the fluid limit. What spills goes to the tier
    and batch with the lowest exact cost per request. Backends that are down are planned for all the same, because the
    plan must serve when they come back; only the expectations count them out.

    Parameters:
        snapshot: estimates, settings and limits.
        plan_id: of the new plan.
        cause: why it was asked for, a word.
        detail: the same in numbers.
    """
    models = [_model(settings, snapshot) for settings in snapshot.settings.models]
    works = [model.edge_work for model in models]
    edges = [model.edge_share(_part(work, sum(works))) for model, work in zip(models, works, strict=True)]
    sent_bytes_per_s = math.fsum(
        model.estimates.rate_rps * edge.spill_fraction * model.estimates.item_bytes
        for model, edge in zip(models, edges, strict=True)
        if model.settings.tiers
    )
    groups = tuple(_group(model, edge, sent_bytes_per_s) for model, edge in zip(models, edges, strict=True))
    currencies = [tier.price.currency for model in models for tier in model.settings.tiers]
    return Plan(
        plan_id=plan_id,
        made_at_s=snapshot.taken_at_s,
        expires_at_s=snapshot.taken_at_s + snapshot.plan_expiry_s,
        cause=cause,
        detail=detail,
        groups=groups,
        currency=currencies[0] if currencies else "CNY",
    )


def _part(work: float, total: float) -> float:
    """The part of the edge's time that a model can have: what others leave, or its share by need if that is more."""
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
    function_spread: Spread
    edge_services_s: tuple[float, ...]
    """Expected seconds of an edge batch of 1, 2, ... items up to the largest allowed; empty without an edge."""
    edge_slo_s: float
    """The SLO that binds on the edge."""

    @property
    def edge_work(self) -> float:
        """The part of the edge's time that it would take to keep as much of this model as deadlines allow."""
        edge = self.edge_share(1.0)
        if edge.capacity_rps <= 0:
            return 0.0
        return min(1.0, self.estimates.rate_rps / edge.capacity_rps)

    def edge_share(self, share: float) -> EdgeShare:
        """Returns what the edge keeps if this model gets `share` of it."""
        if not self.snapshot.edge_up:
            return NO_EDGE
        return edge_share(
            self.edge_services_s,
            rate_rps=self.estimates.rate_rps,
            dispersion=self.estimates.dispersion,
            slo_s=self.edge_slo_s,
            margin=self.edge_spread.margin,
            share=share,
        )

    @property
    def edge_batch_cap(self) -> int:
        """Largest edge batch in time; where none is, the largest in time without margin, or simply the largest.

        Capacity matters most where deadlines cannot be met, and a class may be served late.
        """
        for margin in (self.edge_spread.margin, 1.0):
            cap = largest_in_time(self.edge_services_s, slo_s=self.edge_slo_s, margin=margin)
            if cap:
                return cap
        return len(self.edge_services_s)


def _model(settings: ModelSettings, snapshot: Snapshot) -> _Model:
    estimates = snapshot.models[settings.name]
    limits = snapshot.limits.get(settings.name, Limits())
    percentile = max(c.percentile for c in settings.classes)
    edge_margin = margin_at(percentile, estimates.edge_quantile_factor)
    law = estimates.edge_law
    most = 0 if law is None else _least(law.max_batch, settings.max_items, limits.edge_batch_cap)
    services_s = tabulate(law, max_batch=most) if law is not None else ()
    fastest_s = services_s[0] * edge_margin if services_s else 0.0
    return _Model(
        settings=settings,
        estimates=estimates,
        snapshot=snapshot,
        limits=limits,
        percentile=percentile,
        edge_spread=Spread(edge_margin, percentile),
        function_spread=Spread(margin_at(percentile, estimates.function_quantile_factor), percentile),
        edge_services_s=services_s,
        edge_slo_s=_binding_slo_s(settings, fastest_s),
    )


def _least(*values: int | None) -> int:
    return min(value for value in values if value is not None)


def _binding_slo_s(settings: ModelSettings, fastest_s: float) -> float:
    """The tightest SLO that this backend can meet at all; the loosest of all where it meets none."""
    slos_s = [c.slo_s for c in settings.classes]
    return min((slo_s for slo_s in slos_s if slo_s >= fastest_s), default=max(slos_s))


def _group(model: _Model, edge: EdgeShare, sent_bytes_per_s: float) -> GroupPlan:
    way = _way(model, sent_bytes_per_s)
    margin = _function_margin(model, way)
    function = _choose(model, edge, way, margin)
    expected = _expect(model, edge, function, way, margin)
    return GroupPlan(
        model=model.settings.name,
        classes=tuple(c.name for c in model.settings.classes),
        edge_batch_cap=model.edge_batch_cap,
        function_tier=function.tier.name if function else "",
        function_target_batch=function.target if function else 0,
        timeouts_s={c.name: _timeout_s(model, function, c.slo_s) for c in model.settings.classes},
        edge_margins=_margins(model, model.estimates.edge_quantile_factor, most=model.edge_spread.margin),
        function_margins=_margins(model, model.estimates.function_quantile_factor, most=margin),
        percentile=model.percentile,
        expected_cost_per_s=expected.cost_per_s,
        expected_within_slo=expected.within_slo,
        expected_spill_fraction=edge.spill_fraction,
        feasible=expected.shortfall is None,
        reason=reason(expected.shortfall) if expected.shortfall else "",
    )


def _margins(model: _Model, factors: Mapping[float, float], *, most: float) -> Mapping[str, float]:
    return {c.name: min(margin_at(c.percentile, factors), most) for c in model.settings.classes}


def _way(model: _Model, sent_bytes_per_s: float) -> Way:
    bandwidth = model.snapshot.uplink_bytes_per_s
    return Way(
        bytes_per_s=bandwidth,
        rtt_s=model.snapshot.uplink_rtt_s,
        busy=sent_bytes_per_s / bandwidth if bandwidth else 0.0,
        item_bytes=model.estimates.item_bytes,
    )


def _fastest_s(model: _Model) -> float:
    """Median seconds of a single item on the fastest tier; 0 without tiers."""
    laws = model.estimates.function_laws
    return min((laws.get(tier.name, tier.law).predict_s(1) for tier in model.settings.tiers), default=0.0)


def _function_margin(model: _Model, way: Way) -> float:
    """The margin at the percentile, or the largest with which a single item is in time.

    A function that keeps 98 % of its deadlines is worth more than a refusal, and the percentile may hold all the same
    because most requests are the edge's.
    """
    fastest_s, margin = _fastest_s(model), model.function_spread.margin
    loosest_s = max(c.slo_s for c in model.settings.classes)
    if fastest_s <= 0 or fastest_s * margin + way.takes_s(1) <= loosest_s:
        return margin
    most = (loosest_s - way.takes_s(1)) / fastest_s
    # A hair less, so that the product which is compared with the deadline does not exceed it by rounding.
    return most * (1 - 1e-9) if most > 1 else margin


def _choose(model: _Model, edge: EdgeShare, way: Way, margin: float) -> FunctionChoice | None:
    """What spills comes in runs at the full rate (while an edge batch is full), so that is how fast it gathers."""
    settings, limits = model.settings, model.limits
    cap = _least(settings.max_items, limits.function_batch_cap)
    return choose_function(
        settings.tiers if cap > 0 else (),
        laws=model.estimates.function_laws,
        way=way,
        spread=model.function_spread,
        margin=margin,
        slo_s=_binding_slo_s(settings, _fastest_s(model) * margin + way.takes_s(1)),
        gather_rps=model.estimates.rate_rps if edge.spill_fraction > 0 else 0.0,
        max_items=cap,
        max_in_flight=model.snapshot.settings.max_function_in_flight,
        window_s=math.inf if limits.window_s is None else limits.window_s,
    )


def _timeout_s(model: _Model, function: FunctionChoice | None, slo_s: float) -> float:
    """A request may be held until a function batch of it alone would only just be in time.

    Leaving earlier gains nothing: a batch that cannot grow in time any more may still find room on the edge.
    """
    if function is None:
        return 0.0
    window_s = math.inf if model.limits.window_s is None else model.limits.window_s
    return max(0.0, min(window_s, slo_s - function.alone_s))


@dataclass(frozen=True, slots=True)
class _Expectation:
    cost_per_s: float
    within_slo: float
    shortfall: Shortfall | None


def _expect(model: _Model, edge: EdgeShare, function: FunctionChoice | None, way: Way, margin: float) -> _Expectation:
    rate_rps = model.estimates.rate_rps
    spill_rps = rate_rps * edge.spill_fraction
    reachable = function is not None and function.in_time and model.snapshot.function_up
    paid_rps = min(spill_rps, function.capacity_rps) if function is not None and reachable else 0.0
    paid = paid_rps / rate_rps if rate_rps > 0 else float(reachable and edge is NO_EDGE)
    kept = 1.0 - edge.spill_fraction
    # At rate 0 nothing spills; what counts is whether the next request has a place at all.
    unserved = max(0.0, 1.0 - kept - paid) if rate_rps > 0 else float(edge is NO_EDGE and not reachable)
    paid_within = _function_attainment(model, function, margin)
    within = kept * _edge_attainment(model, edge) + paid * paid_within
    if margin < model.function_spread.margin:
        unserved += paid * (1 - paid_within)
    return _Expectation(
        cost_per_s=paid_rps * function.cost_per_item if function else 0.0,
        within_slo=min(1.0, within) if rate_rps > 0 else 1.0 - unserved,
        shortfall=_shortfall(model, edge, function, way, unserved=unserved)
        if unserved > 1 - model.percentile + 1e-9
        else None,
    )


def _edge_attainment(model: _Model, edge: EdgeShare) -> float:
    """Members of an edge batch have waited between nothing and the time it gathered."""
    if edge.batch_cap == 0:
        return 0.0
    items = max(1, round(edge.batch))
    gathering_s = edge.batch / model.estimates.rate_rps if model.estimates.rate_rps > 0 else 0.0
    service_s = model.edge_services_s[items - 1]
    longest_wait_s = min(gathering_s, max(0.0, model.edge_slo_s - model.edge_spread.margin * service_s))
    return model.edge_spread.within_after_wait(model.edge_slo_s, service_s, longest_wait_s=longest_wait_s)


def _function_attainment(model: _Model, function: FunctionChoice | None, margin: float) -> float:
    if function is None or not function.in_time:
        return 0.0
    service_s = function.services_s[function.target - 1]
    available_s = function.hold_s + service_s * margin
    return model.function_spread.within_after_wait(available_s, service_s, longest_wait_s=function.hold_s)


def _shortfall(
    model: _Model, edge: EdgeShare, function: FunctionChoice | None, way: Way, *, unserved: float
) -> Shortfall:
    bandwidth = model.snapshot.uplink_bytes_per_s
    return Shortfall(
        model=model.settings.name,
        slo_s=min(c.slo_s for c in model.settings.classes),
        percentile=model.percentile,
        unserved=unserved,
        rate_rps=model.estimates.rate_rps,
        edge_rps=edge.capacity_rps,
        edge_alone_s=model.edge_services_s[0] * model.edge_spread.margin if model.edge_services_s else math.inf,
        edge_up=model.snapshot.edge_up,
        has_edge=bool(model.edge_services_s),
        function_rps=function.capacity_rps if function else 0.0,
        function_alone_s=_fastest_s(model) * model.function_spread.margin + way.takes_s(1) if function else math.inf,
        function_up=model.snapshot.function_up,
        has_function=function is not None,
        uplink_bytes_per_s=bandwidth,
        item_bytes=model.estimates.item_bytes,
    )

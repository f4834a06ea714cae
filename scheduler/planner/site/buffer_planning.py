"""Tier, batch and waits of each function buffer of a model, and what to expect of it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.plans import BufferPlan, Limits, LoadedBuffer, ModelEstimates, ServiceClass, Snapshot
from scheduler.planner.site.edge_capacity import tabulate
from scheduler.planner.site.service_margin import Spread, margin_at, margin_of
from scheduler.planner.site.tier_selection import FunctionChoice, Way, choose_function, loaded_choice


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that are gathered for the same batches.

    Parameters:
        classes: whose they are, at least one.
        tiers: function configurations to choose from, at least one.
        share: their part of the model's items.
        up_to_bytes: largest item on the wire; None: any.
        item_bytes: mean item on the wire, where items are routed by size; None: the model's.
        size_factors: by tier, what the largest of these items make of a service; empty where size does not matter.
        sigma: scatter of the logarithm of services of one size, where those are told apart; None: that of all.
        loaded: tier, batch and waits as a loaded plan wants them; None: to be planned.
    """

    classes: tuple[ServiceClass, ...]
    tiers: tuple[FunctionTier, ...]
    share: float = 1.0
    up_to_bytes: float | None = None
    item_bytes: float | None = None
    size_factors: Mapping[str, float] = field(default_factory=dict)
    sigma: float | None = None
    loaded: LoadedBuffer | None = None

    @property
    def percentile(self) -> float:
        """The strictest."""
        return max(c.percentile for c in self.classes)

    def binding_slo_s(self, fastest_s: float) -> float:
        """Returns the tightest SLO that can be met at all; the loosest of all where none can."""
        slos_s = [c.slo_s for c in self.classes]
        return min((slo_s for slo_s in slos_s if slo_s >= fastest_s), default=max(slos_s))


@dataclass(frozen=True, slots=True)
class PlannedBuffer:
    """A buffer with its choice.

    Parameters:
        route: who is gathered.
        choice: tier and batch.
        way: to the functions, as its batches find it.
        spread: of their service times.
        margin: factor on a service time that is planned with; less than the spread's where that would never fit.
        window_s: longest wait that an operator allows; infinite where none is set.
    """

    route: Route
    choice: FunctionChoice
    way: Way
    spread: Spread
    margin: float
    window_s: float

    def within(self) -> float:
        """Returns the fraction of its requests that are expected in time."""
        choice = self.choice
        if not choice.in_time:
            return 0.0
        if self.route.loaded is not None:
            return self.route.percentile
        service_s = choice.services_s[choice.target - 1]
        available_s = choice.hold_s + service_s * self.margin
        return self.spread.within_after_wait(available_s, service_s, longest_wait_s=choice.hold_s)

    def plan(self, estimates: ModelEstimates) -> BufferPlan:
        """Returns it as the dispatcher obeys it."""
        route, factors = self.route, estimates.function_quantile_factor
        return BufferPlan(
            classes=tuple(c.name for c in route.classes),
            tier=self.choice.tier.name,
            target_batch=self.choice.target,
            timeouts_s={c.name: self._timeout_s(c) for c in route.classes},
            margins={c.name: min(margin_at(c.percentile, factors), self.margin) for c in route.classes},
            percentile=route.percentile,
            share=route.share,
            up_to_bytes=route.up_to_bytes,
            item_bytes=route.item_bytes,
            size_factor=route.size_factors.get(self.choice.tier.name, 1.0),
            fixed=route.loaded is not None,
        )

    def _timeout_s(self, service_class: ServiceClass) -> float:
        """A request may be held until a function batch of it alone would only just be in time.

        Leaving earlier gains nothing: a batch that cannot grow in time any more may still find room on the edge. A
        loaded plan says itself how long.
        """
        loaded = self.route.loaded
        longest_s = service_class.slo_s - self.choice.alone_s
        if loaded is not None:
            longest_s = loaded.timeouts_s[service_class.name]
        return max(0.0, min(self.window_s, longest_s))


def fastest_s(route: Route, estimates: ModelEstimates) -> float:
    """Returns the median seconds of a single item on the fastest tier of a route."""
    return min(law.predict_s(1) for law in _laws(route, estimates).values())


def _laws(route: Route, estimates: ModelEstimates) -> dict[str, LatencyModel]:
    """What was learned of each tier, for items of the route's size."""
    return {
        tier.name: estimates.function_latencies.get(tier.name, tier.latency).slower(
            route.size_factors.get(tier.name, 1.0)
        )
        for tier in route.tiers
    }


def plan_buffer(
    route: Route,
    *,
    estimates: ModelEstimates,
    limits: Limits,
    snapshot: Snapshot,
    sent_bytes_per_s: float,
    gather_rps: float,
    max_items: int,
) -> PlannedBuffer | None:
    """Returns the cheapest tier and batch that are in time for a route, or those that are loaded.

    Parameters:
        route: who is gathered, and the tiers to choose from.
        estimates: of its model.
        limits: of its model.
        snapshot: for the uplink.
        sent_bytes_per_s: what all models are expected to send.
        gather_rps: items of the model a second while a batch is gathered.
        max_items: most items in a batch of the model; with 0 there is no function.
    """
    learned = margin_at(route.percentile, estimates.function_quantile_factor)
    spread = Spread(learned if route.sigma is None else margin_of(route.sigma, route.percentile), route.percentile)
    bandwidth = snapshot.uplink_bytes_per_s
    way = Way(
        bytes_per_s=bandwidth,
        rtt_s=snapshot.uplink_rtt_s,
        busy=sent_bytes_per_s / bandwidth if bandwidth else 0.0,
        item_bytes=estimates.item_bytes if route.item_bytes is None else route.item_bytes,
    )
    margin = _margin(route, estimates, way, spread)
    window_s = math.inf if limits.window_s is None else limits.window_s
    laws = _laws(route, estimates)
    slo_s = route.binding_slo_s(fastest_s(route, estimates) * margin + way.takes_s(1))
    if max_items < 1:
        return None
    if route.loaded is not None:
        law = laws[route.loaded.tier]
        choice: FunctionChoice | None = loaded_choice(
            route.loaded,
            route.tiers[0],
            services_s=tabulate(law, max_batch=min(law.max_batch, max_items)),
            way=way,
            spread=spread,
            margin=margin,
            slo_s=slo_s,
            max_in_flight=snapshot.settings.max_function_in_flight,
        )
    else:
        choice = choose_function(
            route.tiers,
            laws=laws,
            way=way,
            spread=spread,
            margin=margin,
            slo_s=slo_s,
            gather_rps=gather_rps * route.share,
            max_items=max_items,
            max_in_flight=snapshot.settings.max_function_in_flight,
            window_s=window_s,
        )
    return None if choice is None else PlannedBuffer(route, choice, way, spread, margin, window_s)


def _margin(route: Route, estimates: ModelEstimates, way: Way, spread: Spread) -> float:
    """The margin at the percentile, or the largest with which a single item is in time.

    A function that keeps 98 % of its deadlines is worth more than a refusal, and the percentile may hold all the same
    because most requests are the edge's.
    """
    alone_s, margin = fastest_s(route, estimates), spread.margin
    loosest_s = max(c.slo_s for c in route.classes)
    if alone_s <= 0 or alone_s * margin + way.takes_s(1) <= loosest_s:
        return margin
    most = (loosest_s - way.takes_s(1)) / alone_s
    # A hair less, so that the product which is compared with the deadline does not exceed it by rounding.
    return most * (1 - 1e-9) if most > 1 else margin

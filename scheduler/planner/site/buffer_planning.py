"""Tier, batch and waits of each function buffer of a model, and the fraction of its requests expected in time."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.plans import BufferPlan, LoadedBuffer, ModelEstimates, ServiceClass
from scheduler.planner.catalogue.function_path import FunctionPath
from scheduler.planner.site.edge_capacity import tabulate
from scheduler.planner.site.problem import BufferProblem
from scheduler.planner.site.service_margin import Spread, margin_at, margin_of
from scheduler.planner.site.tier_selection import FunctionChoice, TierProblem, choose_function, loaded_choice


@dataclass(frozen=True, slots=True)
class Route:
    """Requests that are gathered for the same batches.

    Attributes:
        classes: their service classes, at least one.
        tiers: function configurations to choose from, at least one.
        share: their share of the model's items.
        up_to_bytes: largest item on the wire; None: any.
        item_bytes: mean item on the wire, if items are routed by size; None: that of the model.
        size_factors: factor of the largest of these items on a service, by tier; empty if sizes do not matter.
        sigma: scatter of the logarithm of services of one size, if sizes are distinguished; None: that of all sizes.
        loaded: tier, batch and waits of a loaded plan; None: they are planned.
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
        """The strictest percentile of the classes."""
        return max(c.percentile for c in self.classes)

    def binding_slo_s(self, fastest_s: float) -> float:
        """Returns the tightest SLO that can be met at all; the loosest one if none can be met."""
        slos_s = [c.slo_s for c in self.classes]
        return min((slo_s for slo_s in slos_s if slo_s >= fastest_s), default=max(slos_s))


@dataclass(frozen=True, slots=True)
class PlannedBuffer:
    """A buffer with its tier and batch.

    Attributes:
        route: the requests that are gathered.
        problem: what tier and batch were chosen for.
        choice: tier and batch.
    """

    route: Route
    problem: TierProblem
    choice: FunctionChoice

    def within(self) -> float:
        """Returns the fraction of its requests that are expected in time."""
        choice = self.choice
        if not choice.in_time:
            return 0.0
        if self.route.loaded is not None:
            return self.route.percentile
        service_s = choice.services_s[choice.target - 1]
        available_s = choice.hold_s + service_s * self.problem.margin
        return self.problem.spread.within_after_wait(available_s, service_s, longest_wait_s=choice.hold_s)

    def plan(self, estimates: ModelEstimates) -> BufferPlan:
        """Returns the buffer in the form that the dispatcher uses."""
        route, factors = self.route, estimates.function_quantile_factor
        return BufferPlan(
            classes=tuple(c.name for c in route.classes),
            tier=self.choice.tier.name,
            target_batch=self.choice.target,
            timeouts_s={c.name: self._timeout_s(c) for c in route.classes},
            margins={c.name: min(margin_at(c.percentile, factors), self.problem.margin) for c in route.classes},
            percentile=route.percentile,
            share=route.share,
            up_to_bytes=route.up_to_bytes,
            item_bytes=route.item_bytes,
            size_factor=route.size_factors.get(self.choice.tier.name, 1.0),
            fixed=route.loaded is not None,
        )

    def _timeout_s(self, service_class: ServiceClass) -> float:
        """Returns the longest wait of a request of a class, seconds.

        It ends when a function batch of the request alone would only just be in time. Sending earlier gains nothing: a
        batch that cannot grow in time any more may still fit on the edge. A loaded plan has its own timeouts.
        """
        loaded = self.route.loaded
        longest_s = service_class.slo_s - self.choice.alone_s
        if loaded is not None:
            longest_s = loaded.timeouts_s[service_class.name]
        return max(0.0, min(self.problem.window_s, longest_s))


def fastest_s(route: Route, estimates: ModelEstimates) -> float:
    """Returns the median seconds of a single item on the fastest tier of a route."""
    return min(latency.predict_s(1) for latency in _latencies(route, estimates).values())


def _latencies(route: Route, estimates: ModelEstimates) -> dict[str, LatencyModel]:
    """Returns the learned latency model of each tier, for items of the route's size."""
    return {
        tier.name: estimates.function_latencies.get(tier.name, tier.latency).slower(
            route.size_factors.get(tier.name, 1.0)
        )
        for tier in route.tiers
    }


def plan_buffer(route: Route, problem: BufferProblem) -> PlannedBuffer:
    """Returns a route's buffer with the cheapest tier and batch in time, or with those of the loaded plan."""
    for_route = _tier_problem(route, problem)
    loaded = route.loaded
    choice = choose_function(for_route) if loaded is None else loaded_choice(for_route, loaded)
    return PlannedBuffer(route, for_route, choice)


def _tier_problem(route: Route, problem: BufferProblem) -> TierProblem:
    estimates = problem.estimates
    learned = margin_at(route.percentile, estimates.function_quantile_factor)
    spread = Spread(learned if route.sigma is None else margin_of(route.sigma, route.percentile), route.percentile)
    path = problem.uplink.path(estimates.item_bytes if route.item_bytes is None else route.item_bytes)
    margin = _margin(route, estimates, path, spread)
    return TierProblem(
        tiers=route.tiers,
        services_s={
            name: tabulate(latency, max_batch=min(latency.max_batch, problem.max_items))
            for name, latency in _latencies(route, estimates).items()
        },
        path=path,
        spread=spread,
        margin=margin,
        slo_s=route.binding_slo_s(fastest_s(route, estimates) * margin + path.takes_s(1)),
        gather_rps=problem.gather_rps * route.share,
        max_in_flight=problem.max_in_flight,
        window_s=problem.window_s,
    )


def _margin(route: Route, estimates: ModelEstimates, path: FunctionPath, spread: Spread) -> float:
    """Returns the margin at the percentile, or the largest one with which a single item is in time.

    A function that keeps 98 % of its deadlines is better than a refusal. The percentile may still hold, because the
    edge answers most requests.
    """
    alone_s, margin = fastest_s(route, estimates), spread.margin
    loosest_s = max(c.slo_s for c in route.classes)
    if alone_s <= 0 or alone_s * margin + path.takes_s(1) <= loosest_s:
        return margin
    max_margin = (loosest_s - path.takes_s(1)) / alone_s
    # Slightly less, so that rounding of the product with the service cannot exceed the deadline.
    return max(1.0, max_margin * (1 - 1e-9)) if max_margin > 1 else margin

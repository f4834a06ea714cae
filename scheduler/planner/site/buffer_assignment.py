"""Who shares a function buffer: classes by their SLOs, items by their size, each group with the tier it is cheapest on.

The exact planner groups a model's live classes on its deployed tiers as `edgeburst plan` groups applications on
functions. What it finds of waits and batches is not taken over: the dispatcher, which sees deadlines, sends for less
(`BatchEconomics`). A loaded plan is taken over as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scheduler.domain.plans import (
    LoadedBuffer,
    ModelEstimates,
    ModelSettings,
    ServiceClass,
    SizeFactors,
    SizeShare,
)
from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.functions.problem import Application, FunctionPlan, Question
from scheduler.planner.functions.size_classes import SizeClass
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.queueing.map_fit import refit
from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.site.buffer_planning import Route
from scheduler.planner.site.deployed_tiers import TierOffer, largest_of_batch, tier_way
from scheduler.planner.site.service_margin import Spread, margin_at

SLOWEST_RPS = 0.05
"""Rate that a class is planned with at least: one that nobody has used yet will be used."""
BUSIEST_BATCHES = 8.0
"""Full batches that arrive within an SLO at most: with more, every batch is full whatever else is planned."""
BURSTY = 1.2
"""Index of dispersion above which arrivals are not taken for Poisson."""
MOST_BURSTY = 50.0
BURSTY_WITHIN_S = 5.0
"""Clusters are seen within a counting tick of a quarter of a second: they matter for batches that wait not much longer,
and the exact law of a longer wait takes longer than its plan is worth."""
_PERCENTILES = (0.5, 0.9999)
_DOWN_BYTES_PER_S = 1.0
"""An uplink that carries less carries nothing, and nothing can be planned for it."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """The way to the functions: bytes a second (None: ample), round trip, and what all models send a second."""

    bytes_per_s: float | None
    rtt_s: float
    sent_bytes_per_s: float


def loaded_routes(
    settings: ModelSettings, classes: Sequence[ServiceClass], estimates: ModelEstimates
) -> tuple[Route, ...]:
    """Returns a route for each buffer of a loaded plan; `classes` are those that may leave the site."""
    shares = _class_shares(classes, estimates.class_shares)
    sizes = _sizes_by_class(settings.buffers, estimates.item_sizes)
    return tuple(
        Route(
            classes=tuple(settings.service_class(name) for name in loaded.classes),
            tiers=(settings.tier(loaded.tier),),
            share=math.fsum(shares[name] for name in loaded.classes) * share,
            up_to_bytes=loaded.up_to_bytes,
            item_bytes=mean_bytes,
            loaded=loaded,
        )
        for loaded, (share, mean_bytes) in zip(settings.buffers, sizes, strict=True)
    )


def live_routes(
    settings: ModelSettings,
    classes: Sequence[ServiceClass],
    estimates: ModelEstimates,
    *,
    uplink: Uplink,
    max_items: int,
) -> tuple[Route, ...]:
    """Returns the groups of classes and sizes that cost least on the deployed tiers; one for all where none differ.

    Parameters:
        settings: tiers, and whether there is an edge.
        classes: those that may leave the site, at least one.
        estimates: rates, sizes and services as they are now.
        uplink: to the tiers.
        max_items: most items in a batch.
    """
    together = (Route(tuple(classes), settings.tiers),)
    estimates = replace(estimates, size_factors=_for_all_tiers(settings, estimates.size_factors))
    # A transfer is not billed, and the dispatcher counts bytes itself: sizes matter where services go by them.
    sizes = estimates.item_sizes if estimates.size_factors else ()
    plain = len(classes) == 1 and len(sizes) < 2
    down = uplink.bytes_per_s is not None and uplink.bytes_per_s < _DOWN_BYTES_PER_S
    # What an edge lets through is no process that the planner knows; one class of it is left to choose_function.
    if max_items < 1 or down or (plain and (len(settings.tiers) == 1 or settings.edge_latency)):
        return together
    live = _Live(settings, tuple(classes), estimates, uplink, max_items)
    try:
        found = live.cheapest()
    except (ArrivalError, PlanInputError):
        # What is too much for the exact planner is planned without it.
        return together
    if plain:
        return (replace(together[0], tiers=(settings.tier(found.groups[0].function.kind),)),)
    return _routes(found, settings, classes, estimates)


@dataclass(frozen=True, slots=True)
class _Live:
    settings: ModelSettings
    classes: tuple[ServiceClass, ...]
    estimates: ModelEstimates
    uplink: Uplink
    max_items: int

    def cheapest(self) -> FunctionPlan:
        """Plans the classes together, or by size of items where that is in time for more, or costs less."""
        found = self.together()
        if len(self.estimates.item_sizes) < 2 or not self.estimates.size_factors:
            return found
        routed = self.by_size()
        # Where together no plan is in time, those by size are in time for some.
        if found.infeasible:
            return routed
        whole = {group.up_to_bytes for group in routed.groups} >= {self.estimates.item_sizes[-1].mean_bytes}
        cheaper = routed.total_cost_per_request < found.total_cost_per_request
        return routed if whole and not routed.infeasible and cheaper else found

    def together(self) -> FunctionPlan:
        """Plans the classes as applications that share functions."""
        offer = self._offer()
        return plan_functions(Question(tuple(self._application(c) for c in self.classes), offer, offer.sheet))

    def by_size(self) -> FunctionPlan:
        """Plans each class for itself, with its items routed by size.

        Sizes that no function can answer in time are left out, the largest first: what they need is no reason to send
        the others one by one. Where not even the smallest is in time, none is left out.
        """
        offer, sizes = self._offer(), self.estimates.item_sizes
        for kept in range(len(sizes), 0, -1):
            apps = tuple(self._application(c, sizes[:kept]) for c in self.classes)
            found = plan_functions(Question(apps, offer, offer.sheet))
            if found.infeasible is None:
                return found
        return self.together()

    def _offer(self) -> TierOffer:
        percentile = max(c.percentile for c in self.classes)
        margin = margin_at(percentile, self.estimates.function_quantile_factor)
        sizes, factors = self.estimates.item_sizes, self.estimates.size_factors
        sigma = _sigma(self.estimates) if factors else Spread(margin, percentile).sigma
        uplink = self.uplink
        return TierOffer(
            name="deployed tiers",
            tiers=self.settings.tiers,
            laws=self.estimates.function_latencies,
            sigma=sigma,
            way=tier_way(
                item_bytes=self.estimates.item_bytes,
                bytes_per_s=uplink.bytes_per_s,
                rtt_s=uplink.rtt_s,
                sent_bytes_per_s=uplink.sent_bytes_per_s,
            ),
            max_items=self.max_items,
            size_factors={
                tier: {size.mean_bytes: factor for size, factor in zip(sizes, known.factors, strict=True)}
                for tier, known in factors.items()
            },
            size_shares=tuple(size.share for size in sizes) if factors else (),
        )

    def _application(self, service_class: ServiceClass, sizes: Sequence[SizeShare] = ()) -> Application:
        shares = _class_shares(self.classes, self.estimates.class_shares)
        slo_s = min(c.slo_s for c in self.classes)
        most_rps = BUSIEST_BATCHES * max(tier.latency.max_batch for tier in self.settings.tiers) / slo_s
        part = math.fsum(size.share for size in sizes) if sizes else 1.0
        true_rps = max(self.estimates.rate_rps * shares[service_class.name] * part, SLOWEST_RPS)
        rate_rps = min(true_rps, most_rps)
        # Of several classes only what all together do is known of how arrivals cluster; over a long wait it evens out.
        alone = len(self.classes) == 1 and not sizes and service_class.slo_s <= BURSTY_WITHIN_S
        # Whoever counts a part of the arrivals sees that part of what they exceed Poisson by.
        dispersion = 1.0 + (min(self.estimates.dispersion, MOST_BURSTY) - 1.0) * rate_rps / true_rps
        process = (
            refit(rate_rps=rate_rps, dispersion=dispersion, tick_s=self.estimates.tick_s)
            if alone and dispersion > BURSTY
            else None
        )
        return Application(
            name=service_class.name,
            slo_s=service_class.slo_s,
            percentile=min(max(service_class.percentile, _PERCENTILES[0]), _PERCENTILES[1]),
            rate_rps=rate_rps,
            process=process,
            sizes=tuple(SizeClass(size.mean_bytes, size.share / part) for size in sizes),
        )


def _routes(
    found: FunctionPlan, settings: ModelSettings, classes: Sequence[ServiceClass], estimates: ModelEstimates
) -> tuple[Route, ...]:
    shares = _class_shares(classes, estimates.class_shares)
    by_mean = {size.mean_bytes: size for size in estimates.item_sizes}
    routes: list[Route] = []
    for place, group in enumerate(found.groups):
        route = Route(
            classes=tuple(settings.service_class(name) for name in group.apps),
            tiers=(settings.tier(group.function.kind),),
            share=math.fsum(shares[name] for name in group.apps),
            size_factors=_mixed_factors(estimates, group.function.batch),
            sigma=_mixed_sigma(estimates),
        )
        if group.up_to_bytes is None:
            routes.append(route)
            continue
        smaller = max((g.up_to_bytes or 0.0 for g in found.groups[:place] if g.apps == group.apps), default=0.0)
        routes.append(_sized(route, estimates, smaller, by_mean[group.up_to_bytes]))
        last = group.up_to_bytes == max(g.up_to_bytes or 0.0 for g in found.groups if g.apps == group.apps)
        if last and routes[-1].up_to_bytes is not None:
            # What was left out of the plan goes wherever it is answered soonest.
            largest = _sized(route, estimates, group.up_to_bytes, estimates.item_sizes[-1])
            routes.append(replace(largest, tiers=settings.tiers))
    return tuple(routes)


def _sized(route: Route, estimates: ModelEstimates, above_bytes: float, largest: SizeShare) -> Route:
    """A route for the items between two sizes; what is larger than any that was seen goes with the largest."""
    part, mean_bytes = _between(estimates.item_sizes, above_bytes, largest.up_to_bytes)
    number = estimates.item_sizes.index(largest)
    return replace(
        route,
        share=route.share * part,
        up_to_bytes=None if largest is estimates.item_sizes[-1] else largest.up_to_bytes,
        item_bytes=mean_bytes,
        size_factors={tier: known.factors[number] for tier, known in estimates.size_factors.items()},
        sigma=_sigma(estimates),
    )


def _for_all_tiers(settings: ModelSettings, known: Mapping[str, SizeFactors]) -> dict[str, SizeFactors]:
    """What sizes make of services, for tiers too of which nothing is known yet: the least that others show."""
    least = min(known.values(), key=lambda each: each.factors[-1] / each.factors[0], default=None)
    return {} if least is None else {tier.name: known.get(tier.name, least) for tier in settings.tiers}


def _mixed_factors(estimates: ModelEstimates, items: int) -> dict[str, float]:
    """By tier: what the largest item of a batch of so many makes of a service, typically."""
    chances = largest_of_batch([size.share for size in estimates.item_sizes], np.array([items]))[:, 0].tolist()
    return {
        tier: math.exp(math.fsum(p * math.log(f) for p, f in zip(chances, known.factors, strict=True)))
        for tier, known in estimates.size_factors.items()
    }


def _mixed_sigma(estimates: ModelEstimates) -> float | None:
    """Scatter where sizes are mixed; None where none is told apart."""
    if not estimates.size_factors:
        return None
    apart = max(math.log(known.factors[-1] / known.factors[0]) for known in estimates.size_factors.values())
    # Two values that far apart stray by half of that from their middle.
    return math.hypot(_sigma(estimates), 0.5 * apart)


def _sigma(estimates: ModelEstimates) -> float:
    """Scatter of services of one size, on the tier where it is largest."""
    return max(known.sigma for known in estimates.size_factors.values())


def _between(sizes: Sequence[SizeShare], above_bytes: float, up_to_bytes: float | None) -> tuple[float, float | None]:
    """The part of the items in a range of sizes, and their mean if there are any."""
    most_bytes = math.inf if up_to_bytes is None else up_to_bytes
    chosen = [size for size in sizes if above_bytes < size.mean_bytes <= most_bytes]
    share = math.fsum(size.share for size in chosen)
    if share <= 0:
        return 0.0, None
    return share, math.fsum(size.share * size.mean_bytes for size in chosen) / share


def _sizes_by_class(buffers: Sequence[LoadedBuffer], sizes: Sequence[SizeShare]) -> list[tuple[float, float | None]]:
    """For each loaded buffer the part of its classes' items that it takes; where that goes by size, their mean."""
    found: list[tuple[float, float | None]] = []
    ends: dict[tuple[str, ...], float] = {}
    routed = {name for buffer in buffers for name in buffer.classes if buffer.up_to_bytes is not None}
    for buffer in buffers:
        if not routed.intersection(buffer.classes):
            found.append((1.0, None))
            continue
        if not sizes:
            found.append((1.0 / sum(other.classes == buffer.classes for other in buffers), None))
            continue
        found.append(_between(sizes, ends.get(buffer.classes, 0.0), buffer.up_to_bytes))
        ends[buffer.classes] = buffer.up_to_bytes or math.inf
    return found


def _class_shares(classes: Sequence[ServiceClass], seen: Mapping[str, float]) -> dict[str, float]:
    """The part of the items by class, of these classes alone; equal parts while none was seen."""
    total = math.fsum(seen.get(c.name, 0.0) for c in classes)
    return {c.name: seen.get(c.name, 0.0) / total if total > 0 else 1.0 / len(classes) for c in classes}

"""Assignment of requests to function buffers: classes by SLO, items by size, each group to its cheapest tier.

The exact planner groups the live classes of a model on its deployed tiers as `edgeburst plan` groups applications on
functions. Its waits and batches are not used: the dispatcher knows deadlines and sends for less money. A loaded plan is
used as it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

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
from scheduler.planner.functions.problem import Application, FunctionPlan, PlanningProblem
from scheduler.planner.functions.size_classes import SizeClass, largest_of_batch
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.queueing.map_fit import refit
from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.site.buffer_planning import Route
from scheduler.planner.site.deployed_tiers import TierOffer
from scheduler.planner.site.problem import BufferProblem
from scheduler.planner.site.service_margin import Spread, margin_at

MIN_RATE_RPS = 0.05
"""Smallest rate that a class is planned with, since a class without requests so far may get some. Judgement: one
request in 20 s is below any rate at which batches form; the plan of a busy class does not depend on it."""
MAX_BATCHES_IN_SLO = 8.0
"""Largest number of full batches that arrive within an SLO. Judgement: with more, every batch is full under any plan,
so a larger rate would only make the exact distributions slower."""
BURSTY_DISPERSION = 1.2
"""Index of dispersion above which arrivals are planned as bursty and not as Poisson. Judgement: the daemon's estimate
scatters by about 0.1 (200 pairs of counts), so 1.2 is rarely reached by chance."""
MAX_DISPERSION = 50.0
"""Largest index of dispersion that is planned with. Judgement: burstier arrivals lead to the same plan, but their
process has a phase of so high a rate that its count matrices become large."""
MAX_BURSTY_SLO_S = 5.0
"""Longest SLO for which bursts are planned. The daemon sees bursts within counting ticks of 0.25 s, so they matter for
batches that wait not much longer. Judgement: the exact distribution of a longer wait takes more time than its plan
saves."""
_PERCENTILES = (0.5, 0.9999)
"""Range of percentiles that are planned for exactly: latencies have atoms up to 0.9999, and a percentile below the
median leaves nothing to plan."""
_MIN_BYTES_PER_S = 1.0
"""Bandwidth below which the uplink counts as down, and nothing can be planned for it."""


def loaded_routes(problem: BufferProblem) -> tuple[Route, ...]:
    """Returns a route for each buffer of a loaded plan."""
    settings, estimates = problem.settings, problem.estimates
    shares = _class_shares(problem.classes, estimates.class_shares)
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


def live_routes(problem: BufferProblem) -> tuple[Route, ...]:
    """Returns the groups of classes and sizes that cost least on the deployed tiers; one group where all are alike."""
    settings, classes, uplink = problem.settings, problem.classes, problem.uplink
    together = (Route(classes, settings.tiers),)
    estimates = replace(problem.estimates, size_factors=_for_all_tiers(settings, problem.estimates.size_factors))
    # Transfers are not billed, and the dispatcher counts bytes itself: sizes matter only where services depend on them.
    sizes = estimates.item_sizes if estimates.size_factors else ()
    plain = len(classes) == 1 and len(sizes) < 2
    down = uplink.bytes_per_s is not None and uplink.bytes_per_s < _MIN_BYTES_PER_S
    # The requests that an edge lets through are no process that the planner knows. One class of them is left to
    # choose_function.
    if down or (plain and (len(settings.tiers) == 1 or settings.edge_latency)):
        return together
    problem = replace(problem, estimates=estimates)
    try:
        found = _cheapest(problem)
    except (ArrivalError, PlanInputError):
        # Problems that are too large for the exact planner are planned without it.
        return together
    if plain:
        return (replace(together[0], tiers=(settings.tier(found.groups[0].function.kind),)),)
    return _routes(found, problem)


def _cheapest(problem: BufferProblem) -> FunctionPlan:
    """Plans the classes together; or by size of items, if more of them are then in time or the plan costs less."""
    found = _together(problem)
    if len(problem.estimates.item_sizes) < 2 or not problem.estimates.size_factors:
        return found
    routed = _by_size(problem)
    # If no plan for all sizes together is in time, one by size is in time for some.
    if found.infeasible:
        return routed
    whole = {group.up_to_bytes for group in routed.groups} >= {problem.estimates.item_sizes[-1].mean_bytes}
    cheaper = routed.total_cost_per_request < found.total_cost_per_request
    return routed if whole and not routed.infeasible and cheaper else found


def _together(problem: BufferProblem) -> FunctionPlan:
    """Plans the classes as applications that share functions."""
    offer = _offer(problem)
    return plan_functions(PlanningProblem(tuple(_application(problem, c) for c in problem.classes), offer, offer.sheet))


def _by_size(problem: BufferProblem) -> FunctionPlan:
    """Plans each class alone, with its items routed by size.

    Sizes that no function can answer in time are left out, the largest first: otherwise their need would send all
    others one by one. If not even the smallest size is in time, none is left out.
    """
    offer, sizes = _offer(problem), problem.estimates.item_sizes
    for kept in range(len(sizes), 0, -1):
        apps = tuple(_application(problem, c, sizes[:kept]) for c in problem.classes)
        found = plan_functions(PlanningProblem(apps, offer, offer.sheet))
        if found.infeasible is None:
            return found
    return _together(problem)


def _offer(problem: BufferProblem) -> TierOffer:
    percentile = max(c.percentile for c in problem.classes)
    margin = margin_at(percentile, problem.estimates.function_quantile_factor)
    sizes, factors = problem.estimates.item_sizes, problem.estimates.size_factors
    sigma = _sigma(problem.estimates) if factors else Spread(margin, percentile).sigma
    return TierOffer(
        name="deployed tiers",
        tiers=problem.settings.tiers,
        latencies=problem.estimates.function_latencies,
        sigma=sigma,
        path=problem.uplink.path(problem.estimates.item_bytes),
        max_items=problem.max_items,
        size_factors={
            tier: {size.mean_bytes: factor for size, factor in zip(sizes, known.factors, strict=True)}
            for tier, known in factors.items()
        },
        size_shares=tuple(size.share for size in sizes) if factors else (),
    )


def _application(problem: BufferProblem, service_class: ServiceClass, sizes: Sequence[SizeShare] = ()) -> Application:
    shares = _class_shares(problem.classes, problem.estimates.class_shares)
    slo_s = min(c.slo_s for c in problem.classes)
    max_rps = MAX_BATCHES_IN_SLO * max(tier.latency.max_batch for tier in problem.settings.tiers) / slo_s
    part = math.fsum(size.share for size in sizes) if sizes else 1.0
    true_rps = max(problem.estimates.rate_rps * shares[service_class.name] * part, MIN_RATE_RPS)
    rate_rps = min(true_rps, max_rps)
    # Of several classes only the bursts of all together are known; over a long wait bursts even out.
    alone = len(problem.classes) == 1 and not sizes and service_class.slo_s <= MAX_BURSTY_SLO_S
    # A part of the arrivals has that part of the excess over Poisson.
    dispersion = 1.0 + (min(problem.estimates.dispersion, MAX_DISPERSION) - 1.0) * rate_rps / true_rps
    process = (
        refit(rate_rps=rate_rps, dispersion=dispersion, tick_s=problem.estimates.tick_s)
        if alone and dispersion > BURSTY_DISPERSION
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


def _routes(found: FunctionPlan, problem: BufferProblem) -> tuple[Route, ...]:
    settings, estimates = problem.settings, problem.estimates
    shares = _class_shares(problem.classes, estimates.class_shares)
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
            # Sizes that the plan left out go to the tier that answers them soonest.
            largest = _sized(route, estimates, group.up_to_bytes, estimates.item_sizes[-1])
            routes.append(replace(largest, tiers=settings.tiers))
    return tuple(routes)


def _sized(route: Route, estimates: ModelEstimates, above_bytes: float, largest: SizeShare) -> Route:
    """Returns a route for the items between two sizes. Items above any observed size belong to the largest size."""
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
    """Returns the factors of sizes on services for all tiers; without observations a tier gets the smallest ones."""
    least = min(known.values(), key=lambda each: each.factors[-1] / each.factors[0], default=None)
    return {} if least is None else {tier.name: known.get(tier.name, least) for tier in settings.tiers}


def _mixed_factors(estimates: ModelEstimates, items: int) -> dict[str, float]:
    """Returns the geometric mean factor of the largest item in a batch of `items`, by tier."""
    chances = largest_of_batch([size.share for size in estimates.item_sizes], np.array([items]))[:, 0].tolist()
    return {
        tier: math.exp(math.fsum(p * math.log(f) for p, f in zip(chances, known.factors, strict=True)))
        for tier, known in estimates.size_factors.items()
    }


def _mixed_sigma(estimates: ModelEstimates) -> float | None:
    """Returns the scatter of services where sizes are mixed; None if sizes are not distinguished."""
    if not estimates.size_factors:
        return None
    apart = max(math.log(known.factors[-1] / known.factors[0]) for known in estimates.size_factors.values())
    # Two values at a distance d differ from their middle by d / 2.
    return math.hypot(_sigma(estimates), 0.5 * apart)


def _sigma(estimates: ModelEstimates) -> float:
    """Returns the scatter of services of one size, on the tier where it is largest."""
    return max(known.sigma for known in estimates.size_factors.values())


def _between(sizes: Sequence[SizeShare], above_bytes: float, up_to_bytes: float | None) -> tuple[float, float | None]:
    """Returns the share of the items in a range of sizes, and their mean size if there are any."""
    max_bytes = math.inf if up_to_bytes is None else up_to_bytes
    chosen = [size for size in sizes if above_bytes < size.mean_bytes <= max_bytes]
    share = math.fsum(size.share for size in chosen)
    if share <= 0:
        return 0.0, None
    return share, math.fsum(size.share * size.mean_bytes for size in chosen) / share


def _sizes_by_class(buffers: Sequence[LoadedBuffer], sizes: Sequence[SizeShare]) -> list[tuple[float, float | None]]:
    """Returns each loaded buffer's share of the items of its classes, and their mean size if that goes by size."""
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
    """Returns the share of the items by class, among these classes; equal shares if none was observed."""
    total = math.fsum(seen.get(c.name, 0.0) for c in classes)
    return {c.name: seen.get(c.name, 0.0) / total if total > 0 else 1.0 / len(classes) for c in classes}

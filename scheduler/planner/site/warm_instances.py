"""How many provisioned instances of each tier pay beside an edge, for traffic whose rates follow one another."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist

import numpy as np

from scheduler.domain.latency import FunctionTier
from scheduler.planner.functions.provisioning import (
    BatchTraffic,
    InstancePrices,
    Upkeep,
    WarmProblem,
    cheapest,
    cycle_traffic,
    poisson_traffic,
    upkeep,
)
from scheduler.planner.queueing.matrices import Array
from scheduler.planner.site.buffer_planning import PlannedBuffer
from scheduler.planner.site.edge_capacity import BUFFERED_SLOS, NO_EDGE
from scheduler.planner.site.outlook import Serving

COLD_PART = 0.25
"""Part of the late answers that a percentile allows that may be late for want of a warm instance. Judgement: the rest
is for services and transfers that take longer than planned, which no instance prevents. The demo's rates need 18
instances with a half and 19 with a quarter; simulated, 0.4 % and 0.3 % of the requests are then late (1 % may be)."""
START_SIGMA = 0.5
"""Scatter of the logarithm of a start's seconds, as the engine assumes it before it has seen any."""
_BINS = (-math.inf, 0.0, 0.75, 1.5, 2.25, math.inf)
"""Standard deviations that bound the numbers of arrivals which are told apart. Judgement: the last bin is exceeded in
1.2 % of the windows; its mean counts, so that the load on the functions is exact."""
_NOTHING = 1e-9
"""Part of the items below which nothing spills."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class TierInstances:
    """What the platform does with instances of a tier, and what it takes for them.

    Attributes:
        tier: the tier.
        idle_per_s: price of a second of a provisioned instance without a batch.
        start_s: median seconds of a start.
        kept_s: idle seconds after which the platform removes an instance.
    """

    tier: FunctionTier
    idle_per_s: float
    start_s: float
    kept_s: float

    def prices(self, max_instances: int) -> InstancePrices:
        """Returns the prices of its instances; a start is billed like a batch of the same duration."""
        return InstancePrices(
            idle_per_s=self.idle_per_s,
            per_start=self.tier.price.cost(self.start_s),
            start_s=self.start_s,
            kept_s=self.kept_s,
            max_instances=max_instances,
        )


@dataclass(frozen=True, slots=True)
class Proposal:
    """The number of provisioned instances that pays for a tier.

    Attributes:
        model: name of the model.
        tier: name of the tier.
        chosen: the number, what it costs, and how many batches are late.
        without: the same without provisioned instances.
        allowed: fraction of the model's items that may be late for want of a warm instance.
        problem: what the number was chosen for.
        items_per_batch: mean items of a batch.
        rate_rps: items a second of the model, on average.
    """

    model: str
    tier: str
    chosen: Upkeep
    without: Upkeep
    allowed: float
    problem: WarmProblem
    items_per_batch: float
    rate_rps: float

    def at(self, count: int) -> Upkeep:
        """Returns what another number of provisioned instances leads to."""
        return upkeep(self.problem, count)

    def late(self, found: Upkeep) -> float:
        """Returns the fraction of the model's items that are late for want of a warm instance."""
        return found.late_per_s * self.items_per_batch / self.rate_rps if self.rate_rps > 0 else 0.0


def propose(phases: Sequence[tuple[float, Serving]], instances: TierInstances, *, on_demand: bool = True) -> Proposal:
    """Returns the number of provisioned instances of one tier that costs least and keeps the percentile.

    Args:
        phases: mean seconds of each phase of the traffic, and how the model is served at its rate.
        instances: the tier.
        on_demand: False if no batch may start an instance beside the provisioned ones; it waits for one of them.
    """
    tier, serving = instances.tier, phases[0][1]
    total_s = math.fsum(held_s for held_s, _ in phases)
    rate_rps = math.fsum(held_s * each.estimates.rate_rps for held_s, each in phases) / total_s
    tier_rps = math.fsum(held_s * _spilled_rps(each, tier.name) for held_s, each in phases) / total_s
    spilled_rps = math.fsum(
        held_s * _spilled_rps(each, other.name) for held_s, each in phases for other in each.settings.tiers
    )
    # A batch that may start no instance holds one of as many slots from its sending to its answer.
    traffic = cycle_traffic(
        [(held_s, _tier_traffic(each, tier.name, with_path=not on_demand)) for held_s, each in phases]
    )
    items = tier_rps / traffic.mean_batches_per_s if traffic.mean_batches_per_s > 0 else 1.0
    part = tier_rps * total_s / spilled_rps if spilled_rps > 0 else 1.0
    allowed = COLD_PART * part * (1.0 - max(c.percentile for c in serving.settings.classes))
    problem = WarmProblem(
        traffic=traffic,
        prices=instances.prices(tier.max_in_flight),
        late_if_cold=_late_if_cold(serving, instances),
        max_late_per_s=allowed * rate_rps / items,
    )
    return Proposal(
        model=serving.settings.name,
        tier=tier.name,
        chosen=cheapest(problem) if on_demand else _cheapest_alone(problem),
        without=upkeep(problem, 0),
        allowed=allowed,
        problem=problem,
        items_per_batch=items,
        rate_rps=rate_rps,
    )


def _cheapest_alone(problem: WarmProblem) -> Upkeep:
    """Returns the smallest number that keeps late batches within their bound if no others may be started."""
    found = upkeep(_alone(problem, 0), 0)
    while found.late_per_s > problem.max_late_per_s and found.count < problem.prices.max_instances:
        found = upkeep(_alone(problem, found.count + 1), found.count + 1)
    return found


def _alone(problem: WarmProblem, count: int) -> WarmProblem:
    return replace(problem, prices=replace(problem.prices, max_instances=count))


def _late_if_cold(serving: Serving, instances: TierInstances) -> float:
    """Returns the probability that a request whose batch waits for a start is late: lognormal starts."""
    theirs = _buffers(serving, instances.tier.name)
    slack_s = min((min(c.slo_s for c in b.route.classes) - b.choice.alone_s for b in theirs), default=0.0)
    if slack_s <= 0:
        return 1.0
    return 1.0 - _NORMAL.cdf(math.log(slack_s / max(instances.start_s, 1e-9)) / START_SIGMA)


def _buffers(serving: Serving, tier: str) -> tuple[PlannedBuffer, ...]:
    return tuple(buffer for buffer in serving.reachable if buffer.choice.tier.name == tier)


def _spilled_rps(serving: Serving, tier: str) -> float:
    """Returns the items a second that go to a tier."""
    share = math.fsum(serving.share_of(buffer) for buffer in _buffers(serving, tier))
    return serving.estimates.rate_rps * serving.edge.spill_fraction * share * serving.served


def _tier_traffic(serving: Serving, tier: str, *, with_path: bool) -> BatchTraffic:
    """Returns the batches that go to a tier while the traffic has one rate.

    Beside an edge, what spills is what a window has more than the edge can keep (`edge_capacity`): each window's number
    of arrivals is normal, and drawn anew after a window's length on average.
    """
    parts = [(buffer, serving.share_of(buffer) * serving.served) for buffer in _buffers(serving, tier)]
    per_item = math.fsum(share / _items(serving, buffer) for buffer, share in parts)
    busy_s = math.fsum(
        share / _items(serving, buffer) * _busy_s(serving, buffer, with_path=with_path) for buffer, share in parts
    )
    service_s = busy_s / per_item if per_item > 0 else 0.0
    if serving.edge is NO_EDGE:
        return poisson_traffic(batches_per_s=serving.estimates.rate_rps * per_item, service_s=service_s)
    chances, rates_rps = _spill_rates(serving)
    changes = np.tile(chances, (len(chances), 1)) / (BUFFERED_SLOS * serving.edge_slo_s)
    return BatchTraffic(changes, rates_rps * per_item, np.full(len(chances), service_s))


def _spill_rates(serving: Serving) -> tuple[Array, Array]:
    """Returns the rates at which items spill from the edge and the fraction of the windows with each; ascending."""
    estimates, edge = serving.estimates, serving.edge
    window_s = BUFFERED_SLOS * serving.edge_slo_s
    sigma_rps = math.sqrt(max(estimates.dispersion, 1e-9) * estimates.rate_rps / window_s)
    excess_rps = estimates.rate_rps - edge.capacity_rps
    chances, rates_rps = [0.0], [0.0]
    for low, high in pairwise(_BINS):
        chance = _NORMAL.cdf(high) - _NORMAL.cdf(low)
        above = max(low, min(high, -excess_rps / sigma_rps if sigma_rps > 0 else low))
        spilled = excess_rps * (_NORMAL.cdf(high) - _NORMAL.cdf(above)) + sigma_rps * (_density(above) - _density(high))
        if spilled <= _NOTHING * estimates.rate_rps:
            chances[0] += chance
        else:
            chances.append(chance)
            rates_rps.append(spilled / chance)
    first = 0 if chances[0] > 0 else 1
    return np.array(chances[first:]), np.array(rates_rps[first:])


def _density(sigmas: float) -> float:
    return 0.0 if math.isinf(sigmas) else _NORMAL.pdf(sigmas)


def _items(serving: Serving, buffer: PlannedBuffer) -> float:
    """Returns the mean items of a buffer's batches.

    Beside an edge they leave at the last moment of a member that the edge might still have taken, so that all sizes up
    to the target occur; without one, or with a loaded plan, they gather as planned.
    """
    planned = buffer.choice.mean_batch
    if serving.edge is NO_EDGE or buffer.route.loaded is not None:
        return planned
    return min(planned, (1 + buffer.choice.target) / 2)


def _busy_s(serving: Serving, buffer: PlannedBuffer, *, with_path: bool) -> float:
    """Returns the mean seconds that a batch occupies an instance; with its path if that is a slot's time."""
    services_s, items = buffer.choice.services_s, _items(serving, buffer)
    median_s = float(np.interp(items, np.arange(1, len(services_s) + 1), services_s))
    path_s = buffer.problem.path.takes_s(math.ceil(items)) if with_path else 0.0
    return median_s * buffer.problem.spread.mean_factor + path_s

"""Selection of the function tier and batch size for requests that spill: the cheapest ones that can be in time."""

from collections.abc import Mapping
from dataclasses import dataclass

from scheduler.domain.latency import FunctionTier
from scheduler.domain.plans import LoadedBuffer
from scheduler.planner.catalogue.function_path import FunctionPath
from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes
from scheduler.planner.site.service_margin import Spread


@dataclass(frozen=True, slots=True)
class FunctionChoice:
    """A tier, the batch to gather for it, and the results.

    Attributes:
        tier: the function configuration.
        target: items at which a gathered batch leaves.
        hold_s: longest time for gathering a batch of `target` items that is still in time; below 0 it is late.
        alone_s: seconds that a single item needs, with margin.
        services_s: expected seconds of a batch of 1, 2, ... items.
        cost_per_item: expected money.
        capacity_rps: items a second, bounded by uplink and concurrency.
        mean_batch: mean items of a batch that leaves when it is full or the time for gathering is over.
    """

    tier: FunctionTier
    target: int
    hold_s: float
    alone_s: float
    services_s: tuple[float, ...]
    cost_per_item: float
    capacity_rps: float
    mean_batch: float

    @property
    def in_time(self) -> bool:
        """Whether its batches meet the deadline they were chosen for."""
        return self.hold_s >= 0


@dataclass(frozen=True, slots=True)
class TierProblem:
    """What tier and batch of one function buffer are chosen for.

    Attributes:
        tiers: the configurations to choose from, at least one.
        services_s: expected seconds of a batch of 1, 2, ... items up to the largest allowed, by tier name.
        path: path to the functions.
        spread: scatter of function service times.
        margin: planned factor on a service time; below that of the spread where that could never fit.
        slo_s: the deadline that binds.
        gather_rps: items a second that arrive while a batch is gathered.
        max_in_flight: largest number of batches in flight for all tiers together.
        window_s: longest hold that the operator allows; infinite if none is set.
    """

    tiers: tuple[FunctionTier, ...]
    services_s: Mapping[str, tuple[float, ...]]
    path: FunctionPath
    spread: Spread
    margin: float
    slo_s: float
    gather_rps: float
    max_in_flight: int
    window_s: float

    def slots(self, tier: FunctionTier) -> int:
        """Returns the number of batches that a tier may have in flight."""
        return min(self.max_in_flight, tier.max_in_flight)

    def alone_s(self, tier: FunctionTier) -> float:
        """Returns the seconds that a single item needs on a tier, with margin."""
        return self.services_s[tier.name][0] * self.margin + self.path.takes_s(1)


def choose_function(problem: TierProblem) -> FunctionChoice:
    """Returns the cheapest tier and batch in time; if none is in time, the fastest tier for single items."""
    choices = [choice for tier in problem.tiers for choice in _choices(problem, tier)]
    in_time = [choice for choice in choices if choice.in_time]
    if in_time:
        return min(in_time, key=_by_money)
    return min((c for c in choices if c.target == 1), key=lambda c: (c.services_s[0], c.cost_per_item))


def _by_money(choice: FunctionChoice) -> tuple[float, float]:
    """Returns the sort key of a choice: its money, and for equal money (as at rate 0) that of a full batch."""
    full = choice.tier.price.cost(choice.services_s[choice.target - 1]) / choice.target
    return float(f"{choice.cost_per_item:.9e}"), full


def _targets(max_size: int) -> list[int]:
    """Returns every size up to 32, then steps of a quarter: planning time must not grow with the cube of the size."""
    sizes = list(range(1, min(max_size, 32) + 1))
    while sizes and sizes[-1] < max_size:
        sizes.append(min(max_size, sizes[-1] + sizes[-1] // 4))
    return sizes


def _choices(problem: TierProblem, tier: FunctionTier) -> list[FunctionChoice]:
    services_s, path, mean_factor = problem.services_s[tier.name], problem.path, problem.spread.mean_factor
    costs = [tier.price.cost(service_s * mean_factor) for service_s in services_s]
    choices = []
    for target in _targets(len(services_s)):
        service_s = services_s[target - 1]
        takes_s = service_s * problem.margin + path.takes_s(target)
        hold_s = min(problem.slo_s - takes_s, problem.window_s)
        if hold_s < 0 and target > 1:
            break
        batches = PoissonBatchSizes(rate_rps=problem.gather_rps, max_batch=target, timeout_s=max(hold_s, 0.0))
        slots_rps = problem.slots(tier) * batches.mean_size / (service_s * mean_factor + path.takes_s(target))
        choices.append(
            FunctionChoice(
                tier=tier,
                target=target,
                hold_s=hold_s,
                alone_s=problem.alone_s(tier),
                services_s=services_s,
                cost_per_item=batches.cost_per_request(costs[:target]),
                capacity_rps=min(path.capacity_rps, slots_rps),
                mean_batch=batches.mean_size,
            )
        )
    return choices


def loaded_choice(problem: TierProblem, loaded: LoadedBuffer) -> FunctionChoice:
    """Returns the choice of a loaded plan; it is in time if a single item is.

    Args:
        problem: the problem, with the tier of the buffer as its only one.
        loaded: the buffer of the loaded plan.
    """
    [tier] = problem.tiers
    services_s, path, alone_s = problem.services_s[tier.name], problem.path, problem.alone_s(tier)
    target = min(loaded.target_batch, len(services_s))
    takes_s = services_s[target - 1] * problem.spread.mean_factor + path.takes_s(target)
    return FunctionChoice(
        tier=tier,
        target=target,
        hold_s=max(loaded.timeouts_s.values()) if alone_s <= problem.slo_s else problem.slo_s - alone_s,
        alone_s=alone_s,
        services_s=services_s,
        cost_per_item=loaded.cost_per_item,
        capacity_rps=min(path.capacity_rps, problem.slots(tier) * target / takes_s),
        mean_batch=float(target),
    )

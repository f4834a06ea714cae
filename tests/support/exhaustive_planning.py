"""Plans by trying everything, with the distributions of `class_buffers` rather than those that the search uses."""

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from support.distributions.class_buffers import class_buffer_distribution

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.functions.shared_buffer_search import LATENCY_RESERVES
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer


def cheapest(
    families: Sequence[Configurations],
    buffer: SharedBuffer,
    percentiles: Sequence[float] | None,
    *,
    reserve_full_batch: bool = False,
) -> float:
    """Lowest cost per request of one function for a buffer; None as percentiles: no request may be late."""
    best = math.inf
    for family, index, cap in _pairs(families):
        services = family.services
        worst_s = float(services.worst_s[index, :cap].max())
        atoms_s = services.atoms_s[index, :cap]
        for latency_reserve_s in _latency_reserves_s(buffer, worst_s, percentiles is None):
            distribution = class_buffer_distribution(buffer.rates_rps, buffer.slos_s - latency_reserve_s, max_batch=cap)
            cost = distribution.cost_per_request(family.cost(index, cap))
            if cost >= best:
                continue
            if latency_reserve_s == worst_s or (
                percentiles is not None
                and latency_reserve_s >= services.atoms_s[index, cap - 1 if reserve_full_batch else 0, 0]
                and (
                    _within(distribution, buffer, atoms_s, services.weights[index, :cap])
                    >= np.array(percentiles) - 1e-7
                ).all()
            ):
                best = cost
    return best


def _pairs(families: Sequence[Configurations]) -> Iterator[tuple[Configurations, int, int]]:
    for family in families:
        for index, cap in itertools.product(range(len(family.vcpu)), range(1, family.max_batch + 1)):
            if family.allowed[index, cap - 1]:
                yield family, index, cap


def _latency_reserves_s(buffer: SharedBuffer, worst_s: float, never_late: bool) -> list[float]:
    certainly = [worst_s] if worst_s <= buffer.strictest_s else []
    return certainly + (
        [] if never_late else [buffer.strictest_s * k / LATENCY_RESERVES for k in range(1, LATENCY_RESERVES + 1)]
    )


def _within(distribution, buffer, atoms_s, weights):  # type: ignore[no-untyped-def]
    """By application, for services whose probabilities depend on the size: size by size."""
    total = np.zeros(len(buffer.slos_s))
    for number, slo_s in enumerate(buffer.slos_s):
        total[number] = (distribution.within(number, slo_s - atoms_s) * weights).sum()
    return total


def cheapest_grouping(
    families: Sequence[Configurations], buffer: SharedBuffer, percentiles: Sequence[float] | None
) -> float:
    """Lowest cost per second over all ways to cut the applications into contiguous groups."""
    count, best = len(buffer.slos_s), math.inf
    costs: dict[tuple[int, int], float] = {}
    for cuts in itertools.product([False, True], repeat=count - 1):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [count]
        total, start = 0.0, 0
        for end in ends:
            if (start, end) not in costs:
                part = SharedBuffer(buffer.slos_s[start:end], buffer.rates_rps[start:end])
                wanted = None if percentiles is None else percentiles[start:end]
                costs[(start, end)] = cheapest(families, part, wanted) * part.rate_rps
            total, start = total + costs[(start, end)], end
        best = min(best, total)
    return best

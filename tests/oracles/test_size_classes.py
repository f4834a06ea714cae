"""Routing by size: the padded bill against enumeration, the routing against every division, percentiles simulated."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from scheduler.planner.catalogue.configurations import Configurations, Family
from scheduler.planner.catalogue.latency_models import TableLatency
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.cost_bounds import space_of
from scheduler.planner.functions.shared_buffer_search import percentile
from scheduler.planner.functions.size_classes import best_size_buffers
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer

SHEET = load_sheet("lambda-mbs-usd")
SHARES = np.array([0.5, 0.2, 0.2, 0.1])
SLO_S, RATE_RPS = 1.5, 12.0
MEMORIES = np.array([1.0, 2.0, 4.0])


def configurations(size: int) -> tuple[Configurations, ...]:
    """Larger requests take longer, more memory less."""
    seconds = tuple(tuple(0.05 + 0.9 * (size + 1) * (0.4 + 0.2 * b) / (4 * m) for b in range(1, 6)) for m in MEMORIES)
    family = Family(
        "cpu", TableLatency(seconds), np.ones(3), np.zeros(3), np.tile(MEMORIES[:, None], 5), np.full(3, 5.0)
    )
    return (family.tabulated(SHEET),)


BY_CLASS = [configurations(size) for size in range(4)]


def enumerated(start: int, end: int, row: int, batch: int) -> float:
    """Expected seconds billed of a batch, over all ways its requests can be of the classes."""
    part = SHARES[start:end] / SHARES[start:end].sum()
    total = 0.0
    for members in itertools.product(range(end - start), repeat=batch):
        billed_s = BY_CLASS[start + max(members)][0].services.billed_s[row, batch - 1]
        total += float(np.prod(part[list(members)])) * billed_s
    return total


def by_hand(start: int, end: int) -> float:
    """Lowest cost per second of one buffer for a range of classes, with the bill by enumeration."""
    largest = BY_CLASS[end - 1][0]
    billed_s = np.array([[enumerated(start, end, row, batch) for batch in range(1, 6)] for row in range(3)])
    rate = RATE_RPS * float(SHARES[start:end].sum())
    space = space_of([replace(largest, services=replace(largest.services, billed_s=billed_s))])
    found = percentile(space, SharedBuffer(np.array([SLO_S]), np.array([rate])), np.array([0.95]))
    return found.cost * rate if found else np.inf


def routed() -> list:  # type: ignore[type-arg]
    return best_size_buffers(
        BY_CLASS, shares=SHARES.tolist(), slo_s=SLO_S, rate_rps=RATE_RPS, percentile_wanted=0.95, never_late=False
    )


def test_the_routing_is_the_cheapest_of_all_divisions() -> None:
    costs = {(i, j): by_hand(i, j) for i in range(4) for j in range(i + 1, 5)}
    best = np.inf
    for cuts in itertools.product([False, True], repeat=3):
        ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [4]
        best = min(best, sum(costs[pair] for pair in itertools.pairwise([0, *ends])))
    assert np.isfinite(best)
    assert sum(one.choice.cost * one.rate_rps for one in routed()) == pytest.approx(best, rel=1e-9)


def test_every_class_keeps_its_percentile_in_a_simulation() -> None:
    rng = np.random.default_rng(11)
    for one in routed():
        part = SHARES[one.start : one.end] / SHARES[one.start : one.end].sum()
        count, cap = 60_000, one.choice.cap
        times = np.cumsum(rng.exponential(1 / one.rate_rps, count))
        sizes = rng.choice(len(part), count, p=part) + one.start
        late, start = np.zeros(count, dtype=bool), 0
        timeout_s = SLO_S - one.choice.latency_reserve_s
        while start < count:
            end = min(int(np.searchsorted(times, times[start] + timeout_s)), start + cap, count)
            end = max(end, start + 1)
            closes_s = times[end - 1] if end - start == cap else times[start] + timeout_s
            services = BY_CLASS[int(sizes[start:end].max())][0].services
            took_s = closes_s - times[start:end] + services.worst_s[one.choice.index, end - start - 1]
            late[start:end] = took_s > SLO_S + 1e-9
            start = end
        for size in range(one.start, one.end):
            assert late[sizes == size].mean() <= 0.05 + 4 * np.sqrt(0.05 * cap / (sizes == size).sum())


def test_a_class_that_nothing_serves_in_time_leaves_no_routing() -> None:
    found = best_size_buffers(
        BY_CLASS, shares=SHARES.tolist(), slo_s=0.1, rate_rps=1.0, percentile_wanted=0.95, never_late=True
    )
    assert found == []

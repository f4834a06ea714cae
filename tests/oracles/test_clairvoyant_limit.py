"""The limit under noise against brute force, against the bound without noise, and against what policies reach."""

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.simulator.bound import BoundError, clairvoyant_bound, make_problem
from scheduler.simulator.lagrange_dual import largest
from scheduler.simulator.limit import (
    LimitError,
    NoisyProblem,
    clairvoyant_limit,
    expected_cost,
    late_probability,
    least_costs,
    make_noisy_site,
    service_steps,
)
from scheduler.simulator.scenario import FUNCTION_LATENCY, FUNCTION_PRICE, ORIN_LATENCY
from scheduler.workloads import poisson

STEP_S = 0.01
FLAT = FunctionTier("flat", "flat", LatencyModel(0.2, 0.1, 4), Price(per_s=0.0, per_call=8e-6))
QUICK = FunctionTier("quick", "quick", LatencyModel(0.1, 0.05, 2), Price(per_s=0.0, per_call=5e-6))
FUNCTION = FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE)

# Arrivals, latencies and SLOs are whole steps, and prices whole grid units of the bound: nothing is rounded.
gaps = st.lists(st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.3, 0.7, 2.5]), min_size=1, max_size=8)
edge_latencies = st.sampled_from(
    [LatencyModel(0.1, 0.1, 8), LatencyModel(0.3, 0.05, 3), LatencyModel(0.2, 0.01, 8), LatencyModel(0.3, 0, 8), None]
)
tiers = st.sampled_from([(FLAT,), (QUICK,), (FLAT, QUICK), ()])
slos_s = st.sampled_from([0.2, 0.4, 0.6])


def problem_of(
    times_s: list[float] | np.ndarray,
    slo_s: float,
    edge: LatencyModel | None,
    tiers: tuple[FunctionTier, ...],
    noise: tuple[float, float] = (0.0, 0.0),
    steps: int | None = None,
) -> NoisyProblem:
    site = make_noisy_site(slo_s=slo_s, edge_latency=edge, edge_noise=noise[0], tiers=tiers, function_noise=noise[1])
    return NoisyProblem(np.asarray(times_s), site, round(slo_s / STEP_S) if steps is None else steps)


@settings(max_examples=150, deadline=None)
@given(gaps_s=gaps, slo_s=slos_s, edge=edge_latencies, tiers=tiers)
@example(gaps_s=[0.0, 0.0, 0.3, 0.0, 0.0], slo_s=0.4, edge=LatencyModel(0.1, 0.1, 8), tiers=())
def test_without_noise_and_lateness_it_is_the_bound(
    gaps_s: list[float], slo_s: float, edge: LatencyModel | None, tiers: tuple[FunctionTier, ...]
) -> None:
    times_s = np.cumsum(gaps_s)
    try:
        bound = clairvoyant_bound(make_problem(times_s, slo_s=slo_s, edge_latency=edge, tiers=tiers))
    except BoundError:
        bound = math.inf
    problem = problem_of(times_s, slo_s, edge, tiers)
    assert least_costs(problem, [math.inf])[0] == pytest.approx(bound, rel=1e-9, abs=1e-15)
    if bound < math.inf:
        assert clairvoyant_limit(problem, 1.0).cost == pytest.approx(bound, rel=1e-9, abs=1e-15)
    else:
        with pytest.raises(LimitError, match="no policy is known to answer 1 of the requests"):
            clairvoyant_limit(problem, 1.0)


def test_what_may_become_impossible_is_impossible_where_none_may_be_late() -> None:
    """Three requests at once, one after the other: if the first two take long, the third cannot be in time."""
    edge = LatencyModel(0.1, 0.0, 1)
    tight, roomy = (problem_of([0.0] * 3, slo_s, edge, (), noise=(0.05, 0.0)) for slo_s in (0.35, 0.6))
    assert least_costs(tight, [math.inf]).tolist() == [math.inf]
    assert least_costs(roomy, [math.inf]).tolist() == [0.0]


@pytest.mark.parametrize(("rate_rps", "slo_s"), [(112.0, 0.6), (150.0, 0.6), (150.0, 1.0)])
def test_off_the_grid_it_is_near_the_bound(rate_rps: float, slo_s: float) -> None:
    times_s = poisson(rate_rps, rng=np.random.default_rng(5), requests=1200).times_s
    bound = clairvoyant_bound(make_problem(times_s, slo_s=slo_s, edge_latency=ORIN_LATENCY, tiers=(FUNCTION,)))
    problem = problem_of(times_s, slo_s, ORIN_LATENCY, (FUNCTION,), steps=150)
    # The bound rounds prices down by up to an eighth of a request a batch.
    assert bound * 0.99 <= clairvoyant_limit(problem, 1.0).cost <= bound * 1.03
    less_noise = problem_of(times_s, slo_s, ORIN_LATENCY, (FUNCTION,), noise=(1e-4, 1e-4), steps=150)
    [sure, nearly] = [least_costs(one, [2e-4])[0] for one in (problem, less_noise)]
    assert nearly == pytest.approx(sure, rel=0.02)


def by_brute_force(problem: NoisyProblem, w: float) -> float:
    """Tries every decision at every moment; the edge's service takes one of its quadrature's whole steps."""
    steps = [round(s / STEP_S) for s in problem.arrivals_s.tolist()]
    n, slo = len(steps), round(problem.site.slo_s / STEP_S)

    def late(first: int, end: int, start: int, median_s: float, sigma: float) -> float:
        slacks = [(steps[m] + slo - start) * STEP_S for m in range(first, end)]
        return sum(late_probability(slack_s, median_s, sigma) for slack_s in slacks)

    @cache
    def value(i: int, free: int) -> float:
        if i == n:
            return 0.0
        best = w + value(i + 1, free)
        for batch in problem.site.functions:
            end = i + batch.items
            if end <= n:
                missed = late(i, end, steps[end - 1], batch.median_s, problem.site.function_noise)
                best = min(best, batch.cost + w * missed + value(end, free))
        for items, median_s in enumerate(problem.site.edge_s.tolist()[: n - i], start=1):
            start = max(free, steps[i + items - 1])
            missed = late(i, i + items, start, median_s, problem.site.edge_noise)
            after = [
                chance * value(i + items, start + taken)
                for taken, chance in service_steps(median_s, problem.site.edge_noise, STEP_S)
            ]
            best = min(best, w * missed + sum(after))
        return best

    return value(0, -(10**6))


@settings(max_examples=60, deadline=None)
@given(
    gaps_s=st.lists(st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.3]), min_size=1, max_size=8),
    slo_s=slos_s,
    edge=edge_latencies,
    tiers=tiers,
    noise=st.sampled_from([(0.0, 0.0), (0.1, 0.25), (0.3, 0.1)]),
    w=st.sampled_from([1e-6, 4e-6, 3e-5]),
)
def test_at_a_known_multiplier_no_decision_is_better(
    gaps_s: list[float],
    slo_s: float,
    edge: LatencyModel | None,
    tiers: tuple[FunctionTier, ...],
    noise: tuple[float, float],
    w: float,
) -> None:
    problem = problem_of(np.cumsum(gaps_s), slo_s, edge, tiers, noise)
    # Batches whose first member is almost surely late are left out: refusing it costs 0.0013 w more at most.
    brute = by_brute_force(problem, w)
    [found] = least_costs(problem, [w])
    assert brute * (1 - 1e-9) <= found <= brute + 0.0014 * w * len(gaps_s)


def test_several_multipliers_at_once_are_each_alone() -> None:
    times_s = poisson(130.0, rng=np.random.default_rng(1), requests=300).times_s
    problem = problem_of(times_s, 0.6, ORIN_LATENCY, (FUNCTION,), (0.1, 0.25), steps=60)
    alone = [least_costs(problem, [w])[0] for w in (2e-6, 8e-6)]
    assert least_costs(problem, [2e-6, 8e-6]).tolist() == pytest.approx(alone, rel=1e-12)


def test_finer_steps_change_little() -> None:
    times_s = poisson(130.0, rng=np.random.default_rng(1), requests=600).times_s
    coarse, fine = (
        least_costs(problem_of(times_s, 0.6, ORIN_LATENCY, (FUNCTION,), (0.1, 0.25), steps=steps), [9e-6])[0]
        for steps in (150, 450)
    )
    assert coarse == pytest.approx(fine, rel=0.003)


class TestLimit:
    def test_it_grows_with_the_percentile_and_the_noise(self) -> None:
        times_s = poisson(130.0, rng=np.random.default_rng(1), requests=250).times_s

        def cost(percentile: float, noise: tuple[float, float] = (0.1, 0.25)) -> float:
            problem = problem_of(times_s, 0.6, ORIN_LATENCY, (FUNCTION,), noise, steps=50)
            return clairvoyant_limit(problem, percentile).cost

        assert cost(0.95) < cost(0.99) < cost(0.995)
        assert cost(0.99, (0.0, 0.0)) < cost(0.99, (0.1, 0.0)) < cost(0.99)

    def test_where_few_are_late_for_nothing_it_is_nothing(self) -> None:
        times_s = poisson(30.0, rng=np.random.default_rng(1), requests=300).times_s
        limit = clairvoyant_limit(problem_of(times_s, 0.6, ORIN_LATENCY, (FUNCTION,), (0.1, 0.25), steps=60), 0.99)
        assert (limit.cost, limit.multiplier) == (0.0, 0.0)

    def test_of_no_request_it_is_nothing(self) -> None:
        assert clairvoyant_limit(problem_of([], 0.6, ORIN_LATENCY, (FUNCTION,)), 0.99).cost == 0.0

    @pytest.mark.parametrize(
        ("tiers", "percentile"),
        [((), 0.99), ((FUNCTION,), 1.0)],
        ids=["an edge alone that cannot keep up", "every service may take longer than any SLO"],
    )
    def test_what_cannot_be_kept_is_said(self, tiers: tuple[FunctionTier, ...], percentile: float) -> None:
        times_s = poisson(200.0, rng=np.random.default_rng(1), requests=300).times_s
        problem = problem_of(times_s, 0.6, ORIN_LATENCY, tiers, (0.1, 0.25), steps=60)
        with pytest.raises(LimitError, match=rf"no policy is known to answer {percentile:g} of the requests within"):
            clairvoyant_limit(problem, percentile)


def test_a_billed_service_is_rounded_up_in_the_mean_too() -> None:
    price = Price(per_s=1.27e-5, per_call=9e-7)
    drawn = 0.357 * np.random.default_rng(3).lognormal(0.0, 0.25, 200_000)
    assert expected_cost(price, 0.357, 0.25) == pytest.approx(
        float(np.mean([price.cost(s) for s in drawn.tolist()])), rel=0.002
    )
    assert expected_cost(price, 0.357, 0.0) == price.cost(0.357)


@pytest.mark.parametrize(("median_s", "sigma"), [(0.3, 0.1), (0.0512, 0.1), (0.357, 0.25)])
def test_the_quadrature_has_the_mean_and_the_spread_of_the_law(median_s: float, sigma: float) -> None:
    pairs = service_steps(median_s, sigma, 0.001)
    assert sum(chance for _, chance in pairs) == pytest.approx(1.0)
    mean = sum(taken * chance for taken, chance in pairs) * 0.001
    square = sum(taken**2 * chance for taken, chance in pairs) * 1e-6
    assert mean == pytest.approx(median_s * math.exp(sigma**2 / 2), rel=1e-4)
    assert square - mean**2 == pytest.approx(mean**2 * (math.exp(sigma**2) - 1), rel=0.02)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(st.floats(0.001, 3.0), st.floats(0.0, 0.6)), min_size=1, max_size=5),
    share=st.floats(0.005, 0.2),
)
@example(lines=[(0.25, 0.140625)], share=0.09375)
def test_the_dual_is_the_mixture_of_policies_that_keeps_the_share(
    lines: list[tuple[float, float]], share: float
) -> None:
    """Policies as pairs of cost and lateness: the cheapest mixture of two of them is the linear programme's answer."""
    policies = [*lines, (5.0, 0.0), (0.0, 1.0)]

    def costs(multipliers: object) -> np.ndarray:
        return np.array([min(cost + w * late for cost, late in policies) for w in multipliers])  # type: ignore[attr-defined]

    best = min(cost for cost, late in policies if late <= share)
    for cost, late in policies:
        for other, more in policies:
            if late < share < more:
                part = (share - late) / (more - late)
                best = min(best, cost + part * (other - cost))
    found, w = largest(costs, share)
    assert found <= best + 1e-9
    # What lies below the least multiplier tried, 0.0164, counts as nothing.
    assert found >= 0.95 * best - max(1e-3, 0.0164 * share)
    assert found == pytest.approx(costs([w])[0] - w * share)


def reached(multipliers: Sequence[float]) -> np.ndarray:
    return np.minimum(np.array(multipliers), 3.0)


def test_what_a_part_promises_is_nothing_where_all_cost_nothing() -> None:
    assert largest(lambda tried: np.zeros(len(tried)), 0.01, rough=reached) == (0.0, 0.0)


def test_lateness_that_no_price_keeps_down_has_no_limit_whatever_a_part_promises() -> None:
    assert largest(lambda tried: 0.5 * np.array(tried), 0.01, rough=reached) == (math.inf, math.inf)

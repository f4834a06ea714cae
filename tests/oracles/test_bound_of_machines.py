"""The bound for several machines against exhaustive searches, an exact recursion over pairs, and known figures."""

import math
import os
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.simulator.bound import BoundError, Problem, clairvoyant_bound, make_problem, rising_seconds
from scheduler.simulator.machines import Machines, bound_of_machines, taken_for_one
from scheduler.simulator.scenario import FUNCTION_LATENCY, FUNCTION_PRICE, ORIN_LATENCY
from scheduler.workloads import poisson, read_gaps

FUNCTION = FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE)
LARGE = FunctionTier("large", "large", LatencyModel(0.1, 0.05, 4), Price(per_s=4e-5, per_call=9e-7))
SINGLE = FunctionTier("single", "single", LatencyModel(0.1, 0.05, 1), FUNCTION_PRICE)
ITEMS = 8

Free = tuple[float, ...]
"""When each machine is free."""


def edges_s(machines: Sequence[Machines]) -> list[list[float]]:
    """Seconds of batches of 1, 2, ... items of every single machine."""
    return [rising_seconds(m.latency, ITEMS).tolist() for m in machines for _ in range(m.count)]


def cheapest_function(problem: Problem, first: int, last: int, items: int) -> int | None:
    latest_s = problem.arrivals_s[first] + problem.slo_s + 1e-9
    ways = [w for w in problem.functions if w.items == items and problem.arrivals_s[last] + w.latency_s <= latest_s]
    return min((way.price for way in ways), default=None)


def after_edge_batch(
    problem: Problem, free_s: Free, seconds: Sequence[Sequence[float]], first: int, last: int, items: int
) -> Iterator[Free]:
    """Yields when the machines are free after one of them served a batch in time."""
    latest_s = problem.arrivals_s[first] + problem.slo_s + 1e-9
    for k, each_s in enumerate(seconds):
        if items <= len(each_s):
            finish_s = max(free_s[k], float(problem.arrivals_s[last])) + each_s[items - 1]
            if finish_s <= latest_s:
                yield (*free_s[:k], finish_s, *free_s[k + 1 :])


def best_of_consecutive(problem: Problem, machines: Sequence[Machines]) -> float:
    """Tries every way to cut the requests into consecutive batches and to place each."""
    n, seconds = len(problem.arrivals_s), edges_s(machines)

    @cache
    def search(i: int, free_s: Free) -> float:
        if i == n:
            return 0
        best = math.inf
        for j in range(i, n):
            price = cheapest_function(problem, i, j, j - i + 1)
            if price is not None:
                best = min(best, price + search(j + 1, free_s))
            for after_s in after_edge_batch(problem, free_s, seconds, i, j, j - i + 1):
                best = min(best, search(j + 1, after_s))
        return best

    return search(0, (-math.inf,) * len(seconds))


def best_of_any_sets(problem: Problem, machines: Sequence[Machines]) -> float:
    """Tries every set of requests as an edge batch, in every order on every machine; what is left goes one by one."""
    seconds = edges_s(machines)

    def subsets(members: frozenset[int]) -> Iterator[tuple[int, ...]]:
        for size in range(1, len(members) + 1):
            yield from combinations(sorted(members), size)

    @cache
    def search(members: frozenset[int], free_s: Free) -> float:
        prices = [cheapest_function(problem, i, i, 1) for i in members]
        best = math.inf if None in prices else sum(price for price in prices if price is not None)
        for chosen in subsets(members):
            for after_s in after_edge_batch(problem, free_s, seconds, chosen[0], chosen[-1], len(chosen)):
                best = min(best, search(members - set(chosen), after_s))
        return best

    return search(frozenset(range(len(problem.arrivals_s))), (-math.inf,) * len(seconds))


def best_of_pairs(problem: Problem, machines: Sequence[Machines]) -> float:
    """The exact recursion over the pairs of times at which two machines are free: request by request, by cost."""
    seconds, arrivals_s = edges_s(machines), problem.arrivals_s
    alike = seconds[0] == seconds[1]
    pairs: list[dict[int, list[Free]]] = [{0: [(-math.inf, -math.inf)]}]
    for j in range(1, len(arrivals_s) + 1):
        found: dict[int, list[Free]] = {}
        for i in range(max(0, j - ITEMS), j):
            price = cheapest_function(problem, i, j - 1, j - i)
            for cost, known in pairs[i].items():
                if price is not None:
                    found.setdefault(cost + price, []).extend(known)
                for free_s in known:
                    found.setdefault(cost, []).extend(after_edge_batch(problem, free_s, seconds, i, j - 1, j - i))
        pairs.append(undominated(found, alike=alike, next_s=float(arrivals_s[j]) if j < len(arrivals_s) else 0.0))
    return min(pairs[-1], default=math.inf)


def undominated(found: dict[int, list[Free]], *, alike: bool, next_s: float) -> dict[int, list[Free]]:
    """Without pairs that are later on both machines than another one that costs no more."""
    kept: dict[int, list[Free]] = {}
    cheaper: list[Free] = []
    for cost in sorted(found):
        # A machine that is free before the next arrival is no better than one that is free at it.
        clipped = {(max(a, next_s), max(b, next_s)) for a, b in found[cost]}
        front: list[Free] = []
        latest_s = math.inf
        for a, b in sorted({(min(p), max(p)) for p in clipped} if alike else clipped):
            if b < latest_s and not any(x <= a and y <= b for x, y in cheaper):
                front.append((a, b))
                latest_s = b
        if front:
            kept[cost] = front
            cheaper += front
    return kept


def in_units(problem: Problem, cny: float) -> float:
    return round(cny / (problem.unit or 1.0))


def bound_units(problem: Problem, machines: Sequence[Machines]) -> float:
    try:
        return in_units(problem, bound_of_machines(problem, machines, max_items=ITEMS))
    except BoundError:
        return math.inf


laws = st.sampled_from(
    [
        LatencyModel(0.1, 0.1, 8),
        LatencyModel(0.3, 0.05, 3),
        LatencyModel(0.05, 0.2, 8),
        LatencyModel(0.3, 0, 8),
        LatencyModel(0.2, 0.01, 8),
        LatencyModel(0.2, 0.01, 8, ((1, 0.35), (4, 0.25))),
    ]
)
gaps = st.lists(st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.3, 0.7]), min_size=1, max_size=7)
slos_s = st.sampled_from([0.2, 0.4, 0.6, 1.0])
several_tiers = st.sampled_from([(FUNCTION,), (LARGE,), (FUNCTION, LARGE), ()])
equal = st.builds(lambda law, count: [Machines(law, count)], laws, st.integers(2, 3))
unlike = st.lists(st.builds(Machines, laws, st.integers(1, 2)), min_size=2, max_size=2)


def problem_of(gaps_s: Sequence[float], slo_s: float, tiers: tuple[FunctionTier, ...]) -> Problem:
    return make_problem(np.cumsum(gaps_s), slo_s=slo_s, edge_latency=None, tiers=tiers, max_items=ITEMS)


@settings(max_examples=250, deadline=None)
@given(gaps_s=gaps, slo_s=slos_s, machines=equal | unlike, tiers=several_tiers)
def test_no_schedule_of_the_machines_is_below_the_bound(
    gaps_s: list[float], slo_s: float, machines: list[Machines], tiers: tuple[FunctionTier, ...]
) -> None:
    problem = problem_of(gaps_s, slo_s, tiers)
    assert bound_units(problem, machines) <= best_of_consecutive(problem, machines)


@settings(max_examples=100, deadline=None)
@given(gaps_s=gaps.filter(lambda gaps_s: len(gaps_s) <= 5), slo_s=slos_s, machines=equal | unlike)
def test_batches_of_any_requests_are_not_below_it_either(
    gaps_s: list[float], slo_s: float, machines: list[Machines]
) -> None:
    problem = problem_of(gaps_s, slo_s, (SINGLE,))
    assert bound_units(problem, machines) <= best_of_any_sets(problem, machines)


@settings(max_examples=60, deadline=None)
@given(gaps_s=gaps, slo_s=slos_s, law=laws, tiers=several_tiers)
def test_one_machine_has_the_exact_bound_and_so_have_two_shares_of_one(
    gaps_s: list[float], slo_s: float, law: LatencyModel, tiers: tuple[FunctionTier, ...]
) -> None:
    arrivals_s = np.cumsum(gaps_s)
    problem = make_problem(arrivals_s, slo_s=slo_s, edge_latency=law, tiers=tiers, max_items=ITEMS)
    assert bound_units(problem, [Machines(law)]) == best_of_consecutive(problem, [Machines(law)])
    [taken] = taken_for_one(problem, [Machines(law)], max_items=ITEMS)
    assert taken.edge_s.tolist() == problem.edge_s.tolist()
    two, [pair] = [Machines(law, 2)], taken_for_one(problem, [Machines(law), Machines(law)], max_items=ITEMS)
    [doubled] = taken_for_one(problem, two, max_items=ITEMS)
    assert pair.pace_s is not None
    assert doubled.pace_s is not None
    assert pair.pace_s.tolist() == pytest.approx(doubled.pace_s.tolist())


@settings(max_examples=80, deadline=None)
@given(gaps_s=gaps, slo_s=slos_s, laws=st.tuples(laws, laws), tiers=several_tiers)
def test_the_recursion_over_pairs_finds_what_exhaustive_search_finds(
    gaps_s: list[float], slo_s: float, laws: tuple[LatencyModel, LatencyModel], tiers: tuple[FunctionTier, ...]
) -> None:
    problem, machines = problem_of(gaps_s, slo_s, tiers), [Machines(law) for law in laws]
    assert best_of_pairs(problem, machines) == best_of_consecutive(problem, machines)


@pytest.mark.parametrize(
    ("rate_rps", "machines", "loose_by"),
    [
        (9.0, [Machines(LatencyModel(0.1, 0.1, 8), 2)], 0.1),
        (14.0, [Machines(LatencyModel(0.1, 0.1, 8), 2)], 0.1),
        (14.0, [Machines(LatencyModel(0.1, 0.1, 8)), Machines(LatencyModel(0.2, 0.2, 8))], 0.1),
        (14.0, [Machines(LatencyModel(0.1, 0.1, 8)), Machines(LatencyModel(0.25, 0.05, 8))], 0.1),
    ],
)
def test_on_short_traces_it_is_below_the_exact_recursion(
    rate_rps: float, machines: list[Machines], loose_by: float
) -> None:
    """And not by much: the difference is in fractions of serving everything by function."""
    gaps = []
    for seed in range(4):
        arrivals_s = poisson(rate_rps, rng=np.random.default_rng(seed), requests=120).times_s
        problem = make_problem(arrivals_s, slo_s=0.8, edge_latency=None, tiers=(FUNCTION,), max_items=ITEMS)
        exact, bound = best_of_pairs(problem, machines), bound_units(problem, machines)
        assert bound <= exact
        gaps.append((exact - bound) / (8 * len(arrivals_s)))
    assert max(gaps) < loose_by


def test_more_machines_never_cost_more() -> None:
    arrivals_s = poisson(140, rng=np.random.default_rng(3), requests=600).times_s
    problem = make_problem(arrivals_s, slo_s=0.6, edge_latency=None, tiers=(FUNCTION,))
    slower = LatencyModel(2 * ORIN_LATENCY.alpha_s, 2 * ORIN_LATENCY.beta_s, 128)
    sites = [[], [Machines(slower)], [Machines(ORIN_LATENCY)], [Machines(ORIN_LATENCY), Machines(slower)]]
    sites.append([Machines(ORIN_LATENCY, 2)])
    costs = [bound_of_machines(problem, machines, max_items=128) for machines in sites]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == clairvoyant_bound(problem)


def trace(scale: float) -> np.ndarray:
    if "EDGEBURST_TRACES" not in os.environ:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    path = Path(os.environ["EDGEBURST_TRACES"]) / "arrivals" / "twitter-15h-a.gaps"
    return read_gaps(path).faster(scale).first(20_000).times_s


@pytest.mark.parametrize(("count", "scale", "share"), [(2, 2.4, 0.0254), (2, 3.0, 0.2072), (4, 2.4, 0.0101)])
def test_the_trace_costs_the_share_of_all_function_that_is_known(count: int, scale: float, share: float) -> None:
    problem = make_problem(trace(scale * count), slo_s=0.6, edge_latency=None, tiers=(FUNCTION,))
    bound = bound_of_machines(problem, [Machines(ORIN_LATENCY, count)], max_items=128)
    assert bound / (20_000 * 8 * problem.unit) == pytest.approx(share, abs=0.00006)

"""The clairvoyant bound against exhaustive searches, against another program, and against figures known for a trace."""

import importlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.requests import Backend
from scheduler.simulator import bound
from scheduler.simulator.bound import (
    BoundError,
    PlacedBatch,
    Problem,
    clairvoyant_bound,
    clairvoyant_schedule,
    make_problem,
)
from scheduler.simulator.scenario import FUNCTION_LATENCY, FUNCTION_PRICE, ORIN_LATENCY
from scheduler.workloads import Seconds, Workload, poisson, read_gaps, steps

FUNCTION = FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE)
LARGE = FunctionTier("large", "large", LatencyModel(0.1, 0.05, 4), Price(per_s=4e-5, per_call=9e-7))


def latest_s(problem: Problem, first: int) -> float:
    return float(problem.arrivals_s[first]) + problem.slo_s + 1e-9


def cheapest_function(problem: Problem, first: int, last: int, items: int) -> int | None:
    """The least units for a function batch whose first and last arrivals are given; None where none is in time."""
    prices = [
        way.price
        for way in problem.functions
        if way.items == items and problem.arrivals_s[last] + way.latency_s <= latest_s(problem, first)
    ]
    return min(prices, default=None)


def edge_finish_s(
    problem: Problem, free_s: float, first: int, last: int, items: int, beside_s: float = 0.0
) -> float | None:
    if items > len(problem.edge_s):
        return None
    finish_s = max(free_s, float(problem.arrivals_s[last]) + beside_s) + float(problem.edge_s[items - 1])
    return finish_s if finish_s <= latest_s(problem, first) else None


def best_of_consecutive(problem: Problem, *, beside_s: float = 0.0) -> float:
    """Tries every way to cut the requests into consecutive batches and to place each."""
    n = len(problem.arrivals_s)

    def search(i: int, free_s: float) -> float:
        if i == n:
            return 0
        best = math.inf
        for j in range(i, n):
            price = cheapest_function(problem, i, j, j - i + 1)
            if price is not None:
                best = min(best, price + search(j + 1, free_s))
            finish_s = edge_finish_s(problem, free_s, i, j, j - i + 1, beside_s)
            if finish_s is not None:
                best = min(best, search(j + 1, finish_s))
        return best

    return search(0, -math.inf)


def best_of_any_sets(problem: Problem) -> float:
    """Tries every set of requests as a batch, on the edge in every order."""

    def subsets(members: frozenset[int]) -> Iterator[tuple[int, ...]]:
        for size in range(1, len(members) + 1):
            yield from combinations(sorted(members), size)

    @cache
    def by_functions(members: frozenset[int]) -> float:
        if not members:
            return 0
        best = math.inf
        for chosen in subsets(members):
            if chosen[0] == min(members):
                price = cheapest_function(problem, chosen[0], chosen[-1], len(chosen))
                if price is not None:
                    best = min(best, price + by_functions(members - set(chosen)))
        return best

    def search(members: frozenset[int], free_s: float) -> float:
        best = by_functions(members)
        for chosen in subsets(members):
            finish_s = edge_finish_s(problem, free_s, chosen[0], chosen[-1], len(chosen))
            if finish_s is not None:
                best = min(best, search(members - set(chosen), finish_s))
        return best

    return search(frozenset(range(len(problem.arrivals_s))), -math.inf)


def bound_units(problem: Problem) -> float:
    try:
        return round(clairvoyant_bound(problem) / (problem.unit or 1.0))
    except BoundError:
        return math.inf


gaps = st.lists(st.sampled_from([0.0, 0.01, 0.03, 0.1, 0.3, 0.7]), min_size=1, max_size=8)
edge_latencies = st.sampled_from(
    [
        LatencyModel(0.1, 0.1, 8),
        LatencyModel(0.3, 0.05, 3),
        LatencyModel(0.05, 0.2, 8),
        LatencyModel(0.3, 0, 8),
        LatencyModel(0.2, 0.01, 8),
        None,
    ]
)
tiers = st.sampled_from([(FUNCTION,), (LARGE,), (FUNCTION, LARGE), ()])
slos_s = st.sampled_from([0.2, 0.4, 0.6, 1.0])


@settings(max_examples=150, deadline=None)
@given(
    gaps_s=gaps,
    slo_s=slos_s,
    edge_latency=edge_latencies,
    tiers=tiers,
    rows=st.integers(1, 9),
    group=st.integers(1, 9),
    columns=st.integers(1, 9),
)
def test_no_consecutive_schedule_is_cheaper_and_one_is_as_cheap(
    gaps_s: list[float],
    slo_s: float,
    edge_latency: LatencyModel | None,
    tiers: tuple[FunctionTier, ...],
    rows: int,
    group: int,
    columns: int,
) -> None:
    """Whatever the window's size, so that few requests meet every turn that many do."""
    problem = make_problem(np.cumsum(gaps_s), slo_s=slo_s, edge_latency=edge_latency, tiers=tiers)
    with patch.multiple(bound, _ROWS=rows, _ROW_GROUP=group, _COLUMNS=columns):
        assert bound_units(problem) == best_of_consecutive(problem)


@settings(max_examples=40, deadline=None)
@given(gaps_s=gaps.filter(lambda gaps_s: len(gaps_s) <= 5), slo_s=slos_s, edge_latency=edge_latencies)
def test_batches_of_any_requests_save_at_most_what_consecutive_function_batches_cost_more(
    gaps_s: list[float], slo_s: float, edge_latency: LatencyModel | None
) -> None:
    """Mixing requests never costs more; if nothing spills in one of both, nothing spills in the other."""
    problem = make_problem(np.cumsum(gaps_s), slo_s=slo_s, edge_latency=edge_latency, tiers=(FUNCTION,))
    free, consecutive = best_of_any_sets(problem), bound_units(problem)
    assert free <= consecutive
    assert (free == 0) == (consecutive == 0)
    assert math.isfinite(free) == math.isfinite(consecutive)


@settings(max_examples=60, deadline=None)
@given(gaps_s=gaps, slo_s=slos_s, edge_latency=edge_latencies, beside_s=st.sampled_from([0.01, 0.05, 0.2]))
def test_what_is_done_beside_the_edge_takes_from_the_slo_of_its_batches_alone(
    gaps_s: list[float], slo_s: float, edge_latency: LatencyModel | None, beside_s: float
) -> None:
    """The way and the decoding of a batch: the edge serves others meanwhile."""
    problem = make_problem(np.cumsum(gaps_s), slo_s=slo_s, edge_latency=edge_latency, tiers=(FUNCTION,))
    assert bound_units(replace(problem, edge_beside_s=beside_s)) == best_of_consecutive(problem, beside_s=beside_s)


def check(problem: Problem, schedule: Sequence[PlacedBatch]) -> int:
    """Executes a schedule, holds it to every rule, and returns what it costs in units."""
    units, free_s, decided = 0, -math.inf, 0
    for batch in schedule:
        assert batch.first == decided
        decided += batch.items
        last = decided - 1
        if batch.backend is Backend.EDGE:
            finish_s = edge_finish_s(problem, free_s - 1e-9, batch.first, last, batch.items)
            assert finish_s is not None
            free_s = finish_s
        else:
            price = cheapest_function(problem, batch.first, last, batch.items)
            assert price is not None
            units += price
    assert decided == len(problem.arrivals_s)
    return units


@pytest.mark.parametrize(("rate_rps", "slo_s"), [(60, 0.6), (110, 0.6), (160, 1.0), (112, 1.0)])
def test_the_schedule_keeps_every_deadline_and_costs_the_bound(rate_rps: float, slo_s: float) -> None:
    arrivals_s = poisson(rate_rps, rng=np.random.default_rng(5), requests=700).times_s
    problem = make_problem(arrivals_s, slo_s=slo_s, edge_latency=ORIN_LATENCY, tiers=(FUNCTION,))
    units = check(problem, clairvoyant_schedule(problem))
    assert units == bound_units(problem)


def test_an_edge_alone_that_cannot_keep_up_has_no_bound() -> None:
    arrivals_s = poisson(300, rng=np.random.default_rng(5), requests=700).times_s
    with pytest.raises(BoundError, match=r"no schedule serves request \d+ and all before it within 0\.6 s"):
        clairvoyant_bound(make_problem(arrivals_s, slo_s=0.6, edge_latency=ORIN_LATENCY, tiers=()))


def test_a_law_that_falls_is_taken_from_below() -> None:
    law = LatencyModel(0.2, 0.01, 5, ((1, 0.141), (4, 0.098), (5, 0.113)))
    problem = make_problem([0.0], slo_s=0.1, edge_latency=law, tiers=())
    assert problem.edge_s.tolist() == pytest.approx([0.098, 0.098, 0.098, 0.098, 0.113])
    assert clairvoyant_bound(problem) == 0


def test_the_bound_of_no_request_is_nothing() -> None:
    assert clairvoyant_bound(make_problem([], slo_s=1.0, edge_latency=ORIN_LATENCY, tiers=(FUNCTION,))) == 0


def traces() -> Path:
    if "EDGEBURST_TRACES" not in os.environ:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    return Path(os.environ["EDGEBURST_TRACES"])


def trace(scale: float, requests: int = 20_000) -> Seconds:
    return read_gaps(traces() / "arrivals" / "twitter-15h-a.gaps").faster(scale).first(requests).times_s


@pytest.mark.parametrize(
    ("slo_s", "scale", "share"), [(0.6, 2.0, 0.0003), (0.6, 2.4, 0.0665), (0.6, 4.0, 0.4174), (1.0, 2.4, 0.0186)]
)
def test_the_trace_costs_the_share_of_all_function_that_is_known(slo_s: float, scale: float, share: float) -> None:
    problem = make_problem(trace(scale), slo_s=slo_s, edge_latency=ORIN_LATENCY, tiers=(FUNCTION,))
    all_function = 20_000 * 8 * problem.unit
    assert clairvoyant_bound(problem) / all_function == pytest.approx(share, abs=0.00006)


def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("numba", reason="the program to compare with needs numba")
    folder = traces().parent
    if not (folder / "clairvoyant.py").exists():
        pytest.skip(f"no program to compare with: {folder / 'clairvoyant.py'} is missing")
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("clairvoyant")


def workloads() -> dict[str, Seconds]:
    rng = np.random.default_rng(8)
    bursts: Workload = steps([(8, 60), (4, 240), (10, 90), (3, 0), (8, 130)], rng=rng)
    return {
        "poisson": poisson(115, rng=rng, requests=2500).times_s,
        "steps": bursts.times_s,
        "trace": trace(3.0, 2500),
    }


@pytest.mark.parametrize("slo_s", [0.6, 1.0])
def test_another_program_comes_to_the_same_within_one_grid_unit(slo_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    other = reference(monkeypatch)
    sizes = range(1, FUNCTION_LATENCY.max_batch + 1)
    latencies_s = [FUNCTION_LATENCY.predict_s(items) for items in sizes]
    prices = [FUNCTION_PRICE.cost(latency_s) for latency_s in latencies_s]
    for name, arrivals_s in workloads().items():
        problem = make_problem(arrivals_s, slo_s=slo_s, edge_latency=ORIN_LATENCY, tiers=(FUNCTION,))
        theirs = other.bound_cny(arrivals_s, slo_s, ORIN_LATENCY.alpha_s, ORIN_LATENCY.beta_s, latencies_s, prices)
        assert abs(clairvoyant_bound(problem) - theirs) <= problem.unit, name

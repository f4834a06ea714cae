"""One application under a Markovian process: the search against every point of its grid asked for."""

import numpy as np
import pytest
from support.distributions.map_waits import cost_per_request

from scheduler.planner.catalogue.configurations import Configurations, Family
from scheduler.planner.catalogue.latency_models import ExponentialLatency, SliceLatency, TableLatency
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.single_application_search import ProcessSearch
from scheduler.planner.queueing.map_batching import buffer_distribution
from scheduler.planner.queueing.map_process import MarkovianArrivals, mmpp2, poisson_arrivals

SHEET = load_sheet("fc2-gpu-1ms-cny")
BURSTY = mmpp2(rates_rps=(3.0, 25.0), leave_per_s=(0.5, 1.0))


def cpu() -> Configurations:
    rows = tuple((1.5 * b, 0.6, 0.12 * b) for b in range(1, 5))
    vcpu = np.array([0.5, 0.8, 1.2, 2.0, 4.0])
    family = Family(
        "cpu", ExponentialLatency(rows, rows), vcpu, np.zeros(5), np.tile(vcpu[:, None], 4), np.full(5, 4.0)
    )
    return family.tabulated(SHEET)


def table() -> Configurations:
    """Neither of two configurations is faster for all batches."""
    latency = TableLatency(((0.25, 0.7, 0.95), (0.3, 0.35, 0.4)))
    return Family("cpu", latency, np.ones(2), np.zeros(2), np.ones((2, 3)), np.full(2, 3.0)).tabulated(SHEET)


def gpu() -> Configurations:
    latency = SliceLatency(slope_s=0.004, constant_s=0.01, slice_s=0.002, card_gb=24)
    gpu_gb = np.array([2.0, 6.0])
    return Family("gpu", latency, gpu_gb / 3, gpu_gb, np.full((2, 6), 0.5), np.full(2, 6.0)).tabulated(SHEET)


def everything(process: MarkovianArrivals, family: Configurations, slo_s: float, percentile: float) -> float:
    best = np.inf
    for timeout_s in np.arange(11) * slo_s / 10:
        for cap in range(1, family.max_batch + 1):
            distribution = buffer_distribution(process, max_batch=cap, timeout_s=float(timeout_s))
            for index in range(len(family.vcpu)):
                atoms_s, weights = family.services.atoms_s[index, :cap], family.services.weights[index, :cap]
                if (distribution.within(slo_s - atoms_s) * weights).sum() >= percentile - 1e-9:
                    best = min(best, cost_per_request(distribution, family.cost(index, cap)))
    return best


@pytest.mark.parametrize("family", [cpu(), table(), gpu()])
@pytest.mark.parametrize("process", [BURSTY, poisson_arrivals(9.0)])
@pytest.mark.parametrize("percentile", [0.8, 0.95])
def test_the_cheapest_point_is_that_of_the_whole_grid(
    process: MarkovianArrivals, family: Configurations, percentile: float
) -> None:
    search = ProcessSearch.of(process, [family], percentile=percentile, step_s=0.09, steps=10)
    found = search.cheapest(0.9)
    assert found is not None
    assert found.cost == pytest.approx(everything(process, family, 0.9, percentile), rel=1e-8)
    assert found.latency_s <= 0.9 + 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_configurations_whose_services_cross_are_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    seconds = tuple(tuple(row) for row in np.cumsum(rng.uniform(0.02, 0.3, (5, 4)), axis=1).tolist())
    memory_gb = np.tile(rng.uniform(0.5, 3, 5)[:, None], 4)
    family = Family("cpu", TableLatency(seconds), np.ones(5), np.zeros(5), memory_gb, np.full(5, 4.0)).tabulated(SHEET)
    found = ProcessSearch.of(BURSTY, [family], percentile=0.9, step_s=0.09, steps=10).cheapest(0.9)
    assert found is not None
    assert found.cost == pytest.approx(everything(BURSTY, family, 0.9, 0.9), rel=1e-8)


def test_no_request_is_late_in_the_worst_case() -> None:
    search = ProcessSearch.of(BURSTY, [cpu()], percentile=0.9, step_s=0.09, steps=10)
    certain, relaxed = search.cheapest(0.9, worst_case=True), search.cheapest(0.9)
    assert certain is not None
    assert relaxed is not None
    worst_s = cpu().services.worst_s[certain.index, certain.cap - 1]
    assert certain.timeout_s + worst_s <= 0.9 + 1e-9
    assert relaxed.cost <= certain.cost


def test_the_fastest_within_a_budget_is_the_dual_of_the_cheapest() -> None:
    search = ProcessSearch.of(BURSTY, [cpu()], percentile=0.9, step_s=0.03, steps=30)
    cheapest = search.cheapest(0.7)
    assert cheapest is not None
    fastest = search.fastest(cheapest.cost)
    assert fastest is not None
    assert fastest.cost <= cheapest.cost * (1 + 1e-9)
    assert fastest.latency_s <= cheapest.latency_s + 2e-4
    assert search.fastest(cheapest.cost / 100) is None


def test_an_impossible_slo_finds_nothing() -> None:
    assert ProcessSearch.of(BURSTY, [cpu()], percentile=0.9, step_s=0.01, steps=5).cheapest(0.05) is None

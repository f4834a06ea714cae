"""A policy that sees further pays less, and never less than the bound; every request is served once and in time."""

import math
from itertools import chain

import numpy as np
import pytest

from scheduler.domain.requests import Backend
from scheduler.simulator.bound import clairvoyant_bound
from scheduler.simulator.bound_note import bound_problem
from scheduler.simulator.scenario import Scenario
from scheduler.workloads import Workload, poisson
from scripts.evaluation.options import with_slo
from scripts.limits.lookahead import Placed, compared, function_cny, planned_anew


def arrivals(rate_rps: float, requests: int) -> Workload:
    return poisson(rate_rps, rng=np.random.default_rng(8), requests=requests)


def bound_cny(scenario: Scenario, times_s: list[float]) -> float:
    [model] = scenario.served()
    return clairvoyant_bound(bound_problem(model, times_s))


def batches(scenario: Scenario, times_s: list[float], *, lookahead_s: float) -> list[Placed]:
    return list(planned_anew(scenario, times_s, lookahead_s=lookahead_s))


@pytest.mark.parametrize("slo_s", [0.6, 1.0])
@pytest.mark.parametrize("rate_rps", [120.0, 190.0])
def test_each_request_is_served_once_in_time_and_the_edge_serves_one_batch_at_a_time(
    slo_s: float, rate_rps: float
) -> None:
    scenario, times_s = with_slo(Scenario(), slo_s), arrivals(rate_rps, 600).times_s.tolist()
    placed = batches(scenario, times_s, lookahead_s=1.0)
    assert sorted(chain.from_iterable(batch.requests for batch in placed)) == list(range(600))
    for batch in placed:
        assert batch.left_at_s >= times_s[max(batch.requests)]
        assert batch.finished_at_s <= times_s[min(batch.requests)] + slo_s + 1e-8
    edge = [batch for batch in placed if batch.backend is Backend.EDGE]
    assert all(later.left_at_s >= batch.finished_at_s for batch, later in zip(edge, edge[1:], strict=False))
    assert function_cny(scenario, placed) >= bound_cny(scenario, times_s) * (1 - 1e-9)


def test_with_all_arrivals_known_the_bound_is_paid() -> None:
    scenario, times_s = with_slo(Scenario(), 0.6), arrivals(150.0, 300).times_s.tolist()
    found_cny = function_cny(scenario, batches(scenario, times_s, lookahead_s=math.inf))
    # Prices are rounded down to the bound's grid, an eighth of the cheapest request.
    assert found_cny == pytest.approx(bound_cny(scenario, times_s), rel=0.1)


def test_a_second_of_lookahead_is_worth_something_and_no_figure_is_below_the_bound() -> None:
    bound, ours, rule_told, anew = compared(with_slo(Scenario(), 0.6), arrivals(140.0, 1500))
    assert bound <= anew < ours
    assert rule_told >= bound

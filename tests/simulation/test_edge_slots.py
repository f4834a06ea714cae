"""Several slots on one edge: at the same load each, they cost less than one, and nothing is late."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.simulator.report import cheapest_per_item, within_slo
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import Workload
from scripts.evaluation.suites import with_slo
from scripts.evaluation.traffic import Poisson, Trace

SLO_S = 0.6


def fraction(parallel: int, workload: Workload) -> float:
    """Returns the money as a fraction of serving all by function."""
    scenario = replace(with_slo(Scenario(), SLO_S), edge_parallel=parallel)
    requests = make_requests(scenario, workload)
    journal = make_simulation(scenario, requests).run()
    assert within_slo(journal) >= 0.9999
    return journal.cost() / (cheapest_per_item(scenario.tiers, slo_s=SLO_S) * len(requests))


@pytest.mark.parametrize("rate_rps", [105.0, 140.0])
def test_two_slots_cost_less_than_one_at_half_the_load(rate_rps: float) -> None:
    costs = [fraction(k, Poisson(rate_rps * k, 2500).workload(generators(0)[0])) for k in (1, 2, 4)]
    assert costs[0] > costs[1] > costs[2]


@pytest.mark.parametrize(
    ("parallel", "load", "asked"),
    [(2, 2.4, 0.0645), (2, 3.0, 0.228), (2, 4.0, 0.410), (4, 2.4, 0.049), (4, 3.0, 0.222), (4, 4.0, 0.405)],
)
def test_on_the_trace_one_rule_does_best_at_every_load(parallel: int, load: float, asked: float) -> None:
    if "EDGEBURST_TRACES" not in os.environ:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    path = Path(os.environ["EDGEBURST_TRACES"]) / "arrivals" / "twitter-15h-a.gaps"
    assert fraction(parallel, Trace(path, load * parallel, 20_000).workload(generators(0)[0])) <= asked

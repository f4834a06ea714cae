"""Several slots on one edge: at the same load each, they cost less than one, and nothing is late."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.simulator.faults import Fault
from scheduler.simulator.report import cheapest_per_item, within_slo
from scheduler.simulator.scenario import ORIN_LATENCY, EdgeServer, Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import Workload
from scripts.evaluation.suites import with_slo
from scripts.evaluation.traffic import Poisson, Trace

SLO_S = 0.6
SLOWER = EdgeServer("slow", ORIN_LATENCY.slower(2.0), faults=(Fault("down", 3.0, 9.0),))


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


def test_a_second_server_that_goes_away_and_comes_back_loses_nothing() -> None:
    scenario = replace(with_slo(Scenario(), SLO_S), edges=(EdgeServer("fast", ORIN_LATENCY), SLOWER))
    requests = make_requests(scenario, Poisson(150.0, 2000).workload(generators(0)[0]))
    journal = make_simulation(scenario, requests).run()
    assert within_slo(journal) >= 0.99
    sent_s = [sent.batch.sent_at_s for sent in journal.batches.values() if sent.batch.place.name == "slow"]
    assert [at_s for at_s in sent_s if at_s < 3.0]
    assert [at_s for at_s in sent_s if at_s > 9.0]
    assert len([at_s for at_s in sent_s if 3.0 <= at_s < 9.0]) <= 1


@pytest.mark.parametrize(
    ("parallel", "load", "asked"),
    [(2, 2.4, 0.0645), (2, 3.0, 0.228), (2, 4.0, 0.410), (4, 2.4, 0.049), (4, 3.0, 0.222), (4, 4.0, 0.405)],
)
def test_on_the_trace_one_rule_does_best_at_every_load(parallel: int, load: float, asked: float) -> None:
    if "EDGEBURST_TRACES" not in os.environ:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    path = Path(os.environ["EDGEBURST_TRACES"]) / "arrivals" / "twitter-15h-a.gaps"
    assert fraction(parallel, Trace(path, load * parallel, 20_000).workload(generators(0)[0])) <= asked

"""A cap that is leased ahead, end to end: it holds, and costs no answers that the cap itself does not cost."""

from dataclasses import replace

import pytest

from scheduler.dispatch.spend_cap import STATE
from scheduler.engine import Engine
from scheduler.simulator.faults import Fault
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import FUNCTION_LATENCY, FUNCTION_PRICE, Scenario, SpendCaps
from scheduler.simulator.shell import Journal, Simulation
from scheduler.simulator.world import generators, make_backends, make_requests
from scheduler.workloads import poisson

BATCH_CNY = FUNCTION_PRICE.cost(FUNCTION_LATENCY.predict_s(5))
EDGE_DOWN = (Fault("down", 0.0, 1e9),)
NOISY = Scenario(edge_noise=0.1, function_noise=0.25, rtt_s=0.02)


def run(scenario: Scenario, *, leased: bool, rate_rps: float, requests: int) -> Journal:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    settings = replace(scenario.engine_settings(), spend_leased=STATE if leased else "")
    edge, functions = make_backends(scenario, settings)
    made = make_requests(scenario, workload)
    return Simulation(engine=Engine(settings), requests=made, edge=edge, functions=functions).run()


@pytest.mark.parametrize("batches", [6, 40, 10_000])
@pytest.mark.parametrize("edge", [True, False])
def test_a_lease_costs_no_more_and_answers_as_many_as_the_cap_alone(batches: int, edge: bool) -> None:
    scenario = replace(NOISY, caps=SpendCaps(batches * BATCH_CNY), edge_faults=() if edge else EDGE_DOWN)
    with_lease, without = (run(scenario, leased=leased, rate_rps=100.0, requests=1500) for leased in (True, False))
    # A bill may be higher than what was held back for it, by less than a batch.
    assert with_lease.cost() <= (batches + 1) * BATCH_CNY
    assert with_lease.cost() == pytest.approx(without.cost(), rel=0.05)
    assert within_slo(with_lease) == pytest.approx(within_slo(without), abs=0.02)

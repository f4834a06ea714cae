"""On a host whose timers and answers are late, function batches leave so much sooner, and answers stay in time."""

import random
from dataclasses import replace

import pytest

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.network import constant
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson


def sparse(*, slo_s: float, rate_rps: float, late_s: float, seed: int) -> Journal:
    """Functions alone, with each call of the engine up to `late_s` later than it was due."""
    [served] = Scenario().served()
    classes = (SimulatedClass(ServiceClass(slo_s=slo_s, serve_late=True)),)
    scenario = Scenario(
        models=(replace(served, classes=classes, edge_latency=None),),
        bandwidth=constant(1.0),
        rtt_s=0.03,
        function_noise=0.1,
        seed=seed,
    )
    arrivals = poisson(rate_rps, rng=generators(seed)[0], requests=200)
    simulation = make_simulation(scenario, make_requests(scenario, arrivals))
    rng, next_s = random.Random(seed), simulation._next_s
    simulation._next_s = lambda: next_s() + rng.uniform(0.0, late_s)  # type: ignore[method-assign]
    return simulation.run()


@pytest.mark.parametrize(("slo_s", "rate_rps"), [(60.0, 0.02), (10.0, 0.1)])
@pytest.mark.parametrize("late_s", [0.08, 0.2])
def test_answers_are_in_time_at_no_more_money_though_timers_are_late(
    slo_s: float, rate_rps: float, late_s: float
) -> None:
    punctual = sparse(slo_s=slo_s, rate_rps=rate_rps, late_s=0.0, seed=1)
    late = sparse(slo_s=slo_s, rate_rps=rate_rps, late_s=late_s, seed=1)
    assert within_slo(late) >= within_slo(punctual) - 0.015
    assert late.cost() <= 1.02 * punctual.cost()

"""The proposed number of instances, with the daemon's own engine in the simulator: enough, and not far more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.planning.warm_instances import InstanceTerms, Traffic, tier_proposals
from scheduler.simulator.network import steps as bandwidth_steps
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import steps

EDGE = LatencyModel(0.04234, 0.008165, 64)
TIER = FunctionTier("1gb", "f", LatencyModel(0.216, 0.141, 5), Price(1.27e-5, 9e-7), max_in_flight=200)
CLASS = ServiceClass(slo_s=1.0, percentile=0.99, serve_late=True)
RATES_RPS, HOLD_S, REQUEST_BYTES, UPLINK_BYTES_PER_S = (30.0, 150.0, 60.0), 40.0, 13_000, 1e6
"""Those of the demo."""


def proposed(edge: LatencyModel | None) -> int:
    model = ModelSettings("m", classes=(CLASS,), edge_latency=edge, tiers=(TIER,))
    terms = InstanceTerms({("m", "1gb"): 1.27e-5}, 3.0, 240.0, UPLINK_BYTES_PER_S if edge else None)
    traffic = {"m": Traffic(RATES_RPS, HOLD_S, REQUEST_BYTES)}
    settings = EngineSettings((model,), max_function_in_flight=200)
    [proposal] = tier_proposals(settings, traffic, terms, on_demand=False)
    return proposal.chosen.count


def attained(instances: int) -> float:
    """The fraction in time if no more batches may be in flight than there are instances."""
    scenario = Scenario(
        classes=(SimulatedClass(CLASS),),
        edge_latency=EDGE,
        tiers=(replace(TIER, max_in_flight=instances),),
        request_bytes=REQUEST_BYTES,
        bandwidth=bandwidth_steps([(0.0, UPLINK_BYTES_PER_S)]),
        edge_noise=0.03,
        function_noise=0.03,
        seed=0,
    )
    workload = steps([(HOLD_S, rate_rps) for rate_rps in RATES_RPS], rng=generators(scenario.seed)[0])
    return within_slo(make_simulation(scenario, make_requests(scenario, workload)).run())


@pytest.mark.slow
def test_the_proposal_keeps_the_percentile_beside_the_edge_and_half_of_it_does_not() -> None:
    count = proposed(EDGE)
    assert attained(count) >= 0.99
    assert attained(count // 2) < 0.99


def test_the_proposal_for_all_requests_by_function_is_more_than_twice_that() -> None:
    # All 150 requests a second in batches of three that take 0.64 s: 32 in service on average.
    assert 2 * proposed(EDGE) < proposed(None) < 60

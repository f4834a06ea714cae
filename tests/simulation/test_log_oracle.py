"""What log-oracle is told is what the simulated world does."""

from dataclasses import replace

import numpy as np
import pytest

from scheduler.simulator.faults import Fault
from scheduler.simulator.network import Bandwidth, constant, steps
from scheduler.simulator.policies.log_oracle import Truth
from scheduler.simulator.scenario import MODEL, Burst, Scenario
from scheduler.simulator.world import make_requests
from scheduler.workloads import poisson
from scheduler.workloads import steps as rate_steps

MEBIBYTE = 2**20


def stepped() -> Truth:
    scenario = replace(Scenario(), rate_steps=((30.0, 40.0), (30.0, 120.0)))
    workload = rate_steps(list(scenario.rate_steps), rng=np.random.default_rng(1))
    return Truth(scenario, make_requests(scenario, workload))


def test_the_rate_of_a_declared_step_is_its_mean_from_its_first_moment_to_its_last() -> None:
    truth = stepped()
    assert truth.rate_rps(MODEL, 0.0) == pytest.approx(40, rel=0.1)
    assert truth.rate_rps(MODEL, 0.0) == truth.rate_rps(MODEL, 29.999)
    assert truth.rate_rps(MODEL, 30.0) == pytest.approx(120, rel=0.1)
    assert truth.rate_rps("other", 10.0) == 0.0


def test_the_rate_of_a_trace_is_that_around_the_moment() -> None:
    scenario = Scenario()
    requests = make_requests(scenario, poisson(100, rng=np.random.default_rng(1), requests=3000))
    truth = Truth(scenario, requests)
    found = [truth.rate_rps(MODEL, at_s) for at_s in np.linspace(1, 28, 50)]
    assert np.mean(found) == pytest.approx(100, rel=0.05)
    assert min(found) > 60
    assert max(found) < 140
    assert truth.rate_rps(MODEL, 1000.0) == 0.0


def test_a_burst_is_known_from_its_first_moment() -> None:
    scenario = replace(Scenario(), bursts=(Burst(10.0, 5.0, 100.0),))
    times_s = np.sort(np.concatenate([np.arange(5, 30, 0.1), np.arange(10, 15, 0.01)]))
    truth = Truth(
        scenario,
        make_requests(scenario, replace(poisson(1, rng=np.random.default_rng(1), requests=1), times_s=times_s)),
    )
    assert truth.rate_rps(MODEL, 9.99) == pytest.approx(10, abs=1.5)
    assert truth.rate_rps(MODEL, 10.0) == pytest.approx(110, abs=2)
    assert truth.rate_rps(MODEL, 15.01) == pytest.approx(10, abs=1.5)


def test_windows_of_either_backend_are_known() -> None:
    scenario = replace(
        Scenario(),
        edge_faults=(Fault("slow", 5.0, 15.0, 2.0), Fault("slow", 10.0, 20.0, 3.0), Fault("down", 30.0, 40.0)),
        function_faults=(Fault("throttle", 1.0, 2.0), Fault("down", 3.0, 4.0), Fault("slow", 6.0, 7.0, 1.5)),
    )
    truth = Truth(scenario, ())
    assert [truth.edge_slowdown(at_s) for at_s in (4.9, 5.0, 12.0, 19.0, 20.0)] == [1.0, 2.0, 6.0, 3.0, 1.0]
    assert [truth.edge_up(at_s) for at_s in (29.9, 30.0, 40.0)] == [True, False, True]
    assert [truth.functions_up(at_s) for at_s in (0.5, 1.5, 2.5, 3.5, 4.5)] == [True, False, True, False, True]
    assert truth.function_slowdown(6.5) == 1.5
    assert truth.changes_s(12.0) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0]


def test_the_bandwidth_is_the_links() -> None:
    stepping = Truth(replace(Scenario(), bandwidth=steps([(0.0, 4.0), (60.0, 0.5)])), ())
    assert [stepping.bytes_per_s(at_s) / MEBIBYTE for at_s in (0.0, 59.9, 60.0, 1e6)] == [4.0, 4.0, 0.5, 0.5]
    assert stepping.changes_s(100.0) == [60.0]
    log = Bandwidth((0.0, 1.0, 3.0), (5.0, 0.0, 2.0), 4.0)
    repeating = Truth(replace(Scenario(), bandwidth=log), ())
    assert [repeating.bytes_per_s(at_s) for at_s in (0.5, 1.0, 3.5, 4.0, 9.5)] == [5.0, 0.0, 2.0, 5.0, 0.0]
    assert repeating.changes_s(8.0) == [1.0, 3.0, 4.0, 5.0, 7.0]
    assert log.mean_rate() == pytest.approx((5 + 0 + 2) / 4)
    assert constant(3.0).mean_rate() == 3.0 * MEBIBYTE

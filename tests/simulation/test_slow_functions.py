"""Functions that become slower, or start more slowly: found soon, never without a cause, planned for, and shown."""

import math
from dataclasses import replace

import numpy as np
import pytest

from scheduler.control import Control
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.messages import BatchFinished
from scheduler.domain.plans import EngineSettings, ModelSettings, Plan, ServiceClass
from scheduler.domain.requests import Place
from scheduler.estimates import Estimates
from scheduler.estimators.findings import Finding
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault, parse_fault
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import FUNCTION_LATENCY, FUNCTION_PRICE, Scenario, SimulatedClass, SimulatedModel
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import pattern, poisson

SLOW_AT_S = 60.0
SMALL = FunctionTier("small", "f", LatencyModel(0.25, 0.12, 8), FUNCTION_PRICE, max_in_flight=100)
LARGE = FunctionTier(
    "large", "g", LatencyModel(0.1, 0.05, 8), replace(FUNCTION_PRICE, per_s=3 * FUNCTION_PRICE.per_s), max_in_flight=100
)
ONE = FunctionTier("one", "f", FUNCTION_LATENCY, FUNCTION_PRICE, max_in_flight=100)


def scenario(*tiers: FunctionTier, seed: int, slo_s: float = 1.0, faults: tuple[Fault, ...] = ()) -> Scenario:
    model = SimulatedModel("m", 1.0, (SimulatedClass(ServiceClass(slo_s=slo_s)),), None, tiers, 24_000, 128)
    return replace(Scenario(models=(model,)), function_noise=0.25, seed=seed, function_faults=faults)


def run(simulated: Scenario, *, rate_rps: float, requests: int) -> Journal:
    workload = poisson(rate_rps, rng=generators(simulated.seed)[0], requests=requests)
    return make_simulation(simulated, make_requests(simulated, workload)).run()


def found(journal: Journal, cause: str) -> list[Plan]:
    return [plan for plan in journal.plans if plan.cause == cause]


def service_s(journal: Journal, *, before_s: float) -> list[float]:
    reports = [sent.outcome.message.report for sent in journal.batches.values() if sent.batch.sent_at_s < before_s]
    return [report.service_s for report in reports if report.service_s is not None]


def test_slow_functions_are_simulated_and_billed() -> None:
    fault = Fault("slow", 0.0, 1e6, 3.0)
    plain, slow = (
        run(replace(scenario(ONE, seed=1, slo_s=5.0, faults=faults), function_noise=0.0), rate_rps=5.0, requests=20)
        for faults in ((), (fault,))
    )
    first = [min(journal.batches.values(), key=lambda sent: sent.batch.batch_id) for journal in (plain, slow)]
    assert first[0].batch.items == first[1].batch.items
    reports = [sent.outcome.message.report for sent in first]
    assert reports[1].service_s == pytest.approx(3.0 * (reports[0].service_s or 0.0))
    assert reports[1].billed_duration_s == reports[1].service_s
    assert first[1].outcome.cost == pytest.approx(FUNCTION_PRICE.cost(reports[1].service_s or 0.0))


def test_a_fault_may_be_of_one_tier_and_of_starts() -> None:
    kinds = ("slow", "slow-start", "throttle", "down")
    assert parse_fault("slow-start:1,2,3", kinds) == Fault("slow-start", 1.0, 2.0, 3.0)
    cold = replace(
        scenario(SMALL, LARGE, seed=1, slo_s=20.0, faults=(Fault("slow-start", 0.0, 1e6, 4.0, tier="small"),)),
        cold_starts=ColdStarts(0.5, 30.0),
        function_noise=0.0,
    )
    journal = run(cold, rate_rps=0.01, requests=4)
    starts = {
        sent.batch.tier: round(report.elapsed_s - (report.service_s or 0.0) - (report.rtt_s or 0.0), 6)
        for sent in journal.batches.values()
        if isinstance(sent.outcome.message, BatchFinished)
        for report in [sent.outcome.message.report]
        if report.cold_start
    }
    assert starts.get("small", 2.0) == 2.0
    assert starts.get("large", 0.5) == 0.5
    assert starts


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("factor", "limit_s"), [(1.6, 4.0), (0.6, 4.0)])
def test_another_speed_is_found_within_seconds_and_named(seed: int, factor: float, limit_s: float) -> None:
    slow = scenario(ONE, seed=seed, slo_s=2.0, faults=(Fault("slow", SLOW_AT_S, 1e6, factor),))
    plans = found(run(slow, rate_rps=30.0, requests=2400), "function-service")
    assert plans
    assert SLOW_AT_S < plans[0].made_at_s < SLOW_AT_S + limit_s
    assert "tier one at" in plans[0].detail


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_quiet_functions_cause_no_finding(seed: int) -> None:
    """2,000 batches a seed whose services scatter by a quarter, and 60 cold starts of one and the same length."""
    journal = run(scenario(ONE, seed=seed), rate_rps=25.0, requests=4000)
    assert not found(journal, "function-service")
    sparse = replace(scenario(ONE, seed=seed, slo_s=4.0), cold_starts=ColdStarts(1.5, 20.0))
    assert not found(run(sparse, rate_rps=0.03, requests=60), "function-start")


@pytest.mark.parametrize("seed", range(2))
def test_when_the_planned_tier_becomes_slow_another_is_planned_and_that_is_cheaper(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = scenario(SMALL, LARGE, seed=seed, faults=(Fault("slow", SLOW_AT_S, 1e6, 2.2, tier="large"),))
    told = run(slow, rate_rps=30.0, requests=3600)
    assert found(told, "function-service")
    assert told.plans[-1].groups[0].buffers[0].tier == "small"
    take = Control._found

    def ignoring(control: Control, finding: Finding) -> None:
        if finding.cause != "function-service":
            take(control, finding)

    monkeypatch.setattr(Control, "_found", ignoring)
    untold = run(slow, rate_rps=30.0, requests=3600)
    assert told.cost() < 0.8 * untold.cost()
    assert within_slo(told) >= within_slo(untold) - 0.005


def test_slower_starts_are_found_and_what_was_known_of_starts_is_forgotten() -> None:
    slow = replace(
        scenario(ONE, seed=0, slo_s=6.0, faults=(Fault("slow-start", 1000.0, 1e6, 3.0),)),
        cold_starts=ColdStarts(1.0, 20.0),
    )
    journal = run(slow, rate_rps=0.03, requests=60)
    [plan] = found(journal, "function-start")
    assert "starts of tier one take 1.0" in plan.detail
    assert "-> 3.0" in plan.detail
    seen = [
        sent.outcome.at_s for sent in journal.batches.values() if sent.outcome.cold_start and sent.outcome.at_s > 1000.0
    ]
    assert sum(at_s < plan.made_at_s for at_s in seen) <= 4


def test_items_of_very_different_sizes_are_no_change_of_the_function() -> None:
    """The size of the largest item decides a batch's service; sizes come and go, the function stays as it is."""
    estimates = Estimates(EngineSettings(models=(ModelSettings("m", tiers=(ONE,)),)))
    rng = np.random.default_rng(5)
    for number in range(1500):
        large = bool(rng.random() < 0.2)
        seconds = ONE.latency.predict_s(1) * (3.0 if large else 1.0) * float(rng.lognormal(0.0, 0.05))
        batch = Batch(
            number,
            Place.function("one"),
            "m",
            (number,),
            1,
            1000,
            float(number),
            number + 9.0,
            number + 9.0,
            number + 1.0,
            0.5,
            largest_item_bytes=300_000.0 if large else 10_000.0,
        )
        found = list(
            estimates.batch_finished(batch, BatchReport(seconds + 0.02, service_s=seconds), open_since_s=math.inf)
        )
        assert not [finding for finding in found if finding.cause == "function-service"]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_bursts_that_come_back_the_fastest_first_cause_no_finding(seed: int) -> None:
    """Functions take the bursts beyond what the edge can: their batches leave together and overtake each other."""
    bursty = Scenario(edge_noise=0.1, function_noise=0.25, seed=seed)
    workload = pattern("bursty", rate_rps=180.0, duration_s=60.0, rng=generators(seed)[0])
    assert not found(make_simulation(bursty, make_requests(bursty, workload)).run(), "function-service")

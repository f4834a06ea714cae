"""What log-oracle is told is what the simulated world does, and it acts on it at once."""

import math
from dataclasses import replace
from itertools import combinations
from typing import cast

import numpy as np
import pytest

from scheduler.beliefs import LearnedBeliefs
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import ComputePlan, SendProbe
from scheduler.domain.requests import EDGE_NAME, Backend, Place
from scheduler.domain.tenants import TenantSettings
from scheduler.estimators.service_time import ServiceTime
from scheduler.planner.queueing.map_process import mmpp2
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import Bandwidth, constant, steps
from scheduler.simulator.policies.log_oracle import RATE_WINDOW_S, Laws, Truth
from scheduler.simulator.policies.oracle_control import oracle_control
from scheduler.simulator.report import summarise
from scheduler.simulator.scenario import MODEL, ORIN_LATENCY, TOLD, Burst, EdgeServer, Scenario, SimulatedTenant
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import make_requests, make_simulation
from scheduler.workloads import Workload, markovian, poisson, with_bursts
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
    assert [truth.edge_back_s(at_s) for at_s in (29.9, 30.0, 40.0)] == [29.9, 40.0, 40.0]
    assert [truth.functions_back_s(at_s) for at_s in (0.5, 1.5, 2.5, 3.5, 4.5)] == [0.5, 2.0, 2.5, 4.0, 4.5]
    assert truth.edge_speed_changes_s() == [5.0, 10.0, 15.0, 20.0]
    assert [truth.cause_of(at_s) for at_s in (1.0, 5.0, 30.0)] == ["told", "edge-service", "told"]
    assert truth.function_slowdown(6.5) == 1.5
    assert truth.changes_s(12.0) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 10.0]


def test_windows_of_each_edge_server_are_known() -> None:
    a = EdgeServer("a", noise=0.1, faults=(Fault("slow", 5.0, 15.0, 2.0),))
    b = EdgeServer("b", LatencyModel(0.1, 0.02, 8), faults=(Fault("down", 30.0, 40.0), Fault("slow", 50.0, 60.0, 3.0)))
    scenario = replace(Scenario(), policy="log-oracle", edges=(a, b))
    truth = Truth(scenario, ())
    assert [truth.edge_slowdown(at_s, "a") for at_s in (10.0, 55.0)] == [2.0, 1.0]
    assert [truth.edge_slowdown(at_s, "b") for at_s in (10.0, 55.0)] == [1.0, 3.0]
    assert [truth.edge_back_s(35.0, name) for name in ("a", "b")] == [35.0, 40.0]
    assert [truth.cause_of(at_s) for at_s in (5.0, 30.0, 50.0)] == ["edge-service", "told", "edge-service"]
    assert truth.changes_s(100.0) == [5.0, 15.0, 30.0, 40.0, 50.0, 60.0]
    control = oracle_control(scenario, ())
    assert control.beliefs.outages(35.0).away(35.0) == {Place.edge("b")}
    assert control.beliefs.outages(41.0).away(41.0) == frozenset()
    times = {name: control.beliefs.edge_times(MODEL, 0.99, 10.0, name) for name in ("a", "b")}
    assert times["a"] is not None
    assert times["b"] is not None
    assert times["a"].median_s[1] == pytest.approx(2 * ORIN_LATENCY.predict_s(1))
    assert times["b"].median_s[1] == pytest.approx(0.12)
    assert (times["a"].margin, times["b"].margin) == (pytest.approx(math.exp(0.1 * 2.3263), rel=1e-4), 1.0)


def test_the_bandwidth_is_the_links() -> None:
    stepping = Truth(replace(Scenario(), bandwidth=steps([(0.0, 4.0), (60.0, 0.5)])), ())
    assert [stepping.bytes_per_s(at_s) / MEBIBYTE for at_s in (0.0, 59.9, 60.0, 1e6)] == [4.0, 4.0, 0.5, 0.5]
    assert stepping.changes_s(100.0) == [60.0]
    assert stepping.cause_of(60.0) == "bandwidth"
    log = Bandwidth((0.0, 1.0, 3.0), (5.0, 0.0, 2.0), 4.0)
    repeating = Truth(replace(Scenario(), bandwidth=log), ())
    assert [repeating.bytes_per_s(at_s) for at_s in (0.5, 1.0, 3.5, 4.0, 9.5)] == [5.0, 0.0, 2.0, 5.0, 0.0]
    assert repeating.cause_of(1.0) == "told"
    assert repeating.changes_s(8.0) == [1.0, 3.0, 4.0, 5.0, 7.0]
    assert log.mean_rate() == pytest.approx((5 + 0 + 2) / 4)
    assert constant(3.0).mean_rate() == 3.0 * MEBIBYTE


def run(scenario: Scenario, workload: Workload) -> tuple[Journal, dict[str, object]]:
    journal = make_simulation(scenario, make_requests(scenario, workload), keep_commands=True).run()
    return journal, summarise(journal, scenario, wall_s=0.0)


def phases(*parts: tuple[float, float], seed: int = 3) -> Workload:
    return rate_steps(list(parts), rng=np.random.default_rng(seed))


NOISY = replace(Scenario(), policy="log-oracle", edge_noise=0.1, function_noise=0.25, rtt_s=0.02)


@pytest.mark.parametrize(
    "scenario",
    [
        replace(NOISY, rate_steps=((10.0, 40.0), (20.0, 150.0))),
        replace(NOISY, bandwidth=steps([(0.0, 4.0), (10.0, 0.25), (15.0, 0.0), (20.0, 4.0)])),
    ],
    ids=["rate", "link"],
)
def test_an_engine_told_the_truth_serves_no_fewer_in_time_and_pays_no_more(scenario: Scenario) -> None:
    workload = phases(*(scenario.rate_steps or ((30.0, 140.0),)))
    told = run(scenario, workload)[1]
    learning = run(replace(scenario, policy="edgeburst"), workload)[1]
    requests = len(workload.times_s)
    assert number(told, "refused") <= number(learning, "refused") + 0.01 * requests
    assert number(told, "within_slo") >= number(learning, "within_slo") - 0.01
    # The policy that refuses fewer pays for them, alone in a call at worst.
    served = max(0.0, number(learning, "refused") - number(told, "refused"))
    most_cny = number(learning, "cost_cny") + served * single_cny(scenario)
    assert number(told, "cost_cny") <= most_cny + 0.01 * number(told, "all_function_cny")


def single_cny(scenario: Scenario) -> float:
    (tier,) = scenario.tiers
    return tier.price.cost(tier.latency.predict_s(1))


def number(figures: dict[str, object], key: str) -> float:
    value = figures[key]
    assert isinstance(value, (int, float))
    return value


def sent_within(journal: Journal, backend: Backend, start_s: float, end_s: float) -> list[float]:
    batches = (sent.batch for sent in journal.batches.values())
    return [b.sent_at_s for b in batches if b.backend is backend and start_s <= b.sent_at_s < end_s]


def test_nothing_is_sent_to_an_edge_that_is_known_to_be_out_and_much_as_soon_as_it_is_back() -> None:
    scenario = replace(NOISY, edge_faults=(Fault("down", 5.0, 8.0), Fault("down", 8.0, 10.0)))
    journal, _ = run(scenario, phases((15.0, 60.0)))
    assert sent_within(journal, Backend.EDGE, 4.0, 5.0)
    assert not sent_within(journal, Backend.EDGE, 5.0, 10.0)
    assert min(sent_within(journal, Backend.EDGE, 10.0, 15.0)) < 10.1
    assert not [command for _, command in journal.commands if isinstance(command, SendProbe)]


@pytest.mark.parametrize("kind", ["throttle", "down"])
def test_nothing_is_sent_to_functions_that_are_known_to_be_away_and_all_as_soon_as_they_are_back(kind: str) -> None:
    scenario = replace(NOISY, policy="log-oracle", function_faults=(Fault(kind, 5.0, 10.0),))
    journal, _ = run(scenario, phases((15.0, 250.0)))
    assert sent_within(journal, Backend.FUNCTION, 4.0, 5.0)
    assert not sent_within(journal, Backend.FUNCTION, 5.0, 10.0)
    assert min(sent_within(journal, Backend.FUNCTION, 10.0, 15.0)) < 10.05


def test_an_edge_that_becomes_slow_gets_smaller_batches_from_its_first_slow_moment() -> None:
    scenario = replace(NOISY, edge_faults=(Fault("slow", 10.0, 20.0, 2.0),))
    journal, _ = run(scenario, phases((20.0, 160.0)))
    edge = [sent.batch for sent in journal.batches.values() if sent.batch.backend is Backend.EDGE]
    latency = scenario.edge_latency
    for batch in edge:
        slowdown = 2.0 if 10.0 <= batch.sent_at_s < 20.0 else 1.0
        assert batch.predicted_service_s == pytest.approx(slowdown * latency.predict_s(batch.items))


def test_plans_are_made_for_true_changes_only() -> None:
    scenario = replace(NOISY, rate_steps=((12.0, 40.0), (8.0, 120.0)))
    for told in (scenario, replace(scenario, policy="edgeburst", told_changes=True)):
        journal, figures = run(told, phases(*scenario.rate_steps))
        assert set(cast(dict[str, int], figures["replan_causes"])) <= {"rate", "expiry"}
        made_s = [plan.made_at_s for plan in journal.plans if plan.cause == "rate"]
        assert made_s == [pytest.approx(12.0, abs=2.1)]


def test_the_rate_of_a_plan_is_the_true_one_when_it_is_told_and_learned_where_only_the_moment_is() -> None:
    scenario = replace(NOISY, rate_steps=((12.0, 40.0), (8.0, 120.0)))
    for told in (scenario, replace(scenario, policy="edgeburst", told_changes=True)):
        journal, _ = run(told, phases(*scenario.rate_steps))
        asked = [c.snapshot for _, c in journal.commands if isinstance(c, ComputePlan) and c.cause == "rate"]
        assert [snapshot.models[MODEL].rate_rps for snapshot in asked] == [pytest.approx(120.0, rel=0.25)]


def test_an_edge_that_is_known_to_have_become_slow_is_judged_by_the_batches_since() -> None:
    scenario = replace(NOISY, edge_faults=(Fault("slow", 12.0, 20.0, 2.0),))
    scenario = replace(scenario, policy="edgeburst", told_changes=True)
    journal, _ = run(scenario, phases((20.0, 100.0)))
    (asked,) = [c.snapshot for _, c in journal.commands if isinstance(c, ComputePlan) and c.cause == "edge-service"][:1]
    learned = asked.models[MODEL].edge_latency
    assert learned is not None
    assert learned.predict_s(30) / scenario.edge_latency.predict_s(30) == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize("told_changes", [False, True])
def test_the_same_seed_gives_the_same_commands(told_changes: bool) -> None:
    policy = "edgeburst" if told_changes else "log-oracle"
    scenario = replace(NOISY, policy=policy, told_changes=told_changes, edge_faults=(Fault("slow", 3.0, 5.0, 2.0),))
    first, second = (run(scenario, phases((8.0, 130.0)))[0].commands for _ in range(2))
    assert first == second


def test_an_engine_that_never_plans_anew_makes_no_plan_once_it_has_seen_enough() -> None:
    scenario = replace(NOISY, policy="edgeburst", changepoints=False, plan_expiry_s=math.inf)
    scenario = replace(scenario, edge_faults=(Fault("slow", 30.0, 60.0, 2.0),))
    journal, figures = run(scenario, phases((30.0, 40.0), (30.0, 120.0)))
    assert figures["replan_causes"] == {"expiry": number(figures, "plans") - 1}
    assert journal.plans[-1].made_at_s < 21.0


def test_the_link_is_told_as_it_is_at_each_moment_and_each_change_of_it_wakes_the_engine() -> None:
    scenario = replace(NOISY, bandwidth=steps([(0.0, 4.0), (10.0, 0.25), (15.0, 0.0)]))
    control = oracle_control(scenario, make_requests(scenario, phases((20.0, 10.0))))
    control.begin(0.0)
    assert (control.beliefs.uplink(0.0).bytes_per_s, control.beliefs.uplink(0.0).rtt_s) == (4.0 * MEBIBYTE, 0.02)
    assert control.next_wakeup_s() == 10.0
    control.advance(10.0)
    assert control.beliefs.uplink(10.0).bytes_per_s == 0.25 * MEBIBYTE
    assert control.snapshot(10.0, edge_up=True, function_up=True).uplink_bytes_per_s == 0.25 * MEBIBYTE
    assert control.beliefs.uplink(16.0).bytes_per_s == 0.0


def test_an_edge_whose_change_is_known_is_judged_by_the_batches_since_alone() -> None:
    service = ServiceTime(ORIN_LATENCY)
    for _ in range(50):
        assert service.update(8, ORIN_LATENCY.predict_s(8)) is None
    assert service.update(8, 2.0 * ORIN_LATENCY.predict_s(8)) is None
    assert service.predict_s(8) < 1.5 * ORIN_LATENCY.predict_s(8)
    service.restart(1)
    assert service.predict_s(8) == pytest.approx(2.0 * ORIN_LATENCY.predict_s(8), rel=0.02)
    service.restart(0)
    assert service.predict_s(8) == pytest.approx(2.0 * ORIN_LATENCY.predict_s(8), rel=0.02)


def laws_of(scenario: Scenario, workload: Workload) -> Laws:
    return Laws(scenario, make_requests(scenario, workload), workload.rate)


def test_the_laws_hold_the_rate_that_was_drawn_from_whatever_came() -> None:
    workload = phases((10.0, 40.0), (20.0, 120.0))
    laws = laws_of(Scenario(), workload)
    assert [laws.rate_rps(MODEL, at_s) for at_s in (0.0, 9.99, 10.0, 29.0)] == [40.0, 40.0, 120.0, 120.0]
    burst = with_bursts(workload, [(2.0, 3.0, 200.0)], rng=np.random.default_rng(1)).faster(2.0)
    raised = laws_of(Scenario(), burst)
    assert [raised.rate_rps(MODEL, at_s) for at_s in (0.5, 1.0, 2.4, 2.5, 5.0)] == [80.0, 480.0, 480.0, 80.0, 240.0]


def test_each_model_has_its_share_of_the_rate_and_of_the_bursts_of_tenants() -> None:
    [model] = Scenario().served()
    models = (replace(model, share=1.0), replace(model, name="other", share=3.0))
    tenants = (SimulatedTenant(TenantSettings("a"), bursts=(Burst(1.0, 2.0, 60.0),)),)
    laws = laws_of(replace(Scenario(), models=models, tenants=tenants), phases((5.0, 40.0)))
    assert [laws.rate_rps("other", at_s) for at_s in (0.0, 1.0, 3.0)] == [30.0, 75.0, 30.0]


def test_a_burst_that_is_about_to_come_is_seen_through_a_window_and_not_by_the_laws() -> None:
    """A trace has no law: 200 requests within a second raise the mean of a minute by 3 a second."""
    calm = np.arange(0.0, 200.0, 0.1)
    times_s = np.sort(np.concatenate([calm, 100.0 + np.arange(200) / 200]))
    trace = Workload(times_s, 200.0)
    requests = make_requests(Scenario(), trace)
    assert Truth(Scenario(), requests).rate_rps(MODEL, 99.9) > 80.0
    laws = laws_of(Scenario(), trace)
    assert laws.rate_rps(MODEL, 99.9) == pytest.approx(10.0 + 200 / 60, rel=0.02)
    assert laws.rate_rps(MODEL, 0.0) == laws.rate_rps(MODEL, 5.0) == pytest.approx(10.0, rel=0.02)
    assert laws.rate_rps(MODEL, 199.9) == pytest.approx(10.0, rel=0.02)


@pytest.mark.parametrize("duration_s", [1.0, 15.0, 45.0, 90.0])
def test_the_rate_of_a_trace_of_any_length_is_its_mean(duration_s: float) -> None:
    laws = laws_of(Scenario(), Workload(np.arange(0.0, duration_s, 0.1), duration_s))
    lasts_s = max(duration_s, RATE_WINDOW_S)
    for at_s in (0.0, duration_s / 3, duration_s):
        assert laws.rate_rps(MODEL, at_s) == pytest.approx(10.0 * duration_s / lasts_s, rel=0.02)


def test_the_phases_of_a_markovian_process_are_its_rate() -> None:
    process = mmpp2(rates_rps=(10.0, 100.0), leave_per_s=(0.2, 0.5))
    workload = markovian(process, rng=np.random.default_rng(5), duration_s=2000.0)
    plain = markovian(process, rng=np.random.default_rng(5), requests=100)
    assert plain.times_s == pytest.approx(workload.times_s[:100])
    rate = workload.rate
    assert rate is not None
    assert set(rate.rates_rps) == {10.0, 100.0}
    assert np.all(np.diff(rate.starts_s) > 0)
    assert np.all(np.diff(rate.rates_rps) != 0)
    ends_s = np.append(rate.starts_s[1:], np.inf).clip(max=2000.0)
    lengths_s = (ends_s - rate.starts_s).clip(min=0.0)
    for rps, mean_s in ((10.0, 5.0), (100.0, 2.0)):
        inside = rate.rates_rps == rps
        starts = np.searchsorted(workload.times_s, rate.starts_s[inside])
        came = (np.searchsorted(workload.times_s, ends_s[inside]) - starts).clip(min=0).sum()
        assert came / lengths_s[inside].sum() == pytest.approx(rps, rel=0.03)
        assert lengths_s[inside & (lengths_s > 0)].mean() == pytest.approx(mean_s, rel=0.2)


def test_the_oracle_of_the_laws_is_the_engine_with_them() -> None:
    workload = phases((30.0, 140.0))
    requests = make_requests(NOISY, workload)
    costs = {
        policy: make_simulation(replace(NOISY, policy=policy), requests, rate=workload.rate).run().cost()
        for policy in ("oracle-laws", "edgeburst")
    }
    assert 0 < costs["oracle-laws"] < 1.2 * costs["edgeburst"]
    constant_rate = oracle_control(replace(NOISY, policy="oracle-laws"), requests, rate=workload.rate)
    assert [constant_rate.beliefs.recent_rps(MODEL, at_s) for at_s in (0.0, 10.0)] == [140.0, 140.0]


def test_an_engine_that_is_told_everything_is_the_oracle_and_one_that_is_told_nothing_the_engine() -> None:
    workload = markovian(
        mmpp2(rates_rps=(100.0, 180.0), leave_per_s=(0.3, 0.5)), rng=np.random.default_rng(6), requests=1500
    )
    requests = make_requests(NOISY, workload)

    def commands(policy: str, *told: str) -> list[tuple[float, object]]:
        scenario = replace(NOISY, policy=policy, told=told)
        return make_simulation(scenario, requests, rate=workload.rate, keep_commands=True).run().commands

    assert commands("edgeburst", *TOLD) == commands("oracle-laws")
    apart = [commands("edgeburst", *told) for told in ((), *((what,) for what in TOLD))]
    assert sum(a == b for a, b in combinations(apart, 2)) == 0


@pytest.mark.parametrize("what", TOLD)
def test_beliefs_are_true_in_what_is_told_and_learned_in_the_rest(what: str) -> None:
    scenario = replace(NOISY, policy="edgeburst", told=(what,), bandwidth=constant(3.0))
    workload = phases((20.0, 140.0))
    control = oracle_control(scenario, make_requests(scenario, workload), rate=workload.rate)
    beliefs, learned = control.beliefs, LearnedBeliefs(control._estimates)
    control.begin(0.0)
    for _ in range(30):
        control._estimates.models[MODEL].edges[EDGE_NAME].update(8, 0.2, others_s=None, now_s=0.0)
    assert (beliefs.recent_rps(MODEL, 5.0) == 140.0) == (what == "rate")
    ours, theirs = (of.edge_times(MODEL, 0.99, 5.0) for of in (beliefs, learned))
    assert ours is not None
    assert theirs is not None
    assert (ours.median_s[8] == pytest.approx(scenario.edge_latency.predict_s(8))) == (what == "laws")
    assert (ours.scatter.sigma == scenario.edge_noise) == (what == "scatter")
    assert (ours.scatter == theirs.scatter) == (what != "scatter")
    assert (beliefs.uplink(5.0).bytes_per_s is None) == (what != "link")
    assert (beliefs.outages(5.0) is None) == (what != "changes")

"""What is learned outlives the process: each estimator says the same again, with more doubt the longer it was."""

import json
import math
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from support.engine_kit import ORIN, TIER, settings

from scheduler.control import Control
from scheduler.domain.batches import BatchReport
from scheduler.domain.memory import Memory, Part, Remembered, fingerprint, saved, taken_up
from scheduler.domain.messages import ComputePlan, PlanAdopted
from scheduler.domain.plain import from_plain, to_plain
from scheduler.domain.plans import Plan
from scheduler.engine import Engine
from scheduler.estimators.arrival_rate import ArrivalRate
from scheduler.estimators.bandwidth import Bandwidth
from scheduler.estimators.idle_time import IdleTime
from scheduler.estimators.residuals import ResidualWindow
from scheduler.estimators.service_time import ServiceTime
from scheduler.estimators.size_effect import SizeEffect
from scheduler.estimators.traffic_mix import TrafficMix
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.planner.site.plan import best_plan
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import generators, make_backends, make_requests
from scheduler.workloads import poisson

HOUR_S, DAY_S = 3600.0, 86_400.0


def through_json(content: object) -> Any:
    return json.loads(json.dumps(content))


def a_service(*, slow: float = 1.4) -> ServiceTime:
    service, rng = ServiceTime(ORIN, overhead_s=0.004), np.random.default_rng(1)
    for _ in range(150):
        items = int(rng.integers(1, 20))
        service.update(items, slow * ORIN.predict_s(items) * float(rng.lognormal(0.0, 0.12)))
    return service


def test_a_service_predicts_the_same_again() -> None:
    service, again = a_service(), ServiceTime(ORIN, overhead_s=0.004)
    again.restore(through_json(service.snapshot()), age_s=0.0)
    assert again.predict_all_s(64) == pytest.approx(service.predict_all_s(64))
    for percentile in (0.5, 0.95, 0.99):
        assert again.quantile_factor(percentile) == pytest.approx(service.quantile_factor(percentile), rel=0.01)
    service.update(8, 0.2)
    again.update(8, 0.2)
    assert again.predict_s(8) == pytest.approx(service.predict_s(8))


def test_the_older_a_service_the_more_a_new_answer_moves_it() -> None:
    snapshot, moved = through_json(a_service().snapshot()), []
    for age_s in (0.0, HOUR_S, DAY_S, 30 * DAY_S):
        again = ServiceTime(ORIN, overhead_s=0.004)
        again.restore(snapshot, age_s=age_s)
        before_s = again.predict_s(8)
        again.update(8, 2.0 * before_s)
        moved.append(again.predict_s(8) / before_s)
    assert moved[0] < moved[1] < moved[2] == pytest.approx(moved[3])
    assert moved[2] > 1.5


def test_a_service_with_other_sizes_is_not_taken_up() -> None:
    other = ServiceTime(replace(ORIN, max_batch=4))
    before = other.snapshot()
    with pytest.raises(ValueError, match="other bands"):
        other.restore(a_service().snapshot(), age_s=0.0)
    assert other.snapshot() == before


def test_residuals_keep_their_quantiles_and_lose_trust() -> None:
    window = ResidualWindow(size=128, prior_sigma=0.02)
    for residual in np.random.default_rng(2).normal(0.3, 0.2, 200):
        window.update(float(residual))
    again = window.restored(through_json(window.snapshot()), age_s=0.0)
    assert again.scatter() == window.scatter()
    old = window.restored(through_json(window.snapshot()), age_s=DAY_S)
    assert old.scatter().mean < window.scatter().mean


def test_an_uplink_is_as_fast_as_it_was_until_it_is_measured_anew() -> None:
    bandwidth = Bandwidth()
    for at_s in range(10):
        bandwidth.update(sent_at_s=at_s, upload_end_s=at_s + 0.5, sent_bytes=400_000)
        bandwidth.update_rtt(0.03)
    snapshot = through_json(bandwidth.snapshot(10.0))
    for age_s in (5.0, HOUR_S):
        again = Bandwidth()
        again.restore(snapshot, age_s=age_s, now_s=100.0)
        assert again.bytes_per_s == bandwidth.bytes_per_s == 800_000.0
        assert again.rtt_s == 0.03
        again.update(sent_at_s=101.0, upload_end_s=102.0, sent_bytes=200_000)
        # Beside measurements of a moment ago one is an outlier; after an hour it is all that is known.
        assert again.bytes_per_s == (800_000.0 if age_s == 5.0 else 200_000.0)


def test_a_rate_is_the_starting_point_and_counts_less_the_older_it_is() -> None:
    arrivals = ArrivalRate()
    for at_s in np.cumsum(np.random.default_rng(3).exponential(1 / 40, 4000)).tolist():
        arrivals.update(1, at_s)
    snapshot, rates = through_json(arrivals.snapshot()), []
    for age_s in (0.0, 120.0, HOUR_S):
        again = ArrivalRate()
        again.restore(snapshot, age_s=age_s)
        assert again.regime_rps == arrivals.regime_rps
        assert again.dispersion == pytest.approx(arrivals.dispersion)
        for tick in range(20):
            again.advance(50.0 + 0.25 * tick)
        rates.append(again.regime_rps)
    assert rates[0] > rates[1] > rates[2]
    assert rates[2] == pytest.approx(0.0, abs=8.0)


def test_the_mix_and_the_effect_of_sizes_are_as_they_were() -> None:
    mix, effect = TrafficMix(), SizeEffect()
    for number in range(900):
        large = number % 3 == 0
        mix.update("video" if large else "photo", 1, 900_000.0 if large else 20_000.0)
        effect.update(900_000.0 if large else 20_000.0, 0.9 if large else -0.2)
    again = TrafficMix.restored(through_json(mix.snapshot()), age_s=HOUR_S)
    assert again.class_shares() == pytest.approx(mix.class_shares())
    assert [size.mean_bytes for size in again.item_sizes()] == pytest.approx([s.mean_bytes for s in mix.item_sizes()])
    known = SizeEffect.restored(through_json(effect.snapshot()), age_s=0.0)
    assert known.factors(mix.item_sizes()) == effect.factors(mix.item_sizes())


def a_pool() -> WarmInstances:
    pool, at_s = WarmInstances(), 0.0
    for batch_id in range(60):
        cold = batch_id % 7 == 0
        at_s += 900.0 if cold else 200.0
        pool.sent(batch_id, now_s=at_s)
        name, init_s = f"i{batch_id // 7}", 1.9 if cold else None
        report = BatchReport(3.1 if cold else 0.6, service_s=0.5, cold_start=cold, instance_id=name, init_s=init_s)
        pool.came_back(batch_id, report, now_s=at_s + 1.0)
    return pool


def test_a_pool_knows_its_instances_their_reclaim_time_and_starts() -> None:
    pool = a_pool()
    saved_at_s = pool.idle_since_s()[0] + 20.0
    again = WarmInstances()
    again.restore(through_json(pool.snapshot(saved_at_s)), age_s=30.0, now_s=5.0)
    for later_s in (0.0, 300.0, 900.0):
        before = pool.cold_probability(saved_at_s + 30.0 + later_s)
        assert again.cold_probability(5.0 + later_s) == pytest.approx(before)
    assert again.start_s(0.9) == pytest.approx(pool.start_s(0.9), rel=0.05)
    # What is held back from the caps for a start is billed by it.
    assert again.init_s(0.99) == pytest.approx(pool.init_s(0.99), rel=0.05)
    idle = IdleTime().restored(through_json(pool.idle_time.snapshot()))
    for stayed in (True, False):
        idle.update(400.0, stayed_warm=stayed)
        pool.idle_time.update(400.0, stayed_warm=stayed)
    assert idle.survives(400.0) == pytest.approx(pool.idle_time.survives(400.0))


@cache
def learned() -> tuple[Engine, Control, float]:
    """An engine that has seen half a minute of noisy traffic, and its time; not to be changed."""
    scenario = Scenario(edge_noise=0.2, function_noise=0.25, seed=5)
    requests = make_requests(scenario, poisson(110.0, rng=generators(5)[0], requests=3000))
    engine_settings = scenario.engine_settings()
    control = Control(engine_settings)
    engine = Engine(engine_settings, control)
    edge, functions = make_backends(scenario, engine_settings)
    Simulation(engine=engine, requests=requests, edge=edge, functions=functions).run()
    return engine, control, engine._now_s


def reborn(control: Control, parts: tuple[Part, ...], *, age_s: float = 5.0) -> tuple[Engine, Control, list[object]]:
    memory = Memory({part.name: replace(part, content=through_json(part.content)) for part in parts}, age_s)
    again = Control(control._settings, None, memory)
    engine = Engine(control._settings, again)
    return engine, again, list(engine.handle([], 0.0))


def test_an_engine_begins_with_the_plan_the_uplink_and_the_margins_that_it_ended_with() -> None:
    engine, control, now_s = learned()
    again, successor, commands = reborn(control, control.saved(now_s))
    before = engine.statistics()
    [adopted] = [command.plan for command in commands if isinstance(command, PlanAdopted)]
    assert before.plan is not None
    assert adopted.groups == before.plan.groups
    assert (adopted.plan_id, adopted.cause) == (1, "start")
    assert "as before the restart" in adopted.detail
    after = again.statistics()
    assert after.uplink_rtt_s == pytest.approx(before.uplink_rtt_s, rel=0.05)
    assert after.uplink_bytes_per_s == before.uplink_bytes_per_s
    [name] = engine._queues
    old, new = engine._queues[name], again._queues[name]
    times, times_again = old.edges[0].times, new.edges[0].times
    assert times is not None
    assert times_again is not None
    for percentile in (0.9, 0.99):
        margins = [each._estimates.models[name].edge_times(percentile) for each in (successor, control)]
        assert margins[0] is not None
        assert margins[1] is not None
        assert margins[0].margin == pytest.approx(margins[1].margin, rel=0.05)
    assert times_again.median_s == pytest.approx(times.median_s, rel=0.05)
    for buffer, was in zip(new.buffers, old.buffers, strict=True):
        assert buffer.known_times.safe_s == pytest.approx(was.known_times.safe_s, rel=0.05)
    assert len(successor.recalled) == 10
    assert new.lateness.log_multiplier == pytest.approx(old.lateness.log_multiplier, abs=0.01)


def test_a_plan_made_from_what_was_taken_up_is_the_plan_that_was_made_before() -> None:
    engine, control, now_s = learned()
    _, successor, _ = reborn(control, control.saved(now_s))
    plans = []
    for each, at_s in ((control, now_s), (successor, 0.0)):
        snapshot = each.snapshot(at_s, edge_up=True, function_up=True)
        plans.append(best_plan(snapshot, plan_id=9, cause="expiry", detail=""))
    for before, after in zip(plans[0].groups, plans[1].groups, strict=True):
        assert after.edge_batch_cap == before.edge_batch_cap
        assert after.edge_margins == pytest.approx(before.edge_margins, rel=0.05)
        assert after.expected_cost_per_s == pytest.approx(before.expected_cost_per_s, rel=0.05)
        assert [b.target_batch for b in after.buffers] == [b.target_batch for b in before.buffers]


def test_a_plan_that_was_taken_up_is_soon_replaced() -> None:
    _, control, now_s = learned()
    engine, again, _ = reborn(control, control.saved(now_s))
    plan = engine.statistics().plan
    assert plan is not None
    assert plan.expires_at_s == 10.0
    assert not any(isinstance(command, ComputePlan) for command in engine.handle([], 5.0))
    assert again._first_arrival_s < 0.0


def test_another_profile_or_tier_begins_afresh_and_the_rest_is_kept() -> None:
    _, control, now_s = learned()
    parts = control.saved(now_s)
    [model] = control._settings.models
    [tier] = model.tiers
    slower = replace(tier, latency=replace(tier.latency, alpha_s=2 * tier.latency.alpha_s))
    changed = Control(replace(control._settings, models=(replace(model, tiers=(slower,)),)))
    engine, successor, _ = reborn(changed, parts)
    kept = {"budgets", "tenants", "quotas", "edge-batches", "edge-parallel"}
    assert set(successor.recalled) == {"uplink", f"traffic:{model.name}", f"edge:{model.name}", *kept}
    plan = engine.statistics().plan
    assert plan is not None
    assert plan.detail == "from profiles alone"


@pytest.mark.parametrize("wrong", [None, 7, "text", [], {}, {"plan": {}, "seen_s": 1.0}, {"service": {"state": []}}])
def test_a_content_that_is_not_understood_changes_nothing(wrong: object) -> None:
    _, control, now_s = learned()
    parts = tuple(replace(part, content=wrong) for part in control.saved(now_s))
    engine, successor, _ = reborn(control, parts)
    # Budgets of no model are budgets, and quotas of no tier are quotas, too.
    sound = "budgets" if wrong == {} else "quotas" if wrong == [] else ""
    assert set(successor.recalled) <= {sound}
    fresh = Engine(control._settings)
    fresh.handle([], 0.0)
    assert engine.statistics() == fresh.statistics()


def test_another_version_or_fingerprint_is_not_taken_up() -> None:
    heard: list[object] = []
    part = Remembered("quota", 2, "f", lambda now_s: [now_s], lambda content, age_s, now_s: heard.append(content))
    [saved_part] = saved([part], 3.0)
    assert saved_part == Part("quota", 2, "f", [3.0])
    for other in (replace(saved_part, version=1), replace(saved_part, fingerprint="g"), replace(saved_part, name="x")):
        assert taken_up([part], Memory({other.name: other}), 0.0) == ()
    assert heard == []


def test_a_part_of_the_data_plane_can_be_remembered_too() -> None:
    heard: list[tuple[object, float]] = []
    base = settings()
    memory = Memory({"quota": Part("quota", 1, "f", 12.0)}, age_s=7.0)
    control = Control(base, None, memory)
    control.remember_also(
        Remembered("quota", 1, "f", lambda now_s: 12.0, lambda content, age_s, now_s: heard.append((content, age_s)))
    )
    Engine(base, control).handle([], 0.0)
    assert heard == [(12.0, 7.0)]
    assert Part("quota", 1, "f", 12.0) in control.saved(1.0)


def test_fingerprints_tell_models_profiles_tiers_and_hashes_apart() -> None:
    marks = [
        fingerprint(model="a", profile=ORIN, tier=TIER),
        fingerprint(model="b", profile=ORIN, tier=TIER),
        fingerprint(model="a", profile=replace(ORIN, beta_s=0.01), tier=TIER),
        fingerprint(model="a", profile=ORIN, tier=replace(TIER, qualifier="v2")),
        fingerprint(model="a", profile=ORIN, tier=TIER, model_hash="sha256:1"),
        fingerprint(model="a", profile=ORIN, tier=TIER, overhead_s=0.1),
    ]
    assert len(set(marks)) == len(marks)


def test_a_plan_survives_json_with_its_infinities_and_nothing_else_is_a_plan() -> None:
    _, control, _ = learned()
    plan = replace(control._plan, expires_at_s=math.inf)  # type: ignore[type-var]
    plain = json.loads(json.dumps(to_plain(plan)))
    assert from_plain(Plan, plain) == plan
    for broken in ({**plain, "more": 1}, {**plain, "groups": 3}, {**plain, "plan_id": 1.5}, {**plain, "cause": None}):
        with pytest.raises(TypeError):
            from_plain(Plan, broken)

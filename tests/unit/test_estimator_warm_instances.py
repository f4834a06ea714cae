"""Idle times from censored observations, instances by what batches tell of them, warming calls by their price."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.estimators.idle_time import REMEMBERED, IdleTime
from scheduler.estimators.warm_instances import MAX_IDLE, WarmInstances
from scheduler.estimators.warming import MAX_CALLS, warming_due, worth_watching


def answered(*, cold: bool | None, name: str = "", elapsed_s: float = 1.0) -> BatchReport:
    return BatchReport(elapsed_s, service_s=0.5, cold_start=cold, instance_id=name)


def with_idle(since_s: list[float], **names: str) -> WarmInstances:
    """A pool whose instances have been idle since these times, started cold one beside the other."""
    warm = WarmInstances()
    for batch_id, _ in enumerate(since_s):
        warm.sent(batch_id, now_s=0.0)
    for batch_id, at_s in enumerate(since_s):
        warm.came_back(batch_id, answered(cold=True, name=names.get(f"name_{batch_id}", "")), now_s=at_s)
    return warm


class TestIdleTime:
    def test_before_anything_is_seen_three_to_five_minutes_are_typical(self) -> None:
        idle = IdleTime()
        assert idle.survives(60.0) > 0.99
        assert 0.4 < idle.survives(240.0) < 0.6
        assert idle.survives(900.0) < 0.05

    @given(
        st.lists(st.tuples(st.floats(0.0, 1e6), st.booleans()), max_size=100), st.floats(0.1, 1e5), st.floats(0.1, 1e5)
    )
    def test_whatever_is_seen_it_remains_a_distribution(
        self, seen: list[tuple[float, bool]], one_s: float, other_s: float
    ) -> None:
        idle = IdleTime()
        for gap_s, stayed_warm in seen:
            idle.update(gap_s, stayed_warm=stayed_warm)
        low_s, high_s = sorted((one_s, other_s))
        assert 0.0 <= idle.survives(high_s) <= idle.survives(low_s) + 1e-9 <= 1.0 + 2e-9
        assert 0.0 <= idle.absent_s(low_s) <= low_s
        assert len(idle._allowed) <= REMEMBERED

    def test_a_distribution_is_found_and_not_only_a_fixed_time(self) -> None:
        rng, idle = np.random.default_rng(5), IdleTime()
        for gap_s, time_s in zip(rng.uniform(50.0, 400.0, 600), rng.uniform(150.0, 330.0, 600), strict=True):
            idle.update(float(gap_s), stayed_warm=bool(time_s > gap_s))
        assert idle.survives(140.0) > 0.9
        # Of 64 observations: within three standard errors of the true quarter, half and three quarters.
        for gap_s in (195.0, 240.0, 285.0):
            assert idle.survives(gap_s) == pytest.approx((330.0 - gap_s) / 180.0, abs=0.25)
        assert idle.survives(345.0) < 0.1

    def test_what_is_certain_pushes_nothing_out(self) -> None:
        idle = IdleTime()
        for _ in range(20):
            idle.update(500.0, stayed_warm=True)
        for _ in range(1000):
            idle.update(1.0, stayed_warm=True)
        assert idle.survives(490.0) > 0.95

    def test_the_dearer_an_absence_the_sooner_the_next_call(self) -> None:
        idle = IdleTime()
        times_s = [idle.refresh_s(call_cost=1.0, absence_cost_per_s=cost) for cost in (0.0001, 0.01, 1.0)]
        assert times_s == sorted(times_s, reverse=True)
        assert times_s[2] < 240.0


class TestWarmInstances:
    def test_the_first_batch_may_or_may_not_be_cold(self) -> None:
        assert WarmInstances().cold_probability(0.0) == 0.5

    def test_batches_at_one_time_need_an_instance_each(self) -> None:
        warm = with_idle([10.0, 11.0])
        assert warm.cold_probability(20.0) < 0.01
        warm.sent(10, now_s=20.0)
        assert warm.cold_probability(20.0) < 0.01
        warm.sent(11, now_s=20.0)
        assert warm.busy == 2
        assert warm.cold_probability(20.0) > 0.7

    def test_a_cold_start_shows_that_no_idle_instance_is_left(self) -> None:
        warm = with_idle([10.0, 11.0, 12.0])
        warm.sent(10, now_s=300.0)
        warm.came_back(10, answered(cold=True), now_s=303.0)
        assert warm.idle_since_s() == [303.0]

    def test_whoever_became_idle_after_a_cold_start_was_sent_stays(self) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=20.0)
        warm.sent(11, now_s=21.0)
        warm.came_back(10, answered(cold=False), now_s=22.0)
        warm.came_back(11, answered(cold=True), now_s=23.0)
        assert warm.idle_since_s() == [23.0, 22.0]

    def test_an_instance_known_by_name_is_the_one_that_was_met(self) -> None:
        warm = with_idle([10.0, 50.0], name_0="a", name_1="b")
        warm.sent(10, now_s=100.0)
        warm.came_back(10, answered(cold=False, name="a"), now_s=101.0)
        assert warm.idle_since_s() == [101.0, 50.0]

    def test_two_that_met_each_others_instance_are_not_counted_twice(self) -> None:
        warm = with_idle([10.0, 50.0], name_0="a", name_1="b")
        warm.sent(10, now_s=100.0)
        warm.sent(11, now_s=100.0)
        warm.came_back(10, answered(cold=False, name="a"), now_s=101.0)
        warm.came_back(11, answered(cold=False, name="b"), now_s=102.0)
        assert warm.idle_since_s() == [102.0, 101.0]

    @pytest.mark.parametrize("failure", [FailureKind.THROTTLED, FailureKind.UNREACHABLE, FailureKind.BROKEN])
    def test_a_batch_that_never_ran_gives_its_instance_back_as_it_was(self, failure: FailureKind) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=20.0)
        warm.came_back(10, BatchReport(elapsed_s=1.0), now_s=21.0, failure=failure)
        assert warm.idle_since_s() == [10.0]
        assert warm.busy == 0

    @pytest.mark.parametrize("failure", [FailureKind.TIMEOUT, FailureKind.FUNCTION])
    def test_a_run_that_hung_or_crashed_costs_its_instance(self, failure: FailureKind) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=20.0)
        warm.came_back(10, BatchReport(elapsed_s=1.0), now_s=21.0, failure=failure)
        assert warm.idle_since_s() == []

    def test_a_failure_that_the_container_reports_was_a_run(self) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=20.0)
        warm.came_back(10, answered(cold=False), now_s=21.0, failure=FailureKind.REJECTED)
        assert warm.idle_since_s() == [21.0]

    def test_a_backend_that_does_not_tell_teaches_nothing_but_that_there_is_an_instance(self) -> None:
        warm = WarmInstances()
        warm.sent(1, now_s=0.0)
        warm.came_back(1, answered(cold=None), now_s=1.0)
        assert warm.unknown_cold == 0.5
        assert warm.idle_since_s() == [1.0]

    def test_one_surprise_is_not_taken_for_a_provisioned_instance_and_two_are(self) -> None:
        warm, now_s = WarmInstances(), 0.0
        for batch_id, always_warm in enumerate((0, 1, 1)):
            now_s += 1e5
            warm.sent(batch_id, now_s=now_s)
            warm.came_back(batch_id, BatchReport(1.0, cold_start=False, instance_id=f"i{batch_id}"), now_s=now_s)
            assert warm.always_warm == always_warm
        warm.sent(9, now_s=3e6)
        warm.came_back(9, answered(cold=True), now_s=3e6)
        assert warm.always_warm == 0

    def test_a_batch_that_was_never_noted_is_passed_over(self) -> None:
        warm = WarmInstances()
        warm.came_back(7, answered(cold=True), now_s=1.0)
        assert warm.idle_since_s() == []

    def test_the_wait_is_that_of_a_cold_start_only_where_the_percentile_does_not_cover_it(self) -> None:
        warm = with_idle([10.0])
        now_s = next(s for s in range(10, 2000) if warm.cold_probability(s) > 0.2)
        assert warm.wait_s(now_s, 0.7) == 0.0
        assert 0.0 < warm.wait_s(now_s, 0.9) < warm.wait_s(now_s, 0.99)
        assert warm.wait_s(1e6, 0.99) == pytest.approx(warm.start_s(1 - 0.01 / warm.cold_probability(1e6)))

    def test_the_way_is_no_part_of_a_start_and_no_start_is_shorter_than_nothing(self) -> None:
        warm = WarmInstances(prior_start_s=4.0)
        for batch_id in range(50):
            warm.sent(batch_id, now_s=0.0)
            warm.came_back(batch_id, answered(cold=True, elapsed_s=5.0), now_s=5.0, expected_path_s=0.5)
        warm.sent(99, now_s=0.0)
        warm.came_back(99, answered(cold=True, elapsed_s=0.6), now_s=5.0, expected_path_s=0.5)
        assert warm.start_s(0.5) == pytest.approx(4.0, rel=0.03)

    def test_what_is_billed_beside_the_service_is_learned_and_outlives_the_process(self) -> None:
        warm = WarmInstances()
        for batch_id, beside_s in enumerate([0.002, 0.004] * 100):
            warm.sent(batch_id, now_s=0.0)
            report = BatchReport(0.6, service_s=0.5, billed_duration_s=0.5 + beside_s, cold_start=False)
            warm.came_back(batch_id, report, now_s=1.0)
        assert warm.billed_beside_s == pytest.approx(0.003, rel=0.05)
        # Reports that say nothing of it, or cannot be true, teach nothing.
        for batch_id, report in enumerate([BatchReport(0.6, 0.5), BatchReport(0.6, 0.5, billed_duration_s=0.4)], 900):
            warm.sent(batch_id, now_s=1.0)
            warm.came_back(batch_id, report, now_s=2.0)
        again, earlier = WarmInstances(), WarmInstances()
        again.restore(warm.snapshot(2.0), age_s=1.0, now_s=9.0)
        assert again.billed_beside_s == warm.billed_beside_s
        before = {name: part for name, part in warm.snapshot(2.0).items() if name != "billed_beside"}
        earlier.restore(before, age_s=1.0, now_s=9.0)
        assert earlier.billed_beside_s == 0.0

    def test_memory_is_bounded(self) -> None:
        warm = WarmInstances()
        for batch_id in range(MAX_IDLE + 50):
            warm.sent(batch_id, now_s=0.0)
        for batch_id in range(MAX_IDLE + 50):
            warm.came_back(batch_id, answered(cold=False, name=str(batch_id)), now_s=1.0 + batch_id)
        assert len(warm.idle_since_s()) == MAX_IDLE
        assert min(warm.idle_since_s()) == 51.0


class TestWarming:
    def due(self, warm: WarmInstances, **changes: float) -> tuple[int, float]:
        terms = {"now_s": 500.0, "batches_per_s": 0.01, "service_s": 0.5, "call_cost": 1e-6, "lateness_cost": 1e-3}
        found = warming_due(warm, **{**terms, **changes})
        return found.calls, found.look_again_at_s

    def test_without_traffic_or_without_a_risk_nothing_is_called(self) -> None:
        assert self.due(with_idle([10.0]), batches_per_s=0.0) == (0, math.inf)
        assert self.due(with_idle([10.0]), lateness_cost=0.0) == (0, math.inf)
        assert self.due(with_idle([10.0]), call_cost=1.0) == (0, math.inf)

    def test_a_free_instance_that_was_just_used_needs_no_call_yet(self) -> None:
        calls, again_s = self.due(with_idle([499.0]), lateness_cost=2e-5)
        assert calls == 0
        assert 500.0 < again_s < 800.0

    def test_a_second_that_is_due_alone_is_not_worth_a_call_to_the_first_as_well(self) -> None:
        terms = {"now_s": 30_000.0, "lateness_cost": 6e-5}
        assert self.due(with_idle([10.0, 10.0]), **terms)[0] == 2
        assert self.due(with_idle([29_999.0, 10.0]), **terms)[0] == 0

    def test_the_second_is_reached_by_two_calls_at_one_time(self) -> None:
        """As much traffic as keeps one busy nine tenths of the time needs a second now and then."""
        terms = {"batches_per_s": 1.0, "service_s": 0.9, "lateness_cost": 1e-2}
        calls, _ = self.due(with_idle([10.0] * 16), **terms)
        assert calls >= 2
        more, _ = self.due(with_idle([10.0] * 16), **{**terms, "batches_per_s": 4.0})
        assert more > calls

    def test_no_instance_is_called_into_being(self) -> None:
        """However much traffic there is: an instance that is not there is started by the batch that needs it."""
        terms = {"batches_per_s": 20.0, "service_s": 0.9, "lateness_cost": 1e-2}
        assert self.due(with_idle([]), **terms)[0] == 0
        assert self.due(with_idle([10.0]), **terms)[0] <= 1

    def test_an_instance_that_the_next_batch_finds_there_anyway_is_not_called(self) -> None:
        """Idle for 60 s; at one batch in 10 s it will be used long before it could be gone."""
        warm = with_idle([440.0])
        calls, again_s = self.due(warm, batches_per_s=0.1, lateness_cost=10.0)
        assert calls == 0
        assert again_s >= 440.0 + warm.idle_time.outlived_s(0.9) - 10.0

    def test_after_three_reclaim_times_of_silence_none_is_worth_a_look(self) -> None:
        warm = with_idle([10.0])
        lasts_s = warm.idle_time.outlived_s(0.5)
        assert lasts_s == pytest.approx(240.0, rel=0.1)
        assert worth_watching(warm, silent_s=2.9 * lasts_s)
        assert not worth_watching(warm, silent_s=3.1 * lasts_s)

    def test_calls_are_bounded(self) -> None:
        assert self.due(with_idle([10.0] * 40), batches_per_s=1e3, service_s=1.0)[0] <= MAX_CALLS

    def test_those_under_way_are_not_called_again(self) -> None:
        warm = with_idle([10.0])
        calls, _ = self.due(warm)
        for batch_id in range(calls):
            warm.sent(100 + batch_id, now_s=500.0)
        assert self.due(warm)[0] == 0

    def test_provisioned_instances_are_left_alone(self) -> None:
        warm = with_idle([10.0])
        assert self.due(warm, lateness_cost=2e-5)[0] == 1
        warm.always_warm = 1
        assert self.due(warm, lateness_cost=2e-5)[0] == 0


class TestReturns:
    """Whether an instance that is busy now is idle again when a batch leaves."""

    def test_a_warm_batch_that_will_be_back_leaves_its_instance(self) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=12.0, back_s=13.0)
        assert warm.cold_probability(12.5, now_s=12.0) > 0.7
        assert warm.cold_probability(13.5, now_s=12.0) < 0.01
        # Without a present there is no future to foresee.
        assert warm.cold_probability(13.5) > 0.7

    def test_one_that_met_a_cold_start_is_back_when_that_is_over(self) -> None:
        warm = WarmInstances()
        for batch_id in range(30):
            warm.sent(batch_id, now_s=1e4 * batch_id)
            warm.came_back(batch_id, answered(cold=True, elapsed_s=5.5), now_s=1e4 * batch_id + 5.5)
        warm.sent(99, now_s=1e6, back_s=1e6 + 0.6)
        assert warm.cold_probability(1e6 + 2.0, now_s=1e6) > 0.9
        assert warm.cold_probability(1e6 + 9.0, now_s=1e6) < 0.1
        # Overdue: it will be as long as the start still takes, whatever was thought at the send.
        assert warm.cold_probability(1e6 + 9.0, now_s=1e6 + 3.0) < 0.1

    def test_one_that_should_be_back_whatever_it_met_is_not_waited_for(self) -> None:
        warm = with_idle([10.0])
        warm.sent(10, now_s=12.0, back_s=13.0)
        assert warm.cold_probability(1e5, now_s=1e4) == warm.cold_probability(1e5)

    @example(backs_s=[0.0], at_s=0.0, later_s=5e-324)  # whose half is 0
    @given(st.lists(st.floats(0.0, 20.0), max_size=12), st.floats(0.0, 30.0), st.floats(0.0, 30.0))
    def test_what_is_foreseen_is_a_probability_and_never_above_what_is_without_returns(
        self, backs_s: list[float], at_s: float, later_s: float
    ) -> None:
        warm = WarmInstances()
        for batch_id, back_s in enumerate(backs_s):
            warm.sent(batch_id, now_s=0.0, back_s=back_s)
        foreseen = warm.cold_probability(at_s + later_s, now_s=at_s)
        assert 0.0 <= foreseen <= warm.cold_probability(at_s + later_s) <= 1.0

    def test_every_send_and_every_return_counts_as_a_change(self) -> None:
        warm = WarmInstances()
        warm.sent(1, now_s=0.0)
        warm.came_back(1, answered(cold=False), now_s=1.0)
        assert warm.changes == 2


def test_survival_is_interpolated_between_the_edges_of_the_bins() -> None:
    idle = IdleTime(prior_s=240.0)
    for gap_s in range(20, 600, 15):
        idle.update(float(gap_s), stayed_warm=gap_s < 300)
        halves = idle.outlived_s(0.5)
        assert idle.survives(halves) == pytest.approx(0.5, abs=0.02)
    gaps_s = np.exp(np.random.default_rng(1).uniform(1.7, 10.5, 500))
    expected = np.interp(np.log(gaps_s), np.linspace(np.log(5.0), np.log(6 * 3600.0), 129), idle._survival)
    np.testing.assert_allclose([idle.survives(gap_s) for gap_s in gaps_s.tolist()], expected, rtol=1e-12)

"""The engine: every request ends once, in time where that is possible, and failures move to the other side."""

from dataclasses import replace

import pytest
from support.engine_kit import (
    TIER,
    answered,
    arrive,
    fail,
    finish,
    refused,
    request,
    run_until_idle,
    sent,
    settings,
)

from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.errors import RefusalKind
from scheduler.domain.messages import (
    BatchFailed,
    BatchFinished,
    ComputePlan,
    DrainStarted,
    LimitsChanged,
    ModelBarred,
    PlanAdopted,
    PlanComputed,
    ProbeMeasured,
    RequestArrived,
    RequestCancelled,
    SendBatch,
    SendProbe,
    SettingsChanged,
)
from scheduler.domain.plans import Limits
from scheduler.domain.requests import FUNCTIONS, Backend, Place
from scheduler.engine import Engine


def test_an_idle_edge_gets_a_request_at_once() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1))
    assert batch.backend is Backend.EDGE
    assert answered(finish(engine, batch, batch.predicted_finish_s)) == [1]


def test_the_first_call_adopts_a_plan_and_says_why() -> None:
    (adopted,) = [c for c in Engine(settings()).handle([], 0.0) if isinstance(c, PlanAdopted)]
    assert adopted.plan.cause == "start"
    assert adopted.plan.group("m").feasible


def test_what_arrives_together_leaves_together() -> None:
    (batch,) = sent(arrive(Engine(settings()), 0.0, 1, 2, 3))
    assert batch.request_ids == (1, 2, 3)


def test_while_the_edge_is_busy_requests_gather_for_its_next_batch() -> None:
    engine = Engine(settings())
    (first,) = sent(arrive(engine, 0.0, 1))
    assert sent(arrive(engine, 0.01, 2)) == sent(arrive(engine, 0.02, 3)) == []
    (second,) = sent(finish(engine, first, first.predicted_finish_s))
    assert second.request_ids == (2, 3)


def test_overload_spills_to_functions_and_nobody_is_late() -> None:
    engine = Engine(settings())
    engine.handle([], 0.0)
    commands, open_batches, ends = [], [], {}
    arrivals = [i / 180 for i in range(900)]
    now_s = 0.0
    for i, at_s in enumerate(arrivals):
        while open_batches or engine.next_wakeup_s() is not None:
            due = min(open_batches, key=lambda b: b.predicted_finish_s, default=None)
            wakeup_s = engine.next_wakeup_s()
            moment_s = min(due.predicted_finish_s if due else 9e9, wakeup_s if wakeup_s is not None else 9e9)
            if moment_s > at_s:
                break
            now_s = max(now_s, moment_s)
            if due is not None and due.predicted_finish_s <= moment_s:
                open_batches.remove(due)
                new = finish(engine, due, now_s)
                ends.update({r: now_s for r in answered(new)})
            else:
                new = engine.handle([], now_s)
            commands += new
            open_batches += sent(new)
        new = arrive(engine, at_s, i)
        commands += new
        open_batches += sent(new)
    edge, function = (sum(b.items for b in sent(commands, side)) for side in Backend)
    assert not refused(commands)
    assert function > 0
    # The fluid limit at this load: the edge always busy with batches of 64, which take 0.569 s on our clock.
    assert edge / (edge + function) == pytest.approx(64 / 0.569 / 180, abs=0.06)
    late = [i for i, end_s in ends.items() if end_s > arrivals[i] + 1.0 + 1e-9]
    assert len(late) <= len(arrivals) // 100


def test_a_failed_edge_batch_goes_to_the_function_once() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, 2, slo_s=2.0))
    after = run_until_idle(engine, fail(engine, batch, 0.05, FailureKind.BROKEN), 0.05, 10.0)
    assert {b.backend for b in sent(after)} == {Backend.FUNCTION}
    assert sorted(answered(after)) == [1, 2]


def test_a_request_that_failed_on_both_sides_is_told_so() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=5.0))
    commands = fail(engine, batch, 0.05, FailureKind.SERVER)
    while not sent(commands):
        commands = engine.handle([], engine.next_wakeup_s())  # type: ignore[arg-type]
    (second,) = sent(commands)
    assert second.backend is Backend.FUNCTION
    last = fail(engine, second, second.sent_at_s + 0.1, FailureKind.FUNCTION)
    assert refused(last)[1].refusal.kind is RefusalKind.BACKEND
    assert sent(last) == []


def test_a_failure_too_late_for_the_other_side_is_told_at_once() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1))
    last = fail(engine, batch, 0.98, FailureKind.BROKEN)
    assert refused(last)[1].refusal.status == 503
    assert "made to fail" in refused(last)[1].refusal.message


def test_refused_content_is_found_by_halving() -> None:
    engine = Engine(settings())
    commands = arrive(engine, 0.0, 1, 2, 3, 4, slo_s=5.0)
    good, bad = [], {}
    now_s = 0.0
    for _ in range(20):
        batches = sent(commands)
        if not batches:
            break
        for batch in batches:
            now_s += 0.06
            if 3 in batch.request_ids:
                commands = fail(engine, batch, now_s, FailureKind.REJECTED)
            else:
                commands = finish(engine, batch, now_s)
            good += answered(commands)
            bad.update(refused(commands))
    assert sorted(good) == [1, 2, 4]
    assert list(bad) == [3]
    assert bad[3].refusal.kind is RefusalKind.BAD_REQUEST


def test_an_unreachable_edge_is_left_alone_until_a_probe_succeeds() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=3.0))
    fail(engine, batch, 0.01, FailureKind.UNREACHABLE)
    assert sent(arrive(engine, 0.02, 2, slo_s=3.0), Backend.EDGE) == []
    probes, now_s = [], 0.02
    while not probes:
        now_s = engine.next_wakeup_s()  # type: ignore[assignment]
        probes = [c for c in engine.handle([], now_s) if isinstance(c, SendProbe)]
    assert probes[0].place == Place.edge()
    engine.handle([ProbeMeasured(Place.edge(), ok=True)], now_s + 0.01)
    assert sent(arrive(engine, now_s + 0.02, 3), Backend.EDGE)


def test_a_deadline_nobody_can_meet_is_refused_at_once_and_named() -> None:
    engine = Engine(settings())
    refusal = refused(arrive(engine, 0.0, 1, slo_s=0.01))[1].refusal
    assert refusal.status == 503
    assert "deadline" in refusal.message


def test_a_class_may_be_served_late() -> None:
    engine = Engine(settings(serve_late=True))
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=0.01))
    assert answered(finish(engine, batch, batch.predicted_finish_s)) == [1]


@pytest.mark.parametrize("serve_late", [False, True])
def test_edge_only_overload_keeps_serving_as_many_as_it_can(serve_late: bool) -> None:
    engine = Engine(settings(function=False, serve_late=serve_late))
    commands = []
    for i in range(400):
        commands += arrive(engine, 0.0, i)
    commands = run_until_idle(engine, commands, 0.0, 100.0)
    assert len(answered(commands)) + len(refused(commands)) == 400
    assert len(answered(commands)) == 400 if serve_late else 64 <= len(answered(commands)) < 400


def test_functions_alone_gather_until_the_deadline_or_the_target() -> None:
    engine = Engine(settings(edge=False))
    first = arrive(engine, 0.0, 1)
    assert sent(first) == []
    wakeup_s = engine.next_wakeup_s()
    assert wakeup_s is not None
    assert wakeup_s < 1.0 - 0.357
    everything = run_until_idle(engine, first, 0.0, 5.0)
    assert [b.request_ids for b in sent(everything)] == [(1,)]
    assert answered(everything) == [1]


def test_a_full_queue_refuses_with_a_time_to_retry() -> None:
    engine = Engine(settings(function=False, queue_max_requests=3))
    commands = [c for i in range(6) for c in arrive(engine, 0.0, i)]
    refusals = refused(commands)
    assert sorted(refusals) == [4, 5]
    assert refusals[4].refusal.status == 429
    assert refusals[4].refusal.retry_after_s is not None
    assert refusals[4].refusal.retry_after_s > 0


def test_the_queue_is_bounded_in_bytes_of_all_that_is_unanswered() -> None:
    engine = Engine(settings(queue_max_bytes=25_000))
    assert list(refused(arrive(engine, 0.0, 1, 2, 3))) == [3]


def test_a_cancelled_request_is_not_sent() -> None:
    engine = Engine(settings())
    (first,) = sent(arrive(engine, 0.0, 1))
    arrive(engine, 0.01, 2)
    engine.handle([RequestCancelled(2)], 0.02)
    after = finish(engine, first, first.predicted_finish_s)
    assert sent(after) == []
    assert engine.statistics().queued_requests == 0
    assert engine.statistics().unanswered_bytes == 0


def test_a_request_cancelled_in_flight_gets_no_answer() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, 2))
    engine.handle([RequestCancelled(1)], 0.01)
    assert answered(finish(engine, batch, 0.06)) == [2]
    assert engine.statistics().unanswered_bytes == 0


def test_items_of_a_request_count_and_stay_together() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, items=7))
    assert batch.items == 7


def test_draining_admits_nobody_and_sends_what_is_there() -> None:
    engine = Engine(settings(edge=False))
    arrive(engine, 0.0, 1)
    commands = engine.handle([DrainStarted()], 0.01)
    assert [b.request_ids for b in sent(commands)] == [(1,)]
    late = engine.handle([RequestArrived(request(2, 0.02))], 0.02)
    assert refused(late)[2].refusal.kind is RefusalKind.DRAINING


def test_an_operators_window_of_zero_gathers_nothing() -> None:
    engine = Engine(settings(edge=False))
    engine.handle([LimitsChanged("m", Limits(window_s=0.0))], 0.0)
    assert [b.items for b in sent(arrive(engine, 1.0, 1))] == [1]


def test_an_operators_batch_cap_holds() -> None:
    engine = Engine(settings(function=False))
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=2))], 0.0)
    commands = run_until_idle(engine, arrive(engine, 1.0, 1, 2, 3, 4), 1.0, 9.0)
    assert [b.items for b in sent(commands)] == [2, 2]


def test_reloaded_settings_make_a_new_plan_and_lose_nobody() -> None:
    engine = Engine(settings(edge=False))
    arrive(engine, 0.0, 1)
    commands = engine.handle([SettingsChanged(settings())], 0.1)
    assert [c.plan.cause for c in commands if isinstance(c, PlanAdopted)] == ["settings"]
    assert answered(run_until_idle(engine, commands, 0.1, 5.0)) == [1]


def test_money_is_booked_at_the_send_and_corrected_by_the_answer() -> None:
    engine = Engine(settings(edge=False))
    commands = run_until_idle(engine, arrive(engine, 0.0, 1), 0.0, 5.0)
    (batch,) = sent(commands)
    warming = [c.batch for c in commands if isinstance(c, SendBatch) and c.batch.warming]
    assert engine.statistics().spent == pytest.approx(1.27e-5 * 0.357 + 9e-7 + 9e-7 * len(warming))
    assert batch.expected_cost == pytest.approx(1.27e-5 * 0.357 + 9e-7)


def test_same_messages_same_commands() -> None:
    def play() -> list[str]:
        engine = Engine(settings())
        commands = [c for i in range(300) for c in arrive(engine, i / 150, i)]
        return [repr(c) for c in run_until_idle(engine, commands, 2.0, 10.0)]

    assert play() == play()


def test_a_model_that_leaves_the_configuration_leaves_nobody_waiting() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1))
    arrive(engine, 0.01, 2)
    without = replace(settings(), models=(replace(settings().models[0], name="other"),))
    commands = engine.handle([SettingsChanged(without)], 0.02)
    assert refused(commands)[2].refusal.kind is RefusalKind.NO_BACKEND
    assert answered(finish(engine, batch, 0.06)) == [1]
    assert list(refused(arrive(engine, 0.07, 3))) == [3]


def test_a_batch_of_a_model_that_left_fails_without_a_second_try() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1))
    engine.handle([SettingsChanged(replace(settings(), models=()))], 0.02)
    assert list(refused(fail(engine, batch, 0.05, FailureKind.BROKEN))) == [1]


def test_a_plan_that_was_overtaken_is_not_adopted() -> None:
    engine = Engine(settings())
    (old,) = [c.plan for c in engine.handle([], 0.0) if isinstance(c, PlanAdopted)]
    engine.handle([SettingsChanged(settings())], 0.02)
    assert engine.handle([PlanComputed(old)], 0.03) == []


def test_halves_are_sent_only_for_requests_that_still_have_time() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1, 2))
    commands = fail(engine, batch, 1.5, FailureKind.REJECTED)
    assert sent(commands) == []
    assert {c.refusal.kind for c in refused(commands).values()} == {RefusalKind.DEADLINE}


def test_a_late_request_does_not_wait_for_an_overloaded_edge() -> None:
    engine = Engine(settings(serve_late=True))
    commands = [c for i in range(60) for c in arrive(engine, 0.0, i, slo_s=0.2)]
    commands += [c for i in range(60, 120) for c in arrive(engine, 0.01, i, slo_s=0.02)]
    run = run_until_idle(engine, commands, 0.01, 9.0)
    late_at_s = [b.sent_at_s for b in sent(run) if any(i >= 60 for i in b.request_ids)]
    assert len(answered(run)) == 120
    assert max(late_at_s) < 0.01 + 1.0


def test_a_request_larger_than_planned_batches_goes_alone_if_its_own_deadline_allows() -> None:
    engine = Engine(settings(function=False, slo_s=0.3))
    engine.handle([], 0.0)
    commands = arrive(engine, 0.0, 1, items=60, slo_s=5.0)
    assert [b.items for b in sent(commands)] == [60]


def cloud_only(slots: int, **changes: object) -> Engine:
    """An engine whose model has only a function, with so many batches in flight at most; it sends at once."""
    model = replace(settings(edge=False, **changes).models[0], tiers=(replace(TIER, max_in_flight=slots),))  # type: ignore[arg-type]
    return Engine(replace(settings(), models=(model,)))


def test_what_shared_a_batch_with_refused_content_waits_for_a_slot_and_is_answered() -> None:
    engine = cloud_only(slots=1)
    (batch,) = sent(arrive(engine, 0.0, *range(1, 6), slo_s=9.0))
    (half,) = sent(fail(engine, batch, 0.1, FailureKind.REJECTED))
    after = run_until_idle(engine, fail(engine, half, 0.2, FailureKind.BROKEN), 0.2, 20.0)
    assert sorted(answered(after)) == [*range(1, 6)]


def test_a_half_that_waits_is_told_when_its_deadline_passes() -> None:
    engine = cloud_only(slots=1)
    (batch,) = sent(arrive(engine, 0.0, *range(1, 6), slo_s=2.0))
    (half,) = sent(fail(engine, batch, 0.1, FailureKind.REJECTED))
    while (now_s := engine.next_wakeup_s()) is not None and now_s < 2.0:
        engine.handle([], now_s)
    told = refused(engine.handle([], 2.0))
    assert sorted(told) == sorted(set(batch.request_ids) - set(half.request_ids))
    assert {c.refusal.kind for c in told.values()} == {RefusalKind.DEADLINE}


@pytest.mark.parametrize("backend", list(Backend))
def test_content_that_is_refused_after_its_backend_was_ruled_out_is_no_error_of_ours(backend: Backend) -> None:
    engine = Engine(settings(edge=backend is Backend.EDGE, function=backend is Backend.FUNCTION))
    (batch,) = sent(arrive(engine, 0.0, *range(1, 6), slo_s=9.0))
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=0, function_batch_cap=0))], 0.05)
    assert sorted(refused(fail(engine, batch, 0.1, FailureKind.REJECTED))) == list(batch.request_ids)


def test_a_request_that_changed_sides_does_not_change_back() -> None:
    engine = Engine(settings(slo_s=9.0))
    (batch,) = sent(arrive(engine, 0.0, 1, 2, slo_s=9.0))
    (half,) = sent(fail(engine, batch, 0.1, FailureKind.REJECTED))
    commands = fail(engine, half, 0.2, FailureKind.UNREACHABLE) + engine.handle([DrainStarted()], 0.2)
    (moved,) = sent(commands)
    assert moved.backend is Backend.FUNCTION
    engine.handle([ProbeMeasured(Place.edge(), ok=True)], 0.3)
    last = fail(engine, moved, moved.sent_at_s + 0.1, FailureKind.FUNCTION)
    assert sorted(refused(last)) == sorted(moved.request_ids)


def test_a_plan_that_does_not_come_is_asked_for_again_and_waited_for_in_silence() -> None:
    engine = Engine(settings())
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=9))], 0.0)
    asked_at_s, calls, now_s = [], 0, 0.0
    while (wakeup_s := engine.next_wakeup_s()) is not None and now_s < 100.0 and calls < 50:
        now_s, calls = wakeup_s, calls + 1
        asked = [c for c in engine.handle([], now_s) if isinstance(c, ComputePlan)]
        asked_at_s += [now_s] * len(asked)
        assert {c.cause for c in asked} <= {"limits"}
    assert asked_at_s == [2.0, 32.0, 62.0, 92.0, 122.0]
    assert calls == len(asked_at_s)


def test_batches_that_fail_of_one_outage_do_not_make_its_pause_longer() -> None:
    engine = Engine(settings(edge=False, reopen_after_s=1.0))
    batches = sent(arrive(engine, 0.0, *range(20)))
    assert len(batches) > 3
    for batch in batches:
        fail(engine, batch, 0.1, FailureKind.UNREACHABLE)
    assert engine.next_wakeup_s() <= 1.1  # type: ignore[operator]
    assert [c for c in engine.handle([], 1.1) if isinstance(c, SendProbe)]


def test_no_backend_can_ask_for_silence_without_end() -> None:
    engine = Engine(settings(edge=False))
    (batch,) = sent(arrive(engine, 0.0, *range(1, 6)))
    fail(engine, batch, 0.1, FailureKind.THROTTLED, retry_after_s=900_000.0)
    assert answered(run_until_idle(engine, arrive(engine, 31.0, 9), 31.0, 40.0)) == [9]


def test_a_reload_changes_when_a_failing_backend_is_left_alone() -> None:
    engine = Engine(settings(edge=False, failures_to_open=3))
    engine.handle([SettingsChanged(settings(edge=False, failures_to_open=1))], 0.0)
    (batch,) = sent(arrive(engine, 0.0, *range(5)))
    fail(engine, batch, 0.1, FailureKind.SERVER)
    assert not engine.statistics().function_up


def test_a_probe_of_the_edge_is_no_sign_of_life_of_the_uplink() -> None:
    engine = Engine(settings(probe_interval_s=5.0))
    for i in range(60):
        now_s = i / 10
        commands = engine.handle([RequestArrived(request(i, now_s)), ProbeMeasured(Place.edge(), ok=True)], now_s)
        for batch in sent(commands):
            finish(engine, batch, now_s + 0.06)
        probes = [c.place for c in commands if isinstance(c, SendProbe)]
        if probes:
            break
    assert probes == [FUNCTIONS]


def test_an_uplink_that_was_thought_dead_spoils_no_estimate() -> None:
    engine = Engine(settings(edge=False, serve_late=True, uplink_bytes_per_s=0.0))
    (batch,) = sent(run_until_idle(engine, arrive(engine, 0.0, 1), 0.0, 1.0))
    assert batch.predicted_finish_s == float("inf")
    finish(engine, batch, batch.sent_at_s + 0.5)
    engine.handle([], batch.sent_at_s + 0.5)
    assert engine.statistics().uplink_bytes_per_s > 0  # type: ignore[operator]
    estimate = engine._beliefs.uplink(batch.sent_at_s + 0.5)
    assert estimate.excess_s == 0.0
    assert 0.0 < estimate.margin_s < 0.1


def test_what_waits_for_a_slot_is_told_as_soon_as_it_would_come_too_late() -> None:
    engine = cloud_only(slots=1)
    (batch,) = sent(arrive(engine, 0.0, *range(1, 6), slo_s=2.0))
    assert sent(arrive(engine, 0.1, 6, slo_s=2.0)) == []
    told_at_s, now_s = {}, 0.1
    while not told_at_s and now_s < 3.0:
        now_s = engine.next_wakeup_s()  # type: ignore[assignment]
        told_at_s = dict.fromkeys(refused(engine.handle([], now_s)), now_s)
    # The batch before it never comes back; alone and by an idle way it would take 0.357 s and a round trip of 0.02 s.
    assert told_at_s == {6: pytest.approx(2.1 - 0.357 - 0.02)}
    assert sent(finish(engine, batch, 2.0)) == []


def test_a_function_that_ran_only_to_refuse_its_content_is_paid_for() -> None:
    engine = Engine(settings(edge=False))
    commands = arrive(engine, 0.0, *range(1, 6))
    (batch,) = sent(commands)
    report = BatchReport(0.2, billed_duration_s=0.1)
    commands += engine.handle([BatchFailed(batch.batch_id, Failure(FailureKind.REJECTED, "no picture"), report)], 5.0)
    warming = sum(isinstance(c, SendBatch) and c.batch.warming for c in commands)
    assert engine.statistics().spent == pytest.approx(1.27e-5 * 0.1 + 9e-7 + warming * 9e-7)


def test_members_whose_part_of_an_answer_cannot_be_used_go_to_the_other_side_and_the_others_are_answered() -> None:
    engine = Engine(settings())
    (batch,) = sent(engine.handle([RequestArrived(request(i, 0.0)) for i in (1, 2, 3)], 0.0), Backend.EDGE)
    report = BatchReport(0.06, service_s=0.05)
    commands = engine.handle([BatchFinished(batch.batch_id, report, unusable=frozenset({2}))], 0.06)
    assert answered(commands) == [1, 3]
    for _ in range(50):
        if sent(commands, Backend.FUNCTION):
            break
        wakeup_s = engine.next_wakeup_s()
        assert wakeup_s is not None
        commands = engine.handle([], wakeup_s)
    (again,) = sent(commands, Backend.FUNCTION)
    assert again.request_ids == (2,)
    assert engine.statistics().edge_up
    assert answered(finish(engine, again, again.predicted_finish_s)) == [2]


def test_a_model_that_a_backend_serves_under_a_false_name_goes_to_the_other_side_alone() -> None:
    two = settings()
    (model,) = two.models
    engine = Engine(replace(two, models=(model, replace(model, name="other"))))
    engine.handle([ModelBarred("m", Place.edge(), barred=True)], 0.0)
    other = replace(request(2, 0.0), model="other")
    commands = engine.handle([RequestArrived(request(1, 0.0)), RequestArrived(other)], 0.0)
    (by_edge,) = sent(commands, Backend.EDGE)
    assert by_edge.request_ids == (2,)
    finish(engine, by_edge, 0.06)
    now_s = 0.06
    while not (by_function := sent(commands, Backend.FUNCTION)):
        now_s = engine.next_wakeup_s() or now_s
        assert now_s < 1.0
        commands = engine.handle([], now_s)
    assert by_function[0].request_ids == (1,)
    finish(engine, by_function[0], by_function[0].predicted_finish_s)
    engine.handle([ModelBarred("m", Place.edge(), barred=False)], 10.0)
    assert sent(arrive(engine, 10.0, 3), Backend.EDGE)


def test_an_answer_of_another_model_opens_no_circuit() -> None:
    engine = Engine(settings())
    for number in range(1, 8):
        at_s = 2.0 * number
        (batch,) = sent(arrive(engine, at_s, number), Backend.EDGE)
        failure = Failure(FailureKind.BROKEN, "other files", of_model=True)
        commands = engine.handle([BatchFailed(batch.batch_id, failure, BatchReport(0.05))], at_s + 0.05)
        while not (by_function := sent(commands, Backend.FUNCTION)):
            commands = engine.handle([], engine.next_wakeup_s() or at_s)
        finish(engine, by_function[0], by_function[0].predicted_finish_s)
    assert engine.statistics().edge_up


def test_where_no_other_side_is_such_a_member_is_refused_after_a_second_try() -> None:
    engine = Engine(settings(function=False))
    (batch,) = sent(engine.handle([RequestArrived(request(i, 0.0)) for i in (1, 2)], 0.0))
    commands = engine.handle([BatchFinished(batch.batch_id, BatchReport(0.06), unusable=frozenset({1}))], 0.06)
    assert answered(commands) == [2]
    [again] = sent(commands)
    assert (again.backend, again.request_ids) == (Backend.EDGE, (1,))
    commands = engine.handle([BatchFinished(again.batch_id, BatchReport(0.06), unusable=frozenset({1}))], 0.12)
    assert refused(commands)[1].refusal.kind is RefusalKind.BACKEND
    assert "its part of the answer holds NaN or infinity" in refused(commands)[1].refusal.message


def test_what_gathered_while_no_slot_was_free_leaves_in_batches_that_are_in_time() -> None:
    one_slot = settings(edge=False, max_function_in_flight=1)
    engine = Engine(one_slot)
    (first,) = sent(engine.handle([LimitsChanged("m", Limits(window_s=0.0)), RequestArrived(request(1, 0.0))], 0.0))
    engine.handle([LimitsChanged("m", Limits())], 0.01)
    arrive(engine, 0.02, 2, 3, 4, 5, 6)
    now_s = first.predicted_finish_s
    (second,) = sent(finish(engine, first, now_s))
    # Five would take 0.921 s, with 0.64 s left; as many leave as are in time.
    assert 1 <= second.items < 5
    assert second.predicted_finish_s <= second.deadline_s


def test_an_answer_is_handed_out_before_it_is_learned_from() -> None:
    engine = Engine(settings())
    (batch,) = sent(arrive(engine, 0.0, 1))
    assert answered(finish(engine, batch, 0.5)) == [1]
    assert engine.next_wakeup_s() == 0.5
    engine.handle([], 0.5)
    (slower,) = sent(arrive(engine, 0.6, 2))
    assert slower.predicted_service_s > batch.predicted_service_s
    assert (engine.next_wakeup_s() or 9.0) > 0.6


def test_limits_set_while_a_model_is_away_hold_when_it_comes_back() -> None:
    engine = Engine(settings())
    engine.handle([], 0.0)
    both, other = settings(), replace(settings().models[0], name="other")
    engine.handle([SettingsChanged(replace(both, models=(other,)))], 1.0)
    engine.handle([LimitsChanged("m", Limits(window_s=0.0, edge_batch_cap=3))], 2.0)
    engine.handle([SettingsChanged(replace(both, models=(*both.models, other)))], 3.0)
    assert engine._queues["m"].plan.edge_batch_cap <= 3
    assert engine._queues["m"].limits == Limits(window_s=0.0, edge_batch_cap=3)
    assert engine._queues["m"].edge_cap <= 3


def test_limits_that_change_nothing_change_no_plan() -> None:
    engine = Engine(settings())
    engine.handle([], 0.0)
    assert not any(isinstance(c, ComputePlan) for c in engine.handle([LimitsChanged("m", Limits())], 5.0))
    commands = engine.handle([LimitsChanged("m", Limits(window_s=0.1, edge_batch_cap=9))], 6.0)
    assert [c.detail for c in commands if isinstance(c, ComputePlan)] == [
        "m: window at most 0.1 s, edge batch at most 9"
    ]

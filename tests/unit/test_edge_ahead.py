"""A batch is sent to an edge before the one on its device is back, so that this does not wait, where that pays."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_kit import ORIN, arrive, fail, sent, settings

from scheduler.dispatch.edge_ahead import BLIND_SHARE, MEASURED_EACH, PAUSE_S, Ahead
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.messages import BatchFinished, Command, ProbeMeasured, RequestArrived, SettingsChanged
from scheduler.domain.plans import EdgeSettings, EngineSettings
from scheduler.domain.requests import Backend, Place, Request
from scheduler.engine import Engine

LEAD_S = 0.04
ROUNDING_S = 1e-9


def report(device_s: float, *, beside_s: float | None = LEAD_S, queue_s: float | None = 0.0) -> BatchReport:
    elapsed_s = device_s + (LEAD_S if beside_s is None else beside_s) + (queue_s or 0.0)
    return BatchReport(elapsed_s, service_s=device_s, queue_s=queue_s, beside_s=beside_s)


def told(known: Ahead, *reports: BatchReport, behind_s: float = 0.0, now_s: float = 0.0) -> Ahead:
    for one in reports:
        known.answered(one, behind_s=behind_s, now_s=now_s)
    return known


@given(
    st.lists(st.tuples(st.floats(0.05, 2.0), st.floats(0.0, 0.5)), min_size=1, max_size=30),
    st.floats(0.001, 0.04),
)
def test_forecasts_are_those_of_a_device_that_serves_in_order(
    batches: list[tuple[float, float]], lead_s: float
) -> None:
    """Each batch leaves as soon as the slot takes it, or a little later, where services are known exactly."""
    slot, now_s, device_free_s, ends_s = EdgeOccupancy(lead_s=lead_s), 0.0, 0.0, [0.0] * 2
    for number, (device_s, later_s) in enumerate(batches, start=1):
        leaves_s = max(now_s, slot.free_at_s(now_s))
        if slot.ahead_id is not None:  # the one in flight must be back before the next may leave
            assert not slot.takes(leaves_s - ROUNDING_S)
            slot.release(number - 2, now_s=ends_s[-2])
        assert slot.free_at_s(leaves_s) == pytest.approx(leaves_s)
        now_s = leaves_s + later_s + ROUNDING_S
        if not slot.idle and ends_s[-1] <= now_s:
            slot.release(number - 1, now_s=ends_s[-1])
        assert slot.takes(now_s)
        finish_s = slot.finish_s(now_s=now_s, service_s=device_s + lead_s)
        slot.occupy(batch_id=number, now_s=now_s, finish_s=finish_s)
        started_s = max(now_s + lead_s, device_free_s)
        if later_s == 0.0 and number > 1:
            assert started_s == pytest.approx(device_free_s)  # the device does not wait
        device_free_s = started_s + device_s
        ends_s.append(device_free_s)
        assert finish_s == pytest.approx(device_free_s)
        assert slot.batches <= 2


def test_a_batch_that_is_overdue_by_more_than_the_lead_gets_none_behind_it() -> None:
    slot = EdgeOccupancy(lead_s=0.04)
    slot.occupy(batch_id=1, now_s=0.0, finish_s=1.0)
    assert [slot.takes(at_s) for at_s in (0.95, 0.96, 1.0, 1.03, 1.05)] == [False, True, True, True, False]
    assert slot.free_at_s(1.1) == pytest.approx(1.16)


def test_one_that_is_sent_ahead_is_expected_later_if_the_one_before_it_is_late() -> None:
    slot = EdgeOccupancy(lead_s=0.1)
    slot.occupy(batch_id=1, now_s=0.0, finish_s=1.0)
    slot.occupy(batch_id=2, now_s=0.9, finish_s=slot.finish_s(now_s=0.9, service_s=0.6))
    assert slot.next_at_s == pytest.approx(1.4)
    assert slot.release(1, now_s=1.2) == 0.0
    assert slot.predicted_finish_s == pytest.approx(1.7)
    assert slot.release(2, now_s=1.7) == pytest.approx(0.3)
    assert slot.idle


def test_it_begins_once_the_lead_is_known_and_worth_it_and_ends_where_it_is_not() -> None:
    known = told(Ahead(), report(0.5))
    assert known.used_lead_s == 0.0
    assert told(known, report(0.5)).used_lead_s == pytest.approx(LEAD_S)
    told(known, *[report(3.0)] * 30)
    assert known.used_lead_s == 0.0
    assert told(Ahead(), *[report(2.0)] * 9).used_lead_s == 0.0


def test_one_where_the_configuration_says_so_and_none_where_it_says_0() -> None:
    assert told(Ahead(wanted=1), *[report(2.0)] * 9).used_lead_s == pytest.approx(LEAD_S)
    engine = Engine(edges(ahead=0))
    for at_s in range(4):
        serve(engine, sent(arrive(engine, float(at_s), at_s + 1))[0])
    assert engine.statistics().edges[0].ahead_s == 0.0


def test_a_server_that_reports_nothing_gets_none_by_itself_and_a_tenth_of_a_batch_ahead_where_it_is_wanted() -> None:
    silent = [report(0.46, beside_s=None, queue_s=None)] * 9
    assert told(Ahead(), *silent).used_lead_s == 0.0
    assert told(Ahead(wanted=1), *silent).used_lead_s == pytest.approx(BLIND_SHARE * 0.5)


def test_a_wait_that_the_server_does_not_see_is_not_taken_for_the_lead() -> None:
    """As before a router: what it reports as its way is the way and the wait."""
    known = told(Ahead(), *[report(0.5)] * 9)
    for _ in range(MEASURED_EACH):
        told(known, report(0.5, beside_s=0.06), behind_s=0.06)
    assert known.lead_s == pytest.approx(LEAD_S)
    assert known.measures_next
    told(known, report(0.5, beside_s=0.05))
    assert known.lead_s > LEAD_S
    assert not known.measures_next


def test_it_ends_for_longer_and_longer_where_batches_wait_more_than_the_device_gains() -> None:
    known, at_s = told(Ahead(), *[report(0.5)] * 9), 0.0
    for pause_s in (PAUSE_S, 2 * PAUSE_S):
        while known.in_force:
            told(known, report(0.5, queue_s=0.5), behind_s=0.5, now_s=at_s)
        assert told(known, report(0.5), now_s=at_s + pause_s - 0.1).used_lead_s == 0.0
        at_s += pause_s
        assert told(known, report(0.5), now_s=at_s).used_lead_s > 0.0
    for _ in range(99):
        told(known, report(0.5, queue_s=0.02), behind_s=0.06, now_s=at_s)
    assert known.in_force


def edges(ahead: int | None = None, **more: object) -> EngineSettings:
    return settings(edges=(EdgeSettings(ahead=ahead),), changepoints=False, **more)  # type: ignore[arg-type]


def finish_with(engine: Engine, batch: Batch, at_s: float, *, queue_s: float = 0.0) -> list[Command]:
    """Answers a batch of an edge whose device took all but the lead and the wait."""
    elapsed_s = at_s - batch.sent_at_s
    said = BatchReport(elapsed_s, service_s=elapsed_s - queue_s - LEAD_S, queue_s=queue_s, beside_s=LEAD_S)
    return engine.handle([BatchFinished(batch.batch_id, said)], at_s)


def serve(engine: Engine, batch: Batch) -> list[Command]:
    commands = finish_with(engine, batch, batch.predicted_finish_s)
    return commands + engine.handle([], batch.predicted_finish_s)


def leading(**more: object) -> tuple[Engine, Batch]:
    """Returns an engine that sends ahead, and a batch of 40 that leaves at 10 s."""
    engine = Engine(edges(edge_overhead_s=LEAD_S, **more))
    for at_s in range(8):
        (batch,) = sent(arrive(engine, float(at_s), *range(100 * at_s + 1, 100 * at_s + 21)))
        serve(engine, batch)
    (first,) = sent(arrive(engine, 10.0, *range(1001, 1041)), Backend.EDGE)
    assert engine.statistics().edges[0].ahead_s == pytest.approx(LEAD_S)
    return engine, first


def test_the_next_batch_leaves_so_long_before_the_end_as_it_needs_to_get_to_the_device() -> None:
    engine, first = leading()
    assert sent(arrive(engine, 10.01, *range(1, 6))) == []
    leaves_s = first.predicted_finish_s - LEAD_S
    woken_s, commands = 10.01, []
    while not commands:
        woken_s = engine.next_wakeup_s() or 0.0
        commands = sent(engine.handle([], woken_s))
    assert woken_s == pytest.approx(leaves_s)
    (second,) = commands
    assert second.request_ids == (1, 2, 3, 4, 5)
    assert second.predicted_finish_s == pytest.approx(first.predicted_finish_s + ORIN.predict_s(5), abs=0.01)
    assert engine.statistics().edges[0].batches_in_flight == 2
    assert sent(arrive(engine, leaves_s + 0.001, 6, 7)) == []
    third = sent(finish_with(engine, first, first.predicted_finish_s))
    assert third == []
    leaves_s = second.predicted_finish_s - LEAD_S
    assert sent(engine.handle([], leaves_s - 1e-3)) == []
    assert [batch.request_ids for batch in sent(engine.handle([], leaves_s + 1e-6))] == [(6, 7)]


def test_the_wait_before_the_device_is_not_learned_as_its_service() -> None:
    engine, first = leading()
    arrive(engine, 10.01, *range(1, 6))
    (second,) = sent(engine.handle([], first.predicted_finish_s - LEAD_S + 1e-9))
    times = engine._beliefs.edge_times("m", 0.9, 11.0, "main")
    late_s = first.predicted_finish_s + 0.2
    finish_with(engine, first, late_s)
    engine.handle([], late_s)
    took_s = second.predicted_service_s - LEAD_S
    finish_with(engine, second, late_s + took_s, queue_s=0.2)
    engine.handle([], late_s + took_s)
    again = engine._beliefs.edge_times("m", 0.9, 11.0, "main")
    assert times is not None
    assert again is not None
    assert again.median_s[5] == pytest.approx(times.median_s[5], rel=0.12)  # 0.2 s would double it


@pytest.mark.parametrize("kind", [FailureKind.BROKEN, FailureKind.UNREACHABLE])
def test_an_edge_that_goes_away_with_two_batches_loses_no_request(kind: FailureKind) -> None:
    engine, first = leading()
    arrive(engine, 10.01, *range(1, 6))
    at_s = first.predicted_finish_s - LEAD_S + 1e-9
    (second,) = sent(engine.handle([], at_s))
    commands = fail(engine, first, at_s + 0.001, kind) + fail(engine, second, at_s + 0.001, kind)
    for step in range(400):
        commands += engine.handle([], at_s + 0.002 + step * 0.005)
    ended = {command.request_id for command in commands if hasattr(command, "request_id")}
    by_function = {i for batch in sent(commands, Backend.FUNCTION) for i in batch.request_ids}
    assert {*first.request_ids, *second.request_ids} <= ended | by_function
    assert engine.statistics().edges[0].batches_in_flight == 0


def test_a_server_that_refuses_a_second_batch_gets_it_when_the_first_is_back_and_none_ahead_for_a_while() -> None:
    engine, first = leading()
    arrive(engine, 10.01, *range(1, 6))
    at_s = first.predicted_finish_s - LEAD_S + 1e-9
    (second,) = sent(engine.handle([], at_s))
    assert sent(fail(engine, second, at_s + 0.005, FailureKind.THROTTLED), Backend.FUNCTION) == []
    assert engine.statistics().edges[0].ahead_s == 0.0
    (again,) = sent(finish_with(engine, first, first.predicted_finish_s), Backend.EDGE)
    assert again.request_ids == (1, 2, 3, 4, 5)
    finish_with(engine, again, again.predicted_finish_s)
    engine.handle([], again.predicted_finish_s)
    assert engine.statistics().edges[0].ahead_s == 0.0


@pytest.mark.parametrize("first_is_back", [False, True], ids=["the first is on the device", "the first is just back"])
def test_one_that_is_refused_as_the_second_is_no_failure_of_the_edge(first_is_back: bool) -> None:
    engine, first = leading()
    arrive(engine, 10.01, *range(1, 6))
    at_s = first.predicted_finish_s - LEAD_S + 1e-9
    (second,) = sent(engine.handle([], at_s))
    if first_is_back:
        finish_with(engine, first, at_s + 0.004)
    fail(engine, second, at_s + 0.005, FailureKind.THROTTLED)
    assert engine.statistics().edges[0].up
    assert engine.statistics().edges[0].ahead_s == 0.0


def test_one_that_is_refused_after_a_reload_that_forbids_it_is_served_later() -> None:
    engine, first = leading()
    arrive(engine, 10.01, *range(1, 6))
    at_s = first.predicted_finish_s - LEAD_S + 1e-9
    (second,) = sent(engine.handle([], at_s))
    engine.handle([SettingsChanged(replace(edges(edge_overhead_s=LEAD_S), edges=(EdgeSettings(ahead=0),)))], at_s)
    fail(engine, second, at_s + 0.005, FailureKind.THROTTLED)
    (again,) = sent(finish_with(engine, first, first.predicted_finish_s), Backend.EDGE)
    assert again.request_ids == second.request_ids


def test_a_reload_may_forbid_and_allow_it() -> None:
    engine, first = leading()
    known = replace(edges(edge_overhead_s=LEAD_S), edges=(EdgeSettings(ahead=0),))
    engine.handle([SettingsChanged(known)], 10.1)
    assert engine.statistics().edges[0].ahead_s == 0.0
    arrive(engine, 10.2, 1)
    assert sent(engine.handle([], first.predicted_finish_s - 1e-3), Backend.EDGE) == []
    (second,) = sent(finish_with(engine, first, first.predicted_finish_s), Backend.EDGE)
    engine.handle([SettingsChanged(replace(known, edges=(EdgeSettings(ahead=1),)))], second.sent_at_s + 0.01)
    serve(engine, second)
    assert engine.statistics().edges[0].ahead_s > 0.0


def test_of_two_slots_the_one_that_is_free_first_serves_what_was_sent_ahead_for_the_other() -> None:
    engine = Engine(settings(edges=(EdgeSettings(parallel=2, ahead=1),), changepoints=False, edge_overhead_s=LEAD_S))
    for at_s in range(8):
        (batch,) = sent(arrive(engine, float(at_s), *range(100 * at_s + 1, 100 * at_s + 21)))
        serve(engine, batch)
    (small,) = sent(arrive(engine, 10.0, *range(1001, 1021)))
    (large,) = sent(arrive(engine, 10.001, *range(1101, 1141)))
    arrive(engine, 10.01, 1, 2)
    (ahead,) = sent(engine.handle([], small.predicted_finish_s - LEAD_S + 1e-9), Backend.EDGE)
    assert ahead.request_ids == (1, 2)
    arrive(engine, ahead.sent_at_s + 0.001, 3)
    early_s = ahead.sent_at_s + 0.01
    # Its place is that of the batch that was sent ahead, and behind the other one there is room again.
    (following,) = sent(finish_with(engine, large, early_s), Backend.EDGE)
    assert following.request_ids == (3,)
    held = {slot.occupancy.batch_id: slot.occupancy.ahead_id for slot in engine._edges.slots}
    assert held == {ahead.batch_id: None, small.batch_id: following.batch_id}


def test_nothing_is_sent_ahead_where_the_clients_of_the_batch_in_flight_come_back_and_fit_into_the_next() -> None:
    engine, number = Engine(edges(edge_overhead_s=LEAD_S, function=False)), 30
    (batch,) = sent(arrive(engine, 0.0, *range(number)))
    for _ in range(12):  # one client comes back a little late, and waits for the others
        now_s = batch.predicted_finish_s
        assert sent(engine.handle([], now_s - LEAD_S + 1e-6)) == []
        finish_with(engine, batch, now_s)
        again = [RequestArrived(Request(number + i, "m", now_s + 0.001, now_s + 1.001)) for i in range(batch.items)]
        number += batch.items
        (batch,) = sent([*engine.handle(again, now_s + 0.001), *engine.handle([], now_s + 0.03)])
    assert engine.statistics().edges[0].ahead_s > 0.0
    arrive(engine, batch.sent_at_s + 0.01, 10_001)
    assert sent(engine.handle([], batch.predicted_finish_s - LEAD_S + 1e-6)) == []
    returning = engine._queues["m"].returning
    returning.share = 0.0
    assert sent(engine.handle([], batch.predicted_finish_s - LEAD_S + 2e-6)) != []


def test_an_edge_that_says_how_many_it_serves_keeps_its_lead() -> None:
    engine = Engine(settings(edges=(EdgeSettings(parallel=None),), changepoints=False, edge_overhead_s=LEAD_S))
    for at_s in range(8):
        (batch,) = sent(arrive(engine, float(at_s), *range(100 * at_s + 1, 100 * at_s + 21)))
        serve(engine, batch)
    engine.handle([ProbeMeasured(Place.edge(), ok=True, parallel=3)], 9.0)
    assert engine.statistics().edges[0].parallel == 3
    assert {slot.occupancy.lead_s for slot in engine._edges.slots} == {engine.statistics().edges[0].ahead_s}
    assert engine.statistics().edges[0].ahead_s == pytest.approx(LEAD_S)


def test_a_lead_longer_than_a_batch_makes_no_forecast_longer_than_that() -> None:
    slot = EdgeOccupancy(lead_s=50.0)
    slot.occupy(batch_id=1, now_s=0.0, finish_s=0.5)
    assert slot.finish_s(now_s=0.1, service_s=0.2) == pytest.approx(0.5)

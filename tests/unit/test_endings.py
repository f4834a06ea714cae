"""Refusal at the deadline: whatever hangs, a client of a class that is not served late hears in time, and once."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.engine_kit import answered, arrive, fail, finish, refused, request, sent, settings

from scheduler.dispatch.endings import GRACE_S, SLACK
from scheduler.dispatch.slo_budget import SAFETY
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.errors import RefusalKind
from scheduler.domain.messages import (
    BatchFinished,
    Command,
    DrainStarted,
    RefuseRequest,
    RequestArrived,
    RequestCancelled,
    SettingsChanged,
)
from scheduler.domain.requests import Backend
from scheduler.engine import Engine
from scheduler.explain.text import describe

SLO_S = 1.0


def pass_time(engine: Engine, until_s: float) -> list[tuple[float, Command]]:
    """Lets time pass while nothing comes back; returns each command with its time."""
    commands: list[tuple[float, Command]] = []
    while (now_s := engine.next_wakeup_s()) is not None and now_s <= until_s:
        commands += [(now_s, command) for command in engine.handle([], now_s)]
    return commands


def told(commands: Sequence[tuple[float, Command]]) -> dict[int, tuple[float, RefuseRequest]]:
    return {c.request_id: (at_s, c) for at_s, c in commands if isinstance(c, RefuseRequest)}


def hung(side: Backend, **changes: object) -> tuple[Engine, Batch]:
    """An engine with one side, which took a request at 0 and does not answer."""
    edge = side is Backend.EDGE
    engine = Engine(settings(edge=edge, function=not edge, **changes))  # type: ignore[arg-type]
    commands = arrive(engine, 0.0, 1) + [c for _, c in pass_time(engine, 0.7)]
    [batch] = sent(commands)
    return engine, batch


@pytest.mark.parametrize("side", list(Backend))
def test_the_client_of_a_hung_side_hears_at_its_deadline(side: Backend) -> None:
    engine, batch = hung(side)
    at_s, command = told(pass_time(engine, 20.0))[1]
    assert SLO_S <= at_s <= SLO_S + GRACE_S
    assert (command.refusal.kind, command.refusal.status) == (RefusalKind.NO_ANSWER, 503)
    assert command.refusal.message == f"the {side.value} had not answered by the request's deadline"
    assert batch.give_up_at_s > at_s


def test_with_both_sides_hung_the_client_hears_at_its_deadline() -> None:
    engine = Engine(settings())
    commands = [(0.0, command) for command in arrive(engine, 0.0, 1)] + pass_time(engine, 20.0)
    assert {batch.backend for batch in sent([c for _, c in commands])} == set(Backend)
    at_s, command = told(commands)[1]
    assert SLO_S <= at_s <= SLO_S + GRACE_S
    assert command.refusal.message == "the edge and the function had not answered by the request's deadline"


def test_after_a_second_try_that_hangs_the_client_hears_at_its_deadline() -> None:
    engine = Engine(settings())
    [first] = sent(arrive(engine, 0.0, 1), Backend.EDGE)
    commands = [(0.2, command) for command in fail(engine, first, 0.2, FailureKind.BROKEN)] + pass_time(engine, 20.0)
    assert sent([c for _, c in commands], Backend.FUNCTION)
    at_s, command = told(commands)[1]
    assert SLO_S <= at_s <= SLO_S + GRACE_S
    assert command.refusal.message == "the function had not answered by the request's deadline"


def test_what_a_function_answers_after_the_deadline_is_paid_for_counted_late_and_given_to_no_client() -> None:
    engine, batch = hung(Backend.FUNCTION)
    budget = engine._queues["m"].lateness.budgets["default"]
    before = budget.multiplier
    assert 1 in told(pass_time(engine, 2.0))
    assert batch.batch_id in engine._outbox.in_flight
    report = BatchReport(3.0, service_s=2.5, billed_duration_s=2.5)
    commands = engine.handle([BatchFinished(batch.batch_id, report)], 3.0)
    assert not answered(commands)
    assert not refused(commands)
    assert budget.multiplier > before
    tier = engine._queues["m"].buffers[0].tier
    assert engine._ledger.settled == pytest.approx(tier.price.cost(2.5))
    after = budget.multiplier
    pass_time(engine, 60.0)
    assert budget.multiplier == after, "counted twice"


def test_a_batch_that_fails_after_the_deadline_is_counted_late_once() -> None:
    engine, batch = hung(Backend.FUNCTION)
    budget = engine._queues["m"].lateness.budgets["default"]
    before = budget.balance
    pass_time(engine, 2.0)
    assert not refused(fail(engine, batch, 3.0, FailureKind.TIMEOUT))
    assert budget.balance == pytest.approx(before - 1.0 + SAFETY * 0.01)
    state = engine.statistics()
    assert (state.queued_requests, state.unanswered_bytes, state.requests_in_flight) == (0, 0, 0)


def test_a_class_that_is_served_late_is_not_refused_at_its_deadline() -> None:
    engine, batch = hung(Backend.FUNCTION, serve_late=True)
    assert not told(pass_time(engine, 3.0))
    assert answered(finish(engine, batch, 3.0)) == [1]


def test_an_answer_that_is_hardly_late_is_given_and_counted_late() -> None:
    engine, batch = hung(Backend.FUNCTION)
    balance = engine._queues["m"].lateness.budgets["default"].balance
    assert not told(pass_time(engine, SLO_S + 0.5 * GRACE_S))
    assert answered(finish(engine, batch, SLO_S + 0.5 * GRACE_S)) == [1]
    assert engine._queues["m"].lateness.budgets["default"].balance < balance


def test_what_the_shell_keeps_for_itself_is_waited_for() -> None:
    engine = Engine(settings(function=False))
    asked = replace(request(1, 0.0, slo_s=0.7), reserve_s=0.3)
    commands = [(0.0, command) for command in engine.handle([RequestArrived(asked)], 0.0)] + pass_time(engine, 5.0)
    assert told(commands)[1][0] == pytest.approx(1.0 + GRACE_S)


def test_a_client_that_went_away_is_told_nothing() -> None:
    engine, batch = hung(Backend.FUNCTION)
    engine.handle([RequestCancelled(1)], 0.9)
    assert not told(pass_time(engine, 5.0))
    assert not refused(fail(engine, batch, 5.0, FailureKind.TIMEOUT))
    assert not engine._table.open


def test_a_wake_up_for_a_refusal_decides_nothing_else() -> None:
    """The same commands but for the refusal, as if there had been no wake-up."""
    engine, _ = hung(Backend.EDGE)
    commands = pass_time(engine, SLO_S + GRACE_S)
    assert [type(c) for at_s, c in commands if at_s > SLO_S] == [RefuseRequest]


def test_the_record_says_that_no_answer_had_come() -> None:
    engine, batch = hung(Backend.FUNCTION)
    pass_time(engine, 2.0)
    kept = engine.explanation(1)
    assert kept is not None
    assert kept.outcome == "no_answer"
    assert [sending.batch.batch_id for sending in kept.sendings] == [batch.batch_id]
    assert "refused: no answer had come by its deadline" in describe(kept)
    assert f"batch {batch.batch_id} on function:1gb is not back yet" in describe(kept)


def test_the_deadlines_of_requests_that_have_ended_are_forgotten() -> None:
    engine = Engine(settings(function=False))
    longest = 0
    for number in range(1, 2000):
        at_s = 0.1 * number
        [batch] = sent(arrive(engine, at_s, number, slo_s=3000.0))
        finish(engine, batch, at_s + 0.05)
        longest = max(longest, len(engine._endings._due))
    assert longest <= SLACK + 3


def test_a_refusal_while_a_circuit_is_open_says_when_it_is_probed() -> None:
    engine = Engine(settings(function=False))
    [batch] = sent(arrive(engine, 0.0, 1))
    fail(engine, batch, 0.1, FailureKind.UNREACHABLE)
    [refusal] = [c.refusal for c in refused(arrive(engine, 0.2, 2, slo_s=0.5)).values()]
    assert refusal.status == 503
    assert refusal.retry_after_s == pytest.approx(engine._circuits.edge.probe_at_s - 0.2)  # type: ignore[operator]


def test_a_refusal_while_the_functions_are_throttled_says_when_they_may_be_called_again() -> None:
    engine, batch = hung(Backend.FUNCTION)
    fail(engine, batch, 0.8, FailureKind.THROTTLED, retry_after_s=5.0)
    [refusal] = [c.refusal for c in refused(arrive(engine, 1.0, 2)).values()]
    assert refusal.retry_after_s == pytest.approx(4.8)


def test_a_refusal_for_lack_of_time_alone_promises_nothing() -> None:
    [refusal] = [c.refusal for c in refused(arrive(Engine(settings(function=False)), 0.0, 1, slo_s=0.01)).values()]
    assert (refusal.status, refusal.retry_after_s) == (503, None)


def test_a_refusal_while_the_daemon_stops_says_when_to_try_again() -> None:
    engine = Engine(settings())
    engine.handle([DrainStarted()], 0.0)
    [refusal] = [c.refusal for c in refused(arrive(engine, 0.1, 1)).values()]
    assert (refusal.status, refusal.retry_after_s) == (503, 1.0)


@pytest.mark.parametrize("side", list(Backend))
def test_a_reload_that_lets_a_class_be_late_no_longer_holds_for_what_is_in_flight(side: Backend) -> None:
    engine, _ = hung(side, serve_late=True)
    edge = side is Backend.EDGE
    engine.handle([SettingsChanged(settings(edge=edge, function=not edge))], 0.75)
    at_s, command = told(pass_time(engine, 20.0))[1]
    assert SLO_S <= at_s <= SLO_S + GRACE_S
    assert command.refusal.kind is RefusalKind.NO_ANSWER


def test_a_reload_that_lets_a_class_be_late_lets_what_is_in_flight_be_late() -> None:
    engine, batch = hung(Backend.EDGE)
    engine.handle([SettingsChanged(settings(function=False, serve_late=True))], 0.75)
    assert not told(pass_time(engine, 2.0))
    assert answered(finish(engine, batch, 2.5)) == [1]


def balance(engine: Engine) -> float:
    return engine._queues["m"].lateness.budgets["default"].balance


@pytest.mark.parametrize(("at_s", "misses"), [(0.9, 0), (SLO_S, 1)])
def test_a_client_that_goes_away_counts_from_its_deadline_on(at_s: float, misses: int) -> None:
    engine, batch = hung(Backend.FUNCTION, serve_late=True)
    engine.handle([RequestCancelled(1)], at_s)
    finish(engine, batch, at_s)
    assert balance(engine) == pytest.approx(misses * (SAFETY * 0.01 - 1.0))


def test_a_deadline_that_no_side_could_hold_does_not_count() -> None:
    engine = Engine(settings())
    commands = engine.handle([RequestArrived(replace(request(1, 0.0), deadline_s=0.01))], 0.0)
    commands += [c for _, c in pass_time(engine, 1.0)]
    assert refused(commands)
    assert balance(engine) == 0.0


def test_a_request_that_the_spend_cap_forbids_does_not_count() -> None:
    engine = Engine(settings(edge=False, spend_per_hour=0.0))
    assert refused(arrive(engine, 0.0, 1))
    assert balance(engine) == 0.0

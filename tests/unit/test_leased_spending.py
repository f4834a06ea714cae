"""An engine whose money is leased: no grant, no functions; it asks ahead, gives back, and waits for no disk."""

import math
from collections.abc import Sequence

import pytest
from support.engine_kit import FUNCTION, PRICE, answered, arrive, finish, refused, sent, settings

from scheduler.dispatch.spend_cap import LENDER, STATE
from scheduler.dispatch.spending import ANSWER_LIMIT_S, SLICE
from scheduler.domain.messages import (
    Command,
    RequestArrived,
    RequestSpend,
    ReturnSpend,
    SendBatch,
    SettingsChanged,
    SpendGranted,
)
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine

CAP = 100.0 * PRICE.cost(FUNCTION.predict_s(5))
"""The cost of a hundred full batches, so that a slice is about one of them."""


def engine(*, edge: bool = False, **more: object) -> Engine:
    return Engine(settings(edge=edge, **{"spend_leased": STATE, "spend_per_hour": CAP, **more}))


ledgers = pytest.mark.parametrize(
    ("ledger", "told"),
    [(STATE, "the daemon's state folder leases no money"), (LENDER, "the daemon that this one borrows from leases")],
)


def asked(commands: Sequence[Command]) -> list[RequestSpend]:
    return [command for command in commands if isinstance(command, RequestSpend)]


def functions(commands: Sequence[Command]) -> list[SendBatch]:
    return [c for c in commands if isinstance(c, SendBatch) and c.batch.backend is Backend.FUNCTION]


def run(
    target: Engine,
    commands: list[Command],
    now_s: float,
    limit_s: float,
    ledger: float = math.inf,
    takes_s: float = 0.01,
) -> tuple[list[Command], float]:
    """Answers batches and requests for money, from a ledger that has so much; returns commands and what it has left."""
    events: list[tuple[float, int, object]] = []
    done: list[Command] = []
    while True:
        done += commands
        for command in commands:
            if isinstance(command, SendBatch):
                events.append((command.batch.predicted_finish_s, len(done), command.batch))
            elif isinstance(command, RequestSpend):
                given = min(ledger, command.amount)
                ledger -= given
                closed_by = "" if given == command.amount else "hour"
                grant = SpendGranted(given, closed_by, 60.0 if closed_by else 0.0)
                events.append((now_s + takes_s, len(done), grant))
            elif isinstance(command, ReturnSpend):
                ledger += command.amount
        events.sort(key=lambda event: event[0])
        wakeup_s = target.next_wakeup_s()
        if events and (wakeup_s is None or wakeup_s > limit_s or events[0][0] <= wakeup_s):
            at_s, _, what = events.pop(0)
            now_s = max(now_s, at_s)
            granted = isinstance(what, SpendGranted)
            commands = target.handle([what], now_s) if granted else finish(target, what, now_s)  # type: ignore[arg-type,list-item]
        elif wakeup_s is not None and wakeup_s <= limit_s:
            now_s = max(now_s, wakeup_s)
            commands = target.handle([], now_s)
        else:
            return done, ledger


def test_the_first_call_asks_for_a_slice_ahead_of_any_request() -> None:
    [request] = asked(engine().handle([], 0.0))
    assert request.left == 0.0
    assert request.per_hour == CAP
    assert SLICE * CAP <= request.amount <= 6 * SLICE * CAP


@ledgers
def test_until_it_is_granted_no_function_is_called_and_the_client_hears_why(ledger: str, told: str) -> None:
    target = engine(spend_leased=ledger)
    target.handle([], 0.0)
    commands = arrive(target, 0.001, 1)
    assert functions(commands) == []
    assert told in refused(commands)[1].refusal.message


def test_until_it_is_granted_the_edge_answers() -> None:
    target = engine(edge=True)
    target.handle([], 0.0)
    assert [batch.backend for batch in sent(arrive(target, 0.001, 1))] == [Backend.EDGE]


def test_without_a_cap_nothing_is_asked_for_and_nothing_held_up() -> None:
    target = Engine(settings(edge=False, spend_leased=STATE))
    commands, _ = run(target, arrive(target, 0.0, *range(10)), 0.0, 10.0)
    assert asked(commands) == []
    assert sorted(answered(commands)) == list(range(10))
    left = target.statistics().leased
    assert left is not None
    assert left == pytest.approx(-target.statistics().spent)


def test_a_burst_waits_for_the_ledger_and_is_not_refused() -> None:
    target = engine()
    target.handle([], 0.0)
    target.handle([SpendGranted(2 * SLICE * CAP)], 0.0)
    commands = target.handle([RequestArrived(Request(i, "m", 0.1, 1.6)) for i in range(60)], 0.1)
    assert len(asked(commands)) == 1
    commands, _ = run(target, commands, 0.1, 10.0)
    assert sorted(answered(commands)) == list(range(60))


@pytest.mark.parametrize("slices", [0.0, 3.0, 10.0])
def test_no_more_is_held_than_was_granted(slices: float) -> None:
    target, ledger = engine(), slices * SLICE * CAP
    commands, _ = run(target, target.handle([], 0.0), 0.0, 1.0, ledger=ledger)
    commands, left = run(target, arrive(target, 1.0, *range(100)), 1.0, 20.0, ledger=0.0)
    assert target.statistics().spent <= ledger * (1 + 1e-9)
    told = refused(commands)
    assert len(told) + len(answered(commands)) == 100
    assert all("the spend cap per hour" in c.refusal.message for c in told.values())
    assert all(0 < (c.refusal.retry_after_s or 0.0) <= 60.0 for c in told.values())


def test_cheap_bills_are_given_back() -> None:
    target = engine()
    commands, ledger = run(target, target.handle([], 0.0), 0.0, 1.0, ledger=CAP)
    for second in range(1, 8):
        ids = range(60 * second, 60 * second + 60)
        more, ledger = run(target, arrive(target, 2.0 * second, *ids), 2.0 * second, 2.0 * second + 1.9, ledger=ledger)
        commands += more
    left = target.statistics().leased
    assert left is not None
    assert any(isinstance(command, ReturnSpend) for command in commands)
    assert CAP - ledger == pytest.approx(left + target.statistics().spent)
    assert left <= 8 * SLICE * CAP


def test_a_ledger_that_fails_stops_the_functions_and_is_asked_again() -> None:
    target = engine()
    target.handle([], 0.0)
    target.handle([SpendGranted(0.0, STATE, 5.0)], 0.1)
    assert functions(arrive(target, 0.2, 1)) == []
    assert target.next_wakeup_s() is not None
    assert asked(target.handle([], 4.0)) == []
    [again] = asked(target.handle([], 5.2))
    target.handle([SpendGranted(again.amount)], 5.21)
    commands, _ = run(target, arrive(target, 5.3, 2), 5.3, 9.0)
    assert answered(commands) == [2]


@ledgers
def test_a_ledger_that_does_not_answer_counts_as_failed_and_its_late_answer_counts(ledger: str, told: str) -> None:
    target = engine(spend_leased=ledger)
    [first] = asked(target.handle([], 0.0))
    target.handle([SpendGranted(first.amount / 2)], 0.0)
    [second] = asked(arrive(target, 0.1, *range(200), slo_s=3.0))
    commands = target.handle([], 0.1 + ANSWER_LIMIT_S)
    assert target.next_wakeup_s() == 0.1 + ANSWER_LIMIT_S
    commands = target.handle([], 0.1 + ANSWER_LIMIT_S)
    assert any(told in c.refusal.message for c in refused(commands).values())
    target.handle([SpendGranted(second.amount)], 3.0)
    later = refused(arrive(target, 3.1, 999))
    assert all(told not in command.refusal.message for command in later.values())
    assert (target.statistics().leased or 0.0) > 0


def test_what_earlier_lives_spent_counts_in_the_engines_own_windows() -> None:
    target = engine()
    target.handle([], 0.0)
    target.handle([SpendGranted(CAP, before=((3000.0, 0.75 * CAP), (30.0, 0.25 * CAP)))], 0.0)
    told = refused(arrive(target, 0.1, 1))
    assert "the spend cap per hour" in told[1].refusal.message
    assert told[1].refusal.retry_after_s == pytest.approx(660.0, abs=61.0)


def test_a_higher_cap_of_a_reload_is_asked_for_at_once() -> None:
    target = engine()
    target.handle([], 0.0)
    target.handle([SpendGranted(0.0, "hour", 3000.0)], 0.1)
    assert asked(target.handle([], 1.0)) == []
    richer = settings(edge=False, spend_leased=STATE, spend_per_hour=2 * CAP)
    [request] = asked(target.handle([SettingsChanged(richer)], 2.0))
    assert request.per_hour == 2 * CAP


def test_a_lower_cap_of_a_reload_closes_what_was_leased_under_the_higher_one() -> None:
    target = engine()
    target.handle([], 0.0)
    target.handle([SpendGranted(CAP, before=((30.0, 0.5 * CAP),))], 0.1)
    poorer = settings(edge=False, spend_leased=STATE, spend_per_hour=0.4 * CAP)
    target.handle([SettingsChanged(poorer)], 0.2)
    assert "the spend cap per hour" in refused(arrive(target, 0.3, 1))[1].refusal.message

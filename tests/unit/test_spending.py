"""What the engine does when a spend cap is reached: each word of `over_cap`, and what a client is told."""

from dataclasses import replace

import pytest
from support.engine_kit import FUNCTION, PRICE, TIER, answered, finish, refused, run_until_idle, sent, settings

from scheduler.dispatch.spend_cap import KEPT_FOR_PRIORITY, MINUTE_S, OverCap
from scheduler.domain.errors import RefusalKind
from scheduler.domain.messages import Command, DrainStarted, RequestArrived, SettingsChanged
from scheduler.domain.plans import EngineSettings, Limits, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine

BATCH_CNY = PRICE.cost(FUNCTION.predict_s(5))
"""A full batch as it is expected; half as much again is held back."""
HIGH, LOW = 1, 2


def shell(
    cap: float, over_cap: OverCap = OverCap.EDGE_ONLY, *, per: str = "hour", edge: bool = True, slo_s: float = 1.0
) -> Engine:
    """An engine with one cap and, besides the usual class, one whose data stays."""
    base: EngineSettings = settings(edge=edge, slo_s=slo_s, over_cap=over_cap.value, **{f"spend_per_{per}": cap})
    [model] = base.models
    classes = (*model.classes, ServiceClass("local", slo_s=slo_s, edge_only=True))
    return Engine(replace(base, models=(replace(model, classes=classes),)))


def arrive(
    engine: Engine,
    at_s: float,
    *ids: int,
    slo_s: float = 1.0,
    priority: int = HIGH,
    items: int = 1,
    class_name: str = "default",
) -> list[Command]:
    return [
        command
        for i in ids
        for command in engine.handle(
            [RequestArrived(Request(i, "m", at_s, at_s + slo_s, items, 1000, class_name, priority))], at_s
        )
    ]


def busy(engine: Engine) -> None:
    """Takes the edge for a second: a request of as many items as it can take."""
    [batch] = sent(arrive(engine, 0.0, 10_000, items=64, slo_s=5.0))
    assert batch.backend is Backend.EDGE
    assert batch.predicted_service_s > 0.5


def test_without_an_edge_so_much_is_sent_as_the_cap_allows_and_the_others_are_told() -> None:
    engine = shell(4 * BATCH_CNY, edge=False)
    commands = run_until_idle(engine, arrive(engine, 0.0, *range(60)), 0.0, 10.0)
    assert 5 <= len(answered(commands)) < 60
    assert engine.statistics().spent <= 4 * BATCH_CNY
    told = refused(commands)
    assert len(told) + len(answered(commands)) == 60
    for command in told.values():
        assert command.refusal.kind is RefusalKind.DEADLINE
        assert "the spend cap per hour" in command.refusal.message
        assert command.refusal.retry_after_s is not None
        assert 3600.0 - MINUTE_S <= command.refusal.retry_after_s <= 3600.0 + MINUTE_S


def test_the_refusal_names_the_day_where_the_day_is_used_up() -> None:
    engine = shell(2 * BATCH_CNY, per="day", edge=False)
    told = refused(run_until_idle(engine, arrive(engine, 0.0, *range(60)), 0.0, 10.0))
    assert told
    assert all("the spend cap per day" in c.refusal.message for c in told.values())
    assert all((c.refusal.retry_after_s or 0.0) > 80_000 for c in told.values())


def test_a_cap_too_small_for_a_batch_never_opens_and_names_no_time() -> None:
    engine = shell(0.1 * BATCH_CNY, edge=False)
    [told] = refused(run_until_idle(engine, arrive(engine, 0.0, 1), 0.0, 10.0)).values()
    assert told.refusal.retry_after_s is None


def test_a_request_that_comes_back_when_it_was_told_to_is_served() -> None:
    engine = shell(2 * BATCH_CNY, edge=False)
    commands = run_until_idle(engine, arrive(engine, 0.0, *range(60)), 0.0, 10.0)
    last = list(refused(commands).values())[-1].refusal.retry_after_s
    assert last is not None
    again = run_until_idle(engine, arrive(engine, 10.0 + last, 100), 10.0 + last, 20.0 + last)
    assert answered(again) == [100]


def test_edge_only_refuses_whom_the_edge_cannot_answer_in_time() -> None:
    engine = shell(1e-9)
    busy(engine)
    told = refused(arrive(engine, 0.01, 1, slo_s=0.3))
    assert "spend cap" in told[1].refusal.message
    assert refused(arrive(engine, 0.01, 2, slo_s=1.0)) == {}


def test_serve_late_lets_the_edge_answer_late_and_refuses_nobody() -> None:
    engine = shell(1e-9, OverCap.SERVE_LATE)
    busy(engine)
    commands = arrive(engine, 0.01, 1, slo_s=0.3)
    assert refused(commands) == {}
    [first] = [s.batch for s in engine._outbox.in_flight.values()]
    after = run_until_idle(engine, finish(engine, first, 0.6), 0.6, 5.0)
    assert answered(after) == [10_000, 1]
    assert {b.backend for b in sent(after)} == {Backend.EDGE}


def test_serve_late_makes_no_late_answers_of_those_whom_money_would_not_have_helped() -> None:
    for class_name, items in (("local", 1), ("default", 6)):
        engine = shell(1e-9, OverCap.SERVE_LATE)
        busy(engine)
        told = refused(arrive(engine, 0.01, 1, slo_s=0.3, class_name=class_name, items=items))
        assert "spend cap" not in told[1].refusal.message


@pytest.mark.parametrize("over_cap", list(OverCap))
@pytest.mark.parametrize(("class_name", "items"), [("local", 1), ("default", 6), ("default", 64)])
def test_money_is_no_question_for_what_may_or_can_not_go_to_a_function(
    over_cap: OverCap, class_name: str, items: int
) -> None:
    engine = shell(1e-9, over_cap)
    busy(engine)
    told = refused(arrive(engine, 0.01, 1, class_name=class_name, items=items, slo_s=0.3, priority=LOW))
    assert "spend cap" not in told[1].refusal.message
    assert told[1].refusal.retry_after_s is None
    assert refused(arrive(engine, 0.01, 2, class_name=class_name, items=items, slo_s=3.0, priority=LOW)) == {}


def test_the_last_fifth_of_the_money_is_for_higher_priorities() -> None:
    cap = 10 * BATCH_CNY
    spent = {}
    for priority in (LOW, HIGH):
        engine = shell(cap, OverCap.REFUSE_LOW_PRIORITY, edge=False)
        commands = run_until_idle(engine, arrive(engine, 0.0, *range(90), priority=priority), 0.0, 10.0)
        spent[priority] = engine.statistics().spent
        if priority == LOW:
            [*told] = refused(commands).values()
            assert told
            assert all("is kept for requests of higher priority" in c.refusal.message for c in told)
            assert all((c.refusal.retry_after_s or 0.0) > 3000.0 for c in told)
            for warming in tuple(engine._outbox.in_flight.values()):
                finish(engine, warming.batch, 10.0)
            high = run_until_idle(engine, arrive(engine, 10.0, 100, 101, priority=HIGH), 10.0, 20.0)
            assert sorted(answered(high)) == [100, 101]
    assert spent[LOW] <= (1 - KEPT_FOR_PRIORITY) * cap < cap
    assert spent[LOW] < spent[HIGH] <= cap


def test_low_priority_without_money_gets_the_edge_only_where_it_has_room() -> None:
    engine = shell(1e-9, OverCap.REFUSE_LOW_PRIORITY)
    assert [b.backend for b in sent(arrive(engine, 0.0, 1, priority=LOW))] == [Backend.EDGE]
    assert refused(arrive(engine, 0.01, 2, priority=LOW)) == {}
    tight = refused(arrive(engine, 0.01, 3, priority=LOW, slo_s=0.06))
    assert list(tight) == [3]


def test_a_drain_spends_no_more_than_the_cap() -> None:
    engine = shell(2 * BATCH_CNY, edge=False)
    commands = arrive(engine, 0.0, *range(4))
    commands += engine.handle([DrainStarted()], 0.1)
    run_until_idle(engine, commands, 0.1, 10.0)
    assert engine.statistics().spent <= 2 * BATCH_CNY


def test_a_cap_that_a_reload_brings_knows_what_was_spent_before_and_what_gathers_is_told() -> None:
    engine = Engine(settings(edge=False))
    commands = run_until_idle(engine, arrive(engine, 0.0, *range(20)), 0.0, 10.0)
    assert len(answered(commands)) == 20
    arrive(engine, 10.0, 50)
    poor = settings(edge=False, spend_per_hour=engine.statistics().spent)
    told = refused(engine.handle([SettingsChanged(poor)], 10.01))
    assert "the spend cap per hour" in told[50].refusal.message


def test_halves_of_a_refused_batch_wait_for_money_too() -> None:
    held = TIER.price.cost(FUNCTION.predict_s(4))
    engine = shell(1.6 * held, edge=False, slo_s=9.0)
    engine.handle([], 0.0)
    engine._queues["m"].limit(Limits())
    commands = run_until_idle(engine, arrive(engine, 0.0, 1, 2, 3, 4, slo_s=9.0), 0.0, 12.0)
    assert engine.statistics().spent <= 1.6 * held
    assert len(answered(commands)) + len(refused(commands)) == 4

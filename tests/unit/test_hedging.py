"""Hedging: a request about to be late on one side is sent once to the other, and the first answer counts."""

from dataclasses import replace

import pytest
from support.engine_kit import TIER, answered, arrive, fail, finish, refused, request, sent, settings

from scheduler.dispatch.spend_cap import OverCap
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.decisions import Cause
from scheduler.domain.lifecycle import State
from scheduler.domain.messages import (
    BatchFailed,
    BatchFinished,
    Command,
    LimitsChanged,
    RequestArrived,
    RequestCancelled,
)
from scheduler.domain.plans import EngineSettings, Limits
from scheduler.domain.requests import Backend
from scheduler.engine import Engine

SLO_S = 2.0


def wait(engine: Engine, until_s: float) -> list[Command]:
    """Lets time pass while nothing comes back."""
    commands: list[Command] = []
    while (now_s := engine.next_wakeup_s()) is not None and now_s < until_s:
        commands += engine.handle([], now_s)
    return commands + engine.handle([], until_s)


def hung_edge(count: int = 3, *, settled: EngineSettings | None = None, slo_s: float = SLO_S) -> tuple[Engine, Batch]:
    """An engine whose edge took a batch of so many requests and does not answer."""
    engine = Engine(settled or settings(slo_s=SLO_S))
    [batch] = sent(arrive(engine, 0.0, *range(1, count + 1), slo_s=slo_s))
    assert batch.backend is Backend.EDGE
    return engine, batch


def hedged(count: int = 3) -> tuple[Engine, Batch, Batch]:
    """The same engine, the hung batch, and the function batch that all its requests are in besides."""
    engine, first = hung_edge(count)
    [second] = sent(wait(engine, 0.5))
    return engine, first, second


def edge_only(changed: EngineSettings) -> EngineSettings:
    [model] = changed.models
    return replace(changed, models=(replace(model, classes=(replace(model.classes[0], edge_only=True),)),))


def test_requests_that_hang_on_the_edge_go_to_a_function_while_there_is_time_and_only_once() -> None:
    engine, first, second = hedged()
    assert second.backend is Backend.FUNCTION
    assert sorted(second.request_ids) == sorted(first.request_ids)
    assert first.predicted_finish_s < second.sent_at_s < second.predicted_finish_s <= SLO_S
    assert sent(wait(engine, first.give_up_at_s)) == []
    kept = engine.explanation(1)
    assert kept is not None
    assert [(d.choice and d.choice.queue, d.cause) for d in kept.decisions] == [
        (State.EDGE_BATCH, Cause.ARRIVAL),
        (State.FUNCTION, Cause.HEDGE),
    ]
    assert [sending.batch for sending in kept.sendings] == [first, second]


@pytest.mark.parametrize("winner", [0, 1])
def test_the_first_answer_counts_and_the_other_is_passed_over(winner: int) -> None:
    engine, *batches = hedged()
    quick, slow = batches[winner], batches[1 - winner]
    assert sorted(answered(finish(engine, quick, 1.0))) == [1, 2, 3]
    assert engine.statistics().unanswered_bytes == 0
    after = finish(engine, slow, 1.2)
    assert answered(after) == []
    assert refused(after) == {}
    assert engine.statistics().requests_in_flight == 0


@pytest.mark.parametrize("winner", [0, 1])
def test_what_the_loser_costs_is_booked(winner: int) -> None:
    engine, *batches = hedged()
    before = engine.statistics().spent
    finish(engine, batches[winner], 1.0)
    billed = BatchReport(1.2, service_s=1.0, billed_duration_s=1.0)
    engine.handle([BatchFinished(batches[1 - winner].batch_id, billed)], 1.2)
    if winner == 0:
        assert engine.statistics().spent == pytest.approx(TIER.price.cost(1.0))
    else:
        assert engine.statistics().spent == pytest.approx(before)


@pytest.mark.parametrize("kind", list(FailureKind))
@pytest.mark.parametrize("loser", [0, 1])
def test_a_loser_that_fails_changes_nothing_for_the_requests(loser: int, kind: FailureKind) -> None:
    engine, *batches = hedged()
    after = fail(engine, batches[loser], 0.6, kind)
    assert sent(after) == []
    assert refused(after) == {}
    assert sorted(answered(finish(engine, batches[1 - loser], 0.9))) == [1, 2, 3]
    assert sent(wait(engine, 5.0)) == []


@pytest.mark.parametrize("kind", [k for k in FailureKind if k is not FailureKind.REJECTED])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_request_that_failed_on_both_sides_is_told_once_and_sent_nowhere(
    order: tuple[int, int], kind: FailureKind
) -> None:
    engine, *batches = hedged()
    fail(engine, batches[order[0]], 0.6, kind)
    after = fail(engine, batches[order[1]], 0.7, kind)
    assert sorted(refused(after)) == [1, 2, 3]
    assert {c.refusal.status for c in refused(after).values()} == {503}
    assert sent([*after, *wait(engine, 20.0)]) == []


@pytest.mark.parametrize("winner", [0, 1])
def test_a_request_cancelled_while_it_is_hedged_gets_no_answer(winner: int) -> None:
    engine, *batches = hedged()
    engine.handle([RequestCancelled(2)], 0.6)
    assert sorted(answered(finish(engine, batches[winner], 1.0))) == [1, 3]
    assert answered(finish(engine, batches[1 - winner], 1.1)) == []
    assert engine.statistics().unanswered_bytes == 0
    explained = engine.explanation(2)
    assert explained is not None
    assert explained.outcome == "cancelled"


def test_a_request_cancelled_before_is_not_hedged() -> None:
    engine, _ = hung_edge()
    engine.handle([RequestCancelled(2)], 0.01)
    [second] = sent(wait(engine, 0.5))
    assert sorted(second.request_ids) == [1, 3]


def test_a_class_whose_data_stays_is_never_hedged_by_a_function() -> None:
    engine, batch = hung_edge(settled=edge_only(settings(slo_s=SLO_S)))
    assert sent(wait(engine, batch.give_up_at_s)) == []


def test_no_request_is_hedged_that_a_function_would_answer_too_late() -> None:
    engine, batch = hung_edge(slo_s=0.35)
    assert sent(wait(engine, batch.give_up_at_s)) == []


@pytest.mark.parametrize("over_cap", list(OverCap))
def test_no_request_is_hedged_without_money(over_cap: OverCap) -> None:
    poor = settings(slo_s=SLO_S, spend_per_hour=1e-7, over_cap=over_cap.value)
    engine, batch = hung_edge(settled=poor)
    assert sent(wait(engine, batch.give_up_at_s)) == []
    assert engine.statistics().spent == 0.0


def test_half_the_money_rescues_half() -> None:
    once = 1.05 * TIER.price.cost(TIER.latency.predict_s(2) * 1.5)
    engine, batch = hung_edge(8, settled=settings(slo_s=SLO_S, spend_per_hour=once))
    batches = sent(wait(engine, batch.give_up_at_s))
    assert 0 < sum(b.items for b in batches) < 8
    assert engine.statistics().spent <= once


def hung_function(slo_s: float = SLO_S, *, settled: EngineSettings | None = None) -> tuple[Engine, Batch]:
    """An engine with an idle edge, and a function that took a batch of three requests and does not answer."""
    engine = Engine(settled or settings(slo_s=SLO_S))
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=0))], 0.0)
    commands = arrive(engine, 0.0, 1, 2, 3, slo_s=slo_s)
    [batch] = sent([*commands, *engine.handle([LimitsChanged("m", Limits(edge_batch_cap=0, window_s=0.0))], 0.0)])
    assert batch.backend is Backend.FUNCTION
    engine.handle([LimitsChanged("m", Limits())], batch.sent_at_s)
    return engine, batch


def test_requests_that_hang_at_a_function_are_taken_up_by_an_idle_edge_and_only_once() -> None:
    engine, batch = hung_function()
    [second] = sent(wait(engine, SLO_S))
    assert second.backend is Backend.EDGE
    assert sorted(second.request_ids) == [1, 2, 3]
    assert batch.predicted_finish_s < second.sent_at_s < second.predicted_finish_s <= SLO_S
    assert sorted(answered(finish(engine, second, second.predicted_finish_s))) == [1, 2, 3]
    assert answered(finish(engine, batch, 2.0)) == []


def test_requests_the_edge_takes_up_make_none_late_that_was_in_its_batch_already() -> None:
    engine, batch = hung_function()
    [taken] = sent(wait(engine, batch.give_up_at_s))
    for slo_s, size in ((0.06, 1), (0.5, 4)):
        engine, _ = hung_function()
        # One alone takes 0.055 s, with the three of the function 0.079 s.
        [own] = sent(arrive(engine, taken.sent_at_s, 7, slo_s=slo_s))
        assert (own.backend, own.items) == (Backend.EDGE, size)
        assert 7 in own.request_ids


def test_an_edge_batch_of_another_model_takes_up_none() -> None:
    engine, batch = hung_function()
    [taken] = sent(wait(engine, batch.give_up_at_s))
    [model] = settings(slo_s=SLO_S).models
    engine, _ = hung_function(settled=EngineSettings(models=(model, replace(model, name="other"))))
    other = replace(request(7, taken.sent_at_s, slo_s=SLO_S), model="other")
    [own] = sent(engine.handle([RequestArrived(other)], taken.sent_at_s))
    assert (own.backend, own.request_ids) == (Backend.EDGE, (7,))


def test_none_is_taken_up_that_the_edge_would_answer_too_late() -> None:
    engine, batch = hung_function()
    [blocking] = sent(arrive(engine, 0.6, 7, items=60, slo_s=9.0))
    assert answered(finish(engine, blocking, SLO_S - 0.03)) == [7]
    assert sent(wait(engine, batch.give_up_at_s)) == []


def test_a_request_sent_again_after_a_failure_is_not_hedged_besides() -> None:
    engine, batch = hung_edge()
    [again] = sent([*fail(engine, batch, 0.06, FailureKind.BROKEN), *wait(engine, 1.5)])
    assert again.backend is Backend.FUNCTION
    failed = engine.handle(
        [BatchFailed(again.batch_id, Failure(FailureKind.FUNCTION, "made to fail"), BatchReport(0.2))], 1.6
    )
    assert sorted(refused(failed)) == [1, 2, 3]


def test_an_edge_that_is_late_by_nothing_unusual_is_left_alone() -> None:
    engine, batch = hung_edge()
    assert sent(wait(engine, batch.predicted_finish_s * 1.02)) == []
    assert sorted(answered(finish(engine, batch, batch.predicted_finish_s * 1.02))) == [1, 2, 3]


def test_batches_that_hang_are_looked_at_no_more_when_their_requests_are_over() -> None:
    engine, _, second = hedged()
    wait(engine, SLO_S + 0.1)
    calls, now_s = 0, SLO_S + 0.1
    while (wakeup_s := engine.next_wakeup_s()) is not None and wakeup_s < second.give_up_at_s - 1.0:
        now_s, calls = max(now_s, wakeup_s), calls + 1
        engine.handle([], now_s)
        assert calls < 500
    assert calls < 10.0 * (now_s - SLO_S)

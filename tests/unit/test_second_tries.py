"""The second try: where no other side can help, the side that failed a request is asked once more, and money first."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.engine_kit import answered, arrive, endpoint_of, fail, finish, refused, sent, settings

from scheduler.dispatch.second_tries import MOST_ATTEMPTS
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind, WhyLeft
from scheduler.domain.errors import RefusalKind
from scheduler.domain.messages import BatchFailed, Command, ProbeMeasured, RefuseRequest
from scheduler.domain.requests import Backend, Place
from scheduler.engine import Engine

AGAIN = [FailureKind.BROKEN, FailureKind.SERVER, FailureKind.FUNCTION]
LONGEST_S = 30.0


def pass_time(engine: Engine, until_s: float) -> list[Command]:
    """Lets time pass while nothing comes back."""
    commands: list[Command] = []
    while (now_s := engine.next_wakeup_s()) is not None and now_s <= until_s:
        commands += engine.handle([], now_s)
    return commands


def next_sent(engine: Engine, commands: list[Command]) -> list[Batch]:
    """The next batches; no more time passes than until they leave, because one that is out for long seems to hang."""
    while not sent(commands):
        now_s = engine.next_wakeup_s()
        assert now_s is not None
        commands += engine.handle([], now_s)
    return sent(commands)


def one_side(
    side: Backend, *, members: Sequence[int] = (1,), slo_s: float = 3.0, **changes: object
) -> tuple[Engine, Batch]:
    """An engine with one side, to which a batch was sent."""
    edge = side is Backend.EDGE
    made = replace(settings(edge=edge, function=not edge, **changes), max_timeout_s=LONGEST_S)  # type: ignore[arg-type]
    engine = Engine(made)
    [batch] = next_sent(engine, arrive(engine, 0.0, *members, slo_s=slo_s))
    assert batch.backend is side
    return engine, batch


@pytest.mark.parametrize("kind", AGAIN)
@pytest.mark.parametrize("side", list(Backend))
def test_the_only_side_is_asked_once_more_and_no_third_time(side: Backend, kind: FailureKind) -> None:
    engine, batch = one_side(side, slo_s=5.0)
    at_s = batch.sent_at_s + 0.05
    [again] = sent(fail(engine, batch, at_s, kind) + pass_time(engine, 4.0))
    assert (again.backend, again.request_ids) == (side, batch.request_ids)
    last = fail(engine, again, again.sent_at_s + 0.05, kind)
    assert refused(last)[1].refusal.kind is RefusalKind.BACKEND
    assert sent(last + pass_time(engine, 20.0)) == []


@pytest.mark.parametrize("side", list(Backend))
def test_the_answer_to_the_second_try_is_the_clients(side: Backend) -> None:
    engine, batch = one_side(side, slo_s=5.0)
    [again] = sent(fail(engine, batch, batch.sent_at_s + 0.05, FailureKind.BROKEN) + pass_time(engine, 4.0))
    assert answered(finish(engine, again, again.predicted_finish_s)) == [1]


@pytest.mark.parametrize("kind", [FailureKind.FORBIDDEN, FailureKind.REJECTED])
@pytest.mark.parametrize("serve_late", [False, True])
def test_what_another_try_cannot_mend_is_told_at_once(kind: FailureKind, serve_late: bool) -> None:
    engine, batch = one_side(Backend.FUNCTION, serve_late=serve_late)
    last = fail(engine, batch, batch.sent_at_s + 0.05, kind)
    assert list(refused(last)) == [1]
    assert sent(last + pass_time(engine, 20.0)) == []


@pytest.mark.parametrize("side", list(Backend))
def test_a_class_that_refuses_is_tried_again_within_its_deadline_only(side: Backend) -> None:
    engine, batch = one_side(side, slo_s=3.0)
    last = fail(engine, batch, 2.99, FailureKind.BROKEN)
    assert refused(last)[1].refusal.kind is RefusalKind.BACKEND
    assert sent(last) == []


def test_a_crashed_containers_batch_comes_again_in_halves_and_only_the_half_that_crashes_again_is_lost() -> None:
    engine, batch = one_side(Backend.FUNCTION, members=(1, 2, 3, 4), slo_s=9.0)
    assert len(batch.request_ids) == 4
    halves = sent(fail(engine, batch, batch.sent_at_s + 0.05, FailureKind.FUNCTION) + pass_time(engine, 8.0))
    assert [half.why_left for half in halves] == [WhyLeft.HALF] * 2
    assert sorted(i for half in halves for i in half.request_ids) == [1, 2, 3, 4]
    at_s = halves[-1].sent_at_s + 0.05
    assert sorted(answered(finish(engine, halves[0], at_s))) == sorted(halves[0].request_ids)
    last = fail(engine, halves[1], at_s, FailureKind.FUNCTION)
    assert sorted(refused(last)) == sorted(halves[1].request_ids)


def test_no_money_no_second_try() -> None:
    engine, batch = one_side(Backend.FUNCTION, slo_s=9.0)
    capped, batch = one_side(Backend.FUNCTION, slo_s=9.0, spend_per_hour=1.5 * batch.expected_cost)
    last = fail(capped, batch, batch.sent_at_s + 0.05, FailureKind.BROKEN)
    assert sent(last + pass_time(capped, 20.0)) == []
    assert "spend cap" in refused(last)[1].refusal.message
    assert capped.statistics().spent <= 1.5 * batch.expected_cost
    assert engine.statistics().spent > 0


def told(commands: Sequence[Command]) -> list[int]:
    return [c.request_id for c in commands if isinstance(c, RefuseRequest)]


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.UNREACHABLE])
@pytest.mark.parametrize("side", list(Backend))
def test_a_class_that_is_served_late_waits_for_its_side_and_is_sent_whenever_that_is_back(
    side: Backend, kind: FailureKind
) -> None:
    engine, batch = one_side(side, serve_late=True, slo_s=1.0)
    commands = fail(engine, batch, 5.0, kind) + pass_time(engine, 12.0)
    assert not told(commands)
    assert not sent(commands)
    commands = engine.handle([ProbeMeasured(endpoint_of(side), ok=True, rtt_s=0.01)], 12.0) + pass_time(engine, 14.0)
    [again] = sent(commands)
    assert answered(finish(engine, again, 14.5)) == [1]


@pytest.mark.parametrize("side", list(Backend))
def test_it_waits_no_longer_than_a_client_may_ask_for(side: Backend) -> None:
    engine, batch = one_side(side, serve_late=True, slo_s=1.0)
    commands = fail(engine, batch, 5.0, FailureKind.TIMEOUT) + pass_time(engine, LONGEST_S - 0.1)
    assert not told(commands)
    assert told(pass_time(engine, LONGEST_S + 0.1)) == [1]
    assert not engine._table.open


def test_a_second_try_that_is_lost_as_well_is_told_though_its_class_is_served_late() -> None:
    engine, batch = one_side(Backend.EDGE, serve_late=True, slo_s=1.0)
    [again] = sent(fail(engine, batch, 0.2, FailureKind.BROKEN))
    last = fail(engine, again, 0.4, FailureKind.BROKEN)
    assert refused(last)[1].refusal.kind is RefusalKind.BACKEND


def test_a_backend_that_answers_probes_and_takes_no_batch_is_asked_a_bounded_number_of_times() -> None:
    engine, batch = one_side(Backend.EDGE, serve_late=True, slo_s=1.0)
    sends, now_s, commands = 1, 0.1, fail(engine, batch, 0.1, FailureKind.UNREACHABLE)
    while not told(commands):
        now_s += 0.1
        [again] = sent(engine.handle([ProbeMeasured(Place.edge(), ok=True)], now_s))
        sends += 1
        away = Failure(FailureKind.UNREACHABLE, "refused")
        commands = engine.handle([BatchFailed(again.batch_id, away, BatchReport(0.0))], now_s)
    assert sends <= MOST_ATTEMPTS + 1


def test_one_that_has_failed_here_and_whose_other_side_went_away_is_tried_here_again() -> None:
    engine = Engine(settings(slo_s=9.0))
    [by_edge] = sent(arrive(engine, 0.0, 1, slo_s=9.0))
    [by_function] = next_sent(engine, fail(engine, by_edge, 0.1, FailureKind.UNREACHABLE))
    assert by_function.backend is Backend.FUNCTION
    at_s = by_function.sent_at_s + 0.1
    [again] = next_sent(engine, fail(engine, by_function, at_s, FailureKind.FUNCTION))
    assert again.backend is Backend.FUNCTION
    assert list(refused(fail(engine, again, again.sent_at_s + 0.1, FailureKind.FUNCTION))) == [1]


def test_a_request_that_is_too_large_for_a_function_alone_is_told_so() -> None:
    engine, batch = one_side(Backend.FUNCTION)
    failure = Failure(FailureKind.REJECTED, "413", by_size=True)
    last = engine.handle([BatchFailed(batch.batch_id, failure, BatchReport(0.1))], batch.sent_at_s + 0.1)
    assert refused(last)[1].refusal.status == 413

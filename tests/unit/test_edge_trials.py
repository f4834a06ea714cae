"""An edge that is believed to be too slow is tried now and then, so that the belief ends when it is wrong."""

from support.engine_kit import ORIN, answered, arrive, finish, refused, sent, settings

from scheduler.dispatch.edge_trials import EDGE_SHARE, TRY_AGAIN_S
from scheduler.domain.batches import Batch, BatchReport, WhyLeft
from scheduler.domain.decisions import Cause
from scheduler.domain.messages import BatchFinished, Command
from scheduler.domain.requests import Backend
from scheduler.engine import Engine

SLOWER = 20.0
TAKES_S = ORIN.predict_s(1)


def back(engine: Engine, batch: Batch, takes_s: float) -> list[Command]:
    """Answers a batch after so many seconds, as it measured itself."""
    return engine.handle(
        [BatchFinished(batch.batch_id, BatchReport(takes_s, service_s=takes_s))], batch.sent_at_s + takes_s
    )


def slow(engine: Engine) -> float:
    """Lets the edge be slow until it is believed to be; returns the present."""
    now_s = 0.0
    for number in range(1, 40):
        for batch in sent(arrive(engine, now_s, 1000 + number, slo_s=60.0), Backend.EDGE):
            back(engine, batch, SLOWER * TAKES_S)
        now_s += SLOWER * TAKES_S + 0.1
    times = engine._queues["m"].edges[0].times
    assert times is not None
    assert times.median_s[1] > 1.0
    return now_s + 60.0


def test_an_edge_alone_that_was_slow_is_used_again_when_it_is_fast() -> None:
    engine = Engine(settings(function=False))
    now_s = slow(engine)
    done: list[Command] = []
    for number in range(1, 41):
        commands = arrive(engine, now_s, number)
        done += commands
        for batch in sent(commands):
            done += back(engine, batch, TAKES_S)
        now_s += 0.25
    assert answered(done) == list(range(1, 41))
    times = engine._queues["m"].edges[0].times
    assert times is not None
    assert times.median_s[1] < 1.0


def test_one_that_is_still_slow_is_tried_now_and_then() -> None:
    engine = Engine(settings(function=False))
    now_s = slow(engine)
    begun_s, tried = now_s, []
    for number in range(1, 401):
        commands = arrive(engine, now_s, number)
        for batch in sent(commands):
            assert batch.why_left is WhyLeft.TRIAL
            tried.append(batch.sent_at_s)
            back(engine, batch, SLOWER * TAKES_S)
            now_s += SLOWER * TAKES_S
        now_s += 0.25
    kept = engine.explanation(1)
    assert kept is not None
    assert kept.decisions[-1].cause is Cause.TRIAL
    gaps_s = [later - earlier for earlier, later in zip(tried, tried[1:], strict=False)]
    assert min(gaps_s) >= TRY_AGAIN_S
    assert len(tried) * SLOWER * TAKES_S <= 1.5 * EDGE_SHARE * (now_s - begun_s)


def test_a_request_that_no_edge_of_this_kind_could_answer_in_time_is_not_sent() -> None:
    engine = Engine(settings(function=False))
    now_s = slow(engine)
    commands = arrive(engine, now_s, 1, slo_s=0.5 * TAKES_S)
    assert not sent(commands)
    assert set(refused(commands)) == {1}


def test_a_request_that_is_too_large_for_the_edge_is_not_tried() -> None:
    engine = Engine(settings(function=False))
    now_s = slow(engine)
    commands = arrive(engine, now_s, 1, items=65, slo_s=60.0)
    assert not sent(commands)
    assert set(refused(commands)) == {1}


def test_an_edge_without_work_tries_a_copy_of_what_a_function_has_in_hand() -> None:
    engine = Engine(settings())
    now_s = slow(engine)
    commands = arrive(engine, now_s, 1)
    by_function = sent(commands, Backend.FUNCTION)
    tries = sent(commands, Backend.EDGE)
    for _ in range(20):
        if by_function and tries:
            break
        wakeup_s = engine.next_wakeup_s()
        now_s = min(now_s + 0.01, wakeup_s) if wakeup_s is not None else now_s + 0.01
        commands = engine.handle([], now_s)
        by_function += sent(commands, Backend.FUNCTION)
        tries += sent(commands, Backend.EDGE)
    [trial], [call] = tries, by_function
    assert trial.why_left is WhyLeft.TRIAL
    assert trial.request_ids == call.request_ids == (1,)
    assert answered(back(engine, trial, TAKES_S)) == [1]
    assert answered(finish(engine, call, call.predicted_finish_s)) == []

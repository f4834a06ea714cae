"""What is believed of functions is found out: one that seems too slow is tried, a busy instance is waited for."""

from dataclasses import replace

import pytest
from support.engine_kit import FUNCTION, answered, arrive, refused, sent, settings

from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import TRY_AGAIN_S
from scheduler.domain.batches import Batch, BatchReport, WhyLeft
from scheduler.domain.messages import BatchFinished, Command
from scheduler.engine import Engine

SLOWER = 20.0
TAKES_S = FUNCTION.predict_s(1)
SLO_S = 4.0


def back(engine: Engine, batch: Batch, service_s: float) -> list[Command]:
    """Answers a batch after so many seconds of service."""
    report = BatchReport(service_s + 0.05, service_s=service_s, billed_duration_s=service_s)
    return engine.handle([BatchFinished(batch.batch_id, report)], batch.sent_at_s + service_s + 0.05)


def until_sent(engine: Engine, commands: list[Command], limit_s: float) -> list[Batch]:
    """Returns the batches that leave next, until a time at most."""
    found = sent(commands)
    while not found and (wakeup_s := engine.next_wakeup_s()) is not None and wakeup_s <= limit_s:
        found += sent(engine.handle([], wakeup_s))
    return found


def slow(engine: Engine) -> float:
    """Lets functions be slow every other time until requests are refused for it; returns the present."""
    now_s = 0.0
    for number in range(1, 13):
        takes_s = TAKES_S * (SLOWER if number % 3 else 1.0)
        for batch in until_sent(engine, arrive(engine, now_s, 1000 + number, slo_s=60.0), now_s + 60.0):
            back(engine, batch, takes_s)
        now_s += 80.0
    return now_s


def test_it_leaves_at_once_and_another_follows_one_that_was_in_time() -> None:
    engine = Engine(settings(edge=False, slo_s=SLO_S))
    now_s, tried = slow(engine), 0
    for number in range(1, 21):
        commands = arrive(engine, now_s, number, slo_s=SLO_S)
        batches = sent(commands)
        if tried == 0:
            assert [batch.why_left for batch in batches] == [WhyLeft.TRIAL]
        tried += sum(batch.why_left is WhyLeft.TRIAL for batch in batches)
        batches = batches or until_sent(engine, commands, now_s + SLO_S)
        [batch] = batches
        assert answered(back(engine, batch, TAKES_S)) == [number]
        now_s = batch.sent_at_s + TAKES_S + 0.06
    assert tried


def test_beside_one_that_is_under_way_there_is_no_other() -> None:
    engine = Engine(settings(edge=False, slo_s=SLO_S))
    now_s = slow(engine)
    [trial] = sent(arrive(engine, now_s, 1, slo_s=SLO_S))
    assert set(refused(arrive(engine, now_s + 0.1, 2, slo_s=SLO_S))) == {2}
    back(engine, trial, SLOWER * TAKES_S)


def test_after_one_that_was_late_there_is_a_pause() -> None:
    engine = Engine(settings(edge=False, slo_s=SLO_S))
    now_s, gaps_s, latest_s = slow(engine), [], None
    for number in range(1, 61):
        for batch in sent(arrive(engine, now_s, number, slo_s=SLO_S)):
            assert batch.why_left is WhyLeft.TRIAL
            back(engine, batch, SLOWER * TAKES_S)
            gaps_s += [] if latest_s is None else [now_s - latest_s]
            latest_s, now_s = now_s, now_s + SLOWER * TAKES_S + 0.05
        now_s += 0.2
    assert gaps_s
    assert min(gaps_s) >= TRY_AGAIN_S


def test_a_trial_does_not_wait_for_company(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(settings(edge=False, slo_s=SLO_S))
    now_s = slow(engine)
    monkeypatch.setattr(FunctionSending, "due_for", lambda *_, **__: None)
    assert [batch.why_left for batch in sent(arrive(engine, now_s, 1, slo_s=SLO_S))] == [WhyLeft.TRIAL]


def test_one_that_can_wait_for_a_busy_instance_is_not_refused_for_a_cold_start() -> None:
    """A start would take 3 s; the only instance is back in time."""
    base = settings(edge=False, slo_s=1.5)
    tier = replace(base.models[0].tiers[0], provisioned=0)
    engine = Engine(replace(base, models=(replace(base.models[0], tiers=(tier,)),)))
    [first] = until_sent(engine, arrive(engine, 0.0, 1, slo_s=60.0), 60.0)
    report = BatchReport(TAKES_S + 3.05, service_s=TAKES_S, billed_duration_s=TAKES_S, cold_start=True)
    now_s = first.sent_at_s + TAKES_S + 3.05
    assert not until_sent(engine, [], now_s)
    engine.handle([BatchFinished(first.batch_id, report)], now_s)
    [second] = until_sent(engine, arrive(engine, now_s, 2, slo_s=1.5), now_s + 1.5)
    commands = arrive(engine, second.sent_at_s + 0.1, 3, slo_s=1.5)
    assert not refused(commands)
    assert not until_sent(engine, commands, second.sent_at_s + TAKES_S + 0.05)
    assert answered(back(engine, second, TAKES_S)) == [2]
    [third] = until_sent(engine, [], second.sent_at_s + 1.6)
    assert third.cold_risk < 0.01
    assert answered(back(engine, third, TAKES_S)) == [3]

"""Quotas of the provider: its refusals lower the slots of a tier or of the account, and nothing else waits for them."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest
from support.engine_kit import TIER, arrive, fail, finish, refused, sent, settings

from scheduler.control import Control
from scheduler.daemon.quotas import log_quota
from scheduler.daemon.status import jsonable
from scheduler.daemon.telemetry import Telemetry
from scheduler.dispatch.learned_quota import ACCOUNT, LearnedQuota
from scheduler.dispatch.uplink import Slots, UplinkOccupancy
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.decisions import Cause, Reason
from scheduler.domain.errors import RefusalKind
from scheduler.domain.memory import Memory
from scheduler.domain.messages import Command, QuotaLearned
from scheduler.domain.plans import EngineSettings
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import Backend, Place
from scheduler.engine import Engine
from scheduler.explain.text import describe
from scheduler.planner.site.plan import best_plan

OTHER = replace(TIER, name="2gb", function_name="digits-2gb")
A, B = ("m", TIER.name), ("m", OTHER.name)
FULL = 5
"""Items of a full function batch."""


def with_tiers(*tiers: object, **changes: object) -> EngineSettings:
    base = settings(edge=False, slo_s=5.0, **changes)  # type: ignore[arg-type]
    return replace(base, models=(replace(base.models[0], tiers=tiers),))  # type: ignore[arg-type]


def learned(commands: Sequence[Command]) -> list[QuotaLearned]:
    return [command for command in commands if isinstance(command, QuotaLearned)]


def three_in_flight() -> tuple[Engine, list[Batch]]:
    engine = Engine(with_tiers(TIER))
    return engine, sent(arrive(engine, 0.0, 1, 2, 3, slo_s=5.0, items=FULL), Backend.FUNCTION)


def test_a_refusal_beside_others_lowers_the_slots_and_its_requests_wait_for_one() -> None:
    engine, batches = three_in_flight()
    assert len(batches) == 3
    commands = fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    assert learned(commands) == [QuotaLearned(*A, 2)]
    assert not sent(commands)
    assert not refused(commands)
    assert engine.statistics().quotas == (Quota(*A, 2),)
    assert jsonable(engine.statistics())["quotas"] == [{"model": "m", "tier": TIER.name, "granted": 2}]  # type: ignore[index]
    [again] = sent(finish(engine, batches[0], 0.95))
    assert again.request_ids == batches[2].request_ids


def test_a_refusal_beside_others_silences_no_function_and_one_alone_does() -> None:
    engine, batches = three_in_flight()
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    assert engine._circuits.function.usable(0.06)
    engine, batches = three_in_flight()
    finish(engine, batches[0], 0.9)
    finish(engine, batches[1], 0.9)
    commands = fail(engine, batches[2], 0.95, FailureKind.THROTTLED)
    assert not engine._circuits.function.usable(1.0)
    assert engine.statistics().quotas == ()
    assert list(refused(commands)) == [3]


def test_a_provider_that_says_when_to_come_again_is_obeyed() -> None:
    engine, batches = three_in_flight()
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED, retry_after_s=0.5)
    assert not engine._circuits.function.usable(0.5)
    assert engine._circuits.function.usable(0.56)


def test_a_request_that_is_refused_again_and_again_ends() -> None:
    engine, batches = three_in_flight()
    commands = fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    gone = 0
    for at_s in (0.1, 0.2, 0.3, 0.4, 0.5):
        for batch in sent(commands) or sent(engine.handle([], at_s)):
            commands = fail(engine, batch, at_s, FailureKind.THROTTLED)
            gone += 3 in refused(commands)
        engine._quota.known.clear()  # as if another limit allowed it
    assert gone == 1


def test_records_and_refusals_name_the_quota_and_say_when_to_come_again() -> None:
    engine, batches = three_in_flight()
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    waits = engine.explanation(3)
    assert waits is not None
    assert [decision.cause for decision in waits.decisions] == [Cause.ARRIVAL, Cause.QUOTA]
    assert "after the provider's quota had refused its function batch" in describe(waits)
    engine, batches = three_in_flight()
    finish(engine, batches[0], 0.9)
    finish(engine, batches[1], 0.9)
    ended = refused(fail(engine, batches[2], 0.95, FailureKind.THROTTLED, retry_after_s=2.0))[3].refusal
    assert (ended.kind, ended.status, ended.reason) == (RefusalKind.QUOTA, 503, Reason.QUOTA.value)
    assert ended.message.startswith("the functions' quota refused it (")
    assert ended.retry_after_s == pytest.approx(2.0)
    explanation = engine.explanation(3)
    assert explanation is not None
    assert explanation.decisions[-1].cause is Cause.QUOTA
    assert describe(explanation).count("quota") >= 3


def test_a_request_that_quotas_refuse_too_often_is_told_when_a_call_is_back() -> None:
    engine, batches = three_in_flight()
    engine._failures.most_sends = 1
    refusal = refused(fail(engine, batches[2], 0.05, FailureKind.THROTTLED))[3].refusal
    assert refusal.kind is RefusalKind.QUOTA
    assert refusal.retry_after_s == pytest.approx(min(b.predicted_finish_s for b in batches[:2]) - 0.05)


def test_a_client_whose_backend_failed_is_told_when_it_is_probed() -> None:
    engine, batches = three_in_flight()
    refusal = refused(fail(engine, batches[2], 0.05, FailureKind.UNREACHABLE))[3].refusal
    assert (refusal.kind, refusal.status) == (RefusalKind.BACKEND, 503)
    assert refusal.retry_after_s == pytest.approx(engine._circuits.function.probe_at_s - 0.05)  # type: ignore[operator]


@pytest.fixture
def two() -> tuple[LearnedQuota, UplinkOccupancy]:
    uplink = UplinkOccupancy()
    quota = LearnedQuota(uplink)
    quota.configure(with_tiers(TIER, OTHER))
    return quota, uplink


def send(quota: LearnedQuota, batch_id: int, pool: tuple[str, str], at_s: float) -> Batch:
    quota.uplink.occupy(batch_id=batch_id, body_bytes=1, now_s=at_s, finish_s=at_s + 1, pool=pool)
    if quota.known:
        quota.sent(batch_id, pool, now_s=at_s)
    place = Place.function(pool[1])
    return Batch(batch_id, place, pool[0], (batch_id,), 1, 1, at_s, at_s + 9, at_s + 9, at_s + 1, 1.0)


def back(quota: LearnedQuota, batch: Batch, at_s: float, *, ran: bool) -> None:
    if ran:
        quota.answered(batch, now_s=at_s)
    else:
        quota.failed(batch, FailureKind.THROTTLED, now_s=at_s)
    quota.uplink.release(batch.batch_id, now_s=at_s)


def granted(quota: LearnedQuota) -> dict[tuple[str, str], int]:
    return {(each.model, each.tier): each.granted for each in quota.quotas()}


def test_a_wall_of_one_tier_leaves_the_other_alone(two: tuple[LearnedQuota, UplinkOccupancy]) -> None:
    quota, _ = two
    batches = [send(quota, i, A, 0.0) for i in range(5)]
    back(quota, batches[4], 0.1, ran=False)
    assert granted(quota) == {A: 4}
    assert quota.slots(Slots(64, A, 32), now_s=0.2).max_in_pool == 4
    assert quota.slots(Slots(64, B, 32), now_s=0.2) == Slots(64, B, 32)


def test_a_refusal_of_what_ran_before_is_put_down_to_the_account(two: tuple[LearnedQuota, UplinkOccupancy]) -> None:
    quota, _ = two
    first = [send(quota, i, A, 0.0) for i in range(9)]
    back(quota, first[8], 0.1, ran=False)  # something is known: from now on what runs is noted
    for batch in first[:8]:
        back(quota, batch, 1.0, ran=True)
    alone = [send(quota, 10 + i, B, 2.0) for i in range(4)]
    for batch in alone:
        back(quota, batch, 3.0, ran=True)
    beside = [send(quota, 20 + i, A, 4.0) for i in range(5)]
    more = [send(quota, 30 + i, B, 4.0) for i in range(3)]
    for batch in more[1:]:  # two of the same burst: 7 in all is one too many, though 4 of the tier have run
        back(quota, batch, 4.1, ran=False)
    assert granted(quota) == {A: 8, ACCOUNT: 6}
    assert quota.slots(Slots(64, B, 32), now_s=4.2) == Slots(5, B, 32)
    assert quota.slots(Slots(64, A, 32), now_s=4.2).max_in_flight == 5
    assert len(beside) == 5


def test_a_quota_as_large_as_what_is_configured_is_lifted(two: tuple[LearnedQuota, UplinkOccupancy]) -> None:
    quota, _ = two
    heard: list[QuotaLearned] = []
    quota.listeners = (heard.append,)
    batches = [send(quota, i, A, 0.0) for i in range(4)]
    back(quota, batches[3], 0.1, ran=False)
    for batch in batches[:3]:
        back(quota, batch, 1.0, ran=True)
    number, now_s = 100, 20.0
    while quota.known:
        now_s += 1.0
        limit = quota.slots(Slots(64, A, 32), now_s=now_s).max_in_pool
        for batch in [send(quota, number + i, A, now_s) for i in range(limit)]:
            back(quota, batch, now_s + 0.5, ran=True)
        number += limit
        assert now_s < 200.0
    assert heard[0] == QuotaLearned(*A, 3)
    assert heard[-1] == QuotaLearned(*A, None)
    assert len(heard) < 20


def test_a_function_that_is_gone_takes_its_quota_along(two: tuple[LearnedQuota, UplinkOccupancy]) -> None:
    quota, _ = two
    batches = [send(quota, i, A, 0.0) for i in range(4)]
    back(quota, batches[3], 0.1, ran=False)
    quota.configure(with_tiers(replace(TIER, function_name="another"), OTHER))
    assert quota.known == {}


def test_the_plan_is_made_within_the_quotas() -> None:
    engine, batches = three_in_flight()
    before = engine._snapshot(0.0)
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    after = engine._snapshot(0.06).within_quotas()
    assert before.within_quotas() is before
    assert after.settings.models[0].tiers[0].max_in_flight == 2
    busy = replace(before, models={"m": replace(before.models["m"], rate_rps=40.0)})
    plans = [
        best_plan(replace(busy, quotas=quotas), plan_id=2, cause="quota", detail="")
        for quotas in ((), (Quota(*A, 2),), (Quota("", "", 2),))
    ]
    assert [plan.groups[0].feasible for plan in plans] == [True, False, False]


def test_a_learned_quota_asks_for_a_plan() -> None:
    engine, batches = three_in_flight()
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    wanted = engine._control.plan_due(3.0)
    assert wanted is not None
    assert (wanted.cause, wanted.detail) == ("quota", "m: 1gb: 2 at once")


def test_the_next_process_knows_the_quotas_of_the_functions_that_it_still_has() -> None:
    engine, batches = three_in_flight()
    fail(engine, batches[2], 0.05, FailureKind.THROTTLED)
    parts = {part.name: part for part in engine._control.saved(1.0)}
    parts = {name: replace(part, content=json.loads(json.dumps(part.content))) for name, part in parts.items()}
    for tier, expected in ((TIER, (Quota(*A, 2),)), (replace(TIER, function_name="another"), ())):
        again = with_tiers(tier)
        successor = Engine(again, Control(again, None, Memory(parts, 5.0)))
        commands = successor.handle([], 100.0)
        assert successor.statistics().quotas == expected
        assert [each.granted for each in learned(commands)] == [quota.granted for quota in expected]


def test_a_quota_is_a_metric_and_a_line(caplog: pytest.LogCaptureFixture) -> None:
    status = {
        "engine": {"quotas": [{"model": "", "tier": "", "granted": 30}, {"model": "m", "tier": "t", "granted": 4}]}
    }
    text = Telemetry(lambda: status, lambda: []).exposition().decode()
    assert 'edgeburst_function_concurrency_learned{model="",tier="account"} 30.0' in text
    assert 'edgeburst_function_concurrency_learned{model="m",tier="t"} 4.0' in text
    with caplog.at_level(logging.INFO, logger="edgeburst"):
        log_quota(QuotaLearned("m", "t", 4))
        log_quota(QuotaLearned("", "", None))
    assert [(r.getMessage(), r.fields) for r in caplog.records] == [  # type: ignore[attr-defined]
        ("quota_learned", {"granted": 4, "model": "m", "tier": "t"}),
        ("quota_lifted", {"tier": "account"}),
    ]

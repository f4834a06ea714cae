"""Warming calls are last in line: for slots, for money, and over a link that is down; and they are counted."""

from dataclasses import replace

import pytest
from support.engine_kit import TIER, arrive, sent, settings

from scheduler.dispatch.keep_warm import WarmingTerms
from scheduler.domain.batches import BatchReport
from scheduler.domain.messages import BatchFinished, SendBatch
from scheduler.domain.plans import BufferPlan, EngineSettings, GroupPlan
from scheduler.engine import Engine


class Eager:
    """Wants five calls whenever it is asked."""

    def weighing_warmth(self, now_s: float) -> None:
        pass

    def warming_calls(self, plan: GroupPlan, buffer: BufferPlan, terms: WarmingTerms, now_s: float) -> int:
        return 5


def calls(engine: Engine, now_s: float = 1.0) -> int:
    engine._keep_warm.send_calls(Eager(), now_s)
    return engine.statistics().warming_calls


def functions_only(slots: int = 300, **engine: object) -> EngineSettings:
    alone = settings(edge=False, slo_s=60.0, **engine)
    [model] = alone.models
    return replace(alone, models=(replace(model, tiers=(replace(TIER, max_in_flight=slots),)),))


def begun(given: EngineSettings) -> Engine:
    engine = Engine(given)
    engine.handle([], 1.0)
    return engine


def test_calls_are_counted_and_take_free_slots_only() -> None:
    assert calls(begun(functions_only())) == 5
    assert calls(begun(functions_only(slots=2))) == 2


def test_no_call_is_sent_over_a_link_that_is_down() -> None:
    assert calls(begun(functions_only(uplink_bytes_per_s=0.0))) == 0


@pytest.mark.parametrize(("waiting", "expected"), [((), 1), ((1, 2), 0)])
def test_what_is_gathered_is_paid_before_a_call_is(waiting: tuple[int, ...], expected: int) -> None:
    """The cap has room for the gathered batch or for a call, not for both."""
    engine = Engine(settings(edge=False, spend_per_hour=1.1e-5))
    assert sent(arrive(engine, 0.0, *waiting)) == []
    assert calls(engine, 0.0) == expected


@pytest.mark.parametrize("provisioned", [0, 1])
def test_no_call_is_sent_to_an_instance_that_is_deployed_to_stay(provisioned: int) -> None:
    """Until it has outlived a few others nothing but the configuration says that it stays."""
    alone = settings(edge=False, slo_s=2.0)
    tiers = (replace(TIER, provisioned=provisioned),)
    engine = Engine(replace(alone, models=(replace(alone.models[0], tiers=tiers),)))
    now_s = 0.0
    for number in range(1, 9):
        commands, until_s = arrive(engine, now_s, number, slo_s=2.0), now_s + 230.0
        while now_s < until_s:
            for batch in [c.batch for c in commands if isinstance(c, SendBatch)]:
                report = BatchReport(0.4, service_s=0.3, billed_duration_s=0.3, cold_start=False, instance_id="a")
                engine.handle([BatchFinished(batch.batch_id, report)], now_s + 0.4)
            now_s = min(until_s, max(now_s, engine.next_wakeup_s() or until_s))
            commands = engine.handle([], now_s)
    assert (engine.statistics().warming_calls > 0) == (provisioned == 0)

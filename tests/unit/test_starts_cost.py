"""What the start of an instance costs: held back in full where one is possible, in a decision by its probability."""

import re
from dataclasses import replace

import pytest
from support.engine_kit import PRICE, TIER, arrive, request, run_until_idle, settings

from scheduler.daemon.status import jsonable
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.messages import BatchFinished, Command, RequestArrived, SendBatch
from scheduler.domain.plans import EngineSettings
from scheduler.domain.tenants import TenantSettings
from scheduler.engine import Engine
from scheduler.estimators.warm_instances import WarmInstances

POOL = WarmInstances()
"""Of which nothing is known yet."""
FULL_START = PRICE.cost(POOL.init_s(0.99))


def on_demand(provisioned: int = 0, **engine: object) -> EngineSettings:
    base = settings(edge=False, **engine)  # type: ignore[arg-type]
    [model] = base.models
    return replace(base, models=(replace(model, tiers=(replace(TIER, provisioned=provisioned),)),))


def sent_alone(engine: Engine) -> Batch:
    """Sends one request; returns its batch."""
    commands: list[Command] = arrive(engine, 0.0, 1, slo_s=1.0)
    while not any(isinstance(command, SendBatch) and not command.batch.warming for command in commands):
        wakeup_s = engine.next_wakeup_s()
        assert wakeup_s is not None
        commands = engine.handle([], wakeup_s)
    return next(c.batch for c in commands if isinstance(c, SendBatch) and not c.batch.warming)


def held(engine: Engine) -> float:
    return engine._ledger.cap.hour.sum(0.5)


def test_a_batch_holds_back_the_full_price_of_a_start_until_its_answer() -> None:
    warm, cold = Engine(on_demand(64, spend_per_hour=1.0)), Engine(on_demand(spend_per_hour=1.0))
    batches = [sent_alone(engine) for engine in (warm, cold)]
    assert (batches[0].cold_risk, batches[1].cold_risk) == (0.0, 0.5)
    holds = [engine._ledger.booked[batch.batch_id].held for engine, batch in zip((warm, cold), batches, strict=True)]
    assert holds[1] - holds[0] == pytest.approx(FULL_START)
    assert held(cold) == pytest.approx(sum(booking.held for booking in cold._ledger.booked.values()))
    answer = BatchReport(4.0, service_s=0.3, billed_duration_s=0.31, cold_start=True, init_s=1.5)
    cold.handle([BatchFinished(batches[1].batch_id, answer)], batches[1].sent_at_s + 4.0)
    rows = {row.what.value: row.amount for row in cold.statistics().spending}
    assert rows == {"start": pytest.approx(PRICE.cost(1.5)), "call": pytest.approx(PRICE.cost(0.31))}
    in_flight = sum(booking.held for booking in cold._ledger.booked.values())
    assert held(cold) == pytest.approx(sum(rows.values()) + in_flight)


def test_a_cap_below_the_price_of_a_start_sends_only_to_instances_that_are_always_there() -> None:
    cap = 0.5 * FULL_START
    for provisioned, answered in ((0, 0), (64, 5)):
        engine = Engine(on_demand(provisioned, spend_per_hour=cap))
        commands = run_until_idle(engine, arrive(engine, 0.0, *range(1, 6)), 0.0, 5.0)
        assert sum(len(c.batch.request_ids) for c in commands if isinstance(c, SendBatch)) == answered


def test_an_offer_counts_a_start_with_its_price_times_its_probability() -> None:
    money = []
    for provisioned in (64, 0):
        engine = Engine(on_demand(provisioned))
        arrive(engine, 0.0, 1, slo_s=9.0)
        story = engine.explanation(1)
        assert story is not None
        [offer] = [o for o in story.decisions[0].offers if o.place.tier]
        money.append(offer.money * offer.items)
    assert money[1] - money[0] == pytest.approx(0.5 * PRICE.cost(POOL.init_s(0.5)), rel=0.01)


def test_money_is_counted_under_the_names_of_configured_tenants_only() -> None:
    engine = Engine(replace(settings(edge=False), tenants=(TenantSettings("ours"),)))
    asks = [replace(request(i, 0.0), tenant=name) for i, name in enumerate(("ours", "made-up", ""))]
    run_until_idle(engine, engine.handle([RequestArrived(each) for each in asks], 0.0), 0.0, 5.0)
    told = Telemetry(lambda: {"engine": jsonable(engine.statistics())}, lambda: ("function",)).exposition().decode()
    counted = [line for line in told.splitlines() if line.startswith("edgeburst_spent_total{")]
    assert {re.search('tenant="(.*?)"', line)[1] for line in counted} == {"ours", "other"}  # type: ignore[index]

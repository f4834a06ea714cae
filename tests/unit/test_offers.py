"""Offers: their terms against closed forms, and the comparison against asking every place."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.engine_kit import ORIN, PRICE, TIER, arrive, refused, sent
from support.engine_kit import settings as engine_settings

from scheduler.dispatch import dispatcher
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.pricing import make_prices
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.batches import BatchReport, Failure, FailureKind
from scheduler.domain.decisions import Cause, Decision, Reason
from scheduler.domain.lifecycle import State
from scheduler.domain.messages import BatchFailed, LimitsChanged, RequestArrived, SettingsChanged
from scheduler.domain.plans import Limits, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine
from scripts.command_hash import run, scenarios

NOISY = ("overload with noise", "classes", "two tiers, few slots")


def decided(engine: Engine, request_id: int) -> Decision:
    kept = engine.explanation(request_id)
    assert kept is not None
    return kept.decisions[-1]


def busy(count: int) -> Engine:
    """An engine whose edge serves a batch of `count`, sent at 0 s."""
    engine = Engine(engine_settings(edge_overhead_s=0.0))
    assert [batch.backend for batch in sent(arrive(engine, 0.0, *range(1, count + 1)))] == [Backend.EDGE]
    return engine


def test_an_edge_that_takes_a_request_without_risk_needs_no_comparison() -> None:
    engine = Engine(engine_settings())
    arrive(engine, 0.0, 1)
    [offer] = decided(engine, 1).offers
    assert (offer.queue, offer.reason, offer.money) == (State.EDGE_BATCH, None, 0.0)
    assert offer.total <= PRICE.cost(TIER.latency.predict_s(5)) / 5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.floats(0.01, 1.0), st.integers(1, 40))
def test_the_edge_offers_its_next_batch_as_the_forecast_says(count: int, slo_s: float, items: int) -> None:
    """The batch starts when the edge is free, and holds this request and the newcomers that are counted on."""
    engine = busy(count)
    engine.handle([RequestArrived(Request(99, "m", 0.0, slo_s, items, 10_000))], 0.0)
    offer = decided(engine, 99).offers[0]
    free_s = ORIN.predict_s(count)
    newcomers = engine._queues["m"].rate_rps * free_s
    size = min(items + int(max(0.0, newcomers - 0.5 * math.sqrt(newcomers))), engine._queues["m"].edge_cap)
    takes_s = ORIN.predict_s(max(items, size))
    assert offer.start_s == pytest.approx(free_s)
    if free_s + takes_s > slo_s:
        assert offer.reason is Reason.JOINS_LATE
        assert offer.total == math.inf
    else:
        assert offer.reason is None
        assert offer.finish_s == pytest.approx(free_s + takes_s)
        assert 0.0 <= offer.late_probability <= 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 50), st.floats(0.05, 1.5), st.integers(1, 5))
def test_a_functions_offer_is_the_cheaper_of_a_batch_of_its_own_and_a_share(
    count: int, slo_s: float, items: int
) -> None:
    engine = busy(count)
    queues, queued = engine._queues["m"], QueuedRequest(Request(99, "m", 0.0, slo_s, items, 10_000))
    price = queues.late_cost(queued.request)
    offer = engine._function.offer(queues, queued, now_s=0.0, lateness_price=price)
    [buffer] = queues.buffers
    left_s = slo_s - engine._uplink.idle_path_s(10_000)

    def share(size: int) -> float:
        late = engine._function.economics.late_probability(buffer, size, left_s)
        return PRICE.cost(TIER.latency.predict_s(size)) * items / size + price * late

    if offer.reason is None:
        assert offer.total == pytest.approx(min(share(items), share(max(items, buffer.prices.cheapest_size))))
        assert offer.total == pytest.approx(offer.money + price * offer.late_probability)
    else:
        late = engine._function.takes_s(buffer, items=items, body_bytes=10_000, now_s=0.0, safe=False) > slo_s
        assert offer.reason is (Reason.LATE if late else Reason.TOO_RISKY)


@pytest.mark.parametrize("name", NOISY)
def test_not_asking_a_function_where_the_edge_costs_less_than_any_changes_no_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = next(row for row in scenarios() if row[0] == name)
    before = run(*found)

    def asks_always(queues: ModelQueues, economics: object) -> object:
        prices, of_buffers = make_prices(queues, economics)  # type: ignore[arg-type]
        return replace(prices, min_money=-1.0), of_buffers

    monkeypatch.setattr(dispatcher, "make_prices", asks_always)
    assert run(*found) == before


def test_equal_totals_go_to_the_place_that_was_asked_first() -> None:
    engine = busy(1)
    queues, queued = engine._queues["m"], QueuedRequest(Request(99, "m", 0.0, 1.0, 1, 10_000))
    offers = engine._dispatcher.offers
    by_edge = offers.edges.first.offer(queues, queued, now_s=0.0, lateness_price=0.0)
    assert by_edge.total == 0.0
    queues.reprice(
        replace(queues.lateness.prices, min_money=-1.0), [replace(b.prices, costs=(0.0,) * 6) for b in queues.buffers]
    )
    choice = offers.compare(queues, queued, now_s=0.0, lateness_price=0.0)
    assert [offer.total for offer in choice.offers] == [0.0, 0.0]
    assert choice.offers[choice.chosen].place.backend is Backend.EDGE


def test_an_edge_only_refusal_says_that_it_was_the_class() -> None:
    [model] = engine_settings().models
    classes = (ServiceClass("local", slo_s=0.2, edge_only=True),)
    engine = Engine(replace(engine_settings(), models=(replace(model, classes=classes),)))
    engine.handle([RequestArrived(Request(i, "m", 0.0, 0.2, 1, 10_000, "local")) for i in range(1, 16)], 0.0)
    commands = engine.handle([RequestArrived(Request(99, "m", 0.01, 0.08, 1, 10_000, "local"))], 0.01)
    assert "edge-only" in refused(commands)[99].refusal.message
    decision = decided(engine, 99)
    assert decision.choice is None
    assert [offer.reason for offer in decision.offers if offer.place.backend is Backend.FUNCTION] == [Reason.CLASS]
    assert decision.nearest_miss is not None
    assert decision.nearest_miss.place.backend is Backend.EDGE


def test_a_request_of_higher_priority_displaces_one_of_lower_priority_and_names_it() -> None:
    [model] = engine_settings().models
    classes = (ServiceClass("local", edge_only=True),)
    engine = Engine(replace(engine_settings(), models=(replace(model, classes=classes),)))

    def local(request_id: int, at_s: float, priority: int) -> RequestArrived:
        return RequestArrived(Request(request_id, "m", at_s, at_s + 1.0, 1, 10_000, "local", priority))

    engine.handle([local(i, 0.0, 3) for i in range(1, 41)], 0.0)
    engine.handle([local(i, 0.001, 3) for i in range(41, 141)], 0.001)
    engine.handle([local(999, 0.002, 1)], 0.002)
    choice = decided(engine, 999).choice
    assert choice is not None
    assert choice.queue is State.EDGE_BATCH
    assert choice.displaces in range(41, 141)
    moved = decided(engine, choice.displaces)
    assert moved.cause.value == "displaced"
    assert moved.choice is None or moved.choice.queue is not State.EDGE_BATCH


def test_a_request_that_both_sides_failed_is_refused_with_the_offers_of_both() -> None:
    engine = Engine(engine_settings())
    [first] = sent(arrive(engine, 0.0, 1))
    failure = Failure(FailureKind.SERVER, "no")
    commands = engine.handle([BatchFailed(first.batch_id, failure, BatchReport(0.01))], 0.01)
    while not sent(commands):
        at_s = engine.next_wakeup_s()
        assert at_s is not None
        commands = engine.handle([], at_s)
    [second] = sent(commands)
    assert [first.backend, second.backend] == [Backend.EDGE, Backend.FUNCTION]
    commands = engine.handle([BatchFailed(second.batch_id, failure, BatchReport(0.01))], second.sent_at_s + 0.01)
    decision = decided(engine, 1)
    assert [offer.reason for offer in decision.offers] == [Reason.FAILED_THERE, Reason.FAILED_THERE]
    assert (decision.choice, decision.cause) == (None, Cause.FAILURE)
    assert refused(commands)[1].refusal.reason == Reason.FAILED_THERE.value


def test_limits_outlast_a_reload_that_takes_the_model_away_and_brings_it_back() -> None:
    engine, served = Engine(engine_settings(function=False)), engine_settings(function=False)
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=2))], 0.0)
    engine.handle([SettingsChanged(replace(served, models=()))], 1.0)
    engine.handle([SettingsChanged(served)], 2.0)
    [batch] = sent(arrive(engine, 3.0, *range(1, 9)))
    assert batch.items == 2


def test_a_warming_call_is_given_up_some_time_whatever_the_link() -> None:
    engine = Engine(engine_settings(edge=False, uplink_bytes_per_s=0.0))
    arrive(engine, 0.0, 1)
    engine._sending.warm_up(engine._queues["m"].buffers[0], now_s=1.0)
    [call] = [sent_batch.batch for sent_batch in engine._outbox.in_flight.values() if sent_batch.batch.warming]
    assert call.give_up_at_s < 200.0

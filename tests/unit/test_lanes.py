"""Requests of unlike shapes share no batch; what is known of their model they share."""

from dataclasses import replace

import pytest
from support.engine_kit import ORIN, TIER, answered, fail, finish, run_until_idle, sent, settings

from scheduler.dispatch.lanes import KEPT
from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.messages import BatchFinished, Command, LimitsChanged, RequestArrived
from scheduler.domain.plans import Limits
from scheduler.domain.requests import Backend, Request
from scheduler.engine import Engine


def arrive(engine: Engine, at_s: float, *shapes: int, first_id: int = 1, slo_s: float = 1.0) -> list[Command]:
    """Lets a request of each of these shapes arrive, all together."""
    requests = [
        Request(i, "m", at_s, at_s + slo_s, body_bytes=10_000, shape_id=shape_id)
        for i, shape_id in enumerate(shapes, start=first_id)
    ]
    return engine.handle([RequestArrived(request) for request in requests], at_s)


def batches(commands: list[Command]) -> list[set[int]]:
    return [set(batch.request_ids) for batch in sent(commands)]


def test_the_edge_serves_shapes_in_turn_the_most_urgent_first() -> None:
    engine = Engine(settings(function=False))
    arrive(engine, 0.0, 0)
    commands = [
        *arrive(engine, 0.001, 1, first_id=2, slo_s=0.8),
        *arrive(engine, 0.002, 0, 1, 0, 1, first_id=3),
    ]
    assert not sent(commands)  # the edge is busy with the first
    done = run_until_idle(engine, finish(engine, next(iter(engine._outbox.in_flight.values())).batch, 0.05), 0.05, 5.0)
    assert batches(done) == [{2, 4, 6}, {3, 5}]
    assert sorted(answered(done)) == [1, 2, 3, 4, 5, 6]


def test_function_batches_are_gathered_for_each_shape() -> None:
    engine = Engine(settings(edge=False, slo_s=4.0))
    done = run_until_idle(engine, arrive(engine, 0.0, 0, 1, 0, 1, 2, 0, slo_s=4.0), 0.0, 10.0)
    assert sorted(answered(done)) == [1, 2, 3, 4, 5, 6]
    assert all(batch <= {1, 3, 6} or batch <= {2, 4} or batch == {5} for batch in batches(done))
    assert max(map(len, batches(done))) > 1


def test_a_refused_batch_of_one_shape_is_halved_alone() -> None:
    engine = Engine(settings(function=False))
    commands = arrive(engine, 0.0, 7)
    arrive(engine, 0.001, 7, 7, 7, 7, first_id=2)
    arrive(engine, 0.002, 0, first_id=6)
    done = finish(engine, sent(commands)[0], 0.06)
    [batch] = sent(done)
    assert set(batch.request_ids) == {2, 3, 4, 5}
    halves = fail(engine, batch, 0.1, FailureKind.REJECTED)
    done = [*halves, *run_until_idle(engine, halves, 0.1, 5.0)]
    assert {frozenset(half) for half in batches(done)} == {frozenset({2, 3}), frozenset({4, 5}), frozenset({6})}


def test_an_overdue_edge_batch_is_hedged_with_its_own_shape() -> None:
    engine = Engine(settings(slo_s=2.0))
    [first] = sent(arrive(engine, 0.0, 3, slo_s=2.0))
    assert first.backend is Backend.EDGE
    commands = arrive(engine, 0.001, 0, first_id=2, slo_s=2.0)
    while not any(batch.hedge for batch in sent(commands)):
        now_s = engine.next_wakeup_s()
        assert now_s is not None
        assert now_s < 2.0
        commands = engine.handle([], now_s)
    assert [batch.request_ids for batch in sent(commands) if batch.hedge] == [(1,)]


def test_lanes_share_budgets_limits_and_demand_but_not_rates() -> None:
    engine = Engine(settings())
    for number in range(40):
        arrive(engine, 0.02 * number, 0 if number % 4 else 1, first_id=number + 1)
    first, other = engine._queues.all
    assert first.lateness.budgets is other.lateness.budgets
    assert first.buffers[0].demand is other.buffers[0].demand
    assert first.rate_rps > 2 * other.rate_rps > 0
    engine.handle([LimitsChanged("m", Limits(edge_batch_cap=3))], 1.0)
    assert (first.edge_cap, other.edge_cap) == (3, 3)


def test_lanes_in_which_nothing_waits_are_closed() -> None:
    engine = Engine(settings(function=False))
    for number in range(6 * KEPT):
        at_s = 0.1 * number
        done = run_until_idle(engine, arrive(engine, at_s, number, first_id=number + 1), at_s, at_s + 0.09)
        assert answered(done) == [number + 1]
    assert len(engine._queues.all) <= KEPT + 2


def test_only_frequent_shapes_have_prices_of_their_own() -> None:
    engine = Engine(settings(slo_s=4.0))
    for number in range(600):
        shape_id = number % 3 if number % 2 else number % 100
        arrive(engine, 0.01 * number, shape_id, first_id=number + 1, slo_s=4.0)
    lanes = engine._queues
    assert {lanes.of(Request(1, "m", 0.0, 1.0, shape_id=i)) for i in (0, 1, 2)} == set(lanes.priced)
    rare = next(lane for lane in lanes.all if lane not in lanes.priced)
    assert rare.lateness.prices is lanes["m"].lateness.prices
    assert rare.edges[0].times is lanes["m"].edges[0].times


@pytest.mark.parametrize("shapes", [(0, 0, 0, 0), (5, 5, 5, 5)])
def test_any_one_shape_fills_one_batch(shapes: tuple[int, ...]) -> None:
    engine = Engine(settings(function=False))
    first = arrive(engine, 0.0, shapes[0])
    arrive(engine, 0.001, *shapes, first_id=2)
    assert batches(finish(engine, sent(first)[0], ORIN.predict_s(1))) == [{2, 3, 4, 5}]
    assert TIER.max_in_flight > 0


@pytest.mark.parametrize("slos_s", [(4.0, 4.0), (4.0, 3.5), (3.5, 4.0)])
def test_two_shapes_do_not_both_count_on_the_last_warm_instance(slos_s: tuple[float, float]) -> None:
    """One of them goes while the instance is there for it, so that both are back in time."""
    tier = replace(TIER, provisioned=0)
    given = settings(edge=False, slo_s=4.0)
    engine = Engine(replace(given, models=(replace(given.models[0], tiers=(tier,)),)))
    [first] = sent(run_until_sent(engine, arrive(engine, 0.0, 1, slo_s=4.0)))
    report = BatchReport(1.5, service_s=0.4, billed_duration_s=1.2, cold_start=True, init_s=0.8)
    now_s = first.sent_at_s + 1.5
    engine.handle([BatchFinished(first.batch_id, report)], now_s)
    commands = [
        command
        for number, slo_s in enumerate(slos_s)
        for command in arrive(engine, now_s + 1.0, number, first_id=number + 2, slo_s=slo_s)
    ]
    [one, *others] = sent(run_until_sent(engine, commands))
    assert not others
    back_s = one.predicted_finish_s
    report = BatchReport(back_s - one.sent_at_s, service_s=0.35, billed_duration_s=0.35, cold_start=False)
    commands = engine.handle([BatchFinished(one.batch_id, report)], back_s)
    [two] = sent(run_until_sent(engine, commands))
    assert two.sent_at_s >= back_s
    assert two.predicted_finish_s < now_s + 1.0 + min(slos_s)


def run_until_sent(engine: Engine, commands: list[Command]) -> list[Command]:
    """Lets time pass until a batch leaves."""
    while not sent(commands):
        now_s = engine.next_wakeup_s()
        assert now_s is not None
        commands = engine.handle([], now_s)
    return commands

"""An edge that serves several batches at once: each slot has a next batch, promised in the order of free times."""

from dataclasses import replace

import pytest
from support.engine_kit import ORIN, TIER, answered, arrive, fail, finish, refused, run_until_idle, sent, settings

from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.decisions import Cause
from scheduler.domain.messages import ProbeMeasured, SettingsChanged
from scheduler.domain.plans import EdgeSettings, EngineSettings, GroupPlan, Limits
from scheduler.domain.requests import Backend, Place, Request
from scheduler.engine import Engine
from scheduler.planner.site.edge_capacity import edge_share
from scheduler.planner.site.edge_machines import edge_machines


def slots(parallel: int, **more: object) -> EngineSettings:
    return settings(edges=(EdgeSettings(parallel=parallel),), **more)  # type: ignore[arg-type]


def next_items(engine: Engine) -> list[int]:
    return [batch.items for batch in engine._queues["m"].next_batches]


def busy(parallel: int, *members: int, slo_s: float = 1.0) -> tuple[Engine, list[Batch]]:
    """Returns an engine whose slots have batches of so many requests in flight, sent one after the other at 0 s."""
    engine, batches, first = Engine(slots(parallel, slo_s=slo_s)), [], 1
    for count in members:
        ids = range(first, first + count)
        batches += sent(arrive(engine, 0.0, *ids, slo_s=slo_s), Backend.EDGE)
        first += count
    return engine, batches


def test_as_many_batches_are_in_flight_as_there_are_slots_and_never_more() -> None:
    engine, batches = busy(3, 1, 1, 1)
    assert [batch.request_ids for batch in batches] == [(1,), (2,), (3,)]
    assert sent(arrive(engine, 0.001, 4)) == []
    assert engine.statistics().edges[0].batches_in_flight == 3
    assert engine.statistics().edges[0].parallel == 3
    (following,) = sent(finish(engine, batches[1], 0.04))
    assert following.request_ids == (4,)


def test_a_newcomer_joins_the_slot_that_is_free_first() -> None:
    engine, _ = busy(2, 40, 4)
    arrive(engine, 0.001, 100)
    assert next_items(engine) == [0, 1]


def test_a_request_that_would_break_the_first_next_batch_joins_the_second() -> None:
    engine, _ = busy(2, 30, 30, slo_s=0.6)
    ids = range(100, 160)
    for number, request_id in enumerate(ids):
        arrive(engine, 0.2 + number * 1e-4, request_id, slo_s=0.6)
    first, second = next_items(engine)
    assert first > 0
    assert second > 0


def test_a_first_member_is_let_in_where_slots_that_are_free_soon_take_the_newcomers() -> None:
    """With one slot, 150 ms before it is free at 400 requests a second, it would shrink the batch; four have room."""

    def let_in(parallel: int) -> bool:
        engine, _ = busy(parallel, *[30] * parallel, slo_s=0.6)
        queues = engine._queues["m"]
        queues.expect(rate_rps=400.0, item_bytes=1e4)
        newcomer = QueuedRequest(Request(999, "m", 0.137, 0.737, body_bytes=10_000))
        return engine._dispatcher.edges.room_for(queues, newcomer, now_s=0.137) is not None

    assert [let_in(parallel) for parallel in (1, 2, 4)] == [False, True, True]


def test_the_slot_that_is_free_sooner_than_expected_gets_the_batch_that_was_promised_first() -> None:
    engine, batches = busy(2, 20, 40)
    arrive(engine, 0.01, 100)
    (early,) = sent(finish(engine, batches[1], 0.02), Backend.EDGE)
    assert early.request_ids == (100,)
    assert next_items(engine) == [0, 0]


def test_those_behind_move_up_when_a_slot_is_free_sooner_than_expected() -> None:
    engine, batches = busy(3, 10, 20, 40)
    queues = engine._queues["m"]
    for slot in range(3):
        queues.next_batches[slot].add(engine._table.take_in(Request(100 + slot, "m", 0.01, 1.01, body_bytes=10_000)))
    (early,) = sent(finish(engine, batches[2], 0.02), Backend.EDGE)
    assert early.request_ids == (100,)
    waiting = [[q.request.request_id for q in batch] for batch in queues.next_batches]
    assert waiting == [[101], [102], []]


def test_what_an_overdue_slot_cannot_answer_any_more_moves_to_another() -> None:
    engine, batches = busy(2, 20, 60, slo_s=1.0)
    arrive(engine, 0.01, 100, slo_s=0.55)
    assert next_items(engine) == [1, 0]
    (first,) = batches[:1]
    commands = []
    while first.predicted_finish_s and next_items(engine)[0]:
        wakeup_s = engine.next_wakeup_s()
        assert wakeup_s is not None
        if wakeup_s >= 0.5323:  # the second one's end
            break
        commands += engine.handle([], wakeup_s)
    found = engine.explanation(100)
    assert found is not None
    assert found.decisions[-1].cause is Cause.EDGE_DELAYED


def test_requests_of_failed_batches_do_not_come_back_to_the_edge_and_the_other_slot_goes_on() -> None:
    engine, batches = busy(2, 3, 3)
    commands = fail(engine, batches[0], 0.03, FailureKind.BROKEN)
    done = [*finish(engine, batches[1], 0.07), *run_until_idle(engine, [*commands], 0.03, 3.0)]
    assert sorted(answered(done)) == [1, 2, 3, 4, 5, 6]
    assert refused(done) == {}
    assert {batch.place.backend for batch in sent(commands + done)} == {Backend.FUNCTION}


def test_fewer_slots_after_a_reload_are_those_that_are_busy_longest() -> None:
    engine, batches = busy(3, 10, 60, 20)
    engine.handle([SettingsChanged(slots(1))], 0.01)
    assert len(engine._queues["m"].next_batches) == 1
    arrive(engine, 0.02, 100)
    assert sent(finish(engine, batches[0], 0.13)) == []
    assert sent(finish(engine, batches[2], 0.21)) == []
    (following,) = sent(finish(engine, batches[1], 0.54))
    assert following.request_ids == (100,)


def test_more_slots_after_a_reload_take_what_waits() -> None:
    engine, _ = busy(1, 60)
    arrive(engine, 0.01, 100)
    (following,) = sent(engine.handle([SettingsChanged(slots(2))], 0.02))
    assert following.request_ids == (100,)


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_what_waits_is_drained_by_all_slots(parallel: int) -> None:
    engine, _ = busy(parallel, *[1] * parallel, slo_s=50.0)
    arrive(engine, 0.0, *range(100, 356), slo_s=50.0)
    own = Engine(slots(parallel, function=False, slo_s=50.0))
    arrive(own, 0.0, *range(1, parallel + 1), slo_s=50.0)
    arrive(own, 0.001, *range(100, 356), slo_s=50.0)
    waiting = own.statistics().queued_requests
    assert own.statistics().expected_drain_s == pytest.approx(waiting * ORIN.predict_s(64) / 64 / parallel, rel=0.01)


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_the_plan_counts_on_all_slots(parallel: int) -> None:
    services_s = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    known = {"dispersion": 0.0, "slo_s": 1.0, "margin": 1.0}
    whole = edge_share(services_s, rate_rps=100.0, machines=parallel, **known)  # type: ignore[arg-type]
    one = edge_share(services_s, rate_rps=100.0, **known)  # type: ignore[arg-type]
    assert whole.capacity_rps == pytest.approx(parallel * one.capacity_rps)
    assert whole.spill_fraction < one.spill_fraction or parallel == 1


def test_unlike_edges_are_worth_as_much_as_they_serve_a_second() -> None:
    two = settings(edges=(EdgeSettings("near", 2), EdgeSettings("far", 1)))
    model = replace(two.models[0], edge_latencies={"far": ORIN.slower(2.0)})
    engine = Engine(replace(two, models=(model,)))
    arrive(engine, 0.0, 1)
    machines = edge_machines(model, engine._snapshot(0.0), Limits(), 0.99)
    assert 2.3 < machines.count < 2.5
    assert machines.caps["far"] < machines.caps["near"]
    plan = engine.statistics().plan
    assert plan is not None
    group = plan.group("m")
    assert isinstance(group, GroupPlan)
    assert dict(group.edge_caps) == dict(machines.caps)
    assert engine.statistics().edges[1].name == Place.edge("far").name
    assert TIER.name == "1gb"


@pytest.mark.parametrize("parallel", [1, 2])
def test_a_half_that_no_slot_takes_any_more_is_placed_anew(parallel: int) -> None:
    """Two halves wait for one slot; before it is free the server says that it takes less than a half."""
    engine = Engine(slots(parallel, function=False, serve_late=True, slo_s=5.0))
    (first,) = sent(arrive(engine, 0.0, 1, slo_s=5.0))
    others = sent(arrive(engine, 0.001, 2, slo_s=5.0)) if parallel > 1 else []
    arrive(engine, 0.002, *range(10, 18), slo_s=5.0)
    (whole,) = sent(finish(engine, first, 0.06))
    assert whole.items == 8
    commands = fail(engine, whole, 0.07, FailureKind.REJECTED)
    commands += engine.handle([ProbeMeasured(Place.edge(), ok=True, largest_batches=(("m", 2),))], 0.08)
    for batch in others:
        commands += finish(engine, batch, 0.09)
    commands = run_until_idle(engine, commands, 0.09, 1.9)
    assert sorted(answered(commands)) == [*([2] if others else []), *range(10, 18)]

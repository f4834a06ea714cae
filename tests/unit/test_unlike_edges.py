"""Several edge servers: an offer each; hedges and failures go to another edge before a function; nothing is lost."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from support.engine_kit import ORIN, answered, arrive, fail, finish, refused, run_until_idle, sent, settings

from scheduler.domain.batches import Batch, FailureKind, WhyLeft
from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import ProbeMeasured, SettingsChanged
from scheduler.domain.plans import EdgeSettings, EngineSettings
from scheduler.domain.requests import Backend, Place, Request
from scheduler.engine import Engine

NEAR, FAR = Place.edge("near"), Place.edge("far")
SLOW = ORIN.slower(2.0)


def two(
    laws: Mapping[str, LatencyModel | None] | None = None, *, slo_s: float = 1.0, function: bool = True, **more: object
) -> EngineSettings:
    """Returns settings with an edge server `near` and another, `far`, half as fast where nothing else is said."""
    wanted = settings(edges=(EdgeSettings("near"), EdgeSettings("far")), slo_s=slo_s, function=function, **more)
    [model] = wanted.models
    return replace(wanted, models=(replace(model, edge_latencies={"far": SLOW} if laws is None else laws),))


def places(batches: list[Batch]) -> list[Place]:
    return [batch.place for batch in batches]


def test_of_equal_totals_the_edge_that_is_free_first_is_chosen_and_each_makes_one_offer() -> None:
    engine = Engine(two())
    (first,) = sent(arrive(engine, 0.0, 1))
    (second,) = sent(arrive(engine, 0.001, 2))
    assert places([first, second]) == [NEAR, FAR]
    found = engine.explanation(2)
    assert found is not None
    assert [offer.place for offer in found.decisions[0].offers] == [NEAR, FAR]
    arrive(engine, 0.002, 3)
    waits = [batch.items for batch in engine._queues["m"].next_batches]
    assert waits == [1, 0]


def test_a_model_that_one_server_serves_goes_there_only() -> None:
    engine = Engine(two({"near": None, "far": SLOW}, function=False))
    batches = sent(run_until_idle(engine, arrive(engine, 0.0, 1, 2, 3), 0.0, 3.0))
    assert set(places(batches)) == {FAR}
    assert engine.explanation(1) is not None


@pytest.mark.parametrize("kind", [FailureKind.BROKEN, FailureKind.UNREACHABLE, FailureKind.SERVER])
def test_what_one_server_fails_goes_to_the_other_before_a_function(kind: FailureKind) -> None:
    engine = Engine(two(slo_s=2.0))
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=2.0))
    again = sent(fail(engine, batch, 0.01, kind))
    assert places(again) == [FAR]
    assert answered(finish(engine, again[0], 0.2)) == [1]


def test_what_both_servers_fail_goes_to_a_function_and_to_no_edge_again() -> None:
    engine = Engine(two(slo_s=3.0))
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=3.0))
    (again,) = sent(fail(engine, batch, 0.01, FailureKind.BROKEN))
    commands = fail(engine, again, 0.02, FailureKind.BROKEN)
    done = run_until_idle(engine, commands, 0.02, 3.0)
    assert {place.backend for place in places(sent(done))} == {Backend.FUNCTION}
    assert answered(done) == [1]


def test_a_server_that_is_away_gets_nothing_and_its_requests_go_to_the_other() -> None:
    engine = Engine(two(slo_s=2.0))
    batches = sent(arrive(engine, 0.0, *range(1, 9), slo_s=2.0))
    arrive(engine, 0.001, *range(9, 30), slo_s=2.0)
    near = next(batch for batch in batches if batch.place == NEAR)
    commands = fail(engine, near, 0.01, FailureKind.UNREACHABLE)
    assert [edge.up for edge in engine.statistics().edges] == [False, True]
    assert engine._queues["m"].next_batches[0].items == 0
    for batch in batches:
        if batch is not near:
            commands += finish(engine, batch, batch.predicted_finish_s)
    done = run_until_idle(engine, commands, 0.2, 2.5)
    assert NEAR not in places(sent(done))
    assert sorted(answered(done)) == list(range(1, 30))
    engine.handle([ProbeMeasured(NEAR, ok=True)], 3.0)
    assert places(sent(arrive(engine, 3.1, 100))) == [NEAR]


@pytest.mark.parametrize("function", [False, True])
def test_what_one_server_holds_too_long_is_sent_to_the_other_which_is_idle(function: bool) -> None:
    engine = Engine(two(slo_s=0.5, function=function))
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=0.5))
    assert batch.place == NEAR
    hedges: list[Batch] = []
    while not hedges:
        wakeup_s = engine.next_wakeup_s()
        assert wakeup_s is not None
        assert wakeup_s < 0.5
        hedges = sent(engine.handle([], wakeup_s))
    assert [(hedge.place, hedge.why_left) for hedge in hedges] == [(FAR, WhyLeft.HEDGE)]
    assert answered(finish(engine, hedges[0], 0.45)) == [1]
    assert answered(finish(engine, batch, 0.6)) == []


def test_an_edge_that_a_reload_removes_answers_what_it_has_and_gets_nothing_more() -> None:
    engine = Engine(two(slo_s=2.0))
    batches = sent(arrive(engine, 0.0, 1, slo_s=2.0)) + sent(arrive(engine, 0.001, 2, slo_s=2.0))
    arrive(engine, 0.002, *range(10, 20), slo_s=2.0)
    wanted = two(slo_s=2.0)
    commands = engine.handle([SettingsChanged(replace(wanted, edges=wanted.edges[1:]))], 0.01)
    (near,) = [batch for batch in batches if batch.place == NEAR]
    assert answered(finish(engine, near, 0.06)) == [1]
    (far,) = [batch for batch in batches if batch.place == FAR]
    commands += finish(engine, far, 0.12)
    done = run_until_idle(engine, commands, 0.12, 2.5)
    assert NEAR not in places(sent(done))
    assert sorted(answered(done)) == [2, *range(10, 20)]
    assert refused(done) == {}


def test_an_edge_that_a_reload_adds_takes_what_waits() -> None:
    engine = Engine(settings(edges=(EdgeSettings("far"),)))
    arrive(engine, 0.0, 1)
    arrive(engine, 0.001, 2)
    following = sent(engine.handle([SettingsChanged(two())], 0.01))
    assert [(batch.place, batch.request_ids) for batch in following] == [(NEAR, (2,))]


def test_a_request_that_one_server_has_failed_waits_in_line_for_the_other() -> None:
    """The line behind the next batches is common; a slot leaves alone what its server has failed."""
    engine = Engine(two(slo_s=9.0, function=False))
    (batch,) = sent(arrive(engine, 0.0, 1, slo_s=9.0))
    fail(engine, batch, 0.01, FailureKind.BROKEN)
    queued = engine._table.open[1]
    assert queued.failed_on == (NEAR,)
    line = engine._queues["m"].edge_later
    other = engine._table.take_in(Request(2, "m", 0.0, 9.0))
    other.leave(NEAR)
    line.add(other)
    assert [list(rank) for rank in line.ranks((), has_functions=False, there=NEAR)] == []
    assert [list(rank) for rank in line.ranks((), has_functions=False, there=FAR)] == [[other]]


def test_an_idle_server_without_the_model_does_not_end_the_wait_for_clients_that_return() -> None:
    engine = Engine(two({"far": None}, function=False))
    engine.handle([], 0.0)
    returning = engine._queues["m"].returning
    returning.missing, returning._answered, returning.open_until_s, returning.until_s = 4, 4, 0.02, 0.02
    assert sent(arrive(engine, 0.001, 1)) == []
    assert engine.next_wakeup_s() == 0.02
    (batch,) = sent(engine.handle([], 0.02))
    assert batch.place == NEAR

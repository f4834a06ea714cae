"""The largest edge batch: said, named by a refusal, or found by bisection; no request is lost to the question."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from support.engine_kit import answered, arrive, finish, refused, request, sent, settings

from scheduler.control import Control
from scheduler.dispatch.largest_batches import SUSPICIONS, LargestBatch
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.edge_limits import EdgeLimit, LimitSource
from scheduler.domain.errors import RefusalKind
from scheduler.domain.memory import Memory
from scheduler.domain.messages import (
    BatchFailed,
    Command,
    EdgeBatchLearned,
    LimitsChanged,
    ProbeMeasured,
    RequestArrived,
    SettingsChanged,
)
from scheduler.domain.plans import EdgeSettings, Limits
from scheduler.domain.requests import Backend, Place
from scheduler.engine import Engine

SLO_S = 600.0
REFUSALS = {
    "named": Failure(FailureKind.REJECTED, "batch-size must be <= N", by_size=True),
    "413": Failure(FailureKind.REJECTED, "too large", by_size=True),
    "500": Failure(FailureKind.SERVER, "out of memory", by_size=True),
}


def an_engine(*, function: bool = False, **changes: object) -> Engine:
    return Engine(settings(function=function, slo_s=SLO_S, **changes))


def failing(engine: Engine, batch: Batch, at_s: float, failure: Failure) -> list[Command]:
    return engine.handle([BatchFailed(batch.batch_id, failure, BatchReport(at_s - batch.sent_at_s))], at_s)


def learned(commands: Iterable[Command]) -> list[EdgeLimit]:
    return [command.limit for command in commands if isinstance(command, EdgeBatchLearned)]


class Edge:
    """A server that takes at most so many items, played against an engine."""

    def __init__(self, engine: Engine, most: int, failure: Failure) -> None:
        self.engine, self.most, self.failure = engine, most, failure
        self.now_s = 0.0
        self.sizes: list[int] = []
        self.refusals: list[int] = []
        self.commands: list[Command] = []

    def burst(self, ids: Iterable[int], items: int = 1) -> None:
        """Lets requests arrive together, and plays until all batches are back."""
        arrivals = [RequestArrived(request(i, self.now_s, slo_s=SLO_S, items=items)) for i in ids]
        new = self.engine.handle(arrivals, self.now_s)
        waiting: list[Batch] = []
        while True:
            self.commands += new
            waiting += sent(new)
            if not waiting:
                wakeup_s = self.engine.next_wakeup_s()
                if wakeup_s is None or wakeup_s > self.now_s + 1.0:
                    return
                self.now_s = max(self.now_s, wakeup_s)
                new = self.engine.handle([], self.now_s)
                continue
            batch = waiting.pop(0)
            self.now_s = max(self.now_s, batch.predicted_finish_s)
            self.sizes.append(batch.items)
            if batch.items <= self.most:
                new = finish(self.engine, batch, self.now_s)
                continue
            self.refusals.append(batch.items)
            named = self.most if self.failure is REFUSALS["named"] else None
            new = failing(self.engine, batch, self.now_s, replace(self.failure, largest_batch=named))


@pytest.mark.parametrize("most", [1, 2, 3, 8, 31, 32, 33, 63])
@pytest.mark.parametrize("kind", REFUSALS)
def test_after_a_few_refusals_no_batch_is_refused_and_every_request_was_answered(kind: str, most: int) -> None:
    edge = Edge(an_engine(), most, REFUSALS[kind])
    for round_ in range(7):
        edge.burst(range(200 * round_, 200 * round_ + 200))
    assert sorted(answered(edge.commands)) == list(range(1400))
    assert refused(edge.commands) == {}
    assert edge.engine.statistics().edge_up
    assert [limit.items for limit in learned(edge.commands)] == [most]
    [limit] = edge.engine.statistics().edge_limits
    assert (limit.items, limit.settled) == (most, True)
    assert limit.source is (LimitSource.NAMED if kind == "named" else LimitSource.SEARCHED)
    if kind == "named":
        assert len(edge.refusals) == 1
    # The first batch is halved until its parts fit; after that each step of the bisection refuses one at most.
    assert len(edge.refusals) <= 64 / most + 2 * math.log2(64)
    before = len(edge.refusals)
    edge.burst(range(10_000, 10_200))
    assert len(edge.refusals) == before
    assert max(edge.sizes[-len(edge.sizes) // 4 :]) == most


def test_a_server_that_fails_once_by_chance_has_no_limit() -> None:
    edge = Edge(an_engine(), 64, REFUSALS["500"])
    edge.burst(range(2))
    edge.most = 2
    edge.burst(range(10, 13))
    edge.most = 64
    assert edge.refusals == [3]
    assert edge.engine.statistics().edge_limits == ()
    edge.burst([20], items=5)
    assert sorted(answered(edge.commands)) == [0, 1, 10, 11, 12, 20]
    edge.most = 5
    for round_ in range(3, 6):
        edge.burst(range(10 * round_, 10 * round_ + 6))
    assert [limit.items for limit in learned(edge.commands)] == [5]


@given(
    most=st.integers(1, 70),
    kind=st.sampled_from(sorted(REFUSALS)),
    bursts=st.lists(st.integers(1, 90), min_size=1, max_size=12),
)
@hypothesis_settings(max_examples=25)
def test_whatever_comes_no_request_is_lost_and_the_limit_is_never_below_what_is_taken(
    most: int, kind: str, bursts: list[int]
) -> None:
    edge, first = Edge(an_engine(), most, REFUSALS[kind]), 0
    edge.burst([0])
    for size in bursts:
        edge.burst(range(first + 1, first + 1 + size))
        first += size
    assert sorted(answered(edge.commands)) == list(range(first + 1))
    for limit in edge.engine.statistics().edge_limits:
        taken = [size for size in edge.sizes if size <= most]
        assert limit.items >= max(taken)
        if limit.settled:
            assert limit.items == most


def test_a_batch_that_is_refused_by_name_is_sent_again_at_once_in_parts_that_fit() -> None:
    engine = an_engine()
    [one] = sent(arrive(engine, 0.0, 1, slo_s=SLO_S))
    arrive(engine, 0.0, *range(2, 14), slo_s=SLO_S)
    [batch] = sent(finish(engine, one, 0.1))
    assert batch.items == 12
    refusal = Failure(FailureKind.REJECTED, "batch-size must be <= 8", by_size=True, largest_batch=8)
    commands = failing(engine, batch, 0.2, refusal)
    assert [part.items for part in sent(commands)] == [6]
    assert learned(commands) == [EdgeLimit("m", 8, LimitSource.NAMED)]
    [rest] = sent(finish(engine, sent(commands)[0], 0.3))
    assert rest.items == 6


def test_neither_a_refused_content_nor_a_request_that_kills_the_server_teaches_a_limit() -> None:
    for failure in (Failure(FailureKind.REJECTED, "no picture"), REFUSALS["500"]):
        engine = an_engine()
        [one] = sent(arrive(engine, 0.0, 1, slo_s=SLO_S))
        arrive(engine, 0.0, *range(2, 14), slo_s=SLO_S)
        waiting, now_s = sent(finish(engine, one, 0.1)), 0.1
        while waiting:
            batch, now_s = waiting.pop(0), now_s + 0.1
            bad = 5 in batch.request_ids
            commands = failing(engine, batch, now_s, failure) if bad else finish(engine, batch, now_s)
            waiting += sent(commands)
            while not waiting and (engine.next_wakeup_s() or math.inf) <= now_s + 0.1:
                now_s = max(now_s, engine.next_wakeup_s() or 0.0)
                waiting += sent(engine.handle([], now_s))
        assert engine.statistics().edge_limits == ()


def test_an_edge_that_fails_at_every_size_is_given_up_as_before() -> None:
    engine = an_engine(function=True, failures_to_open=3)
    now_s, batches = 0.0, sent(arrive(engine, 0.0, *range(1, 5), slo_s=SLO_S))
    for _ in range(3):
        now_s += 0.01
        [edge] = [batch for batch in batches if batch.backend is Backend.EDGE]
        batches = sent(failing(engine, edge, now_s, REFUSALS["500"]))
        now_s += 0.01
        batches = [*batches, *sent(arrive(engine, now_s, int(now_s * 1e4), slo_s=SLO_S))]
    assert not engine.statistics().edge_up


def test_a_request_larger_than_the_limit_goes_by_function_and_without_one_is_told_what_fits() -> None:
    refusal = Failure(FailureKind.REJECTED, "batch-size must be <= 3", by_size=True, largest_batch=3)
    engine = an_engine(function=True)
    [batch] = sent(arrive(engine, 0.0, 1, items=4, slo_s=SLO_S))
    assert batch.backend is Backend.EDGE
    commands = failing(engine, batch, 0.1, refusal)
    while not sent(commands):
        commands = engine.handle([], engine.next_wakeup_s() or 0.0)
    assert [again.backend for again in sent(commands)] == [Backend.FUNCTION]
    alone = an_engine()
    [batch] = sent(arrive(alone, 0.0, 1, items=4, slo_s=SLO_S))
    first = failing(alone, batch, 0.1, refusal)
    later = arrive(alone, 0.2, 2, items=5, slo_s=SLO_S)
    told = [refused(commands)[number].refusal for number, commands in ((1, first), (2, later))]
    assert [refusal.kind for refusal in told] == [RefusalKind.TOO_LARGE] * 2
    assert told[0].message == (
        "the edge takes at most 3 items of model m at once, and the request has 4; send fewer items at once"
    )


@pytest.mark.parametrize(("kind", "told"), [("500", RefusalKind.BACKEND), ("413", RefusalKind.TOO_LARGE)])
def test_a_request_on_which_the_server_fails_is_told_so_and_not_that_it_is_too_large(
    kind: str, told: RefusalKind
) -> None:
    edge = Edge(an_engine(), 1, REFUSALS[kind])
    edge.burst([1], items=2)
    [refusal] = refused(edge.commands).values()
    assert refusal.refusal.kind is told
    assert edge.engine.statistics().edge_up
    if kind == "500":
        assert "out of memory" in refusal.refusal.message


def test_what_the_server_says_holds_beside_the_operators_limits_and_the_smaller_one_counts() -> None:
    engine = an_engine()
    arrive(engine, 0.0, 1, slo_s=SLO_S)
    probe = ProbeMeasured(Place.edge(), ok=True, largest_batches=(("m", 8), ("other", 3)), server="a")
    assert learned(engine.handle([probe], 0.1))[0] == EdgeLimit("m", 8, LimitSource.SAID)
    queues = engine._queues["m"]
    assert (queues.edge_cap, queues.edge_limit) == (8, 8)
    for cap, in_all in ((4, 4), (20, 8), (None, 8)):
        engine.handle([LimitsChanged("m", Limits(edge_batch_cap=cap))], 0.2)
        assert queues.edge_limit == in_all
    engine.handle([SettingsChanged(settings(function=False, slo_s=SLO_S))], 0.3)
    assert engine._queues["m"].edge_limit == 8
    engine.handle([replace(probe, largest_batches=(("m", 16),))], 0.4)
    assert engine._queues["m"].edge_limit == 16


def test_another_server_and_one_that_was_away_may_take_more() -> None:
    edge = Edge(an_engine(), 8, REFUSALS["named"])
    edge.engine.handle([ProbeMeasured(Place.edge(), ok=True, server="a")], 0.0)
    edge.burst(range(200))
    assert edge.refusals != []
    queues = edge.engine._queues["m"]
    assert queues.edge_limit == 8
    edge.engine.handle([ProbeMeasured(Place.edge(), ok=False)], edge.now_s)
    edge.engine.handle([ProbeMeasured(Place.edge(), ok=True, server="a")], edge.now_s + 5.0)
    assert queues.edge_limit > 8
    edge.now_s += 5.0
    count = len(edge.refusals)
    edge.burst(range(200, 400))
    assert (len(edge.refusals), queues.edge_limit) == (count + 1, 8)
    edge.engine.handle([ProbeMeasured(Place.edge(), ok=True, server="b")], edge.now_s)
    assert queues.edge_limit > 8
    assert edge.engine.statistics().edge_limits == ()


def test_a_limit_outlives_the_process_and_holds_from_its_first_batch_on() -> None:
    kept = settings(function=False, slo_s=SLO_S)
    control = Control(kept)
    edge = Edge(Engine(kept, control), 8, REFUSALS["named"])
    edge.burst(range(100))
    parts = {part.name: part for part in control.saved(edge.now_s)}
    heir = Control(kept, None, Memory(parts, 1.0))
    later = Edge(Engine(kept, heir), 8, REFUSALS["named"])
    later.burst(range(100))
    assert later.refusals == []
    assert learned(later.commands) == []
    assert later.engine.statistics().edge_limits == (EdgeLimit("m", 8, LimitSource.NAMED),)


def test_a_damaged_memory_is_not_taken_up() -> None:
    engine = an_engine()
    part = engine._largest.remembered()
    for broken in ([], {"server": "", "models": [{}]}, {"server": "", "models": [{"model": "m", "said": 0}]}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            part.restore(broken, 0.0, 0.0)
    assert engine._largest.known == {}


def test_few_suspicions_are_followed_and_a_larger_answer_takes_a_limit_back() -> None:
    engine = an_engine()
    arrive(engine, 0.0, 1, slo_s=SLO_S)
    keeper = engine._largest
    batch = next(iter(engine._outbox.in_flight.values())).batch
    keeper.answered(batch)
    for number in range(3 * SUSPICIONS):
        keeper.failed(replace(batch, items=64, request_ids=(number,)), REFUSALS["413"])
    assert len(keeper.suspicions) == SUSPICIONS
    keeper.known["m", "main"] = LargestBatch(fits=4, refused=9)
    assert keeper.known["m", "main"].items == 6
    keeper.answered(replace(batch, items=12))
    assert keeper.known["m", "main"].items is None


NEAR, FAR = Place.edge("near"), Place.edge("far")


def two_edges() -> Engine:
    return an_engine(edges=(EdgeSettings("near"), EdgeSettings("far")))


def test_each_edge_server_has_limits_of_its_own_that_no_other_answer_changes() -> None:
    engine = two_edges()
    said = ProbeMeasured(NEAR, ok=True, largest_batches=(("m", 8),), server="a")
    [limit] = learned(engine.handle([said], 0.0))
    assert limit == EdgeLimit("m", 8, LimitSource.SAID, edge="near")
    # The other one is another server, and takes any number.
    assert learned(engine.handle([ProbeMeasured(FAR, ok=True, server="b")], 0.1)) == []
    assert learned(engine.handle([ProbeMeasured(NEAR, ok=True, server="a")], 0.2)) == []
    assert engine.statistics().edge_limits == (limit,)
    near, far = engine._queues["m"].edges
    assert (near.limit, far.limit) == (8, 64)
    # A request that is too large for the one goes to the other.
    large = engine.handle([RequestArrived(replace(request(1, 0.3, slo_s=SLO_S), items=20))], 0.3)
    assert [batch.place for batch in sent(large)] == [FAR]


def test_what_one_answers_says_nothing_of_a_batch_that_another_refused() -> None:
    engine = two_edges()
    keeper = engine._largest
    batch = replace(sent(arrive(engine, 0.0, 1, slo_s=SLO_S))[0], items=8, request_ids=(1, 2))
    keeper.failed(replace(batch, place=FAR), REFUSALS["413"])
    keeper.answered(replace(batch, place=NEAR, items=2))
    assert keeper.known["m", "far"].items is None
    keeper.answered(replace(batch, place=FAR, items=2))
    assert keeper.known["m", "far"].items == 5


def test_limits_outlive_the_process_by_edge_server_and_old_ones_are_those_of_the_only_one() -> None:
    engine = two_edges()
    engine.handle([ProbeMeasured(FAR, ok=True, largest_batches=(("m", 8),), server="b")], 0.0)
    content = engine._largest.remembered().snapshot(0.0)
    again = two_edges()._largest
    again.remembered().restore(content, 0.0, 0.0)
    assert (again.servers, again.known["m", "far"].items) == ({"far": "b"}, 8)
    old = {"server": "a", "models": [{"model": "m", "said": 4, "fits": 2, "refused": None, "named": False}]}
    only = an_engine(edges=(EdgeSettings("box"),))._largest
    only.remembered().restore(old, 0.0, 0.0)
    assert (only.servers, only.known["m", "box"].items) == ({"box": "a"}, 4)

"""Circuits of models: one that a backend fails with gets no batches there, the others go on; a probe is a use of it."""

import math
from dataclasses import replace

import pytest
from support.engine_kit import (
    FUNCTION,
    ORIN,
    TIER,
    arrive,
    fail,
    finish,
    refused,
    run_until_idle,
    sent,
    settings,
)

from scheduler.dispatch.circuit_breaker import EDGE_PAUSE_S, LONGEST_PAUSE_S, Circuits
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import Batch, Failure, FailureKind
from scheduler.domain.messages import Command, ProbeMeasured, RequestArrived, SendProbe
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import EDGE_NAME, FUNCTIONS, Backend, Place, Request
from scheduler.engine import Engine

WHOLE = (FailureKind.UNREACHABLE,)
OF_MODEL = (FailureKind.SERVER, FailureKind.BROKEN, FailureKind.TIMEOUT, FailureKind.FORBIDDEN)


def two_models(*, function: bool = True) -> EngineSettings:
    models = [
        ModelSettings(
            name,
            max_items=64,
            classes=(ServiceClass("default", slo_s=1.0),),
            edge_latency=ORIN,
            tiers=(TIER,) if function else (),
        )
        for name in ("a", "b")
    ]
    return EngineSettings(models=tuple(models))


def circuits(wanted: EngineSettings) -> Circuits:
    return Circuits.closed(wanted, {EDGE_NAME: [EdgeOccupancy()]}, UplinkOccupancy())


def batch(model: str, place: Place, at_s: float = 0.0) -> Batch:
    return Batch(1, place, model, (1,), 1, 0, at_s, 1.0, 2.0, 0.1, 0.1)


def failures(it: Circuits, model: str, place: Place, kind: FailureKind, count: int = 3) -> None:
    for _ in range(count):
        it.failed(batch(model, place), Failure(kind, "told to"), now_s=0.0)


@pytest.mark.parametrize("place", [Place.edge(), Place.function("1gb")], ids=str)
@pytest.mark.parametrize("kind", OF_MODEL, ids=str)
def test_a_model_that_fails_closes_itself_and_no_other(kind: FailureKind, place: Place) -> None:
    it = circuits(two_models())
    failures(it, "a", place, kind)
    circuit = it.of(place)
    assert (circuit.serves("a"), circuit.serves("b"), circuit.up) == (False, True, True)
    assert it.of(FUNCTIONS if place.backend is Backend.EDGE else Place.edge()).serves("a")
    failures(it, "b", place, kind)
    assert not circuit.up


@pytest.mark.parametrize("kind", WHOLE, ids=str)
def test_a_backend_that_nothing_reaches_closes_all_its_models(kind: FailureKind) -> None:
    it = circuits(two_models())
    failures(it, "a", Place.edge(), kind, count=1)
    assert (it.edge.serves("a"), it.edge.serves("b"), it.edge.up) == (False, False, False)


def test_a_probe_asks_for_the_models_that_are_open_and_closes_those_that_answer() -> None:
    it = circuits(two_models())
    failures(it, "a", Place.edge(), FailureKind.TIMEOUT)
    assert it.next_s(0.0) == 1.0
    assert it.to_probe(1.0, idle_link=False) == [SendProbe(Place.edge(), ("a",))]
    it.probed(ProbeMeasured(Place.edge(), ok=True, broken=("a",)), now_s=1.5)
    assert not it.edge.serves("a")
    assert it.next_s(1.5) == 3.0  # two seconds after it was asked
    it.to_probe(3.0, idle_link=False)
    it.probed(ProbeMeasured(Place.edge(), ok=True), now_s=3.1)
    assert it.edge.serves("a")


def test_an_edge_that_comes_back_is_asked_for_all_its_models_the_sound_ones_first() -> None:
    it = circuits(two_models())
    failures(it, "a", Place.edge(), FailureKind.SERVER)
    failures(it, "b", Place.edge(), FailureKind.UNREACHABLE, count=1)
    assert it.to_probe(1.0, idle_link=False) == [SendProbe(Place.edge(), ("b", "a"))]
    it.probed(ProbeMeasured(Place.edge(), ok=True, broken=("b",), unasked=("a",)), now_s=1.1)
    assert it.edge.closed
    # One that hung is broken, and of one that was not asked for nothing new is known.
    assert (it.edge.serves("a"), it.edge.serves("b")) == (False, False)


def test_a_model_that_answers_its_probe_and_fails_the_use_is_asked_less_and_less_often() -> None:
    it, now_s, pauses = circuits(two_models()), 0.0, []
    failures(it, "a", Place.edge(), FailureKind.TIMEOUT, count=1)
    for _ in range(8):
        pauses.append(it.next_s(now_s) - now_s)
        now_s = it.next_s(now_s)
        it.to_probe(now_s, idle_link=False)
        it.probed(ProbeMeasured(Place.edge(), ok=True), now_s=now_s)
        it.failed(batch("a", Place.edge(), now_s), Failure(FailureKind.SERVER, "told to"), now_s=now_s)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_the_only_model_of_an_edge_is_asked_as_often_as_the_edge() -> None:
    it = circuits(settings())
    assert it.edge.of_model["m"].longest_pause_s == EDGE_PAUSE_S
    failures(it, "m", Place.edge(), FailureKind.TIMEOUT, count=1)
    assert it.up() == {"edge_up": False, "function_up": True}


def test_the_pause_of_a_model_whose_probe_hung_began_with_that_probe_too() -> None:
    it = circuits(two_models())
    edge = it.of(Place.edge())
    failures(it, "a", Place.edge(), FailureKind.SERVER)
    # Of two probes that are under way the second is back last: that the first has ended is no reason to wait anew.
    for asked_at_s, now_s in ((1.0, 2.0), (1.5, 3.0)):
        it.probed(ProbeMeasured(Place.edge(), ok=True, broken=("a",), asked_at_s=asked_at_s), now_s=now_s)
    assert edge.of_model["a"].probe_at_s == max(3.0, 1.5 + edge.of_model["a"].pause_s)
    assert edge.of_model["a"].pause_s == 2 * edge.of_model["a"].first_pause_s


def test_an_edge_of_which_no_model_works_is_asked_as_often_as_one_with_a_single_model() -> None:
    it = circuits(two_models())
    for name in ("a", "b"):
        failures(it, name, Place.edge(), FailureKind.SERVER)
    now_s = 0.0
    for _ in range(6):
        due_s = it.next_s(now_s)
        assert due_s - now_s <= EDGE_PAUSE_S
        now_s = due_s
        assert it.to_probe(now_s, idle_link=False) == [SendProbe(Place.edge(), ("a", "b"))]
        it.probed(ProbeMeasured(Place.edge(), ok=True, broken=("a", "b")), now_s=now_s)
    # With one of them at work again, the other waits.
    it.to_probe(it.next_s(now_s), idle_link=False)
    it.probed(ProbeMeasured(Place.edge(), ok=True, broken=("b",)), now_s=now_s)
    assert it.edge.serves("a")
    assert it.next_s(now_s) - now_s > EDGE_PAUSE_S


def test_a_batch_that_hangs_since_before_its_edge_answered_a_probe_says_nothing() -> None:
    it = circuits(two_models())
    it.failed(batch("a", Place.edge(), 0.0), Failure(FailureKind.UNREACHABLE, "told to"), now_s=0.5)
    assert it.to_probe(it.next_s(0.5), idle_link=False) == [SendProbe(Place.edge(), ("a", "b"))]
    it.probed(ProbeMeasured(Place.edge(), ok=True), now_s=1.6)
    it.failed(batch("a", Place.edge(), 0.0), Failure(FailureKind.TIMEOUT, "told to"), now_s=6.0)
    assert it.edge.serves("a")
    it.failed(batch("a", Place.edge(), 2.0), Failure(FailureKind.TIMEOUT, "told to"), now_s=6.0)
    assert not it.edge.serves("a")


def test_a_reload_keeps_what_is_known_of_models_that_stay() -> None:
    it, wanted = circuits(two_models()), two_models()
    failures(it, "a", Place.edge(), FailureKind.TIMEOUT)
    it.configure(replace(wanted, models=wanted.models[:1]))
    assert not it.edge.serves("a")
    it.configure(replace(wanted, models=wanted.models[1:]))
    it.configure(wanted)
    assert it.edge.serves("a")


def arrivals(engine: Engine, at_s: float, model: str, *ids: int) -> list[Command]:
    requests = [Request(i, model, at_s, at_s + 1.0, items=1, body_bytes=10_000) for i in ids]
    return engine.handle([RequestArrived(request) for request in requests], at_s)


def test_one_model_that_hangs_on_the_edge_leaves_it_to_the_other_and_is_served_by_functions() -> None:
    engine = Engine(two_models())
    [hung] = sent(arrivals(engine, 0.0, "a", 1), Backend.EDGE)
    probes = fail(engine, hung, 2.0, FailureKind.TIMEOUT)
    assert SendProbe(Place.edge(), ("a",)) in probes
    done = run_until_idle(engine, arrivals(engine, 2.1, "b", 2, 3) + arrivals(engine, 2.1, "a", 4, 5), 2.1, 4.0)
    assert {each.model for each in sent(done, Backend.EDGE)} == {"b"}
    assert {each.model for each in sent(done, Backend.FUNCTION)} == {"a"}
    rows = {row.model: (row.edge_up, row.function_up) for row in engine.statistics().models_up}
    assert rows == {"a": (False, True), "b": (True, True)}
    engine.handle([ProbeMeasured(Place.edge(), ok=True)], 4.1)
    assert sent(arrivals(engine, 4.2, "a", 6), Backend.EDGE)


def test_a_model_without_another_place_is_refused_and_the_other_is_not() -> None:
    engine = Engine(two_models(function=False))
    [hung] = sent(arrivals(engine, 0.0, "a", 1), Backend.EDGE)
    fail(engine, hung, 2.0, FailureKind.TIMEOUT)
    assert "not answering: edge" in refused(arrivals(engine, 2.1, "a", 2))[2].refusal.message
    assert sent(arrivals(engine, 2.1, "b", 3), Backend.EDGE)


NOTICED_S = 2.0


@pytest.mark.parametrize(("slo_s", "per_item_s"), [(1.0, 0.008), (3.0, 0.008), (10.0, 3.0)])
def test_an_edge_that_falls_silent_is_noticed_within_two_seconds(slo_s: float, per_item_s: float) -> None:
    # Whatever the deadline and the service are: the shell waits a second for the answer to the question.
    model = settings(slo_s=slo_s).models[0]
    engine = Engine(EngineSettings(models=(replace(model, edge_latency=replace(ORIN, beta_s=per_item_s)),)))
    [silent] = sent(arrive(engine, 0.0, 1, slo_s=slo_s), Backend.EDGE) or [None]
    assert silent is not None
    asked_at_s = next_probe_s(engine)
    assert asked_at_s + 1.0 <= NOTICED_S
    engine.handle([ProbeMeasured(Place.edge(), ok=False)], asked_at_s + 1.0)
    assert not engine.statistics().edge_up


def next_probe_s(engine: Engine) -> float:
    """Lets time pass until the edge is asked; returns when."""
    while (now_s := engine.next_wakeup_s()) is not None:
        commands = engine.handle([], now_s)
        if any(isinstance(command, SendProbe) and command.place == Place.edge() for command in commands):
            return now_s
    return math.inf


def test_an_edge_that_answers_one_thing_at_a_time_is_not_asked_for_ever() -> None:
    it = circuits(settings(function=False))
    for number in range(1, 5):
        at_s = 100.0 * number
        slow = replace(batch("m", Place.edge(), at_s), batch_id=number)
        it.suspicion.slots[EDGE_NAME][0].occupy(batch_id=number, now_s=at_s, finish_s=at_s + 5.0)
        asked = it.to_probe(at_s + 1.0, idle_link=False)
        assert bool(asked) == (number < 4)
        if asked:
            it.probed(ProbeMeasured(Place.edge(), ok=False), now_s=at_s + 2.0)
            assert not it.edge.up
        it.suspicion.slots[EDGE_NAME][0].release(number, now_s=0.0)
        it.succeeded(slow)
        assert it.edge.up


def hanging(*, serve_late: bool, slo_s: float) -> tuple[Engine, Batch, float]:
    """A function that has answered for a while and then hangs; the first batch that does, and when it was noticed."""
    engine = Engine(settings(edge=False, slo_s=slo_s, serve_late=serve_late))
    step_s, first, answering = 0.05, None, list[Batch]()
    for step in range(400):
        now_s = step * step_s
        commands = [finish(engine, each, now_s) for each in answering if each.predicted_finish_s <= now_s]
        answering = [each for each in answering if each.predicted_finish_s > now_s]
        commands += [engine.handle([], now_s), arrive(engine, now_s, step, slo_s=slo_s)]
        for each in sent([command for part in commands for command in part]):
            if now_s < 5.0:
                answering.append(each)
            first = first or (each if now_s >= 5.0 else None)
        if first is not None and not engine.statistics().function_up:
            return engine, first, now_s
    raise AssertionError("it was never noticed")


@pytest.mark.parametrize(("serve_late", "slo_s"), [(False, 1.0), (True, 1.0), (True, 10.0)])
def test_a_function_that_hangs_is_noticed_within_two_seconds_or_its_quantile(serve_late: bool, slo_s: float) -> None:
    _, first, noticed_s = hanging(serve_late=serve_late, slo_s=slo_s)
    quantile_s = FUNCTION.predict_s(FUNCTION.max_batch) * math.exp(3.1 * 0.25)
    assert noticed_s - first.sent_at_s <= max(NOTICED_S, quantile_s) + 0.1


def test_old_batches_that_hang_do_not_open_the_circuit_again_after_a_probe() -> None:
    engine, first, now_s = hanging(serve_late=True, slo_s=10.0)
    engine.handle([], now_s + 1.0)
    engine.handle([ProbeMeasured(FUNCTIONS, ok=True)], now_s + 1.1)
    assert engine.statistics().function_up
    engine.handle([], now_s + 1.2)
    assert engine.statistics().function_up
    fail(engine, first, now_s + 1.5, FailureKind.TIMEOUT)
    assert engine.statistics().function_up

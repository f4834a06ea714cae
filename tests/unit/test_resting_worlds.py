"""Whatever happens, lanes that rest decide as if each were looked at in every call: random worlds of several lanes."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from support.engine_kit import fail, refused, sent
from support.engine_world import BOTH, CAP, CLASSES, LIMITS, LOADED, SETTINGS, TENANTS, Mood, World

from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.resting import Resting
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.messages import BatchFinished, Command, ModelBarred, ProbeMeasured, RequestArrived
from scheduler.domain.plans import EdgeSettings, EngineSettings
from scheduler.domain.requests import FUNCTIONS, Backend, Place, Request
from scheduler.engine import Engine

THREE = tuple(replace(BOTH, name=f"m{number}") for number in range(3))
NO_FUNCTIONS = tuple(replace(model, tiers=()) for model in THREE)
MIXED = THREE[0], NO_FUNCTIONS[1], THREE[2]
SPENDING = tuple(replace(each, spends=True) for each in CLASSES)
BEGIN = (
    EngineSettings(THREE, uplink_bytes_per_s=1e6),
    EngineSettings(
        (*MIXED[:2], replace(THREE[2], edge_latency=None)), uplink_bytes_per_s=2e5, max_function_in_flight=2
    ),
    EngineSettings(NO_FUNCTIONS),
    EngineSettings(MIXED, edges=(EdgeSettings(parallel=3),)),
    EngineSettings(NO_FUNCTIONS, edges=(EdgeSettings(parallel=3),)),
    EngineSettings(MIXED, edges=(EdgeSettings(parallel=None),)),
    EngineSettings(MIXED, edges=(EdgeSettings(parallel=2, ahead=1), EdgeSettings("far", 2, ahead=1))),
    EngineSettings(MIXED, edges=(EdgeSettings(ahead=1),)),
    EngineSettings((*(replace(model, classes=SPENDING) for model in THREE[:2]), THREE[2]), uplink_bytes_per_s=1e6),
    EngineSettings(THREE, spend_per_hour=4 * CAP, tenants=TENANTS),
    EngineSettings((replace(THREE[0], buffers=LOADED), *THREE[1:]), uplink_bytes_per_s=1e6, failures_to_open=1),
)
KINDS = ((0,), (0, 2), (0, 1), (0, 3), (0, 0, 1, 2, 3, 4), (2,))
"""Classes of `engine_world` that requests are of."""
SEEDS = (1, 4, 7, 12, 42, 45, 69, 80, 111)
STEPS = 60


class Unchecked(World):
    """A world that keeps when the engine wanted to be called after each call; the promises are tested elsewhere."""

    def __post_init__(self) -> None:
        """Keeps the settings that it begins with."""
        self.begin, self.wakeups_s = self.settings, list[float | None]()
        super().__post_init__()

    def check(self) -> None:
        """Keeps when the engine wants to be called."""
        self.wakeups_s.append(self.engine.next_wakeup_s())

    def bar(self, model: int, place: Place, *, barred: bool) -> None:
        """A place serves another model under a name, or no longer does."""
        self._inbox.append(ModelBarred(self.settings.models[model % len(self.settings.models)].name, place, barred))

    def say(self, parallel: int | None, largest: int) -> None:
        """An edge server says how many batches it serves at once, and how large they may be."""
        place, largest_of = Place.edge(self.settings.edges[0].name), ((self.settings.models[0].name, largest),)
        self._inbox.append(
            ProbeMeasured(place, ok=True, rtt_s=1e-3, parallel=parallel, largest_batches=largest_of if largest else ())
        )

    def measure(self, *, ok: bool, rtt_s: float, transfer_s: float) -> None:
        """The way to the functions was measured."""
        self._inbox.append(ProbeMeasured(FUNCTIONS, ok=ok, rtt_s=rtt_s, sent_bytes=100_000, transfer_s=transfer_s))

    def _check_caps(self, batch: Batch) -> None: ...

    def _check_money(self, batch: Batch) -> None:
        if batch.backend is Backend.FUNCTION:
            self.paid[batch.batch_id] = self.now_s, batch.expected_cost

    def _check_explanation(self, request_id: int, outcome: str) -> None: ...


def step(rng: random.Random, world: Unchecked, *, kinds: tuple[int, ...], begin: tuple[EngineSettings, ...]) -> None:
    """Lets one thing happen."""
    dice, sides = rng.random(), list(Backend)
    if dice < 0.45:
        kind, items, slo_s = rng.choice(kinds), rng.choice([1, 1, 1, 3, 8]), rng.choice([0.3, 0.4, 0.6, 1.0, 2.0, 4.0])
        world.arrive(rng.choice([1, 1, 2, 5, 15]), rng.randrange(3), kind, items, slo_s)
    elif dice < 0.86:
        world.advance(rng.choice([0.0, 0.01, 0.05, 0.05, 0.1, 0.1, 0.2, 0.3 * rng.random(), 1.0]))
    elif dice < 0.88:
        world.cancel(rng.randrange(40))
    elif dice < 0.90:
        world.limit(rng.randrange(3), rng.choice(LIMITS))
    elif dice < 0.915:
        world.reload(rng.choice(begin))
    elif dice < 0.945:
        failure, hangs = rng.choice([None, None, None, *FailureKind]), rng.random() < 0.1
        mood = Mood(failure, rng.choice([1.0, 0.3, 3.0, 30.0]), hangs, rng.choice([None, 0.2, 5.0]), rng.choice([0, 3]))
        world.treat(rng.choice(sides), mood)
    elif dice < 0.96:
        world.treat(rng.choice(sides), Mood(pace=rng.choice([1.0, 0.5, 1.5, 3.0])))
    elif dice < 0.965:
        world.plan_in(rng.choice([0.0, 0.1, 45.0]))
    elif dice < 0.975:
        world.vary(rng.choice([1, 1, 2, 4]))
    elif dice < 0.98:
        world.lend_in(rng.choice([0.01, 0.3, 5.0, None]))
    elif dice < 0.985:
        world.bar(rng.randrange(3), rng.choice([Place.edge(), FUNCTIONS]), barred=rng.random() < 0.5)
    elif dice < 0.99:
        world.say(rng.choice([None, 1, 2, 4]), rng.choice([0, 3, 16]))
    elif dice < 0.9985:
        world.measure(ok=rng.random() < 0.9, rtt_s=rng.choice([0.01, 0.05, 0.2]), transfer_s=rng.choice([0.01, 1.0]))
    else:
        world.drain()


def played(seed: int) -> Unchecked:
    """Returns a world after its steps; reloads keep half of them at the settings that they began with."""
    rng = random.Random(seed)
    begin = replace(rng.choice(BEGIN), changepoints=rng.random() < 0.2)
    others = (begin,) if rng.random() < 0.6 else tuple(replace(each, changepoints=False) for each in BEGIN) + SETTINGS
    world, kinds = Unchecked(begin), rng.choice(KINDS)
    for _ in range(STEPS):
        step(rng, world, kinds=kinds, begin=others)
    world.handle()
    return world


def every_lane(self: Resting, now_s: float, *, edges: bool) -> Iterator[tuple[ModelQueues, bool]]:
    assert now_s >= 0.0
    yield from [(queues, edges) for queues in self.lanes.all]


@pytest.mark.parametrize("seed", SEEDS)
def test_to_look_at_every_lane_in_each_call_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = played(seed)
    monkeypatch.setattr(Resting, "awake", every_lane)
    monkeypatch.setattr(Resting, "settle", lambda *_, **__: None)
    engine, commands = Engine(world.begin), list[Command]()
    for number, ((messages, now_s), wakeup_s) in enumerate(zip(world.script, world.wakeups_s, strict=True)):
        commands += engine.handle(messages, now_s)
        assert commands == world.commands[: len(commands)], f"call {number} at {now_s} s"
        assert engine.next_wakeup_s() == wakeup_s, f"call {number} at {now_s} s"
    assert len(commands) == len(world.commands)


def test_halves_of_a_refused_batch_wake_their_lane() -> None:
    """Those that wait for the other half are refused at their deadline, not when all else has given them up."""
    engine = Engine(EngineSettings(NO_FUNCTIONS))
    (batch,) = sent(engine.handle([RequestArrived(Request(i, "m0", 0.0, 0.5)) for i in (1, 2, 3, 4)], 0.0))
    (half,) = sent(fail(engine, batch, 0.1, FailureKind.REJECTED))
    assert half.request_ids == (1, 2)
    while (wakeup_s := engine.next_wakeup_s()) is not None and wakeup_s < 0.5:
        assert engine.handle([], wakeup_s) == []
    assert wakeup_s == 0.5
    assert sorted(refused(engine.handle([], 0.5))) == [3, 4]


def test_what_a_lane_with_deferred_requests_sends_is_not_counted_among_what_waits_there_next() -> None:
    """Its next batch grows anew, and puts off a less urgent lane that was looked at just after the send."""

    def arrivals(model: str, at_s: float, deadline_s: float, *ids: int, name: str = "default") -> list[RequestArrived]:
        return [RequestArrived(Request(i, model, at_s, deadline_s, class_name=name)) for i in ids]

    engine = Engine(EngineSettings(NO_FUNCTIONS))
    (first,) = sent(engine.handle(arrivals("m2", 0.0, 1.0, 1), 0.0))
    deferred = arrivals("m1", 0.01, 3.9, 12, name="patient")
    engine.handle([*arrivals("m1", 0.01, 0.4, *range(2, 12)), *deferred], 0.01)
    back = BatchFinished(first.batch_id, BatchReport(0.054, service_s=0.05))
    (batch,) = sent(engine.handle([back, *arrivals("m0", 0.054, 0.415, 50)], 0.054))
    assert batch.request_ids == tuple(range(2, 12))
    told = refused(engine.handle(arrivals("m1", 0.06, 0.41, *range(100, 114)), 0.06))
    assert engine._queues["m1"].next_batches[0].items == 12
    assert list(told) == [50]

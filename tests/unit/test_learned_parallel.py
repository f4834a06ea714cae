"""How many batches an edge serves at once is found out where nothing says it: slowly up, quickly down, remembered."""

from dataclasses import dataclass, field
from random import Random

import pytest
from support.engine_kit import ORIN, arrive, fail, finish, sent, settings

from scheduler.control import Control
from scheduler.dispatch.learned_parallel import MOST, USE_S, LearnedParallel, Parallel
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.memory import Memory, saved
from scheduler.domain.messages import BatchFinished, Message, ProbeMeasured, RequestArrived
from scheduler.domain.plans import EdgeSettings, EngineSettings
from scheduler.domain.requests import Backend, Place, Request
from scheduler.domain.service_times import service_times
from scheduler.engine import Engine


def unsaid(**more: object) -> EngineSettings:
    return settings(edges=(EdgeSettings(parallel=None),), changepoints=False, **more)  # type: ignore[arg-type]


def slots(engine: Engine) -> int:
    return engine.statistics().edges[0].parallel


@dataclass
class Server:
    """A server with some machines, which says its services or only answers, and always has more to do."""

    engine: Engine
    machines: int
    says_service: bool = True
    sigma: float = 0.0
    refuses: bool = False
    now_s: float = 0.0
    free_s: list[float] = field(default_factory=list)
    events: list[tuple[float, Message]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)
    _id: int = 0
    _random: Random = field(default_factory=lambda: Random(1))

    def run(self, until_s: float, rate_rps: float) -> None:
        step_s = 0.01
        while self.now_s < until_s:
            messages: list[Message] = [m for at_s, m in sorted(self.events, key=lambda e: e[0]) if at_s <= self.now_s]
            self.events = [e for e in self.events if e[0] > self.now_s]
            for _ in range(round(rate_rps * step_s)):
                self._id += 1
                messages.append(RequestArrived(Request(self._id, "m", self.now_s, self.now_s + 2.0, items=8)))
            for batch in sent(self.engine.handle(messages, self.now_s)):
                self._take(batch)
            self.seen.append(slots(self.engine))
            self.now_s += step_s

    def _take(self, batch: Batch) -> None:
        if batch.backend is Backend.FUNCTION:
            return
        self.free_s = [at_s for at_s in self.free_s if at_s > self.now_s]
        service_s = ORIN.predict_s(batch.items) * self._random.lognormvariate(0.0, self.sigma)
        busy = sorted(self.free_s)
        start_s = self.now_s if len(busy) < self.machines else busy[len(busy) - self.machines]
        self.free_s.append(start_s + service_s)
        elapsed_s = start_s + service_s - self.now_s
        report = BatchReport(elapsed_s, service_s=service_s if self.says_service else None)
        self.events.append((start_s + service_s, BatchFinished(batch.batch_id, report)))


TABLE = service_times([0.1], margin=1.0)


def answered_batch(now_s: float) -> Batch:
    return Batch(1, Place.edge(), "m", (1,), 1, 0, now_s - 0.1, 9.0, 9.0, now_s, 0.1)


@pytest.mark.parametrize(("says_service", "sigma"), [(True, 0.1), (False, 0.0)])
def test_a_server_with_three_machines_is_given_three_batches_at_once(says_service: bool, sigma: float) -> None:
    engine = Engine(unsaid(function=False, slo_s=2.0))
    server = Server(engine, 3, says_service=says_service, sigma=sigma)
    server.run(50.0, 100.0)
    assert server.seen[0] == 1
    assert max(server.seen) <= 4
    late = server.seen[len(server.seen) // 2 :]
    assert late.count(3) / len(late) > 0.6


def test_what_is_not_used_is_not_raised() -> None:
    engine = Engine(unsaid(function=False, slo_s=2.0))
    server = Server(engine, 3)
    server.run(20.0, 0.0)
    assert set(server.seen) == {1}


def test_a_server_that_says_it_is_believed_at_once() -> None:
    engine = Engine(unsaid())
    arrive(engine, 0.0, 1)
    arrive(engine, 0.001, 2)
    batches = sent(engine.handle([ProbeMeasured(Place.edge(), ok=True, parallel=4)], 0.01))
    assert [batch.request_ids for batch in batches] == [(2,)]
    assert slots(engine) == 4
    engine.handle([ProbeMeasured(Place.edge(), ok=True, parallel=1)], 0.02)
    assert slots(engine) == 1


def test_what_the_configuration_says_holds_whatever_the_server_says() -> None:
    engine = Engine(settings(edges=(EdgeSettings(parallel=2),)))
    arrive(engine, 0.0, 1)
    engine.handle([ProbeMeasured(Place.edge(), ok=True, parallel=4)], 0.01)
    assert slots(engine) == 2


def test_a_batch_that_is_refused_as_too_many_halves_them() -> None:
    engine = Engine(unsaid(slo_s=5.0))
    known = engine._edges.learned.of("main")
    known.slots = 4
    engine._edges.configure(engine._edges.settings)
    batches = [sent(arrive(engine, 0.001 * i, i, slo_s=5.0))[0] for i in range(1, 5)]
    assert slots(engine) == 4
    fail(engine, batches[3], 0.02, FailureKind.THROTTLED)
    assert slots(engine) == 2
    assert known.too_many == 4
    # What was sent with it says nothing of the two.
    fail(engine, batches[2], 0.03, FailureKind.THROTTLED)
    assert slots(engine) == 2
    finish(engine, batches[0], 0.06)


def test_the_number_that_was_too_many_is_tried_less_and_less_often() -> None:
    known, now_s, tries = Parallel(slots=1), 0.0, []
    while now_s < 400.0:
        before = known.slots
        now_s += 0.1
        known.answered(answered_batch(now_s), TABLE, needed=True, now_s=now_s)
        if known.slots > before == 2:
            tries.append(now_s)
            known.refused(now_s)
    gaps = [b - a for a, b in zip(tries, tries[1:], strict=False)]
    assert gaps[0] > USE_S
    assert all(later > 1.5 * sooner for sooner, later in zip(gaps, gaps[1:], strict=False))


def test_it_never_exceeds_what_is_allowed() -> None:
    known, now_s = Parallel(slots=MOST - 1), 0.0
    for _ in range(500):
        now_s += 0.1
        known.answered(answered_batch(now_s), TABLE, needed=True, now_s=now_s)
    assert known.slots == MOST


def test_the_next_process_begins_with_what_was_found_out() -> None:
    engine = Engine(unsaid(function=False, slo_s=2.0))
    server = Server(engine, 2)
    server.run(15.0, 100.0)
    assert slots(engine) == 2
    memory = Memory({part.name: part for part in saved([engine._edges.learned.remembered()], 15.0)}, 0.0)
    again = Engine(unsaid(function=False, slo_s=2.0), Control(unsaid(function=False, slo_s=2.0), memory=memory))
    arrive(again, 0.0, 1)
    assert slots(again) == 2
    assert len(again._queues["m"].next_batches) == 2


@pytest.mark.parametrize("row", [{"slots": 0}, {"slots": 2, "too_many": 1}, {"slots": 2, "pause_s": -1.0}])
def test_what_is_no_number_of_batches_is_not_taken_up(row: dict[str, float]) -> None:
    learned = LearnedParallel()
    with pytest.raises((KeyError, ValueError, TypeError)):
        learned.remembered().restore({"edges": [{"edge": "main", "too_many": 3, "pause_s": 10.0, **row}]}, 0.0, 0.0)
    assert learned.known == {}

"""Batches whose content was refused are halved until the culprit is alone, whatever else is true of their requests."""

from support.engine_kit import answered, arrive, fail, finish, refused, sent, settings

from scheduler.domain.batches import Batch, FailureKind
from scheduler.domain.messages import Command
from scheduler.domain.plans import EngineSettings
from scheduler.engine import Engine

BAD = 3
"""The request that every server refuses."""


def play(engine: Engine, waiting: list[Batch], now_s: float) -> tuple[list[Command], int]:
    """Refuses each batch that holds the bad request, answers all others; returns commands and how many were sent."""
    done: list[Command] = []
    number = 0
    while waiting:
        batch, number = waiting.pop(0), number + 1
        now_s += 0.001
        bad = BAD in batch.request_ids
        new = fail(engine, batch, now_s, FailureKind.REJECTED) if bad else finish(engine, batch, now_s)
        done += new
        waiting += sent(new)
        assert number < 20, f"{number} batches for four requests"
    return done, number


def late_on_the_edge(engine_settings: EngineSettings) -> tuple[Engine, Batch]:
    """Returns an engine whose edge is busy until the deadlines of four requests that wait are over."""
    engine = Engine(engine_settings)
    [first] = sent(arrive(engine, 0.0, 0))
    arrive(engine, 0.01, 1, 2, BAD, 4)
    while (wakeup_s := engine.next_wakeup_s()) is not None and wakeup_s < 1.5:
        engine.handle([], wakeup_s)
    return engine, first


def test_requests_that_a_cap_makes_late_stay_in_their_halves() -> None:
    capped = settings(spend_per_hour=1e-9, over_cap="serve-late")
    engine, first = late_on_the_edge(capped)
    done, number = play(engine, sent(finish(engine, first, 2.0)), 2.0)
    assert sorted(answered(done)) == [1, 2, 4]
    assert list(refused(done)) == [BAD]
    assert number == 5  # all, two halves, and the two of one of them

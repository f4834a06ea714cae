"""To ask the engine when it wants to be called again changes nothing: a shell may ask often or never."""

import numpy as np
import pytest
from support.engine_world import SETTINGS, Mood, World

from scheduler.domain.batches import FailureKind
from scheduler.domain.requests import Backend
from scheduler.engine import Engine

MOODS = (Mood(), Mood(), Mood(pace=3.0), Mood(pace=0.3), Mood(hangs=True), Mood(FailureKind.BROKEN))


@pytest.mark.parametrize("seed", range(18, 26))
def test_asking_for_the_next_wakeup_changes_no_command(seed: int) -> None:
    random = np.random.default_rng(seed)
    settings = SETTINGS[int(random.integers(len(SETTINGS)))]
    world = World(settings)
    for _ in range(60):
        world.treat(Backend(random.choice(["edge", "function"])), MOODS[int(random.integers(len(MOODS)))])
        for _ in range(int(random.integers(4))):
            items, slo_s = int(random.choice([1, 1, 3])), float(random.choice([0.5, 1.0, 4.0]))
            world.arrive(1, int(random.integers(3)), int(random.integers(5)), items, slo_s)
        world.advance(float(random.exponential(0.1)))
    never, often = Engine(settings), Engine(settings)
    unasked = [command for messages, now_s in world.script for command in never.handle(messages, now_s)]
    asked = []
    for messages, now_s in world.script:
        for _ in range(int(random.integers(4))):
            often.next_wakeup_s()
        asked += often.handle(messages, now_s)
    assert repr(unasked) == repr(world.commands)
    assert repr(asked) == repr(world.commands)

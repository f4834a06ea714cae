"""Every engine that a test of this folder runs is replayed: its choices must follow from its records alone."""

import json
from collections.abc import Iterator

import pytest

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.explain.json_lines import to_json
from scripts.support.replay_records import Replay

UNDER_WAY = 4
"""Engines that may run at one time; the records of earlier ones are replayed and dropped."""


class Replays:
    """The rings of the engines that were made, and what was found in their records."""

    def __init__(self) -> None:
        """Starts without any."""
        self.replay = Replay()
        self._rings: list[DecisionRing] = []

    def ring(self, size: int) -> DecisionRing:
        """Returns a ring of that size, which will be replayed."""
        while len(self._rings) >= UNDER_WAY:
            self._add(self._rings.pop(0))
        self._rings.append(DecisionRing(size))
        return self._rings[-1]

    def finish(self) -> Replay:
        """Replays the rings that are left."""
        for ring in self._rings:
            self._add(ring)
        return self.replay

    def _add(self, ring: DecisionRing) -> None:
        found = (ring.explain(request_id) for request_id in list(ring._stories))
        self.replay.add(json.loads(to_json(explanation)) for explanation in found if explanation is not None)


@pytest.fixture(autouse=True)
def replays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Replays the last decisions (`explain_ring`) of each engine that the test has run."""
    replays = Replays()
    monkeypatch.setattr("scheduler.engine.DecisionRing", replays.ring)
    yield
    assert replays.finish().contradictions == []

"""The live engine, as the shadow hears and reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.beliefs import LearnedBeliefs
from scheduler.control import Control
from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.memory import Memory
from scheduler.domain.messages import Command, Message
from scheduler.domain.plans import EngineSettings
from scheduler.domain.statistics import EngineStatistics
from scheduler.engine import Engine
from scheduler.estimates import Estimates

Hear = Callable[[Sequence[Message], Sequence[Command], float], None]
"""Takes the messages of one call, the commands that came of it, and its time; never raises."""


class HeardEngine(Engine):
    """An engine each of whose calls is heard. Without a shadow the daemon has a plain one, which costs nothing."""

    def __init__(self, settings: EngineSettings, control: Control, ring: DecisionRing, hear: Hear) -> None:
        """Stores what hears it; see `Engine`."""
        super().__init__(settings, control, ring)
        self._hear = hear

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Does as `Engine.handle`; what was done is heard afterwards."""
        commands = super().handle(messages, now_s)
        if messages or commands:
            self._hear(messages, commands, now_s)
        return commands


LESSONS = 16
"""Answered batches from which the live engine knows the world well enough to simulate it. Judgement: two answers
outweigh a profile; a shadow that began before would meet a world that turns from the profile's into the real one."""


@dataclass(frozen=True, slots=True)
class Live:
    """What is read of the live engine; nothing in it is changed."""

    engine: Engine
    control: Control

    def statistics(self, now_s: float) -> EngineStatistics:
        """Returns its state at a time."""
        return self.engine.statistics(now_s)

    def estimates(self) -> Estimates:
        """Returns what it has learned."""
        beliefs = self.control.beliefs
        assert isinstance(beliefs, LearnedBeliefs)
        return beliefs.estimates

    def lessons(self) -> int:
        """Returns from how many answered batches it has learned."""
        return sum(known.lessons for known in self.estimates().models.values())

    def knows_the_world(self) -> bool:
        """Whether it has learned enough, in this process or in the one before."""
        return bool(self.control.recalled) or self.lessons() >= LESSONS

    def memory(self, now_s: float) -> Memory:
        """Returns what it knows, as the next process would get it."""
        return Memory({part.name: part for part in self.control.saved(now_s)})

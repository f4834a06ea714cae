"""A shell around an engine that runs beside another one: it hears what that hears, and simulated backends answer it.

Messages that are heard and outcomes that are simulated are one heap of events, as in `shell`. Each event reaches the
engine at its own time, however late the caller takes its steps: what happens does not depend on that.
"""

import heapq
import math
from collections.abc import Callable, Sequence
from itertools import count
from typing import Protocol

from scheduler.domain.batches import Batch
from scheduler.domain.messages import Command, ComputePlan, Message, RequestSpend, SendBatch, SendProbe, SpendGranted
from scheduler.domain.requests import Backend, Place
from scheduler.simulator.learned_laws import ShadowBackends
from scheduler.simulator.shell import EngineLike


class Listener(Protocol):
    """What is told of each call of an engine."""

    def hear(self, messages: Sequence[Message], commands: Sequence[Command], now_s: float) -> None:
        """Takes what the engine got and what it returned."""


class EngineBeside:
    """An engine beside the running one, with its events."""

    def __init__(
        self,
        engine: EngineLike,
        backends: ShadowBackends,
        *,
        make_plan: Callable[[ComputePlan], None],
        listener: Listener,
        now_s: float,
    ) -> None:
        """Stores its parts.

        Args:
            engine: decides; it has not been called yet.
            backends: answer its batches.
            make_plan: starts the planner, whose plan comes by `tell`.
            listener: is told of each call.
            now_s: the present.
        """
        self._engine = engine
        self._backends = backends
        self._make_plan = make_plan
        self._listener = listener
        self._now_s = now_s
        self._events: list[tuple[float, int, Message]] = []
        self._sequence = count()
        self._begun = False

    def tell(self, message: Message, at_s: float) -> None:
        """Has the engine get a message at a time, with all others of that time."""
        heapq.heappush(self._events, (at_s, next(self._sequence), message))

    def next_s(self) -> float:
        """Returns when the next step is due; inf: when something is told."""
        if not self._begun:
            return self._now_s
        wakeup_s = self._engine.next_wakeup_s()
        due_s = math.inf if wakeup_s is None else wakeup_s
        return min(due_s, self._events[0][0]) if self._events else due_s

    def step(self) -> None:
        """Calls the engine once, with everything of the moment that is due next."""
        now_s = self._now_s = max(self._now_s, self.next_s())
        self._begun = True
        messages, events = [], self._events
        while events and events[0][0] <= now_s:
            messages.append(heapq.heappop(events)[2])
        commands = self._engine.handle(messages, now_s)
        self._listener.hear(messages, commands, now_s)
        for command in commands:
            self._perform(command, now_s)

    def _perform(self, command: Command, now_s: float) -> None:
        match command:
            case SendBatch(batch):
                self._send(batch, now_s)
            case SendProbe(place):
                self._probe(place, now_s)
            case ComputePlan():
                self._make_plan(command)
            case RequestSpend(amount):
                # It has no ledger: whatever its own caps allow is granted, and nothing is spent.
                self.tell(SpendGranted(amount), now_s)

    def _send(self, batch: Batch, now_s: float) -> None:
        if batch.backend is Backend.EDGE:
            outcome = self._backends.edges.send(batch, now_s=now_s)
        else:
            outcome = self._backends.functions[batch.model].send(batch, now_s=now_s)
        self.tell(outcome.message, outcome.at_s)
        if outcome.bill is not None:
            at_s, bill = outcome.bill
            self.tell(bill, at_s)

    def _probe(self, place: Place, now_s: float) -> None:
        functions = next(iter(self._backends.functions.values()), None)
        if place.backend is Backend.EDGE:
            at_s, probed = self._backends.edges.probe(place, now_s=now_s)
        elif functions is not None:
            at_s, probed = functions.probe(now_s=now_s)
        else:
            return
        self.tell(probed, at_s)

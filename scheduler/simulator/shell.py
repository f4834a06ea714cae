"""The simulated world around the engine: the same messages as the daemon's, in virtual time.

Events are a heap of (time, sequence). All that happens at one moment goes to the engine in one call, as the daemon
hands over all that arrived in one iteration of its loop.

The world costs 5 to 15 us a request on one core of a server, most where batches are small; what remains is the
engine's or the policy's. Both grow linearly with the number of requests. A higher rate makes it cheaper, since batches
are larger; only the heap feels it, by the logarithm of the batches under way. Classes and models cost nothing here. A
fault window costs every batch a look, a bandwidth log only the steps that a transfer lasts.
"""

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from scheduler.domain.batches import Batch
from scheduler.domain.errors import EdgeburstError, Refusal
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    Command,
    ComputePlan,
    Message,
    PlanAdopted,
    PlanComputed,
    ProbeMeasured,
    RefuseRequest,
    RequestArrived,
    SendBatch,
    SendProbe,
)
from scheduler.domain.plans import Plan
from scheduler.domain.requests import Backend, Request
from scheduler.planner.site.plan import best_plan
from scheduler.simulator.backends import Outcome, SimulatedEdge, SimulatedFunctions

PLANNING_S = 0.005
"""What a plan costs in virtual time: the planner's own time, rounded up, so that no plan helps at once."""
TOLERANCE_S = 1e-9
"""An answer at the very deadline is in time, whatever binary fractions make of the sum."""
_MOST_IDLE_CALLS = 100_000


class SimulationError(EdgeburstError):
    """The engine broke a rule that the daemon relies on; a bug, told with the moment at which it shows."""


class EngineLike(Protocol):
    """What the shell needs of an engine."""

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes what happened, returns what to do."""

    def next_wakeup_s(self) -> float | None:
        """Returns when to call again even if nothing happens."""


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch and what became of it."""

    batch: Batch
    outcome: Outcome


@dataclass(slots=True)
class Journal:
    """All that happened, by request id and in order.

    `ended_at_s`, `answered_by` and `refusals` together hold every request once.
    """

    requests: Sequence[Request]
    ended_at_s: dict[int, float] = field(default_factory=dict)
    answered_by: dict[int, int] = field(default_factory=dict)
    """Request id -> batch id."""
    refusals: dict[int, Refusal] = field(default_factory=dict)
    batches: dict[int, SentBatch] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    """Every command with its time; kept only where a test asks for it."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What the policy says of itself in the report."""

    def cost(self) -> float:
        """Returns the money of all batches."""
        return math.fsum([sent.outcome.cost for sent in self.batches.values()])


class Simulation:
    """One run of an engine over given requests."""

    def __init__(
        self,
        *,
        engine: EngineLike,
        requests: Sequence[Request],
        edge: SimulatedEdge | None,
        functions: SimulatedFunctions | None,
        keep_commands: bool = False,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            engine: the daemon's, or one with its face.
            requests: by arrival time, ids counting up.
            edge: None: there is none, and a batch sent to it is a bug.
            functions: the same for functions.
            keep_commands: whether the journal keeps every command.
            facts: what the policy says of itself in the report.
        """
        self.journal = Journal(requests, facts=facts or {})
        self._engine = engine
        self._edge = edge
        self._functions = functions
        self._keep_commands = keep_commands
        self._events: list[tuple[float, int, Message]] = []
        self._sequence = count()
        self._next_request = 0

    def run(self) -> Journal:
        """Runs until every request has ended and every batch is back.

        Raises:
            SimulationError: a request ended twice or never, or the engine asked for the impossible.
        """
        now_s, idle_calls = 0.0, 0
        self._step(now_s)
        while not self._done():
            at_s = self._next_s()
            if at_s == math.inf:
                missing = len(self.journal.requests) - len(self.journal.ended_at_s)
                raise SimulationError(f"at {now_s:.6f} s the engine waits for nothing, but {missing} requests are open")
            idle_calls = idle_calls + 1 if at_s <= now_s else 0
            if idle_calls > _MOST_IDLE_CALLS:
                raise SimulationError(f"the engine wants to be called at {now_s:.6f} s again and again")
            now_s = max(now_s, at_s)
            self._step(now_s)
        return self.journal

    def _done(self) -> bool:
        return len(self.journal.ended_at_s) == len(self.journal.requests) and not any(
            isinstance(message, (BatchFinished, BatchFailed)) for _, _, message in self._events
        )

    def _next_s(self) -> float:
        wakeup_s = self._engine.next_wakeup_s()
        at_s = math.inf if wakeup_s is None else wakeup_s
        if self._events and self._events[0][0] < at_s:
            at_s = self._events[0][0]
        requests, i = self.journal.requests, self._next_request
        if i < len(requests) and requests[i].arrived_at_s < at_s:
            at_s = requests[i].arrived_at_s
        return at_s

    def _step(self, now_s: float) -> None:
        messages: list[Message] = []
        events = self._events
        while events and events[0][0] <= now_s:
            messages.append(heapq.heappop(events)[2])
        requests, i = self.journal.requests, self._next_request
        while i < len(requests) and requests[i].arrived_at_s <= now_s:
            messages.append(RequestArrived(requests[i]))
            i += 1
        self._next_request = i
        for command in self._engine.handle(messages, now_s):
            if self._keep_commands:
                self.journal.commands.append((now_s, command))
            self._perform(command, now_s)

    def _later(self, at_s: float, message: Message) -> None:
        heapq.heappush(self._events, (at_s, next(self._sequence), message))

    def _perform(self, command: Command, now_s: float) -> None:
        # The most frequent commands come first: a match tries its cases in order.
        match command:
            case AnswerRequest(request_id, batch_id):
                self._end(request_id, now_s)
                self.journal.answered_by[request_id] = batch_id
            case SendBatch(batch):
                self._send_batch(batch, now_s)
            case RefuseRequest(request_id, refusal):
                self._end(request_id, now_s)
                self.journal.refusals[request_id] = refusal
            case ComputePlan(snapshot, plan_id, cause, detail):
                plan = best_plan(snapshot, plan_id=plan_id, cause=cause, detail=detail)
                self._later(now_s + PLANNING_S, PlanComputed(plan))
            case SendProbe(backend):
                self._send_probe(backend, now_s)
            case PlanAdopted(plan):
                self.journal.plans.append(plan)

    def _send_batch(self, batch: Batch, now_s: float) -> None:
        backend = self._edge if batch.backend is Backend.EDGE else self._functions
        if backend is None:
            raise SimulationError(f"at {now_s:.6f} s a batch was sent to the {batch.backend.value}, but there is none")
        outcome = backend.send(batch, now_s=now_s)
        self.journal.batches[batch.batch_id] = SentBatch(batch, outcome)
        self._later(outcome.at_s, outcome.message)
        if outcome.bill is not None:
            self._later(*outcome.bill)

    def _send_probe(self, backend: Backend, now_s: float) -> None:
        probed = self._edge if backend is Backend.EDGE else self._functions
        if probed is None:
            self._later(now_s, ProbeMeasured(backend, ok=False))
        else:
            self._later(*probed.probe(now_s=now_s))

    def _end(self, request_id: int, now_s: float) -> None:
        if request_id in self.journal.ended_at_s:
            raise SimulationError(f"at {now_s:.6f} s request {request_id} ends a second time")
        self.journal.ended_at_s[request_id] = now_s

"""The virtual shell: gives the engine the messages that the daemon would give it, in virtual time.

Events are a heap ordered by (time, sequence). All events of one moment reach the engine in one call, as the daemon
passes on everything that arrived in one iteration of its event loop.

The simulated backends and the event heap take 5 to 15 us a request on one core of a server, the more the smaller the
batches are; the rest is the time of the engine or the policy. Both grow linearly with the number of requests. A higher
rate costs less a request, since batches are larger. Classes and models cost nothing here. Each fault costs every batch
one comparison, and a bandwidth log costs a transfer only the steps that it lasts.
"""

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
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
    RequestCancelled,
    RequestSpend,
    SendBatch,
    SendProbe,
    SpendGranted,
)
from scheduler.domain.plans import Plan
from scheduler.domain.requests import Backend, Place, Request
from scheduler.planner.site.plan import best_plan
from scheduler.simulator.backends import Outcome, SimulatedEdge, SimulatedEdges
from scheduler.simulator.clients import Clients

PLANNING_S = 0.005
"""Virtual seconds from the request for a plan to its arrival: the planner's own time, rounded up."""
TOLERANCE_S = 1e-9
"""An answer exactly at the deadline is in time, despite rounding errors of this order."""
_MAX_IDLE_CALLS = 100_000
_MOMENTS_A_LOOK = 256
"""Moments between two questions whether to go on: some milliseconds."""


class Functions(Protocol):
    """The functions as a simulation calls them: `SimulatedFunctions`, or several."""

    def send(self, batch: Batch, *, now_s: float) -> Outcome:
        """Returns the outcome of a batch sent at `now_s`."""
        ...

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns the time at which a probe ends, and its result."""
        ...


class SimulationError(EdgeburstError):
    """Error: the engine broke a rule that the daemon relies on. It is a bug; the message says when it appeared."""


class EngineLike(Protocol):
    """Interface of an engine or a policy, as the shell needs it."""

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes the messages of one moment and returns the commands to perform."""

    def next_wakeup_s(self) -> float | None:
        """Returns the time of the next call if no message arrives earlier; None for never."""


@dataclass(frozen=True, slots=True)
class SentBatch:
    """Batch with its outcome."""

    batch: Batch
    outcome: Outcome


@dataclass(slots=True)
class Journal:
    """Record of a run, by request id and by batch id.

    Each request has one entry in `ended_at_s`, and one in `answered_by`, `refusals` or `cancelled`.
    """

    requests: Sequence[Request]
    ended_at_s: dict[int, float] = field(default_factory=dict)
    answered_by: dict[int, int] = field(default_factory=dict)
    """The id of the batch that answered, by request id."""
    refusals: dict[int, Refusal] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)
    """Requests whose clients gave up before they had an answer."""
    batches: dict[int, SentBatch] = field(default_factory=dict)
    plans: list[Plan] = field(default_factory=list)
    commands: list[tuple[float, Command]] = field(default_factory=list)
    """Every command with its time; empty unless the simulation keeps commands."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """Entries that the policy adds to the report."""

    def cost(self) -> float:
        """Returns the cost of all batches, in the currency of the prices."""
        return math.fsum([sent.outcome.cost for sent in self.batches.values()])


class Simulation:
    """One run of an engine or a policy over given requests."""

    def __init__(
        self,
        *,
        engine: EngineLike,
        requests: Sequence[Request],
        edge: SimulatedEdge | SimulatedEdges | None,
        functions: Functions | None,
        keep_commands: bool = False,
        facts: Mapping[str, object] | None = None,
        clients: Clients | None = None,
        give_ups: Sequence[tuple[float, int]] = (),
    ) -> None:
        """Stores its parts.

        Args:
            engine: the daemon's engine, or a policy with the same interface.
            requests: sorted by arrival time, with ascending ids.
            edge: the edge, or all edge servers; None without any, and a batch sent to one is then an error.
            functions: the functions; None without any, likewise.
            keep_commands: whether the journal keeps every command.
            facts: entries that the policy adds to the report.
            clients: a closed loop beside these requests; None for none. Its requests have ids after all of them.
            give_ups: when clients give up, and which request, in any order.
        """
        self._arriving, self._clients = requests, clients
        self._of_clients: list[Request] = [] if clients is None else [*requests]
        """All requests so far, where there are clients."""
        self.journal = Journal(requests if clients is None else self._of_clients, facts=facts or {})
        self._engine = engine
        self._edge = edge
        self._functions = functions
        self._keep_commands = keep_commands
        self._events: list[tuple[float, int, Message]] = []
        self._sequence = count()
        self._next_request = 0
        for at_s, request_id in give_ups:
            self._later(at_s, RequestCancelled(request_id))

    def run(self, goes_on: Callable[[Journal, float], bool] | None = None) -> Journal:
        """Runs until every request has ended and every batch has an outcome.

        Args:
            goes_on: is asked now and then with the journal and the virtual time; the run ends there if it says no.

        Raises:
            SimulationError: a request ended twice or never, or a batch was sent to a backend that does not exist.
        """
        now_s, idle_calls = 0.0, 0
        for request in [] if self._clients is None else self._clients.begin():
            self._follows(request)
        self._step(now_s)
        ended, requests, moments = self.journal.ended_at_s, self.journal.requests, 0
        while len(ended) < len(requests) or not self._done():
            at_s = self._next_s()
            if at_s == math.inf:
                missing = len(self.journal.requests) - len(self.journal.ended_at_s)
                raise SimulationError(
                    f"at {now_s:.6f} s the engine waits for nothing, but {missing} requests have not ended"
                )
            idle_calls = idle_calls + 1 if at_s <= now_s else 0
            if idle_calls > _MAX_IDLE_CALLS:
                raise SimulationError(f"the engine asks to be called at {now_s:.6f} s without end")
            now_s = max(now_s, at_s)
            self._step(now_s)
            moments += 1
            if goes_on is not None and not moments % _MOMENTS_A_LOOK and not goes_on(self.journal, now_s):
                break
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
        requests, i = self._arriving, self._next_request
        if i < len(requests) and requests[i].arrived_at_s < at_s:
            at_s = requests[i].arrived_at_s
        return at_s

    def _step(self, now_s: float) -> None:
        messages: list[Message] = []
        events = self._events
        while events and events[0][0] <= now_s:
            message = heapq.heappop(events)[2]
            if isinstance(message, RequestCancelled) and not self._gives_up(message.request_id, now_s):
                continue
            messages.append(message)
        requests, i = self._arriving, self._next_request
        while i < len(requests) and requests[i].arrived_at_s <= now_s:
            messages.append(RequestArrived(requests[i]))
            i += 1
        self._next_request = i
        commands, answered_by = self._engine.handle(messages, now_s), self.journal.answered_by
        if self._keep_commands:
            self.journal.commands += [(now_s, command) for command in commands]
        for command in commands:
            if isinstance(command, AnswerRequest):  # the most frequent one
                if command.request_id in self.journal.cancelled:
                    continue
                self._end(command.request_id, now_s)
                answered_by[command.request_id] = command.batch_id
            else:
                self._perform(command, now_s)

    def _gives_up(self, request_id: int, now_s: float) -> bool:
        """Ends a request whose client gives up; returns whether it had not ended yet."""
        if request_id in self.journal.ended_at_s:
            return False
        self.journal.cancelled.add(request_id)
        self._end(request_id, now_s)
        return True

    def _later(self, at_s: float, message: Message) -> None:
        heapq.heappush(self._events, (at_s, next(self._sequence), message))

    def _perform(self, command: Command, now_s: float) -> None:
        match command:
            case SendBatch(batch):
                self._send_batch(batch, now_s)
            case RefuseRequest(request_id, refusal) if request_id not in self.journal.cancelled:
                self._end(request_id, now_s)
                self.journal.refusals[request_id] = refusal
            case ComputePlan(snapshot, plan_id, cause, detail):
                plan = best_plan(snapshot, plan_id=plan_id, cause=cause, detail=detail)
                self._later(now_s + PLANNING_S, PlanComputed(plan))
            case SendProbe(place):
                self._send_probe(place, now_s)
            case PlanAdopted(plan):
                self.journal.plans.append(plan)
            case RequestSpend(amount):
                # The ledger of a simulation gives whatever the engine's own caps allow.
                self._later(now_s, SpendGranted(amount))

    def _send_batch(self, batch: Batch, now_s: float) -> None:
        backend = self._edge if batch.backend is Backend.EDGE else self._functions
        if backend is None:
            raise SimulationError(f"at {now_s:.6f} s a batch was sent to the {batch.backend.value}, but there is none")
        try:
            outcome = backend.send(batch, now_s=now_s)
        except KeyError as error:
            raise SimulationError(f"at {now_s:.6f} s a batch was sent to {batch.place}, which lacks {error}") from error
        self.journal.batches[batch.batch_id] = SentBatch(batch, outcome)
        self._later(outcome.at_s, outcome.message)
        if outcome.bill is not None:
            self._later(*outcome.bill)

    def _send_probe(self, place: Place, now_s: float) -> None:
        probed = self._edge if place.backend is Backend.EDGE else self._functions
        if probed is None:
            self._later(now_s, ProbeMeasured(place, ok=False))
        elif isinstance(probed, SimulatedEdges):
            self._later(*probed.probe(place, now_s=now_s))
        else:
            self._later(*probed.probe(now_s=now_s))

    def _end(self, request_id: int, now_s: float) -> None:
        if request_id in self.journal.ended_at_s:
            raise SimulationError(f"at {now_s:.6f} s request {request_id} ends a second time")
        self.journal.ended_at_s[request_id] = now_s
        if self._clients is not None:
            self._follows(self._clients.after(request_id, now_s))

    def _follows(self, request: Request | None) -> None:
        """Notes the next request of a client."""
        if request is not None:
            self._of_clients.append(request)
            self._later(request.arrived_at_s, RequestArrived(request))

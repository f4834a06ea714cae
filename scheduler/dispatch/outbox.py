"""Turns waiting requests into a batch in flight, and keeps the batches in flight and the commands of this call."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.dispatch.queue import Admission, QueuedRequest
from scheduler.domain.batches import Batch, WhyLeft
from scheduler.domain.messages import Command, SendBatch
from scheduler.domain.requests import EDGE_NAME, Attempt, Backend, Place


@dataclass(frozen=True, slots=True)
class InFlightBatch:
    """A batch in flight with its requests, in the batch's order."""

    batch: Batch
    members: tuple[QueuedRequest, ...]


class Sending(NamedTuple):
    """Where and on what terms a batch leaves."""

    place: Place
    now_s: float
    finish_s: float
    """Expected (median) time of the answer."""
    service_s: float
    """Expected (median) service."""
    give_up_at_s: float
    expected_cost: float = 0.0
    size_factor: float = 1.0
    why_left: WhyLeft | None = None
    cold_risk: float = 0.0
    start_s: float = 0.0
    """Expected (median) seconds of a cold start."""
    init_s: float = 0.0
    """Those of them that are billed."""
    others_s: float = 0.0
    """Of the expected service, the wait behind other daemons' batches."""


@dataclass(slots=True)
class Outbox:
    """Owns batch ids, batches in flight and the commands of this call."""

    admission: Admission
    ring: DecisionRing
    next_batch_id: int = 1
    warming_calls: int = 0
    """Warming calls sent since the start."""
    in_flight: dict[int, InFlightBatch] = field(default_factory=dict)
    _commands: list[Command] = field(default_factory=list)

    def send(self, members: Sequence[QueuedRequest], sending: Sending) -> Batch:
        """Sends `members` (not empty, of one model) together."""
        first, last, items, body_bytes, largest, fresh = members[0].request, math.inf, 0, 0, 0.0, 0
        for queued in members:
            request = queued.request
            of_request, request_bytes = request.items, request.body_bytes
            items += of_request
            body_bytes += request_bytes
            if request.deadline_s < last:
                last = request.deadline_s
            if request_bytes / of_request > largest:
                largest = request_bytes / of_request
            fresh += queued.copies == 0
        batch = Batch(
            batch_id=self.next_batch_id,
            place=sending.place,
            model=first.model,
            request_ids=tuple([q.request.request_id for q in members]),
            items=items,
            body_bytes=body_bytes,
            sent_at_s=sending.now_s,
            deadline_s=last,
            give_up_at_s=sending.give_up_at_s,
            predicted_finish_s=sending.finish_s,
            predicted_service_s=sending.service_s,
            expected_cost=sending.expected_cost,
            largest_item_bytes=largest,
            size_factor=sending.size_factor,
            reasons=tuple([q.reason for q in members]),
            why_left=sending.why_left,
            hedge=not fresh,
            cold_risk=sending.cold_risk,
            predicted_start_s=sending.start_s,
            predicted_init_s=sending.init_s,
            predicted_others_s=sending.others_s,
        )
        place = sending.place
        edge = place.name if place.backend is Backend.EDGE else EDGE_NAME
        attempt = Attempt(place.backend, batch.batch_id, sending.now_s, edge)
        self.admission.requests -= fresh
        for queued in members:
            queued.send(attempt)
        self._leave(batch, tuple(members))
        return batch

    def send_warming(self, model: str, sending: Sending) -> Batch:
        """Sends a call without requests, which keeps an instance of a tier warm."""
        batch = Batch(
            batch_id=self.next_batch_id,
            place=sending.place,
            model=model,
            request_ids=(),
            items=0,
            body_bytes=0,
            sent_at_s=sending.now_s,
            deadline_s=float("inf"),
            give_up_at_s=sending.give_up_at_s,
            predicted_finish_s=sending.finish_s,
            predicted_service_s=0.0,
            expected_cost=sending.expected_cost,
            why_left=sending.why_left,
            cold_risk=sending.cold_risk,
            predicted_start_s=sending.start_s,
            predicted_init_s=sending.init_s,
        )
        self._leave(batch, ())
        self.warming_calls += 1
        return batch

    def _leave(self, batch: Batch, members: tuple[QueuedRequest, ...]) -> None:
        self.next_batch_id += 1
        self.in_flight[batch.batch_id] = InFlightBatch(batch, members)
        self.ring.sent(batch)
        self._commands.append(SendBatch(batch))

    def take_back(self, batch_id: int) -> InFlightBatch:
        """Removes a batch that is back from those in flight; KeyError if it is not there."""
        sent = self.in_flight.pop(batch_id)
        for queued in sent.members:
            queued.come_back()
        return sent

    def open_since_s(self) -> float:
        """Returns when the oldest function batch in flight was sent; inf if there is none."""
        # Batches are kept in the order of their sends.
        for sent in self.in_flight.values():
            if sent.batch.backend is Backend.FUNCTION:
                return sent.batch.sent_at_s
        return float("inf")

    def figures(self) -> dict[str, Any]:
        """Returns what is in flight, as fields of EngineStatistics."""
        sent = self.in_flight.values()
        return {
            "requests_in_flight": sum(len(s.members) for s in sent),
            "edge_batches_in_flight": sum(s.batch.backend is Backend.EDGE for s in sent),
            "function_batches_in_flight": sum(s.batch.backend is Backend.FUNCTION for s in sent),
            "warming_calls": self.warming_calls,
        }

    def command(self, command: Command) -> None:
        """Adds a command of this call."""
        self._commands.append(command)

    def take_commands(self) -> list[Command]:
        """Returns the commands since the last call."""
        commands, self._commands = self._commands, []
        return commands


def unanswered(sent: InFlightBatch) -> list[QueuedRequest]:
    """Returns the members of a batch that is back which no other batch carries and whose clients still wait."""
    return [queued for queued in sent.members if queued.open]

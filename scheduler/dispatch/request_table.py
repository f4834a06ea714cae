"""Turns waiting requests into a batch in flight, and keeps track of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.dispatch.queue import Admission, Place, QueuedRequest
from scheduler.domain.batches import Batch
from scheduler.domain.errors import Refusal
from scheduler.domain.messages import Command, RefuseRequest, SendBatch
from scheduler.domain.requests import Attempt, Backend


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch in flight with the requests in it, in the batch's order."""

    batch: Batch
    members: tuple[QueuedRequest, ...]


@dataclass(slots=True)
class Sender:
    """Owns batch ids, batches in flight, the requests not yet answered and the commands of this call."""

    admission: Admission
    ring: DecisionRing
    now_s: float = 0.0
    """Time of the present call."""
    next_batch_id: int = 1
    in_flight: dict[int, Sent] = field(default_factory=dict)
    requests: dict[int, QueuedRequest] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)

    def send(
        self,
        members: Sequence[QueuedRequest],
        *,
        backend: Backend,
        now_s: float,
        finish_s: float,
        service_s: float,
        give_up_at_s: float,
        expected_cost: float = 0.0,
        tier: str = "",
        size_factor: float = 1.0,
    ) -> Batch:
        """Sends `members` (not empty, one model) together."""
        batch = Batch(
            batch_id=self.next_batch_id,
            backend=backend,
            model=members[0].request.model,
            request_ids=tuple(q.request.request_id for q in members),
            items=sum(q.request.items for q in members),
            body_bytes=sum(q.request.body_bytes for q in members),
            sent_at_s=now_s,
            deadline_s=min(q.request.deadline_s for q in members),
            give_up_at_s=give_up_at_s,
            predicted_finish_s=finish_s,
            predicted_service_s=service_s,
            expected_cost=expected_cost,
            tier=tier,
            largest_item_bytes=max(q.request.body_bytes / q.request.items for q in members),
            size_factor=size_factor,
        )
        self.next_batch_id += 1
        attempt = Attempt(backend, batch.batch_id, now_s)
        for queued in members:
            if any(earlier.backend is not backend for earlier in queued.request.attempts):
                # It has changed sides, whatever for: it does so once.
                queued.failed_on = backend.other
            queued.request = queued.request.sent_with(attempt)
            if queued.copies == 0:
                queued.place = Place.IN_FLIGHT
                self.admission.requests -= 1
            queued.copies += 1
        self._leave(batch, members)
        return batch

    def send_warming(
        self, *, model: str, tier: str, now_s: float, finish_s: float, give_up_at_s: float, cost: float
    ) -> Batch:
        """Sends a call without requests, which keeps an instance of a tier warm or starts one."""
        batch = Batch(
            batch_id=self.next_batch_id,
            backend=Backend.FUNCTION,
            model=model,
            request_ids=(),
            items=0,
            body_bytes=0,
            sent_at_s=now_s,
            deadline_s=float("inf"),
            give_up_at_s=give_up_at_s,
            predicted_finish_s=finish_s,
            predicted_service_s=0.0,
            expected_cost=cost,
            tier=tier,
        )
        self.next_batch_id += 1
        self._leave(batch, ())
        return batch

    def _leave(self, batch: Batch, members: Sequence[QueuedRequest]) -> None:
        self.in_flight[batch.batch_id] = Sent(batch, tuple(members))
        self.ring.sent(batch)
        self.commands.append(SendBatch(batch))

    def open_since_s(self) -> float:
        """Returns when the oldest function batch in flight was sent; inf if there is none."""
        # Batches are kept in the order of their sends.
        for sent in self.in_flight.values():
            if sent.batch.backend is Backend.FUNCTION:
                return sent.batch.sent_at_s
        return float("inf")

    def take_back(self, batch_id: int) -> Sent:
        """Removes a batch from those in flight; KeyError if it is not there."""
        return self.in_flight.pop(batch_id)

    def requeue(self, queued: QueuedRequest) -> None:
        """Counts a request that came back unanswered as waiting again."""
        queued.place = Place.GONE
        self.admission.requests += 1

    def refuse(self, queued: QueuedRequest, refusal: Refusal) -> None:
        """Ends a waiting request without an answer."""
        self.admission.requests -= 1
        self.close(queued, refusal.kind.value)
        self.commands.append(RefuseRequest(queued.request.request_id, refusal))

    def close(self, queued: QueuedRequest, outcome: str) -> None:
        """Forgets a request that has come to its end, as `DecisionRing.ended` words it."""
        queued.place = Place.GONE
        self.ring.ended(queued.request.request_id, self.now_s, outcome)
        self.admission.body_bytes -= queued.request.body_bytes
        del self.requests[queued.request.request_id]

    def take_commands(self) -> list[Command]:
        """Returns the commands since the last call."""
        commands, self.commands = self.commands, []
        return commands

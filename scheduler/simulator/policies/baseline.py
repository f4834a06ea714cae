"""Base class of the policies: translates messages into method calls, collects commands, tracks batches in flight.

None of the sources says what happens to a batch that fails; here its requests are refused and not sent again. Each
simulated request is one item.
"""

import math
from collections.abc import Sequence

from scheduler.domain.batches import Batch
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import (
    AnswerRequest,
    BatchFailed,
    BatchFinished,
    Command,
    Message,
    RefuseRequest,
    RequestArrived,
    SendBatch,
)
from scheduler.domain.requests import Backend, Place, Request
from scheduler.simulator.policies.site import Site

GIVE_UP_S = 30.0
"""Seconds after its deadline at which a batch without an answer times out: a common timeout of HTTP clients."""


class Baseline:
    """Base class of a policy; a policy overrides `arrived`, `returned`, `decide` and `next_wakeup_s`."""

    def __init__(self, site: Site) -> None:
        """Stores the site; no batch is in flight."""
        self.site = site
        self.edge_batches = 0
        """Batches in flight to the edge."""
        self.edge_free_at_s = 0.0
        """Time at which the edge finishes what it was sent, as predicted; in the past while it is free."""
        self._in_flight: dict[int, Batch] = {}
        self._commands: list[Command] = []
        self._batch_id = 0

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes the messages of one moment and returns the commands to perform."""
        for message in messages:
            match message:
                case RequestArrived(request):
                    self.arrived(request, now_s)
                case BatchFinished() | BatchFailed():
                    self._ended(message, now_s)
        self.decide(now_s)
        commands, self._commands = self._commands, []
        return commands

    def next_wakeup_s(self) -> float | None:
        """Returns the time of the next call if no message arrives earlier; None for never."""
        return None

    def arrived(self, request: Request, now_s: float) -> None:
        """Handles the arrival of a request."""
        raise NotImplementedError

    def returned(self, batch: Batch, now_s: float) -> None:
        """Handles the end of a batch, successful or not."""

    def failed(self, batch: Batch, now_s: float) -> None:
        """Handles the end of a batch that failed: as one that did not, where it makes no difference."""
        self.returned(batch, now_s)

    def decide(self, now_s: float) -> None:
        """Sends batches; called once after all messages of one moment."""

    def send_edge(self, requests: Sequence[Request], now_s: float) -> None:
        """Sends a batch to the edge, which serves its batches one after the other."""
        latency = self.site.model.edge_latency
        assert latency is not None
        service_s = latency.predict_s(len(requests)) + (self.site.slots[0].beside_s if self.site.slots else 0.0)
        self.edge_free_at_s = max(now_s, self.edge_free_at_s) + service_s
        self.edge_batches += 1
        self.send(requests, now_s, service_s=service_s, finish_s=self.edge_free_at_s, place=Place.edge())

    def send_function(self, requests: Sequence[Request], tier: FunctionTier, now_s: float) -> None:
        """Sends a batch to a function of a tier."""
        service_s = tier.latency.predict_s(len(requests))
        finish_s = now_s + self.site.function_s(tier, len(requests))
        cost, place = tier.price.cost(service_s), Place.function(tier.name)
        self.send(requests, now_s, service_s=service_s, finish_s=finish_s, place=place, cost=cost)

    def send(
        self,
        requests: Sequence[Request],
        now_s: float,
        *,
        service_s: float,
        finish_s: float,
        place: Place,
        cost: float = 0.0,
    ) -> int:
        """Sends a batch to a place; returns its id."""
        self._batch_id += 1
        deadline_s = min([request.deadline_s for request in requests])
        batch = Batch(
            batch_id=self._batch_id,
            place=place,
            model=self.site.model.name,
            request_ids=tuple([request.request_id for request in requests]),
            items=len(requests),
            body_bytes=sum([request.body_bytes for request in requests]),
            sent_at_s=now_s,
            deadline_s=deadline_s,
            give_up_at_s=max(now_s, deadline_s) + GIVE_UP_S,
            predicted_finish_s=finish_s,
            predicted_service_s=service_s,
            expected_cost=cost,
        )
        self._in_flight[batch.batch_id] = batch
        self._commands.append(SendBatch(batch))
        return batch.batch_id

    def refuse(self, request: Request, kind: RefusalKind, message: str) -> None:
        """Refuses a request."""
        self._commands.append(RefuseRequest(request.request_id, Refusal(kind, message)))

    def emit(self, command: Command) -> None:
        """Adds a command to those returned to the shell."""
        self._commands.append(command)

    def _ended(self, message: BatchFinished | BatchFailed, now_s: float) -> None:
        batch = self._in_flight.pop(message.batch_id)
        if batch.backend is Backend.EDGE:
            self.edge_batches -= 1
            if self.edge_batches == 0:
                self.edge_free_at_s = now_s
        if isinstance(message, BatchFinished):
            self._commands += [AnswerRequest(request_id, batch.batch_id) for request_id in batch.request_ids]
        else:
            refusal = Refusal(RefusalKind.BACKEND, message.failure.message)
            self._commands += [RefuseRequest(request_id, refusal) for request_id in batch.request_ids]
            self.failed(batch, now_s)
            return
        self.returned(batch, now_s)


def earliest(*times_s: float) -> float | None:
    """Returns the earliest of the given times; None if all are infinite."""
    at_s = min(times_s)
    return None if math.isinf(at_s) else at_s

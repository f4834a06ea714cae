"""What all these policies share: messages in, commands out, batches under way.

None of their sources says what becomes of a batch that fails: its requests are refused, nothing is sent twice. A
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
from scheduler.domain.requests import Backend, Request
from scheduler.simulator.policies.site import Site

GIVE_UP_S = 30.0
"""How long after its deadline a batch without an answer is given up: a common timeout of HTTP clients."""


class Baseline:
    """A policy's frame: a policy says what it does with an arrival, with a batch that came back, and in between."""

    def __init__(self, site: Site) -> None:
        """Stores the place; nothing is under way."""
        self.site = site
        self.edge_batches = 0
        """Under way on the edge."""
        self.edge_free_at_s = 0.0
        """When the edge has served what it was sent, if it takes as long as its latency model predicts."""
        self._under_way: dict[int, Batch] = {}
        self._commands: list[Command] = []
        self._batch_id = 0

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes what happened, returns what to do."""
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
        """Returns when to call again even if nothing happens; None where only events matter."""
        return None

    def arrived(self, request: Request, now_s: float) -> None:
        """A request came."""
        raise NotImplementedError

    def returned(self, batch: Batch, now_s: float) -> None:
        """A batch came back, answered or not."""

    def decide(self, now_s: float) -> None:
        """Called once after all that happened at one moment."""

    def send_edge(self, requests: Sequence[Request], now_s: float) -> None:
        """Sends a batch to the edge, which serves one after the other."""
        latency = self.site.model.edge_latency
        assert latency is not None
        service_s = latency.predict_s(len(requests))
        self.edge_free_at_s = max(now_s, self.edge_free_at_s) + service_s
        self.edge_batches += 1
        self._send(requests, now_s, backend=Backend.EDGE, service_s=service_s, finish_s=self.edge_free_at_s)

    def send_function(self, requests: Sequence[Request], tier: FunctionTier, now_s: float) -> None:
        """Sends a batch to a function."""
        service_s = tier.latency.predict_s(len(requests))
        finish_s = now_s + self.site.function_s(tier, len(requests))
        self._send(requests, now_s, backend=Backend.FUNCTION, service_s=service_s, finish_s=finish_s, tier=tier)

    def _send(
        self,
        requests: Sequence[Request],
        now_s: float,
        *,
        backend: Backend,
        service_s: float,
        finish_s: float,
        tier: FunctionTier | None = None,
    ) -> None:
        self._batch_id += 1
        deadline_s = min([request.deadline_s for request in requests])
        batch = Batch(
            batch_id=self._batch_id,
            backend=backend,
            model=self.site.model.name,
            request_ids=tuple([request.request_id for request in requests]),
            items=len(requests),
            body_bytes=sum([request.body_bytes for request in requests]),
            sent_at_s=now_s,
            deadline_s=deadline_s,
            give_up_at_s=max(now_s, deadline_s) + GIVE_UP_S,
            predicted_finish_s=finish_s,
            predicted_service_s=service_s,
            expected_cost=0.0 if tier is None else tier.price.cost(service_s),
            tier="" if tier is None else tier.name,
        )
        self._under_way[batch.batch_id] = batch
        self._commands.append(SendBatch(batch))

    def refuse(self, request: Request, kind: RefusalKind, message: str) -> None:
        """Ends a request without an answer."""
        self._commands.append(RefuseRequest(request.request_id, Refusal(kind, message)))

    def adopt(self, command: Command) -> None:
        """Passes a command on as it is."""
        self._commands.append(command)

    def _ended(self, message: BatchFinished | BatchFailed, now_s: float) -> None:
        batch = self._under_way.pop(message.batch_id)
        if batch.backend is Backend.EDGE:
            self.edge_batches -= 1
            if self.edge_batches == 0:
                self.edge_free_at_s = now_s
        if isinstance(message, BatchFinished):
            self._commands += [AnswerRequest(request_id, batch.batch_id) for request_id in batch.request_ids]
        else:
            refusal = Refusal(RefusalKind.BACKEND, message.failure.message)
            self._commands += [RefuseRequest(request_id, refusal) for request_id in batch.request_ids]
        self.returned(batch, now_s)


def earliest(*times_s: float) -> float | None:
    """Returns the earliest of some times; None if all are infinite."""
    at_s = min(times_s)
    return None if math.isinf(at_s) else at_s

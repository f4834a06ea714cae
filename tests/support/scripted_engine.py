"""An engine that does what a test tells it to, and remembers what it was told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.decision_ring import Explanation
from scheduler.domain.batches import Batch
from scheduler.domain.errors import Refusal, RefusalKind
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
from scheduler.domain.requests import EDGE_NAME, Backend, Place, Request

Reaction = Callable[[Message, float], list[Command]]


@dataclass
class ScriptedEngine:
    """Reacts to each message by `react`; `wakeups_s` are the times it wants to be called at, in order."""

    react: Reaction
    wakeups_s: list[float] = field(default_factory=list)
    heard: list[tuple[float, tuple[Message, ...]]] = field(default_factory=list)
    """Every handle call: its time and messages."""
    explanations: dict[int, Explanation] = field(default_factory=dict)

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        self.heard.append((now_s, tuple(messages)))
        self.wakeups_s = [due_s for due_s in self.wakeups_s if due_s > now_s]
        return [command for message in messages for command in self.react(message, now_s)]

    def next_wakeup_s(self) -> float | None:
        return min(self.wakeups_s, default=None)

    def statistics(self) -> dict[str, int]:
        return {"handled": len(self.heard)}

    def explanation(self, request_id: int) -> Explanation | None:
        return self.explanations.get(request_id)

    @property
    def messages(self) -> list[Message]:
        return [message for _, messages in self.heard for message in messages]


@dataclass
class BatchEachArrival:
    """Sends the requests that arrived as one batch once `size` are there, and passes outcomes on."""

    size: int = 1
    backend: Backend = Backend.EDGE
    tier: str = ""
    give_up_after_s: float = 5.0
    gathered: list[Request] = field(default_factory=list)
    batches: dict[int, Batch] = field(default_factory=dict)

    def __call__(self, message: Message, now_s: float) -> list[Command]:
        if isinstance(message, RequestArrived):
            return self.arrived(message.request, now_s)
        if isinstance(message, BatchFinished):
            return [AnswerRequest(r, message.batch_id) for r in self.batches[message.batch_id].request_ids]
        if isinstance(message, BatchFailed):
            refusal = Refusal(RefusalKind.BACKEND, message.failure.message)
            return [RefuseRequest(r, refusal) for r in self.batches[message.batch_id].request_ids]
        return []

    def arrived(self, request: Request, now_s: float) -> list[Command]:
        self.gathered.append(request)
        if len(self.gathered) < self.size:
            return []
        batch = self.batch(self.gathered, now_s)
        self.gathered = []
        return [SendBatch(batch)]

    def batch(self, requests: Sequence[Request], now_s: float) -> Batch:
        made = Batch(
            batch_id=len(self.batches) + 1,
            place=Place(self.backend, self.tier or EDGE_NAME),
            model=requests[0].model,
            request_ids=tuple(request.request_id for request in requests),
            items=sum(request.items for request in requests),
            body_bytes=sum(request.body_bytes for request in requests),
            sent_at_s=now_s,
            deadline_s=min(request.deadline_s for request in requests),
            give_up_at_s=now_s + self.give_up_after_s,
            predicted_finish_s=now_s + 0.1,
            predicted_service_s=0.1,
            expected_cost=1.0 if self.backend is Backend.FUNCTION else 0.0,
        )
        self.batches[made.batch_id] = made
        return made

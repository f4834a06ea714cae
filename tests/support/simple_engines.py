"""Engines of a few lines, so that the simulated world can be checked without the real one."""

from collections import deque
from collections.abc import Sequence

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

FOR_EVER_S = 1e9


class OneByOne:
    """Sends each request alone: to the edge when it is free, or to a function at once. Failed ones are refused."""

    def __init__(self, backend: Backend, *, tier: str = "", give_up_s: float = FOR_EVER_S) -> None:
        """Stores where to send to."""
        self.heard: list[tuple[float, Message]] = []
        self._backend = backend
        self._tier = tier
        self._give_up_s = give_up_s
        self._waiting: deque[Request] = deque()
        self._sent: dict[int, Request] = {}

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes what happened, returns what to do."""
        commands: list[Command] = []
        for message in messages:
            self.heard.append((now_s, message))
            if isinstance(message, RequestArrived):
                self._waiting.append(message.request)
            elif isinstance(message, BatchFinished):
                commands.append(AnswerRequest(self._sent.pop(message.batch_id).request_id, message.batch_id))
            elif isinstance(message, BatchFailed):
                refusal = Refusal(RefusalKind.BACKEND, message.failure.message)
                commands.append(RefuseRequest(self._sent.pop(message.batch_id).request_id, refusal))
        while self._waiting and not (self._backend is Backend.EDGE and self._sent):
            commands.append(SendBatch(self._batch(self._waiting.popleft(), now_s)))
        return commands

    def next_wakeup_s(self) -> float | None:
        """Nothing falls due without a message."""
        return None

    def _batch(self, request: Request, now_s: float) -> Batch:
        self._sent[request.request_id] = request
        return Batch(
            batch_id=request.request_id,
            place=Place(self._backend, self._tier or EDGE_NAME),
            model=request.model,
            request_ids=(request.request_id,),
            items=1,
            body_bytes=request.body_bytes,
            sent_at_s=now_s,
            deadline_s=request.deadline_s,
            give_up_at_s=now_s + self._give_up_s,
            predicted_finish_s=now_s,
            predicted_service_s=0.0,
        )


class Scripted:
    """Answers each call with the next list of commands; wakes up as told."""

    def __init__(self, script: Sequence[Sequence[Command]], *, wakeup_s: float | None = None) -> None:
        """Stores the script."""
        self._script = deque(script)
        self._wakeup_s = wakeup_s

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Returns the next commands; none when the script is over."""
        return list(self._script.popleft()) if self._script else []

    def next_wakeup_s(self) -> float | None:
        """Returns always the same time."""
        return self._wakeup_s

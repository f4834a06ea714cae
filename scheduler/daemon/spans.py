"""Spans of requests: what the runner and the batch sender tell a tracer, and the tracer that records none.

`otel` has the one that records. Without it a batch still passes on the trace of its first request that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.domain.batches import Batch
from scheduler.wire.trace_context import TraceContext

ANSWERED = "answered"
CANCELLED = "cancelled"


class RequestSpans(Protocol):
    """The spans of one recorded request."""

    def ended(self, outcome: str, now_s: float, *, answer: Answer | None = None, message: str = "") -> None:
        """Ends them; a second end changes nothing.

        Args:
            outcome: ANSWERED, CANCELLED, or the value of a RefusalKind.
            now_s: the present, monotonic.
            answer: the answer, if there is one.
            message: the sentence of a refusal.
        """


class BatchSpans(Protocol):
    """The spans of one batch that was sent, one for each recorded request of it."""

    @property
    def context(self) -> TraceContext | None:
        """What the backend is told of the trace; None: nothing."""

    def ended(self, ended_at_s: float, *, service_s: float | None = None, error: str = "") -> None:
        """Ends them; a second end changes nothing.

        Args:
            ended_at_s: when the answer was read or the batch given up, monotonic.
            service_s: seconds of the backend's own work; None: not known.
            error: why the batch failed; empty for an answered one.
        """


class Member(Protocol):
    """A request of a batch; see `bodies.PendingCall`."""

    @property
    def call(self) -> InferenceCall:
        """The call."""

    @property
    def spans(self) -> RequestSpans | None:
        """Its spans; None: it is not recorded."""


class Tracer(Protocol):
    """What is told of requests and batches."""

    def begin(self, call: InferenceCall, request_id: int) -> RequestSpans | None:
        """Returns the spans of a request that has arrived; None: it is not recorded."""

    def sent(self, batch: Batch, members: Sequence[Member], now_s: float) -> BatchSpans:
        """Returns the spans of a batch that is being sent."""

    async def close(self) -> None:
        """Ends the tracer when all requests have ended."""


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The spans of a batch that is not recorded."""

    context: TraceContext | None

    def ended(self, ended_at_s: float, *, service_s: float | None = None, error: str = "") -> None:
        """Does nothing."""


class NoTracer:
    """Records nothing."""

    def begin(self, call: InferenceCall, request_id: int) -> RequestSpans | None:  # noqa: ARG002
        """Returns None."""
        return None

    def sent(self, batch: Batch, members: Sequence[Member], now_s: float) -> BatchSpans:  # noqa: ARG002
        """Returns spans that only pass on the trace of the first request that has one."""
        return PassedOn(next((member.call.trace for member in members if member.call.trace is not None), None))

    async def close(self) -> None:
        """Does nothing."""

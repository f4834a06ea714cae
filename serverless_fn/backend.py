"""What answers the batches of an instance: models of its own, or another server in the same container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.wire import Encoded, TraceContext


@dataclass(frozen=True, slots=True)
class Served:
    """Answer to one batch.

    Attributes:
        payload: response of the Open Inference Protocol.
        service_s: seconds from the start of decoding to the outputs, without waiting for another batch.
        facts: further keys for the frame's header.
    """

    payload: Encoded
    service_s: float
    facts: Mapping[str, object] = field(default_factory=dict)


class NotServed(Exception):
    """Error: the whole invocation fails with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        """Stores both."""
        super().__init__(message)
        self.status = status


class Backend(Protocol):
    """What answers batches. Thread-safe; computes one batch at a time."""

    def load(self) -> None:
        """Makes it ready: loads its models, or waits for the other server; does nothing if it is.

        Raises:
            ModelError: it cannot be made ready; the message says what to do.
        """
        ...

    def check(self, model: object) -> None:
        """Checks the model that a frame names (None: it names none), before anything is loaded.

        Raises:
            NotServed: this instance does not serve it.
            ModelError: what it serves cannot be read.
        """
        ...

    def serve(self, model: object, payload: Encoded, trace: TraceContext | None = None) -> Served:
        """Answers one batch of the model; another server gets the trace that it belongs to.

        Raises:
            WireError: the request is not valid, or its inputs are not those of the model.
            NotServed: the batch failed.
            ModelError: the model failed on this batch.
        """
        ...

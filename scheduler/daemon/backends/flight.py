"""A batch on its way, and what comes back of it: the words that the runner and both backends share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from scheduler.domain.batches import Batch, BatchReport, Failure
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import ProbeMeasured
from scheduler.wire import InferRequest, InferResponse, Tensor, WireError

Clock = Callable[[], float]
"""Monotonic seconds."""


@dataclass(slots=True)
class Flight:
    """A batch that was sent, from the decision to its one outcome."""

    batch: Batch
    tier: FunctionTier | None
    """None on the edge."""
    decided_at_s: float
    written_at_s: float | None = None
    """When the backend had written the whole body, or handed it to a thread that does; None: it never ran there."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A batch's answer, checked: every output has one row for every item."""

    outputs: tuple[Tensor, ...]
    report: BatchReport
    read_at_s: float


class SendFailed(Exception):
    """A whole batch came back without answers."""

    def __init__(self, failure: Failure, report: BatchReport) -> None:
        """Stores why, and what was measured all the same."""
        super().__init__(failure.message)
        self.failure = failure
        self.report = report


class InferenceBackend(Protocol):
    """One of the two places that answer, as the runner uses it."""

    async def open(self) -> None:
        """Loads what sending needs; contacts nobody."""
        ...

    async def send(self, flight: Flight, request: InferRequest) -> Reply:
        """Carries one batch there and back; sets `flight.written_at_s`.

        The runner reports the batch as failed at its `give_up_at_s`. On the edge the task is cancelled then; an
        invocation may still end, so that its bill is known.

        Raises:
            SendFailed: there is no answer that fits.
        """
        ...

    async def probe(self) -> ProbeMeasured:
        """Finds out whether the place answers and how the way there is; never raises for what it finds."""
        ...

    async def close(self) -> None:
        """Gives connections and threads back."""
        ...


def check_response(response: InferResponse, batch: Batch) -> None:
    """Refuses an answer that cannot be this batch's.

    Raises:
        WireError: another model, or an output that has not one row for every item.
    """
    if response.model_name != batch.model:
        raise WireError(f"the answer is of model {response.model_name!r}, but {batch.model!r} was asked.")
    if not response.outputs:
        raise WireError("the answer has no outputs.")
    for output in response.outputs:
        if output.items != batch.items:
            raise WireError(f"output {output.name!r} has {output.items} rows for {batch.items} items.")

"""A batch that is sent to a backend, and its outcome: the types that the batch sender and both backends share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from scheduler import wire
from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.batches import Batch, BatchReport, Failure
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import ProbeMeasured
from scheduler.wire import InferRequest, InferResponse, Tensor, WireError
from scheduler.wire.trace_context import TraceContext

Clock = Callable[[], float]
"""Returns monotonic seconds."""


@dataclass(slots=True)
class BatchSend:
    """One send of a batch to a backend, from the decision until its one outcome."""

    batch: Batch
    tier: FunctionTier | None
    """None on the edge."""
    decided_at_s: float
    wants_log: bool = False
    """Whether the function is asked for the end of its container's log."""
    trace: TraceContext | None = None
    """What the backend is told of the trace of the batch's requests; None: nothing."""
    outputs: ModelOutputs = ModelOutputs()
    """What the model's card says of its outputs."""
    item_crc32: str = ""
    """CRC-32 of each item, as our servers echo them; empty: not known."""
    log_tail: str = ""
    """That, from its answer."""
    written_at_s: float | None = None
    """When the backend had written the whole body, or had given it to a thread that writes it; None: not yet."""


@dataclass(slots=True)
class Reply:
    """An answer to a batch that fits the model's card: its outputs, datatypes and shapes; ragged ones are counted."""

    outputs: tuple[Tensor, ...]
    report: BatchReport
    read_at_s: float
    identity: str = ""
    """Hash of the card and files that answered; empty: not reported."""
    not_finite: frozenset[int] = frozenset()
    """Items with NaN or infinity where the card does not allow them."""


class SendFailed(Exception):
    """A whole batch ended without an answer."""

    def __init__(self, failure: Failure, report: BatchReport) -> None:
        """Stores the failure, and what was measured in spite of it."""
        super().__init__(failure.message)
        self.failure = failure
        self.report = report


class InferenceBackend(Protocol):
    """The edge server or the functions, as the batch sender uses them."""

    async def open(self) -> None:
        """Loads what sending needs; opens no connection."""
        ...

    async def send(self, batch_send: BatchSend, request: InferRequest) -> Reply:
        """Sends one batch and returns its answer; sets `batch_send.written_at_s`.

        The batch sender reports the batch as failed at its `give_up_at_s`. On the edge it then cancels this task. An
        invocation may continue for a while, so that its bill becomes known.

        Raises:
            SendFailed: there is no usable answer.
        """
        ...

    async def probe(self) -> ProbeMeasured:
        """Measures whether the backend answers, and its round trip; a backend that does not answer is no error."""
        ...

    def status(self) -> Mapping[str, object]:
        """Returns what is known of the backend, as /v1/status shows it."""
        ...

    async def close(self) -> None:
        """Releases connections and threads."""
        ...


def checked_outputs(response: InferResponse, batch_send: BatchSend, said: object) -> tuple[Tensor, ...]:
    """Returns the outputs of an answer that can belong to a batch.

    Args:
        response: the answer.
        batch_send: the send that it answers.
        said: of which items it says that it is about (`wire.mixed_up`).

    Raises:
        WireError: it is from another model, about other items, or does not fit the model's card.
    """
    batch = batch_send.batch
    if response.model_name != batch.model:
        raise WireError(f"the answer is from model {response.model_name!r}, but the batch was for {batch.model!r}")
    if problem := wire.mixed_up(said, batch_send.item_crc32):
        raise WireError(problem)
    return batch_send.outputs.fitting(response.outputs, batch.items)

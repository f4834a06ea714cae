"""Batches as sent, and what became of them."""

from dataclasses import dataclass
from enum import Enum

from scheduler.domain.decisions import Reason
from scheduler.domain.requests import Backend, Place


@dataclass(frozen=True, slots=True)
class Batch:
    """Requests sent together, with what was predicted when they were sent. One without requests is a warming call."""

    batch_id: int
    place: Place
    """Which edge server or function tier it was sent to."""
    model: str
    request_ids: tuple[int, ...]
    items: int
    body_bytes: int
    sent_at_s: float
    deadline_s: float
    """The earliest deadline among its requests."""
    give_up_at_s: float
    """When the shell reports the batch as failed if no answer has come."""
    predicted_finish_s: float
    """Expected (median) absolute time of the answer."""
    predicted_service_s: float
    expected_cost: float = 0.0
    largest_item_bytes: float = 0.0
    """Of its items on the wire: what is slow about large items is slow for the whole batch."""
    size_factor: float = 1.0
    """By which its predicted service differs from one of items of any size."""
    reasons: tuple[Reason, ...] = ()
    """What decided the place of each request, in the order of `request_ids`; empty: not known."""

    @property
    def backend(self) -> Backend:
        """The side that it was sent to."""
        return self.place.backend

    @property
    def tier(self) -> str:
        """Name of the function tier; empty on an edge."""
        return self.place.tier

    @property
    def reason(self) -> Reason | None:
        """What decided the place of most of its requests, of several the first; None: not known."""
        return max(dict.fromkeys(self.reasons), key=self.reasons.count, default=None)

    @property
    def warming(self) -> bool:
        """Whether it carries nothing and only keeps an instance of its tier warm, or starts one."""
        return not self.request_ids


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What the shell measured and the backend said of one batch. None means not known."""

    elapsed_s: float
    """From the send to the last byte of the answer, on the shell's clock."""
    service_s: float | None = None
    """The backend's own figure for its work, without transfer and waiting for an instance."""
    billed_duration_s: float | None = None
    """The duration the provider bills before rounding, measured in the container."""
    rtt_s: float | None = None
    cold_start: bool | None = None
    instance_id: str = ""
    memory_bytes: int | None = None


class FailureKind(str, Enum):
    """Why a whole batch failed, by what can be done about it."""

    UNREACHABLE = "unreachable"
    """Never got there: it did not run and costs nothing."""
    TIMEOUT = "timeout"
    """No answer in time: it may have run and may be billed."""
    BROKEN = "broken"
    """The connection broke after sending: it may have run and may be billed."""
    THROTTLED = "throttled"
    """Refused for lack of capacity: not billed; wait before the next."""
    REJECTED = "rejected"
    """The backend refuses the content (4xx): sent again in halves to find the culprit."""
    SERVER = "server"
    """The backend's own failure (5xx): not billed."""
    FUNCTION = "function"
    """The function ran and failed: billed."""
    FORBIDDEN = "forbidden"
    """Key, permission or name are wrong (401, 403, 404): needs an operator."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed batch: the kind decides what happens next, the message is for people."""

    kind: FailureKind
    message: str
    retry_after_s: float | None = None

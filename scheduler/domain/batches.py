"""Batches as they are sent, and their outcomes."""

from dataclasses import dataclass, field
from enum import Enum

from scheduler.domain.decisions import Reason
from scheduler.domain.requests import Backend, Place


class WhyLeft(str, Enum):
    """Why a batch left when it did; the values are public words."""

    FULL = "full"
    """It takes no further request: items, or bytes, are at their limit."""
    DEADLINE = "deadline"
    """The last moment at which its first member is expected in time; or that member is late already."""
    LINK = "link"
    """The same while calls are overdue: the link may have stalled, so that less time is left than on an idle path."""
    TIMER = "timer"
    """The planned or allowed wait of a member was over."""
    PRICE = "price"
    """Waiting for another member did not pay any longer, or fewer members together cost less each."""
    APART = "apart"
    """A newcomer costs less in a batch of its own, so what had gathered left before it joined."""
    REST = "rest"
    """The edge took back members of a batch that fell due; the rest left at once."""
    DRAIN = "drain"
    """The daemon shuts down."""
    IDLE_EDGE = "idle-edge"
    """The edge had nothing else to do."""
    HEDGE = "hedge"
    """Copies of requests whose batch on the other side is overdue."""
    HALF = "half"
    """One half of a batch whose content was refused."""
    TRIAL = "trial"
    """A request, or a copy of one, by which to learn whether its place is still as slow as believed."""
    WARMING = "warming"
    """A call without requests, which keeps an instance warm."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of requests, with what was predicted when it was sent. A batch without requests is a warming call."""

    batch_id: int
    place: Place
    """The edge server or function tier that it was sent to."""
    model: str
    request_ids: tuple[int, ...]
    items: int
    body_bytes: int
    sent_at_s: float
    deadline_s: float
    """The earliest deadline among its requests."""
    give_up_at_s: float
    """Absolute time at which the shell reports the batch as failed if no answer has come."""
    predicted_finish_s: float
    """Expected (median) absolute time of the answer."""
    predicted_service_s: float
    expected_cost: float = 0.0
    largest_item_bytes: float = 0.0
    """Bytes of its largest item on the wire: a large item makes the service of the whole batch longer."""
    size_factor: float = 1.0
    """Factor on its predicted service that the sizes of its items make; 1: sizes are not distinguished."""
    reasons: tuple[Reason, ...] = ()
    """The reason for the place of each request, in the order of `request_ids`; empty: not known."""
    why_left: WhyLeft | None = None
    """None: not known."""
    hedge: bool = False
    """Whether it carries second copies of requests that are in another batch."""
    cold_risk: float = 0.0
    """Probability that it meets a cold start, as far as that was known."""
    predicted_start_s: float = 0.0
    """Expected (median) seconds of one, until the instance serves."""
    predicted_init_s: float = 0.0
    """Expected (median) seconds of them that are billed: those of the initializer. 0: nothing is known of starts."""
    predicted_others_s: float = 0.0
    """Of its predicted service, the seconds behind batches of other daemons that share the edge server."""

    # What follows from the others, worked out once: it is asked for two dozen times.
    backend: Backend = field(init=False, repr=False, compare=False)
    """The backend that it was sent to."""
    tier: str = field(init=False, repr=False, compare=False)
    """Name of the function tier; empty on an edge."""
    warming: bool = field(init=False, repr=False, compare=False)
    """Whether it has no requests, and only starts an instance of its tier or keeps one warm."""

    def __post_init__(self) -> None:
        """Works out what follows."""
        place = self.place
        object.__setattr__(self, "backend", place.backend)
        object.__setattr__(self, "tier", place.name if place.backend is Backend.FUNCTION else "")
        object.__setattr__(self, "warming", not self.request_ids)

    @property
    def reason(self) -> Reason | None:
        """The most frequent reason for the place of its requests, the first one of several; None: not known."""
        return max(dict.fromkeys(self.reasons), key=self.reasons.count, default=None)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """Measurements of one batch, made by the shell and by the backend. None: not known."""

    elapsed_s: float
    """Seconds from the send to the last byte of the answer, on the shell's clock."""
    service_s: float | None = None
    """Seconds of the backend's own work as it measured them, without transfer and without the wait for an instance."""
    queue_s: float | None = None
    """Seconds for which it waited there for the device, as an edge server reports them."""
    others_s: float | None = None
    """Those of them behind batches of other daemons that share the edge server; None where `queue_s` is 0."""
    beside_s: float | None = None
    """Seconds of it in which the edge's device could serve another batch: its way there and back, and its decoding."""
    billed_duration_s: float | None = None
    """Seconds that the provider bills, before rounding, measured in the container."""
    rtt_s: float | None = None
    cold_start: bool | None = None
    instance_id: str = ""
    memory_bytes: int | None = None
    init_s: float | None = None
    """Seconds of its instance's initializer, which the provider bills, with the first answer of an instance."""
    initializer_failed: bool = False
    """Whether the platform says that the initializer of a new instance failed, so that the program never began."""
    disbelieved: tuple[str, ...] = ()
    """Fields of the function's report that contradict what was measured, and were replaced by predictions."""


class FailureKind(str, Enum):
    """Kinds of failure of a whole batch, by what can be done about them; `domain/failures.py` says what follows."""

    UNREACHABLE = "unreachable"
    """The batch did not reach the backend: it did not run and costs nothing."""
    TIMEOUT = "timeout"
    """No answer in time: it may have run and may be billed."""
    BROKEN = "broken"
    """The connection broke after sending: it may have run and may be billed."""
    THROTTLED = "throttled"
    """Refused for lack of capacity: not billed; the next batch has to wait."""
    REJECTED = "rejected"
    """The backend refused the content: the batch is sent again in halves, to find the request that causes it."""
    SERVER = "server"
    """The backend failed (5xx): not billed."""
    FUNCTION = "function"
    """The function ran and failed: billed."""
    FORBIDDEN = "forbidden"
    """Account, key, permission, name, region or clock is wrong: an operator has to correct it."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The failure of a batch: its kind decides what happens next, its message is for people."""

    kind: FailureKind
    message: str
    retry_after_s: float | None = None
    by_size: bool = False
    """Whether the backend may have refused the batch for its size; smaller ones may then be answered."""
    largest_batch: int | None = None
    """Most items that it takes in a batch, where its refusal names them."""
    said: str = ""
    """For the log alone: the host, and the provider's own code and sentence."""
    of_model: bool = False
    """Whether it says nothing of the backend's other models: the model is another one than is expected."""

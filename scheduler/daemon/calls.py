"""What ingress hands to the runner, and what it gets back."""

from dataclasses import dataclass

from scheduler.domain.errors import EdgeburstError, Refusal, RefusalKind
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.wire import Tensor


@dataclass(frozen=True, slots=True)
class InferenceCall:
    """One inference request, parsed and checked against the model's metadata."""

    model: str
    inputs: tuple[Tensor, ...]
    items: int
    """Length of the batch axis, at least 1; the items of a call are never parted."""
    body_bytes: int
    """Sum of the inputs' binary sizes."""
    received_at_s: float
    """When the last body byte was read, on the runner's clock."""
    class_name: str = "default"
    priority: int = 1
    """As Triton counts, with 0 already replaced by the model's default level."""
    tenant: str = ""
    client_id: str = ""
    """By which the client calls it; empty: it has no name for it."""
    timeout_s: float | None = None
    """The client's own deadline, relative to `received_at_s`; None: the SLO of the class."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A call's own part of a batch's answer, and how it came about."""

    request_id: int
    """The daemon's number of the call, by which it can be explained."""
    outputs: tuple[Tensor, ...]
    backend: Backend
    tier: str
    """Name of the function tier; empty on the edge."""
    batch_id: int
    batch_items: int
    wait_s: float
    """From `received_at_s` to the send of the batch that was answered."""
    service_s: float | None
    """The backend's own figure for the whole batch; None where it gives none."""
    elapsed_s: float
    """From the send of that batch to the last byte of its answer."""
    cost: float
    """This call's share of the batch's cost, by items; 0 on the edge."""
    cold_start: bool | None
    attempts: int
    """How often the call was sent, this time included."""
    read_at_s: float
    """When the last byte of the batch's answer was read, on the runner's clock."""
    in_s: float
    """The daemon's own time: last body byte read to engine told."""
    out_s: float
    """The same, on the way out: send decided to batch written. Whoever has written the client's answer calls
    `Runner.answer_written(answer)`, which adds the way back."""


class Refused(EdgeburstError):
    """A call ends without an answer; `refusal` says why, and its HTTP status."""

    def __init__(self, refusal: Refusal, request_id: int | None = None) -> None:
        """Stores the refusal; its message is the sentence for the client.

        Args:
            refusal: why.
            request_id: the daemon's number of the call; None where it never got one.
        """
        super().__init__(refusal.message)
        self.refusal = refusal
        self.request_id = request_id


def request_of(call: InferenceCall, settings: EngineSettings, *, request_id: int, answer_reserve_s: float) -> Request:
    """Returns a call as the engine sees it.

    Args:
        call: the call.
        settings: what models and classes there are.
        request_id: its number.
        answer_reserve_s: kept of its deadline for the daemon's own work; half the deadline at most.

    Raises:
        Refused: there is no such model or class.
    """
    service_class = class_of(_model(call, settings), call.class_name)
    timeout_s = service_class.slo_s if call.timeout_s is None else call.timeout_s
    return Request(
        request_id=request_id,
        model=call.model,
        arrived_at_s=call.received_at_s,
        deadline_s=call.received_at_s + timeout_s - min(answer_reserve_s, timeout_s / 2),
        items=call.items,
        body_bytes=call.body_bytes,
        class_name=call.class_name,
        priority=call.priority,
        tenant=call.tenant,
    )


def _model(call: InferenceCall, settings: EngineSettings) -> ModelSettings:
    for model in settings.models:
        if model.name == call.model:
            return model
    raise Refused(Refusal(RefusalKind.BAD_REQUEST, f"model {call.model!r} is not served (any more)"))


def class_of(model: ModelSettings, class_name: str) -> ServiceClass:
    """Returns a model's class of that name; Refused, with the names that there are, if it has none."""
    try:
        return model.service_class(class_name)
    except KeyError:
        known = ", ".join(service_class.name for service_class in model.classes)
        message = f"model {model.name!r} has no class {class_name!r}; its classes are: {known}"
        raise Refused(Refusal(RefusalKind.BAD_REQUEST, message)) from None

"""A call, which the handlers of requests give to the runner, and its answer or refusal."""

from dataclasses import dataclass

from scheduler.daemon.model_outputs import ModelOutputs
from scheduler.domain.errors import EdgeburstError, Refusal, RefusalKind
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Backend, Request
from scheduler.wire import Tensor
from scheduler.wire.trace_context import TraceContext


@dataclass(slots=True)
class InferenceCall:
    """One inference request, parsed and checked against the model's metadata."""

    model: str
    inputs: tuple[Tensor, ...]
    items: int
    """Length of the batch axis, at least 1; the items of a call stay in one batch."""
    body_bytes: int
    """Sum of the inputs' binary sizes."""
    received_at_s: float
    """When the last body byte was read, on the runner's clock."""
    class_name: str = "default"
    priority: int = 1
    """Level as Triton counts them: 1 is the highest; 0 is already replaced by the model's default level."""
    tenant: str = ""
    client_id: str = ""
    """The client's own id of the request; empty if it gave none."""
    client: str = ""
    """The client itself, as the key of its shares (`ingress.peers`)."""
    picture_work: int = 0
    """Pixels that its pictures have to decode, about."""
    timeout_s: float | None = None
    """The client's own deadline, relative to `received_at_s`; None: the SLO of the class applies."""
    log_tail: bool = False
    """Whether the record of its function batch shall hold the end of the container's log."""
    trace: TraceContext | None = None
    """The trace that the client's headers name; None: none."""
    outputs: ModelOutputs = ModelOutputs()
    """What the model's card says of its outputs."""
    item_crc32: str = ""
    """CRC-32 of each item, as our servers echo them (`wire.item_crc32`); empty: not known."""
    owner: str = ""
    """Name of the token that it was sent with; empty: none."""

    @property
    def item_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of one item of each input; calls share a batch only if these are equal."""
        if len(self.inputs) == 1:
            return (self.inputs[0].shape[1:],)
        return tuple([tensor.shape[1:] for tensor in self.inputs])


@dataclass(slots=True)
class Answer:
    """A call's part of a batch's answer, and how it was computed."""

    request_id: int
    """The daemon's number of the call, by which `edgeburst explain` finds it."""
    outputs: tuple[Tensor, ...]
    backend: Backend
    tier: str
    """Name of the function tier; empty on the edge."""
    batch_id: int
    batch_items: int
    wait_s: float
    """From `received_at_s` until the answered batch was sent."""
    service_s: float | None
    """Service time of the whole batch as the backend measured it; None if it reports none."""
    elapsed_s: float
    """From the send of the answered batch to the last byte of its answer."""
    cost: float
    """This call's share of the batch's cost, in proportion to its items; 0 on the edge."""
    cold_start: bool | None
    attempts: int
    """How often the call was sent, the answered send included."""
    read_at_s: float
    """When the last byte of the batch's answer was read, on the runner's clock."""
    in_s: float
    """The daemon's own time on the way in: from the last body byte read to the engine call."""
    out_s: float
    """The daemon's own time on the way out: from the decision to send to the batch written. The handler adds the
    time from `read_at_s` to the client's answer written."""
    place: str = ""
    """Which edge server or function tier answered, as in records; empty: not known."""

    @property
    def edge(self) -> str:
        """Configured name of the edge server that answered; empty for a function, or where it is not known."""
        return self.place.partition(":")[2] if self.backend is Backend.EDGE else ""


class Refused(EdgeburstError):
    """The end of a call without an answer; `refusal` holds the reason and the HTTP status."""

    def __init__(self, refusal: Refusal, request_id: int | None = None) -> None:
        """Stores the refusal, whose message is the sentence for the client.

        Args:
            refusal: the reason.
            request_id: the daemon's number of the call; None if it has none.
        """
        super().__init__(refusal.message)
        self.refusal = refusal
        self.request_id = request_id


def request_of(
    call: InferenceCall, service_class: ServiceClass, *, request_id: int, answer_reserve_s: float, shape_id: int = 0
) -> Request:
    """Returns the request that the engine gets for a call.

    Args:
        call: the call.
        service_class: its class, as `class_of_call` returns it.
        request_id: the number of the call.
        answer_reserve_s: part of the deadline for the daemon's own work; at most half the deadline is used.
        shape_id: number of the shapes of its items.
    """
    timeout_s = service_class.slo_s if call.timeout_s is None else call.timeout_s
    reserve_s = min(answer_reserve_s, timeout_s / 2)
    return Request(
        request_id=request_id,
        model=call.model,
        arrived_at_s=call.received_at_s,
        deadline_s=call.received_at_s + timeout_s - reserve_s,
        items=call.items,
        body_bytes=call.body_bytes,
        class_name=call.class_name,
        priority=call.priority,
        tenant=call.tenant,
        reserve_s=reserve_s,
        shape_id=shape_id,
    )


def class_of_call(call: InferenceCall, settings: EngineSettings) -> ServiceClass:
    """Returns the class of a call; Refused if its model or its class does not exist."""
    return class_of(_model(call, settings), call.class_name)


def _model(call: InferenceCall, settings: EngineSettings) -> ModelSettings:
    for model in settings.models:
        if model.name == call.model:
            return model
    message = f"model {call.model!r} is no longer served: the configuration was reloaded without it"
    raise Refused(Refusal(RefusalKind.BAD_REQUEST, message))


def class_of(model: ModelSettings, class_name: str) -> ServiceClass:
    """Returns a model's class of that name; Refused, with the names of the existing classes, if it has none."""
    try:
        return model.service_class(class_name)
    except KeyError:
        known = ", ".join(service_class.name for service_class in model.classes)
        message = f"model {model.name!r} has no class {class_name!r}; its classes are: {known}"
        raise Refused(Refusal(RefusalKind.BAD_REQUEST, message)) from None

"""From a request to a call: the model it names, the check of its tensors, and the parameters that say how it is served.

Every function raises WireError for what the client has to correct.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.daemon.calls import InferenceCall
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.model_metadata import VERSION, ModelCard, checked_inputs
from scheduler.daemon.ingress.pictures import picture_work
from scheduler.wire import InferRequest, WireError, item_crc32

CLASS_HEADER = "X-Edgeburst-Class"
TENANT_HEADER = "X-Edgeburst-Tenant"
_MAX_TENANT_LENGTH = 64


def known_card(cards: Mapping[str, ModelCard], name: str, version: str = "") -> ModelCard:
    """Returns the card of a model; without a version, that of its only one.

    Raises:
        Rejected: the model or the version is not served.
    """
    card = cards.get(name)
    if card is None:
        raise Rejected(404, f"model {name[:64]!r} is not served here; ask for one of {', '.join(cards)}")
    if version not in ("", VERSION):
        raise Rejected(404, f"version {version[:16]!r} of model {card.name} is not served; ask for version {VERSION}")
    return card


def infer_call(
    card: ModelCard,
    request: InferRequest,
    headers: Mapping[str, str],
    *,
    client: str = "",
    received_at_s: float,
    max_timeout_s: float,
) -> InferenceCall:
    """Returns the call for a request of a client.

    Raises:
        WireError: the request does not fit the model, or a parameter is out of range.
    """
    inputs, parameters = checked_inputs(card, request.inputs), request.parameters
    for output in request.outputs:
        if output.name not in card.output_names():
            raise WireError(
                f"output {output.name[:64]!r} is unknown; model {card.name} has {', '.join(card.output_names())}"
            )
        if output.class_count and output.name in card.ragged():
            raise WireError(f"output '{output.name}' is ragged and has no classes; request it without 'classification'")
    call = InferenceCall(
        model=card.name,
        inputs=inputs,
        items=inputs[0].shape[0],
        body_bytes=len(inputs[0].raw) if len(inputs) == 1 else sum([len(tensor.raw) for tensor in inputs]),
        received_at_s=received_at_s,
        class_name=card.default_class,
        priority=card.default_priority,
        client_id=request.id,
        client=client,
        outputs=card.answer,
        item_crc32=item_crc32(inputs),
        picture_work=picture_work(card, inputs),
    )
    of_class, of_tenant = headers.get(CLASS_HEADER), headers.get(TENANT_HEADER)
    if of_class is not None or "class" in parameters:
        call.class_name = class_name(card, parameters.get("class", of_class))
    if of_tenant is not None or "tenant" in parameters:
        call.tenant = tenant(parameters.get("tenant", of_tenant))
    if parameters:
        call.priority = priority(card, parameters.get("priority", 0))
        call.timeout_s = timeout_s(parameters.get("timeout"), max_timeout_s=max_timeout_s)
        call.log_tail = log_tail(parameters.get("log_tail", False))
    return call


def timeout_s(value: object, *, max_timeout_s: float) -> float | None:
    """Returns the parameter `timeout`, in microseconds, as seconds; None if it is absent or 0, as in Triton."""
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise WireError("parameter 'timeout' must be a whole number of microseconds; leave it out, or 0, for the SLO")
    if value == 0:
        return None
    if value > max_timeout_s * 1e6:
        raise WireError(f"parameter 'timeout' is {value} microseconds; ask for at most {max_timeout_s:g} s")
    return value / 1e6


def priority(card: ModelCard, value: object) -> int:
    """Returns the level of the parameter `priority` as Triton counts: 1 is the highest, 0 the model's default."""
    if type(value) is not int or not 0 <= value <= card.priority_levels:
        raise WireError(
            f"parameter 'priority' must be a whole number from 1 (highest) to {card.priority_levels}, or 0: the default"
        )
    return value or card.default_priority


def class_name(card: ModelCard, value: object) -> str:
    """Returns the requested service class, or the model's default."""
    if value is None:
        return card.default_class
    if not isinstance(value, str) or value not in card.classes:
        raise WireError(f"class {str(value)[:64]!r} is unknown; model {card.name} has {', '.join(card.classes)}")
    return value


def tenant(value: object) -> str:
    """Returns the tenant's name, which may be empty."""
    if not isinstance(value, str) or len(value) > _MAX_TENANT_LENGTH:
        raise WireError(f"the tenant must be a text of at most {_MAX_TENANT_LENGTH} characters")
    return value


def log_tail(value: object) -> bool:
    """Returns whether the record of the request's function batch shall hold the end of the container's log."""
    if not isinstance(value, bool):
        raise WireError("parameter 'log_tail' must be true or false")
    return value

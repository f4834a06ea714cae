"""From an HTTP request to a call, and from its answer to the response: inference of the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from aiohttp import web

from scheduler import wire
from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.http.errors import Rejected
from scheduler.daemon.http.model_metadata import VERSION, ModelCard, checked_inputs
from scheduler.daemon.raw_request import raw_request
from scheduler.wire import InferRequest, InferResponse, OutputRequest, Tensor, WireError

CLASS_HEADER = "X-Edgeburst-Class"
TENANT_HEADER = "X-Edgeburst-Tenant"
_MAX_TENANT_LENGTH = 64


def parse_infer(card: ModelCard, body: bytes, headers: Mapping[str, str]) -> InferRequest:
    """Returns the request in a body; with Inference-Header-Content-Length 0 the body is the data of the one input.

    Raises:
        WireError: the body is not a request, or Inference-Header-Content-Length is wrong.
    """
    json_length = wire.json_length_of(headers)
    return raw_request(card, body) if json_length == 0 else wire.parse_request(body, json_length)


def infer_call(
    card: ModelCard,
    request: InferRequest,
    headers: Mapping[str, str],
    *,
    received_at_s: float,
    max_timeout_s: float,
) -> InferenceCall:
    """Returns the call for a request.

    Raises:
        WireError: the request does not fit the model, or a parameter is out of range.
    """
    inputs = checked_inputs(card, request.inputs)
    for output in request.outputs:
        if output.name not in card.output_names():
            raise WireError(
                f"output {output.name[:64]!r} is unknown; model {card.name} has {', '.join(card.output_names())}"
            )
    parameters = request.parameters
    return InferenceCall(
        model=card.name,
        inputs=inputs,
        items=inputs[0].items,
        body_bytes=sum(len(tensor.raw) for tensor in inputs),
        received_at_s=received_at_s,
        class_name=class_name(card, parameters.get("class", headers.get(CLASS_HEADER))),
        priority=priority(card, parameters.get("priority", 0)),
        tenant=tenant(parameters.get("tenant", headers.get(TENANT_HEADER, ""))),
        client_id=request.id,
        timeout_s=timeout_s(parameters.get("timeout"), max_timeout_s=max_timeout_s),
        log_tail=log_tail(parameters.get("log_tail", False)),
    )


def infer_response(card: ModelCard, request: InferRequest, answer: Answer) -> web.Response:
    """Returns the HTTP response for an answer, with the outputs and in the form that the request asks for."""
    response = InferResponse(
        model_name=card.name,
        outputs=_classified(answer.outputs, request.outputs, card),
        id=request.id,
        model_version=VERSION,
        parameters=answer_parameters(answer),
    )
    encoded = wire.encode_response(response, requested=request.outputs, binary_by_default=request.binary_by_default)
    return web.Response(body=encoded.body, headers=encoded.headers)


def answer_parameters(answer: Answer) -> dict[str, object]:
    """Returns how an answer was computed, as response parameters; unknown values are left out."""
    known = {
        "request_id": answer.request_id,
        "backend": answer.backend.value,
        "tier": answer.tier,
        "batch_id": answer.batch_id,
        "batch_items": answer.batch_items,
        "wait_s": answer.wait_s,
        "service_s": answer.service_s,
        "cost": answer.cost,
        "cold_start": answer.cold_start,
        "attempts": answer.attempts,
    }
    return {name: value for name, value in known.items() if value is not None}


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


def known_card(cards: Mapping[str, ModelCard], match_info: Mapping[str, str]) -> ModelCard:
    """Returns the card of the model in a path.

    Raises:
        Rejected: the model or the version is not served.
    """
    card = cards.get(match_info["model"])
    if card is None:
        raise Rejected(404, f"model {match_info['model'][:64]!r} is not served here; ask for one of {', '.join(cards)}")
    version = match_info.get("version", VERSION)
    if version != VERSION:
        raise Rejected(404, f"version {version[:16]!r} of model {card.name} is not served; ask for version {VERSION}")
    return card


def _classified(outputs: tuple[Tensor, ...], requested: Sequence[OutputRequest], card: ModelCard) -> tuple[Tensor, ...]:
    """Replaces an output's scores by its top classes if the request asks for them (Triton's extension)."""
    counts = {output.name: output.class_count for output in requested if output.class_count}
    if not counts:
        return outputs
    # The labels of a model are those of its first output.
    labelled = card.outputs[0].name
    return tuple(
        _top_classes(tensor, counts[tensor.name], card.labels if tensor.name == labelled else ())
        if tensor.name in counts
        else tensor
        for tensor in outputs
    )


def _top_classes(tensor: Tensor, count: int, labels: Sequence[str]) -> Tensor:
    """Returns "VALUE:INDEX:LABEL" of each item's largest values, BYTES [n, count]; the axes of an item are one."""
    if tensor.datatype in ("BYTES", "BOOL"):
        raise WireError(f"output '{tensor.name}' has no classes; request it without 'classification'")
    rows = tensor.to_numpy().reshape(tensor.items, -1)
    count = min(count, rows.shape[1])
    # As doubles: a whole number without sign has no negative.
    order = (-rows.astype("f8")).argsort(axis=1, kind="stable")[:, :count].tolist()
    elements = [_class_text(row[index], index, labels) for row, best in zip(rows, order, strict=True) for index in best]
    return Tensor.from_elements(tensor.name, elements, (len(rows), count))


def _class_text(value: np.number[Any], index: int, labels: Sequence[str]) -> bytes:
    shown = f"{float(value):f}" if value.dtype.kind == "f" else str(int(value))
    label = f":{labels[index]}" if index < len(labels) else ""
    return f"{shown}:{index}{label}".encode()

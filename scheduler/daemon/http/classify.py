"""POST /v1/classify/{model}: takes a picture and returns class labels, for use with curl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from scheduler.daemon.calls import Answer, InferenceCall
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.ingress.checks import CLASS_HEADER, TENANT_HEADER, class_name, priority, tenant, timeout_s
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.daemon.ingress.pictures import picture_work
from scheduler.wire import Tensor, WireError, item_crc32

TOP = 5
"""Number of classes in an answer, unless the query says another one."""

MAX_TOP = 1000

ID_HEADER = "X-Request-Id"
_MAX_ID_LENGTH = 128
_KEYS = ("timeout_s", "priority", "class", "top")


@dataclass(frozen=True, slots=True)
class Question:
    """The parameters of a request in its query and headers."""

    request_id: str
    timeout_s: float | None
    priority: int
    class_name: str
    tenant: str
    top: int = TOP
    """Number of classes in the answer, if the model has as many."""


def question(
    card: ModelCard, query: Mapping[str, str], headers: Mapping[str, str], *, max_timeout_s: float
) -> Question:
    """Returns the parameters in a request's query and headers.

    Raises:
        WireError: a key is unknown, or a value is out of range.
    """
    for key in query:
        if key not in _KEYS:
            raise WireError(f"query key {key[:64]!r} is unknown; use {', '.join(_KEYS)}")
    return Question(
        request_id=headers.get(ID_HEADER, "")[:_MAX_ID_LENGTH],
        timeout_s=_timeout(query.get("timeout_s"), max_timeout_s=max_timeout_s),
        priority=priority(card, _whole(query.get("priority", "0"))),
        class_name=class_name(card, query.get("class", headers.get(CLASS_HEADER))),
        tenant=tenant(headers.get(TENANT_HEADER, "")),
        top=_top(query.get("top")),
    )


def classify_call(
    card: ModelCard, picture: bytes, asked: Question, *, client: str = "", received_at_s: float
) -> InferenceCall:
    """Returns the call for one picture.

    Raises:
        WireError: the model does not take one picture per item.
    """
    spec = card.inputs[0]
    if len(card.inputs) != 1 or not spec.picture or any(length != 1 for length in spec.shape):
        raise WireError(f"model {card.name} does not take one picture; use POST /v2/models/{card.name}/infer")
    if card.outputs[0].ragged:
        raise WireError(
            f"output '{card.outputs[0].name}' of model {card.name} is ragged and has no classes;"
            f" use POST /v2/models/{card.name}/infer"
        )
    tensor = Tensor.from_elements(spec.name, [picture], (1, *spec.shape))
    return InferenceCall(
        model=card.name,
        inputs=(tensor,),
        items=1,
        body_bytes=len(tensor.raw),
        received_at_s=received_at_s,
        class_name=asked.class_name,
        priority=asked.priority,
        tenant=asked.tenant,
        client_id=asked.request_id,
        client=client,
        timeout_s=asked.timeout_s,
        outputs=card.answer,
        item_crc32=item_crc32((tensor,)),
        picture_work=picture_work(card, (tensor,)),
    )


def classify_response(card: ModelCard, asked: Question, answer: Answer, *, latency_s: float) -> Rendered:
    """Returns the response with the most likely classes of the first output."""
    tops = top_classes(card, answer, asked.top)
    body: Mapping[str, object] = {
        **tops[0],
        "top": tops,
        "model": card.name,
        "id": asked.request_id,
        "request_id": answer.request_id,
        "backend": answer.backend.value,
        "edge": answer.edge,
        "tier": answer.tier,
        "cost": answer.cost,
        "wait_s": answer.wait_s,
        "latency_s": latency_s,
        "batch_items": answer.batch_items,
    }
    return Rendered(orjson.dumps(body) + b"\n")


def top_classes(card: ModelCard, answer: Answer, count: int) -> list[dict[str, object]]:
    """Returns so many classes of an answer's only item, the most likely first; one without a label has its number.

    Raises:
        Rejected: the backend's answer lacks the model's first output.
    """
    wanted = card.outputs[0].name
    tensor = next((output for output in answer.outputs if output.name == wanted), None)
    if tensor is None or tensor.datatype == "BYTES":
        raise Rejected(502, f"the {answer.backend.value} answered without the output '{wanted}'; check its model")
    row = tensor.to_numpy().reshape(-1)
    labels = card.labels
    return [
        {"label": labels[index] if index < len(labels) else str(index), "probability": float(row[index])}
        for index in (-row).argsort(kind="stable")[:count].tolist()
    ]


def _timeout(text: str | None, *, max_timeout_s: float) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text)
        microseconds = round(seconds * 1e6)
    except (ValueError, OverflowError):
        raise WireError(f"timeout_s must be a number of seconds, not {text[:32]!r}") from None
    # A deadline of less than a microsecond is not the 0 that asks for none.
    return timeout_s(max(microseconds, 1) if seconds > 0 else microseconds, max_timeout_s=max_timeout_s)


def _top(text: str | None) -> int:
    if text is None:
        return TOP
    count = _whole(text)
    if not isinstance(count, int) or not 1 <= count <= MAX_TOP:
        raise WireError(f"query key 'top' must be a whole number from 1 to {MAX_TOP}, not {text[:32]!r}")
    return count


def _whole(text: str) -> object:
    """Returns a number, or the text itself, which the check of its key then refuses."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 5 else text

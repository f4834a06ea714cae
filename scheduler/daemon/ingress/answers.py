"""From an answer to the response that every protocol encodes in its own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from scheduler.daemon.calls import Answer
from scheduler.daemon.ingress.model_metadata import VERSION, ModelCard
from scheduler.domain.requests import Backend
from scheduler.wire import InferRequest, InferResponse, OutputRequest, Tensor, WireError


def infer_response(card: ModelCard, request: InferRequest, answer: Answer) -> InferResponse:
    """Returns the response for an answer, with scores replaced by top classes where the request asks for them.

    Raises:
        WireError: it asks for classes of an output that has none.
    """
    return InferResponse(
        model_name=card.name,
        outputs=_classified(answer.outputs, request.outputs, card) if request.outputs else answer.outputs,
        id=request.id,
        model_version=VERSION,
        parameters=answer_parameters(answer),
    )


def answer_parameters(answer: Answer) -> dict[str, object]:
    """Returns how an answer was computed, as response parameters; unknown values are left out."""
    on_edge = answer.backend is Backend.EDGE
    found: dict[str, object] = {
        "request_id": answer.request_id,
        "backend": "edge" if on_edge else "function",
        "edge": answer.place.partition(":")[2] if on_edge else "",
        "tier": answer.tier,
        "batch_id": answer.batch_id,
        "batch_items": answer.batch_items,
        "wait_s": answer.wait_s,
    }
    if answer.service_s is not None:
        found["service_s"] = answer.service_s
    found["cost"] = answer.cost
    if answer.cold_start is not None:
        found["cold_start"] = answer.cold_start
    found["attempts"] = answer.attempts
    return found


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

"""What a place answers to a batch: the truth, or one of the many other things that a place may say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import numpy as np

from scheduler import wire
from scheduler.wire import InferRequest, InferResponse, Tensor
from scripts.soak import truth

LIES: tuple[object, ...] = (float("nan"), -1.0, 1e9, "soon", 1e300, None, True, [1], 1e-12)
"""What a place may say of a duration; JSON has no NaN, which is left out there."""
HUGE_BYTES = 10**7


def response(model: str, request: InferRequest, *, what: str, stale: InferRequest | None) -> InferResponse:
    """Returns an answer to a batch, with the sums of its items as our servers echo them.

    Args:
        model: as the request names it.
        request: the batch.
        what: the fault; any that is not of an answer's content: none.
        stale: an earlier batch, which is answered instead where that is the fault.
    """
    asked = stale if what == "stale" and stale is not None else request
    inputs = _reversed(asked.inputs) if what == "reordered" else asked.inputs
    found = _deformed(truth.outputs(model, inputs, other_weights=what == "identity"), what)
    said = {wire.ITEM_CRC32: wire.item_crc32(inputs)}
    answer = InferResponse(model, found, id=asked.id, parameters=said)
    if what == "model":
        return replace(answer, model_name="another")
    return replace(answer, id="another") if what == "id" else answer


def lies(random: Random, names: Sequence[str]) -> dict[str, object]:
    """Returns what a place says of its own run that cannot be true."""
    values = [lie for lie in LIES if lie == lie]
    return {name: random.choice(values) for name in names if random.random() < 0.7}


def _reversed(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(wire.concat(wire.split(tensor, [1] * tensor.items)[::-1]) for tensor in inputs)


def _deformed(outputs: tuple[Tensor, ...], what: str) -> tuple[Tensor, ...]:
    first = outputs[0]
    if what == "nan":
        return tuple(_not_finite(tensor) for tensor in outputs)
    if what == "missing":
        return outputs[1:]
    if what == "datatype":
        return (Tensor.from_numpy(first.name, np.zeros(first.shape, np.uint8)), *outputs[1:])
    if what == "shape":
        return (Tensor.from_numpy(first.name, np.zeros((first.items, 3), np.float32)), *outputs[1:])
    return outputs


def _not_finite(tensor: Tensor) -> Tensor:
    if not tensor.datatype.startswith("FP") or tensor.items == 0:
        return tensor
    values = tensor.to_numpy().copy()
    values[-1] = np.nan
    return Tensor.from_numpy(tensor.name, values)

"""A raw request of Triton's binary extension: the whole body is the data of a model's one input, for one item.

Reference: https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md, "Raw
Binary Request".
"""

from __future__ import annotations

import math

from models.card import TensorSpec
from scheduler.daemon.ingress.model_metadata import ModelCard
from scheduler.wire import DATATYPES, JSON_LENGTH_HEADER, InferRequest, Tensor, WireError
from scheduler.wire.tensor import check_raw


def raw_request(card: ModelCard, body: bytes) -> InferRequest:
    """Returns the request that a raw body means: one item, all outputs, in binary form.

    Args:
        card: the model's metadata.
        body: the data, row-major and little-endian; of a BYTES input the one element, without its length.

    Raises:
        WireError: the model has several inputs, or the shape does not follow from the number of bytes.
    """
    if len(card.inputs) != 1:
        names = ", ".join(f"'{spec.name}'" for spec in card.inputs)
        raise WireError(f"{JSON_LENGTH_HEADER} is 0, which needs a model with one input; model {card.name} has {names}")
    spec = card.inputs[0]
    tensor = _element(card, spec, body) if spec.datatype == "BYTES" else _numbers(card, spec, body)
    return InferRequest(id="", inputs=(tensor,), binary_by_default=True)


def _element(card: ModelCard, spec: TensorSpec, body: bytes) -> Tensor:
    if any(length not in (-1, 1) for length in spec.shape):
        raise _unfit(card, spec, "has more than one element in an item")
    return Tensor.from_elements(spec.name, [body], (1, *(1 for _ in spec.shape)))


def _numbers(card: ModelCard, spec: TensorSpec, body: bytes) -> Tensor:
    known_bytes = math.prod(length for length in spec.shape if length != -1) * DATATYPES[spec.datatype].itemsize
    if spec.shape.count(-1) > 1:
        raise _unfit(card, spec, "has several lengths that vary")
    if -1 in spec.shape and len(body) % known_bytes:
        raise _unfit(card, spec, f"needs a multiple of {known_bytes} bytes, not {len(body)}")
    shape = tuple(len(body) // known_bytes if length == -1 else length for length in spec.shape)
    tensor = Tensor(spec.name, spec.datatype, (1, *shape), body)
    check_raw(tensor)
    return tensor


def _unfit(card: ModelCard, spec: TensorSpec, why: str) -> WireError:
    return WireError(f"{JSON_LENGTH_HEADER} is 0, but input '{spec.name}' of model {card.name} {why}; name its shape")

"""The probe of a version: a request with one item, sent as the daemon sends batches, which it must answer."""

from __future__ import annotations

import base64
import math
from collections.abc import Collection, Sequence

from models import catalogue
from scheduler import wire
from scheduler.daemon.config.model_sections import ModelSection, TensorSection
from scheduler.deploying.errors import DeployError
from scheduler.fc_client import Invoked
from scheduler.wire import InferRequest, Tensor, WireError

# A grey PNG of 8 x 8 pixels, which every decoder accepts.
_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5CYII="
)

ANY_LENGTH = 8
"""Length of an axis for which the model leaves it open."""


def probe_request(model: ModelSection) -> InferRequest:
    """Returns a request with one item: a grey picture, or zeros if the model takes other tensors.

    Args:
        model: the configured model; a model without `inputs` is in the catalogue.
    """
    if model.inputs:
        inputs = tuple(_one_item(tensor) for tensor in model.inputs)
    else:
        inputs = (Tensor.from_elements(catalogue.shipped(model.name).inputs[0].name, [_PICTURE]),)
    return InferRequest("probe", inputs)


def probe_frame(request: InferRequest, *, model: str, batch_id: str) -> bytes:
    """Returns the frame to invoke the function with, in the daemon's format."""
    return wire.pack_frame({"model": model, "batch_id": batch_id}, wire.encode_request(request))


def ragged_outputs(model: ModelSection) -> frozenset[str]:
    """Returns the names of the outputs of which items have unlike numbers of rows."""
    return frozenset(tensor.name for tensor in model.outputs if tensor.ragged)


def check_answer(invoked: Invoked, *, batch_id: str, ragged: Collection[str] = ()) -> None:
    """Checks that an answer answers the probe.

    Args:
        invoked: what came back.
        batch_id: the one in the probe's frame.
        ragged: names of the model's ragged outputs.

    Raises:
        DeployError: the function failed, or its answer is not valid.
    """
    try:
        header, payload = wire.unpack_frame(invoked.body)
    except WireError as error:
        raise DeployError(invoked.without_frame(error)) from None
    if header.get("status") != 200 or invoked.error_type:
        reason = str(header.get("error") or invoked.error_type or "no reason given")
        raise DeployError(f"the function answered {header.get('status')}: {reason[:500]}")
    if header.get("batch_id") != batch_id:
        raise DeployError("the function answered to another batch; run this project's container in it")
    try:
        outputs = wire.parse_response(payload.body, payload.json_length).outputs
        _check_outputs(outputs, ragged)
    except WireError as error:
        raise DeployError(f"the function's answer cannot be used: {error}") from None


def _check_outputs(outputs: Sequence[Tensor], ragged: Collection[str]) -> None:
    if not outputs or any(output.items != 1 for output in outputs if output.name not in ragged):
        raise DeployError("the function's answer to a batch of one has another number of items")
    wire.check_rows(outputs, 1, ragged)
    errors = wire.item_errors(outputs)
    if any(errors):
        raise DeployError(f"the function refuses the probe's item: {errors[0][:300]}")


def _one_item(tensor: TensorSection) -> Tensor:
    shape = (1, *(ANY_LENGTH if length == -1 else length for length in tensor.shape))
    if tensor.datatype == "BYTES":
        element = _PICTURE if tensor.picture else b""
        return Tensor.from_elements(tensor.name, [element] * math.prod(shape), shape)
    return Tensor(
        tensor.name, tensor.datatype, shape, bytes(math.prod(shape) * wire.DATATYPES[tensor.datatype].itemsize)
    )

"""Inference messages to the values of `wire` and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from scheduler.daemon.grpc import framing
from scheduler.daemon.grpc.messages import ModelInferRequest, ModelInferResponse, ModelStreamInferResponse
from scheduler.wire import (
    DATATYPES,
    InferRequest,
    InferResponse,
    Tensor,
    WireError,
    request_of_parts,
    requested_outputs,
)

_RAW_INPUTS = ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number
_RAW_OUTPUTS = ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number
_STREAMED = ModelStreamInferResponse.DESCRIPTOR.fields_by_name["infer_response"].number

_CONTENTS: Mapping[str, tuple[str, np.dtype[Any]]] = {
    "BOOL": ("bool_contents", np.dtype("?")),
    **{f"INT{bits}": ("int_contents", np.dtype("<i4")) for bits in (8, 16, 32)},
    **{f"UINT{bits}": ("uint_contents", np.dtype("<u4")) for bits in (8, 16, 32)},
    "INT64": ("int64_contents", np.dtype("<i8")),
    "UINT64": ("uint64_contents", np.dtype("<u8")),
    "FP32": ("fp32_contents", np.dtype("<f4")),
    "FP64": ("fp64_contents", np.dtype("<f8")),
}
"""By datatype: the field of InferTensorContents, and the type of its elements. FP16 has no field, BYTES its own."""

FINAL = "triton_final_response"
"""Parameter by which Triton marks the last response to a request of a stream; here each has one."""

_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """An inference request and the model that it is for."""

    model: str
    version: str
    request: InferRequest
    raw: bool
    """Whether its data came in binary form, so that the answer's do too."""


def parse_request(message: bytes) -> ModelRequest:
    """Reads and validates a serialised ModelInferRequest; data in binary form are views of it.

    Raises:
        WireError: it violates the protocol; the message names the tensor or field.
    """
    rest, raws = framing.cut_out(message, _RAW_INPUTS)
    head = parsed(ModelInferRequest, rest)
    inputs: list[dict[str, object]] = [_entry(tensor) for tensor in head.inputs]
    data: Sequence[bytes | memoryview] = raws
    if raws:
        for tensor in head.inputs:
            if tensor.contents.ByteSize():
                raise WireError(
                    f"tensor {tensor.name[:64]!r} has 'contents' beside 'raw_input_contents'; send one of them"
                )
    else:
        data = [_data(tensor) for tensor in head.inputs]
    values: dict[str, object] = {
        "id": head.id,
        "parameters": _parameters(head.parameters),
        "inputs": inputs,
        "outputs": [{"name": wanted.name, "parameters": _parameters(wanted.parameters)} for wanted in head.outputs],
    }
    return ModelRequest(head.model_name, head.model_version, request_of_parts(values, data), bool(raws))


def parsed(kind: Any, message: bytes) -> Any:
    """Returns a message of that class.

    Raises:
        WireError: it is not one.
    """
    try:
        return kind.FromString(message)
    except DecodeError:
        raise WireError(f"the message is not a valid {kind.DESCRIPTOR.full_name}") from None


def response_message(response: InferResponse, asked: ModelRequest) -> bytes:
    """Returns a serialised ModelInferResponse with the outputs, and in the form, that the request asks for.

    Raises:
        WireError: the response lacks a requested output.
    """
    return b"".join(_response_pieces(response, asked))


def streamed_message(response: InferResponse, asked: ModelRequest) -> bytes:
    """Returns a serialised ModelStreamInferResponse; arguments and errors are those of `response_message`."""
    pieces = _response_pieces(response, asked, **{FINAL: True})
    content: list[bytes | memoryview] = [b"".join(pieces)]
    return b"".join(framing.fields_of(_STREAMED, content))


def streamed_error(sentence: str, asked: ModelRequest | None) -> bytes:
    """Returns a serialised ModelStreamInferResponse that tells why a request of a stream got no answer."""
    message = ModelStreamInferResponse(error_message=sentence)
    if asked is not None:
        message.infer_response.model_name = asked.model
        message.infer_response.id = asked.request.id
        _set_parameters(message.infer_response.parameters, {FINAL: True})
    serialised: bytes = message.SerializeToString()
    return serialised


def _response_pieces(response: InferResponse, asked: ModelRequest, **further: object) -> list[bytes | memoryview]:
    head = ModelInferResponse(model_name=response.model_name, model_version=response.model_version, id=response.id)
    _set_parameters(head.parameters, {**response.parameters, **further})
    outputs = requested_outputs(response, asked.request.outputs)
    # The protocol has one form for all outputs of a response, and FP16 has only the binary one.
    raw = asked.raw or any(tensor.datatype not in _CONTENTS and tensor.datatype != "BYTES" for tensor in outputs)
    for tensor in outputs:
        entry = head.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not raw:
            _fill(entry.contents, tensor)
    pieces: list[bytes | memoryview] = [head.SerializeToString()]
    return pieces + framing.fields_of(_RAW_OUTPUTS, [tensor.raw for tensor in outputs]) if raw else pieces


def _entry(tensor: Any) -> dict[str, object]:
    return {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": list(tensor.shape),
        "parameters": _parameters(tensor.parameters),
    }


def _parameters(given: Any) -> dict[str, object]:
    """Returns parameters as JSON has them; one without a value is left out."""
    chosen = ((name, value, value.WhichOneof("parameter_choice")) for name, value in given.items())
    return {name: getattr(value, choice) for name, value, choice in chosen if choice}


def _set_parameters(into: Any, parameters: Mapping[str, object]) -> None:
    for name, value in parameters.items():
        if isinstance(value, bool):
            into[name].bool_param = value
        elif isinstance(value, int):
            if value > _INT64_MAX:
                into[name].uint64_param = value
            else:
                into[name].int64_param = value
        elif isinstance(value, float):
            into[name].double_param = value
        elif isinstance(value, str):
            into[name].string_param = value


def _data(tensor: Any) -> bytes:
    """Returns the elements of a tensor in binary form.

    Raises:
        WireError: they are in another field than that of the datatype, or out of its range.
    """
    datatype, shown = tensor.datatype, repr(tensor.name[:64])
    if datatype == "BYTES":
        return bytes(Tensor.from_elements(tensor.name, list(tensor.contents.bytes_contents)).raw)
    if datatype == "FP16":
        raise WireError(f"tensor {shown} is FP16, which has no field in 'contents'; send 'raw_input_contents'")
    if datatype not in _CONTENTS:
        return b""  # an unknown datatype, which the check of the request names
    name, wide = _CONTENTS[datatype]
    values = getattr(tensor.contents, name)
    if not values and tensor.contents.ByteSize():
        raise WireError(f"tensor {shown} is {datatype}, whose elements belong into '{name}' or 'raw_input_contents'")
    array = np.fromiter(values, wide, len(values))
    dtype = DATATYPES[datatype]
    if dtype.itemsize < wide.itemsize and len(array):
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise WireError(f"tensor {shown} is {datatype}, but has '{name}' that are out of its range")
    return array.astype(dtype, copy=False).tobytes()


def _fill(contents: Any, tensor: Tensor) -> None:
    """Puts a tensor's elements into the field of its datatype."""
    if tensor.datatype == "BYTES":
        contents.bytes_contents.extend(tensor.elements())
        return
    name, _ = _CONTENTS[tensor.datatype]
    getattr(contents, name).extend(tensor.to_numpy().ravel().tolist())

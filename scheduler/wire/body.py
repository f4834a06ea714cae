"""Requests and responses, and their bodies: a JSON object, followed by the data of the binary tensors."""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import orjson

from scheduler.wire import fields
from scheduler.wire.error import WireError, shown
from scheduler.wire.fields import json_object, named_entries
from scheduler.wire.json_data import data_from_json, data_to_json
from scheduler.wire.ordinary import from_template, plain_request, plain_response
from scheduler.wire.tensor import DATATYPES, Tensor, check_raw, pieces_of
from scheduler.wire.values import (
    JSON_LENGTH_HEADER,
    Encoded,
    EncodedParts,
    InferRequest,
    InferResponse,
    OutputRequest,
)

_MAX_LENGTH_DIGITS = 12

_MAX_RANK = 32  # numpy 1's limit
_MAX_ELEMENTS = 2**48  # numpy refuses shapes beyond the address space, even if one axis is 0
_MAX_EMPTY = 2**16  # a tensor without data: nothing else bounds the items that a few bytes announce


class Headers(Protocol):
    """HTTP headers with case-insensitive names, of whichever HTTP library."""

    def get(self, key: str, /) -> str | None:
        """Returns a header's value, None where it is absent."""
        ...


def json_length_of(headers: Headers) -> int | None:
    """Returns the length in bytes of a body's JSON object, None where the object is the whole body.

    Args:
        headers: of the request or the response.

    Raises:
        WireError: the header is not a whole number.
    """
    text = headers.get(JSON_LENGTH_HEADER)
    if text is None:
        return None
    # int() would also take signs, spaces, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_LENGTH_DIGITS):
        raise WireError(f"{JSON_LENGTH_HEADER} must be a whole number of bytes, not {shown(text)}")
    return int(text)


def parse_request(body: bytes | memoryview, json_length: int | None) -> InferRequest:
    """Reads and validates a request; its binary tensors are views of the body.

    Args:
        body: the HTTP body.
        json_length: the value of `Inference-Header-Content-Length`, None where the header is absent.

    Raises:
        WireError: the body violates the protocol; the message names the tensor or field.
    """
    plain = plain_request(body, json_length)
    if plain is not None:
        return plain
    head, binary = _split_body(body, json_length)
    return _request(head, _parse_tensors(head, "inputs", binary))


def request_of_parts(head: Mapping[str, Any], data: Sequence[bytes | memoryview]) -> InferRequest:
    """Validates a request of another encoding than JSON, as gRPC brings it; arguments are kept, not copied.

    Args:
        head: what the JSON object would hold, without data.
        data: the data of each input in binary form, in the order of `inputs`.

    Raises:
        WireError: as `parse_request` raises it.
    """
    entries = named_entries(head, "inputs")
    for entry in entries:
        _binary_size(entry, entry["name"])
    if len(entries) != len(data):
        raise WireError(f"the request has {len(entries)} inputs and the data of {len(data)}; send the data of each")
    return _request(
        head, tuple(_tensor_from_binary(entry, entry["name"], raw) for entry, raw in zip(entries, data, strict=True))
    )


def encode_request(request: InferRequest, *, binary: bool = True, as_base64: Collection[str] = ()) -> Encoded:
    """Encodes a request in one piece; see `request_parts`."""
    return request_parts(request, binary=binary, as_base64=as_base64).joined()


def request_parts(request: InferRequest, *, binary: bool = True, as_base64: Collection[str] = ()) -> EncodedParts:
    """Encodes a request, with all its tensors in binary form or all in JSON.

    Args:
        request: the request.
        binary: whether tensors are in binary form.
        as_base64: names of the BYTES inputs that JSON carries as base64, pictures for instance. They get the parameter
            `content_type`, by which MLServer decodes them; other servers leave it to the model.

    Raises:
        WireError: `binary` is false and a tensor cannot be encoded in JSON: bytes that are not UTF-8, NaN, infinity.
    """
    parameters = dict(request.parameters)
    if request.binary_by_default:
        parameters["binary_data_output"] = True
    head: dict[str, object] = {"id": request.id} if request.id else {}
    if parameters:
        head["parameters"] = parameters
    if request.outputs:
        head["outputs"] = [_output_request_json(output) for output in request.outputs]
    return _parts(head, "inputs", [(tensor, binary) for tensor in request.inputs], as_base64=as_base64)


def parse_response(body: bytes | memoryview, json_length: int | None) -> InferResponse:
    """Reads and validates a response; arguments and errors are those of `parse_request`."""
    plain = plain_response(body, json_length)
    if plain is not None:
        return plain
    head, binary = _split_body(body, json_length)
    model_name = fields.text(head, "model_name")
    if not model_name:
        raise WireError("the response has no 'model_name'")
    return InferResponse(
        model_name=model_name,
        outputs=_parse_tensors(head, "outputs", binary),
        id=fields.text(head, "id"),
        model_version=fields.text(head, "model_version") or "1",
        parameters=fields.parameters(head, "the response"),
    )


def encode_response(
    response: InferResponse, *, requested: Sequence[OutputRequest] = (), binary_by_default: bool = False
) -> Encoded:
    """Encodes a response with the requested outputs, in the order of the request, or with all of them.

    `class_count` changes the content of an output and not its encoding: the caller has applied it already.

    Args:
        response: the computed outputs.
        requested: the outputs that the request names; empty asks for all.
        binary_by_default: whether outputs are encoded in binary form where `requested` is empty.

    Raises:
        WireError: the response lacks a requested output, or an output cannot be encoded in JSON.
    """
    if not requested and binary_by_default and response.outputs:
        return from_template(response, response.outputs)
    outputs = requested_outputs(response, requested)
    binary = [wanted.binary for wanted in requested] if requested else [binary_by_default] * len(outputs)
    if outputs and all(binary):
        return from_template(response, outputs)
    head: dict[str, object] = {"model_name": response.model_name, "model_version": response.model_version}
    if response.id:
        head["id"] = response.id
    if response.parameters:
        head["parameters"] = dict(response.parameters)
    return _parts(head, "outputs", list(zip(outputs, binary, strict=True))).joined()


def requested_outputs(response: InferResponse, requested: Sequence[OutputRequest]) -> tuple[Tensor, ...]:
    """Returns a response's outputs in the order of a request, or all of them where it names none.

    Raises:
        WireError: the response lacks a requested output.
    """
    if not requested:
        return response.outputs
    by_name = {tensor.name: tensor for tensor in response.outputs}
    for wanted in requested:
        if wanted.name not in by_name:
            known = ", ".join(map(shown, by_name)) or "none"
            raise WireError(f"output {shown(wanted.name)} is unknown; the outputs are: {known}")
    return tuple(by_name[wanted.name] for wanted in requested)


def _request(head: Mapping[str, Any], inputs: tuple[Tensor, ...]) -> InferRequest:
    """Returns a request with these inputs and all else that its head says."""
    parameters = dict(fields.parameters(head, "the request"))
    binary_by_default = parameters.pop("binary_data_output", False)
    if type(binary_by_default) is not bool:
        raise WireError("parameter 'binary_data_output' of the request must be true or false")
    if not inputs:
        raise WireError("'inputs' is empty; send at least one tensor")
    outputs = _parse_output_requests(head, binary_by_default)
    return InferRequest(fields.text(head, "id"), inputs, outputs, parameters, binary_by_default)


def _split_body(body: bytes | memoryview, json_length: int | None) -> tuple[dict[str, Any], memoryview | None]:
    if json_length is None:
        return json_object(body, f"the body (without {JSON_LENGTH_HEADER}, all of it is JSON)"), None
    if not 0 < json_length <= len(body):
        raise WireError(f"{JSON_LENGTH_HEADER} is {json_length}, but must be from 1 to the body's {len(body)} bytes")
    view = memoryview(body)
    what = f"the body's beginning, of the {json_length} bytes that {JSON_LENGTH_HEADER} gives,"
    return json_object(view[:json_length], what), view[json_length:]


def _parse_tensors(head: Mapping[str, Any], key: str, binary: memoryview | None) -> tuple[Tensor, ...]:
    tensors, at = [], 0
    for entry in named_entries(head, key):
        name = entry["name"]
        size = _binary_size(entry, name)
        if size is None:
            tensors.append(_tensor_from_json(entry, name))
            continue
        if binary is None:
            raise WireError(f"tensor {shown(name)} is in binary form; send the header {JSON_LENGTH_HEADER} with it")
        if at + size > len(binary):
            raise WireError(
                f"tensor {shown(name)} has {len(binary) - at} bytes of data left of the {size} it announces"
            )
        tensors.append(_tensor_from_binary(entry, name, binary[at : at + size]))
        at += size
    if binary is not None and at != len(binary):
        raise WireError(f"the body has {len(binary) - at} bytes after the data of its last tensor")
    return tuple(tensors)


def _binary_size(entry: Mapping[str, Any], name: str) -> int | None:
    """Returns the announced length of a tensor's binary data, None for a tensor whose data is in JSON."""
    parameters = fields.parameters(entry, f"tensor {shown(name)}")
    if "shared_memory_region" in parameters:
        raise WireError(f"tensor {shown(name)} is in shared memory, which is not supported; send it in the body")
    size = parameters.get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size < 0:
        raise WireError(f"'binary_data_size' of tensor {shown(name)} must be a whole number of bytes, at least 0")
    return size


def _tensor_from_binary(entry: Mapping[str, Any], name: str, raw: bytes | memoryview) -> Tensor:
    if entry.get("data") is not None:
        raise WireError(f"tensor {shown(name)} has both 'data' and 'binary_data_size'; send one of them")
    tensor = Tensor(name, _datatype(entry, name), _shape(entry, name), raw)
    check_raw(tensor)
    return tensor


def _tensor_from_json(entry: Mapping[str, Any], name: str) -> Tensor:
    datatype, shape = _datatype(entry, name), _shape(entry, name)
    return data_from_json(name, datatype, shape, entry.get("data"))


def _datatype(entry: Mapping[str, Any], name: str) -> str:
    datatype = entry.get("datatype")
    if type(datatype) is not str:
        raise WireError(f"tensor {shown(name)} has no 'datatype'; give one, like 'FP32'")
    if datatype == "BF16":
        raise WireError(f"tensor {shown(name)} has datatype BF16, which is not supported; send FP32")
    if datatype not in DATATYPES and datatype != "BYTES":
        raise WireError(
            f"tensor {shown(name)} has the unknown datatype {shown(datatype)}; use {', '.join(DATATYPES)} or BYTES"
        )
    return datatype


def _shape(entry: Mapping[str, Any], name: str) -> tuple[int, ...]:
    shape = entry.get("shape")
    if type(shape) is not list or not 1 <= len(shape) <= _MAX_RANK:
        raise WireError(f"tensor {shown(name)} needs a 'shape': a list of 1 to {_MAX_RANK} lengths, the batch first")
    elements = 1
    for length in shape:
        if type(length) is not int or length < 0:
            raise WireError(
                f"tensor {shown(name)} has a length in its 'shape' that is not a whole number of at least 0"
            )
        elements *= length or 1
    limit = _MAX_EMPTY if 0 in shape else _MAX_ELEMENTS
    if elements > limit:
        raise WireError(
            f"tensor {shown(name)} has a 'shape' with too many elements; send at most {limit}; 0 counts as 1"
        )
    return tuple(shape)


def _parse_output_requests(head: Mapping[str, Any], binary_by_default: bool) -> tuple[OutputRequest, ...]:
    if head.get("outputs") is None:
        return ()
    return tuple(_output_request(entry, binary_by_default) for entry in named_entries(head, "outputs"))


def _output_request(entry: Mapping[str, Any], binary_by_default: bool) -> OutputRequest:
    name = entry["name"]
    parameters = fields.parameters(entry, f"output {shown(name)}")
    if "shared_memory_region" in parameters:
        raise WireError(
            f"output {shown(name)} is requested in shared memory, which is not supported; leave that parameter out"
        )
    binary = parameters.get("binary_data", binary_by_default)
    if type(binary) is not bool:
        raise WireError(f"'binary_data' of output {shown(name)} must be true or false")
    class_count = parameters.get("classification", 0)
    if type(class_count) is not int or class_count < 0:
        raise WireError(f"'classification' of output {shown(name)} must be a number of classes, at least 0")
    return OutputRequest(name, binary, class_count)


def _output_request_json(output: OutputRequest) -> dict[str, object]:
    parameters: dict[str, object] = {"binary_data": output.binary}
    if output.class_count:
        parameters["classification"] = output.class_count
    return {"name": output.name, "parameters": parameters}


def _parts(
    head: dict[str, object], key: str, tensors: Sequence[tuple[Tensor, bool]], *, as_base64: Collection[str] = ()
) -> EncodedParts:
    """Encodes a body; `tensors`, each with whether its data is binary, are listed under `key`."""
    head[key] = [_tensor_json(tensor, binary, as_base64=tensor.name in as_base64) for tensor, binary in tensors]
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    parts: list[bytes | memoryview] = [text]
    for tensor, binary in tensors:
        if binary:
            parts += pieces_of(tensor)
    return EncodedParts(parts, len(text) if len(parts) > 1 else None)


def _tensor_json(tensor: Tensor, binary: bool, *, as_base64: bool = False) -> dict[str, object]:
    entry: dict[str, object] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype}
    if binary:
        entry["parameters"] = {"binary_data_size": sum(map(len, pieces_of(tensor)))}
    elif as_base64 and tensor.datatype == "BYTES":
        entry["parameters"] = {"content_type": "base64"}
        entry["data"] = [base64.b64encode(element).decode() for element in tensor.elements()]
    else:
        entry["data"] = data_to_json(tensor)
    return entry

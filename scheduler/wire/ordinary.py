"""Ordinary requests and answers, whose inputs and outputs are binary: read by types, and written from a template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson

from scheduler.wire.error import WireError
from scheduler.wire.plain_head import plain_answer_head, plain_head
from scheduler.wire.tensor import DATATYPES, Tensor, check_raw
from scheduler.wire.values import Encoded, InferRequest, InferResponse, OutputRequest


def plain_request(body: bytes | memoryview, json_length: int | None) -> InferRequest | None:
    """Returns an ordinary request; None for any other one, and for one that is not valid."""
    if json_length is None or not 0 < json_length <= len(body):
        return None
    view = memoryview(body)
    head = plain_head(view[:json_length])
    if head is None:
        return None
    parameters = head.parameters or {}
    binary_by_default = parameters.pop("binary_data_output", False) if parameters else False
    if type(binary_by_default) is not bool:
        return None
    at, inputs = json_length, []
    for entry in head.inputs:
        end, datatype = at + entry.parameters.binary_data_size, entry.datatype
        if end > len(view) or (datatype != "BYTES" and datatype not in DATATYPES):
            return None
        inputs.append(Tensor(entry.name, datatype, tuple(entry.shape), view[at:end]))
        at = end
    if at != len(view):
        return None
    try:
        for tensor in inputs:
            check_raw(tensor)
    except WireError:
        return None
    outputs = tuple([_plain_output(each, binary_by_default) for each in head.outputs]) if head.outputs else ()
    return InferRequest(head.id, tuple(inputs), outputs, parameters, binary_by_default)


def plain_response(body: bytes | memoryview, json_length: int | None) -> InferResponse | None:
    """Returns an ordinary response; None for any other one, and for one that is not valid."""
    if json_length is None or not 0 < json_length <= len(body):
        return None
    view = memoryview(body)
    head = plain_answer_head(view[:json_length])
    if head is None:
        return None
    at, outputs = json_length, []
    for entry in head.outputs:
        end, datatype = at + entry.parameters.binary_data_size, entry.datatype
        if end > len(view) or (datatype != "BYTES" and datatype not in DATATYPES):
            return None
        outputs.append(Tensor(entry.name, datatype, tuple(entry.shape), view[at:end]))
        at = end
    if at != len(view):
        return None
    try:
        for tensor in outputs:
            check_raw(tensor)
    except WireError:
        return None
    return InferResponse(head.model_name, tuple(outputs), head.id, head.model_version or "1", head.parameters or {})


def _plain_output(entry: Any, binary_by_default: bool) -> OutputRequest:
    said = entry.parameters
    if said is None:
        return OutputRequest(entry.name, binary_by_default)
    return OutputRequest(
        entry.name, binary_by_default if said.binary_data is None else said.binary_data, said.classification
    )


def from_template(response: InferResponse, outputs: Sequence[Tensor]) -> Encoded:
    """Returns a response with binary outputs: most of its text was made for one before it."""
    return Encoded(
        *template_of(
            outputs, response.parameters, name=response.model_name, version=response.model_version, id=response.id
        )
    )


def template_of(
    outputs: Sequence[Tensor], parameters: Mapping[str, object], *, name: str, version: str, id: str
) -> tuple[bytes, int]:
    """Returns the body of a response with binary outputs, and the length in bytes of its JSON object.

    Args:
        outputs: of the response, at least one.
        parameters: of the response.
        name: of the model.
        version: of the model.
        id: the client's own of the request; empty: it gave none.
    """
    texts: list[bytes | memoryview] = [_response_start(name, version)]
    if id:
        texts += (b',"id":', orjson.dumps(id))
    if parameters:
        texts += (b',"parameters":', orjson.dumps(parameters, option=orjson.OPT_SERIALIZE_NUMPY))
    texts.append(b',"outputs":[')
    raws: list[bytes | memoryview] = []
    for tensor in outputs:
        raw = tensor.raw
        texts.append(_binary_entry(tensor.name, tensor.datatype, tensor.shape, len(raw), comma=bool(raws)))
        raws.append(raw)
    texts.append(b"]}")
    return b"".join(texts + raws), sum(map(len, texts))


@lru_cache(maxsize=256)
def _response_start(model_name: str, model_version: str) -> bytes:
    return orjson.dumps({"model_name": model_name, "model_version": model_version})[:-1]


@lru_cache(maxsize=1024)
def _binary_entry(name: str, datatype: str, shape: tuple[int, ...], size_bytes: int, *, comma: bool) -> bytes:
    parameters = {"binary_data_size": size_bytes}
    entry = orjson.dumps({"name": name, "shape": shape, "datatype": datatype, "parameters": parameters})
    return b"," + entry if comma else entry

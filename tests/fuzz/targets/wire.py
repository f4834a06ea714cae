"""Bodies of the Open Inference Protocol, JSON and binary, requests and responses.

First byte: bit 0 a response; bytes 1 and 2: length of the JSON object, little-endian; 0: all of it is JSON.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable

from fuzz.mutators import of_json
from fuzz.target import Target, one_sentence

from scheduler.wire import (
    InferRequest,
    InferResponse,
    Tensor,
    WireError,
    base64_elements,
    concat,
    encode_request,
    encode_response,
    item_crc32,
    item_errors,
    parse_request,
    parse_response,
    split,
)

INSTRUMENTED = ("scheduler.wire",)


def check(data: bytes) -> None:
    """Reads a body, writes it again in both forms, and cuts and joins its tensors."""
    if len(data) < 3:
        return
    json_length, body = int.from_bytes(data[1:3], "little") or None, data[3:]
    try:
        parsed = parse_response(body, json_length) if data[0] & 1 else parse_request(body, json_length)
    except WireError as error:
        one_sentence(error)
        return
    tensors = parsed.outputs if isinstance(parsed, InferResponse) else parsed.inputs
    _written_again(parsed)
    for tensor in tensors:
        _cut_and_joined(tensor)
    if tensors and len({tensor.items for tensor in tensors}) == 1:
        assert len(item_crc32(tensors)) == 8 * tensors[0].items
    item_errors(tensors)


def _written_again(parsed: InferRequest | InferResponse) -> None:
    for binary in (True, False):
        try:
            if isinstance(parsed, InferRequest):
                encoded = encode_request(parsed, binary=binary)
                again: InferRequest | InferResponse = parse_request(encoded.body, encoded.json_length)
            else:
                encoded = encode_response(parsed, binary_by_default=binary)
                again = parse_response(encoded.body, encoded.json_length)
        except WireError as error:
            assert not binary, "the binary form carries everything"
            one_sentence(error)
            continue
        assert plain(again) == plain(parsed)


def plain(parsed: InferRequest | InferResponse) -> object:
    """Returns all that a body says, apart from the form of its tensors."""
    if isinstance(parsed, InferResponse):
        tensors, rest = parsed.outputs, (parsed.model_name, parsed.model_version, parsed.id, parsed.parameters)
    else:
        wanted = (parsed.outputs, parsed.binary_by_default)
        tensors, rest = parsed.inputs, (parsed.id, *wanted, parsed.parameters)
    return [(each.name, each.datatype, each.shape, bytes(each.raw)) for each in tensors], rest


def _cut_and_joined(tensor: Tensor) -> None:
    if 2 <= tensor.items <= 64:
        parts = split(tensor, [1] * tensor.items)
        joined = concat(parts)
        assert (joined.shape, bytes(joined.raw)) == (tensor.shape, bytes(tensor.raw))
    if tensor.datatype != "BYTES":
        assert tensor.to_numpy().shape == tensor.shape
        return
    assert bytes(Tensor.from_elements(tensor.name, tensor.elements(), tensor.shape).raw) == bytes(tensor.raw)
    try:
        base64_elements(tensor)
    except WireError as error:
        one_sentence(error)


def packed(document: object, raw: bytes = b"", *, response: bool = False, binary: bool = False) -> bytes:
    """Returns an input of this target."""
    text = json.dumps(document).encode()
    return bytes([response]) + (len(text) if binary else 0).to_bytes(2, "little") + text + raw


def seeds() -> Iterable[bytes]:
    """Yields requests and responses with every datatype, in both forms."""
    sizes = {"BOOL": 1, "UINT8": 1, "INT16": 2, "FP16": 2, "UINT32": 4, "FP32": 4, "INT64": 8, "FP64": 8}
    for response, key in ((False, "inputs"), (True, "outputs")):
        head = {"model_name": "m", "id": "7"} if response else {"id": "7"}
        for datatype, size in sizes.items():
            entry = {"name": "x", "shape": [2, 1], "datatype": datatype}
            yield packed({**head, key: [{**entry, "data": [[0], [1]]}]}, response=response)
            entry["parameters"] = {"binary_data_size": 2 * size}
            yield packed({**head, key: [entry]}, bytes(2 * size), response=response, binary=True)
        words = {"name": "t", "shape": [2], "datatype": "BYTES"}
        yield packed({**head, key: [{**words, "data": ["aGk=", "eA=="]}], "parameters": {"a": 1.5}}, response=response)
        raw = struct.pack("<I2sI", 2, b"hi", 0)
        words["parameters"] = {"binary_data_size": len(raw)}
        yield packed({**head, key: [words]}, raw, response=response, binary=True)
    wanted = [{"name": "p", "parameters": {"binary_data": True, "classification": 3}}]
    one = [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}]
    yield packed({"inputs": one, "outputs": wanted, "parameters": {"binary_data_output": True}})
    errors = {"name": "item_error", "shape": [1], "datatype": "BYTES", "data": ["not a picture"]}
    yield packed({"model_name": "m", "outputs": [errors]}, response=True)
    nested: object = 1
    for _ in range(60):
        nested = [nested]
    yield packed({"inputs": one, "parameters": {"deep": nested}})


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Changes values of the JSON object, and mostly gives its length anew."""
    length = int.from_bytes(data[1:3], "little")
    text, raw = (data[3 : 3 + length], data[3 + length :]) if length else (data[3:], b"")
    text = of_json(text, rng)
    if length and rng.random() < 0.9:
        length = len(text)
    return data[:1] + (length & 0xFFFF).to_bytes(2, "little") + text + raw


TARGET = Target(
    name="wire",
    check=check,
    seeds=seeds,
    instrumented=INSTRUMENTED,
    words=(
        *(f'"{word}"'.encode() for word in ("inputs", "outputs", "name", "shape", "datatype", "data", "parameters")),
        *(f'"{word}"'.encode() for word in ("binary_data_size", "binary_data", "classification", "content_type")),
        *(f'"{word}"'.encode() for word in ("BYTES", "BOOL", "FP16", "FP32", "FP64", "INT8", "UINT64", "BF16")),
        *(f'"{word}"'.encode() for word in ("shared_memory_region", "binary_data_output", "model_name", "id")),
        *(b"null", b"true", b"false", b"[]", b"{}", b"-1", b"1e308", b"1e999", b"18446744073709551616", b"\\u0000"),
        *(b"\\ud800", b"[[", b"]]", b'"data":[', b'"shape":[', b"4294967295", b"281474976710656", b"\xff\xff\xff\xff"),
    ),
    longest_bytes=1024,
    mutate=mutated,
)

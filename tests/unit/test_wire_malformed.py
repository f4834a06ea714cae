"""Bodies and values that break the protocol: each is refused in one sentence which names the culprit."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wire_strategies import requests

from scheduler.wire import (
    InferRequest,
    InferResponse,
    OutputRequest,
    Tensor,
    WireError,
    encode_request,
    encode_response,
    json_length_of,
    parse_request,
    parse_response,
)

GOOD = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}


def _binary_body(entries: list[dict[str, Any]], raw: bytes, size: object = None) -> tuple[bytes, int]:
    size = len(raw) if size is None else size
    inputs = [{"parameters": {"binary_data_size": size}} | entry for entry in entries]
    head = json.dumps({"inputs": inputs}).encode()
    return head + raw, len(head)


def _one_sentence(message: str) -> bool:
    return not message.endswith(".") and "\n" not in message and len(message) < 400


def _refusal(body: bytes, json_length: int | None) -> str:
    with pytest.raises(WireError) as caught:
        parse_request(body, json_length)
    message = str(caught.value)
    assert _one_sentence(message)
    return message


def _parsed_or_refused(body: bytes, json_length: int | None) -> InferRequest | str:
    try:
        return parse_request(body, json_length)
    except WireError as error:
        return str(error)


def _without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


@pytest.mark.parametrize(
    ("culprit", "request_json"),
    [
        ("'inputs' is missing", {}),
        ("'inputs' must be a list", {"inputs": {}}),
        ("'inputs' is empty", {"inputs": []}),
        ("inputs[1]", {"inputs": [GOOD, "x"]}),
        ("inputs[0]", {"inputs": [_without("name")]}),
        ("inputs[0]", {"inputs": [GOOD | {"name": ""}]}),
        ("'x' twice", {"inputs": [GOOD, GOOD]}),
        ("'x' has no 'datatype'", {"inputs": [_without("datatype")]}),
        ("unknown datatype 'FP31'", {"inputs": [GOOD | {"datatype": "FP31"}]}),
        ("BF16, which is not supported", {"inputs": [GOOD | {"datatype": "BF16"}]}),
        ("'x' needs a 'shape'", {"inputs": [_without("shape")]}),
        ("'x' needs a 'shape'", {"inputs": [GOOD | {"shape": []}]}),
        ("'x' needs a 'shape'", {"inputs": [GOOD | {"shape": [1] * 33}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [-2]}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [2.0]}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [True, 2]}]}),
        ("'shape' with too many elements", {"inputs": [GOOD | {"shape": [0, 2**40, 2**40], "data": []}]}),
        ("'shape' with too many elements", {"inputs": [GOOD | {"shape": [5_000_000, 0], "data": []}]}),
        ("over 64 levels", {"inputs": [GOOD], "parameters": {"deep": json.loads("[" * 65 + "]" * 65)}}),
        ("over 64 levels", {"inputs": [GOOD | {"parameters": {"deep": json.loads('{"a":' * 70 + "1" + "}" * 70)}}]}),
        ("'x' needs 'data'", {"inputs": [_without("data")]}),
        ("'x' needs 'data'", {"inputs": [GOOD | {"data": 3}]}),
        ("does not fill its shape [3]", {"inputs": [GOOD | {"shape": [3]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2], [3]]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2], 3]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2, 3, 4]]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2, 3], [4]]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 0], "data": [[], [], []]}]}),
        ("a number in its range", {"inputs": [GOOD | {"data": [1, "2"]}]}),
        ("a number in its range", {"inputs": [GOOD | {"data": [1, None]}]}),
        ("a number in its range", {"inputs": [GOOD | {"data": [1, True]}]}),
        ("a number in its range", {"inputs": [GOOD | {"data": [1, [2]]}]}),
        ("a number in its range", {"inputs": [GOOD | {"data": [1, 1e300]}]}),
        ("a whole number", {"inputs": [GOOD | {"datatype": "UINT8", "data": [1, 256]}]}),
        ("a whole number", {"inputs": [GOOD | {"datatype": "UINT8", "data": [1, -1]}]}),
        ("a whole number", {"inputs": [GOOD | {"datatype": "INT64", "data": [1, 2**63]}]}),
        ("a whole number", {"inputs": [GOOD | {"datatype": "UINT64", "data": [1, 2**64]}]}),
        ("a whole number", {"inputs": [GOOD | {"datatype": "INT32", "data": [1, 2.5]}]}),
        ("true or false", {"inputs": [GOOD | {"datatype": "BOOL", "data": [1, 0]}]}),
        ("is not all strings", {"inputs": [GOOD | {"datatype": "BYTES", "data": ["a", 1]}]}),
        ("shared memory", {"inputs": [GOOD | {"parameters": {"shared_memory_region": "r"}}]}),
        ("'parameters' of tensor 'x'", {"inputs": [GOOD | {"parameters": []}]}),
        ("Inference-Header-Content-Length", {"inputs": [_without("data") | {"parameters": {"binary_data_size": 8}}]}),
        ("'parameters' of the request", {"inputs": [GOOD], "parameters": 3}),
        ("'binary_data_output'", {"inputs": [GOOD], "parameters": {"binary_data_output": 1}}),
        ("'id'", {"inputs": [GOOD], "id": 7}),
        ("'outputs'", {"inputs": [GOOD], "outputs": {}}),
        ("outputs[0]", {"inputs": [GOOD], "outputs": [{}]}),
        ("'y' twice", {"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}),
        (
            "'binary_data' of output 'y'",
            {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"binary_data": 0}}]},
        ),
        ("'classification'", {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": -1}}]}),
        ("shared memory", {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"shared_memory_region": "r"}}]}),
        ("JSON object", [GOOD]),
    ],
)
def test_a_malformed_json_request_is_refused_by_name(culprit: str, request_json: object) -> None:
    assert culprit in _refusal(json.dumps(request_json).encode(), None)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xd8\xff\xe0JFIF", b'{"inputs": NaN}', b"[" * 5000, b'"\\ud800"'])
def test_a_body_that_is_not_json_is_refused(body: bytes) -> None:
    assert "not valid JSON" in _refusal(body, None)


X = {"name": "x", "datatype": "FP32", "shape": [2]}
T = {"name": "x", "datatype": "BYTES", "shape": [2]}
LENGTH_1 = struct.pack("<I", 1)


@pytest.mark.parametrize(
    ("culprit", "entry", "raw", "size"),
    [
        ("has 4 bytes of data, but its shape needs 8", X, b"\0" * 4, None),
        ("has 12 bytes of data, but its shape needs 8", X, b"\0" * 12, None),
        ("has 7 bytes of data left of the 8", X, b"\0" * 7, 8),
        ("1 bytes after the data of its last tensor", X, b"\0" * 9, 8),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, -8),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, "8"),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, True),
        ("both 'data' and 'binary_data_size'", X | {"data": [1, 2]}, b"\0" * 8, None),
        ("unknown datatype", X | {"datatype": "STRING"}, b"\0" * 8, None),
        ("BF16, which is not supported", X | {"datatype": "BF16"}, b"\0" * 4, None),
        ("'shape'", X | {"shape": [-1, -2]}, b"\0" * 8, None),
        ("neither 0 nor 1", X | {"datatype": "BOOL"}, b"\1\2", None),
        ("too few for the lengths", T, LENGTH_1 + b"a", None),
        ("too few for the lengths", T | {"shape": [2**40]}, LENGTH_1 + b"a", None),
        ("before the length of element 1", T, LENGTH_1 + b"a" + b"\0\0\0", None),
        ("before the 1 bytes of element 1", T, LENGTH_1 + b"a" + LENGTH_1, None),
        ("before the 4294967295 bytes of element 0", T, b"\xff" * 9, None),
        ("1 bytes of data after its last element", T, (LENGTH_1 + b"a") * 2 + b"z", None),
    ],
)
def test_malformed_binary_data_is_refused_by_name(
    culprit: str, entry: dict[str, Any], raw: bytes, size: object
) -> None:
    assert culprit in _refusal(*_binary_body([entry], raw, size))


def test_every_wrong_json_length_is_refused() -> None:
    encoded = encode_request(InferRequest("", (Tensor.from_elements("image", [b"\x89PNG"]),)))
    for json_length in [None, *range(-1, len(encoded.body) + 2)]:
        if json_length != encoded.json_length:
            outside = json_length is not None and not 1 <= json_length <= len(encoded.body)
            culprit = f"Inference-Header-Content-Length is {json_length}" if outside else ""
            assert culprit in _refusal(encoded.body, json_length)


def test_a_length_is_read_from_the_headers_that_its_body_was_given() -> None:
    for binary in (True, False):
        encoded = encode_request(InferRequest("", (Tensor.from_elements("text", [b"a"]),)), binary=binary)
        assert json_length_of(encoded.headers) == encoded.json_length


@pytest.mark.parametrize("text", ["", "two", "-1", "+1", "1.0", " 1", "1_0", "\u0663", "1" * 13])
def test_a_length_that_is_no_plain_whole_number_is_refused(text: str) -> None:
    with pytest.raises(WireError, match="Inference-Header-Content-Length must be a whole number of bytes"):
        json_length_of({"Inference-Header-Content-Length": text})


@settings(deadline=None)
@given(requests(json_able=False), st.data())
def test_a_damaged_body_is_a_wire_error_or_a_request(request: InferRequest, data: st.DataObject) -> None:
    encoded = encode_request(request)
    body = bytearray(encoded.body)
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    outcome = _parsed_or_refused(bytes(body), encoded.json_length)
    if isinstance(outcome, str):
        assert _one_sentence(outcome)
    else:
        assert [tensor.to_numpy().shape for tensor in outcome.inputs] == [tensor.shape for tensor in outcome.inputs]


@settings(deadline=None)
@given(st.text(min_size=1))
def test_a_refusal_shows_no_more_than_one_line_of_what_the_client_wrote(name: str) -> None:
    entry = {"name": name * 100, "datatype": name * 100, "shape": [1], "data": [1]}
    _refusal(json.dumps({"inputs": [entry]}).encode(), None)


# Responses that cannot be written or read


@pytest.mark.parametrize(
    ("culprit", "response_json"),
    [
        ("'model_name'", {"outputs": []}),
        ("'model_name'", {"model_name": 3, "outputs": []}),
        ("'outputs' is missing", {"model_name": "m"}),
        ("'model_version'", {"model_name": "m", "model_version": 1, "outputs": []}),
        ("'x' twice", {"model_name": "m", "outputs": [GOOD, GOOD]}),
    ],
)
def test_a_malformed_response_is_refused_by_name(culprit: str, response_json: object) -> None:
    with pytest.raises(WireError) as caught:
        parse_response(json.dumps(response_json).encode(), None)
    assert culprit in str(caught.value)
    assert _one_sentence(str(caught.value))


def test_an_output_which_the_model_lacks_is_refused_with_those_it_has() -> None:
    response = InferResponse("digits", (Tensor.from_numpy("scores", np.zeros(1)),))
    with pytest.raises(WireError, match=r"output 'score' is unknown; the outputs are: 'scores'"):
        encode_response(response, requested=[OutputRequest("score", binary=True)])


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor.from_elements("x", [b"\x89PNG"]),
        Tensor.from_numpy("x", np.array([math.nan])),
        Tensor.from_numpy("x", np.array([-math.inf], np.float16)),
    ],
)
def test_what_json_lacks_is_refused_there_and_passes_in_binary(tensor: Tensor) -> None:
    response = InferResponse("m", (tensor,))
    with pytest.raises(WireError, match="'x' .* JSON cannot carry"):
        encode_response(response)
    encoded = encode_response(response, binary_by_default=True)
    assert parse_response(encoded.body, encoded.json_length).outputs == (tensor,)


@pytest.mark.parametrize(
    "array",
    [np.float32(1), np.array([1j]), np.array(["a"]), np.array(["a"], np.object_), np.array([b"a", None], np.object_)],
)
def test_arrays_which_the_protocol_lacks_are_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(WireError, match="'x'"):
        Tensor.from_numpy("x", np.asarray(array))


def test_elements_must_fill_the_shape() -> None:
    with pytest.raises(WireError, match="do not fill"):
        Tensor.from_elements("x", [b"a"], (2, 1))


def test_only_bytes_tensors_have_elements() -> None:
    with pytest.raises(WireError, match="must be BYTES"):
        Tensor.from_numpy("x", np.zeros(1)).elements()

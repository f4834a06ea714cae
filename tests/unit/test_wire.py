"""The wire format against itself (round trips), against Triton's own client, and against malformed bodies."""

from __future__ import annotations

import base64
import json
import math
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from scheduler.wire import (
    DATATYPES,
    Encoded,
    InferRequest,
    InferResponse,
    OutputRequest,
    Tensor,
    WireError,
    base64_elements,
    concat,
    encode_request,
    encode_response,
    pack_frame,
    parse_request,
    parse_response,
    split,
    unpack_frame,
)

SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
NAMES = st.text(min_size=1, max_size=8)
PARAMETERS = st.dictionaries(
    st.text(max_size=8).filter(lambda key: key != "binary_data_output"),
    st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    max_size=3,
)


def arrays_of(datatype: str, shape: st.SearchStrategy[tuple[int, ...]] | tuple[int, ...], finite: bool) -> Any:
    dtype = DATATYPES[datatype]
    special = None if dtype.kind != "f" else not finite
    return hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype, allow_nan=special, allow_infinity=special))


@st.composite
def tensors(draw: st.DrawFn, *, json_able: bool, shape: Any = SHAPES, name: Any = NAMES) -> Tensor:
    shape = draw(shape)
    datatype = draw(st.sampled_from([*DATATYPES, "BYTES"]))
    if datatype != "BYTES":
        return Tensor.from_numpy(draw(name), draw(arrays_of(datatype, shape, finite=json_able)))
    size = math.prod(shape)
    element = st.text(max_size=6).map(str.encode) if json_able else st.binary(max_size=6)
    elements = draw(st.lists(element, min_size=size, max_size=size))
    return Tensor.from_elements(draw(name), elements, shape)


def distinct(json_able: bool, min_size: int) -> st.SearchStrategy[tuple[Tensor, ...]]:
    several = st.lists(
        tensors(json_able=json_able), min_size=min_size, max_size=3, unique_by=lambda tensor: tensor.name
    )
    return several.map(tuple)


OUTPUT_REQUESTS = st.lists(
    st.builds(OutputRequest, NAMES, st.booleans(), st.integers(0, 5)), max_size=3, unique_by=lambda output: output.name
).map(tuple)


def requests(json_able: bool) -> st.SearchStrategy[InferRequest]:
    inputs = distinct(json_able, 1)
    return st.builds(InferRequest, st.text(max_size=8), inputs, OUTPUT_REQUESTS, PARAMETERS, st.booleans())


def said_from_json(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(replace(tensor, from_json=True) for tensor in tensors)


# Round trips


@given(requests(json_able=False))
def test_a_request_survives_the_binary_form(request: InferRequest) -> None:
    encoded = encode_request(request)
    assert encoded.json_length is not None
    assert parse_request(encoded.body, encoded.json_length) == request


@given(requests(json_able=True))
def test_a_request_survives_json_bit_for_bit(request: InferRequest) -> None:
    encoded = encode_request(request, binary=False)
    assert encoded.json_length is None
    assert parse_request(encoded.body, None) == replace(request, inputs=said_from_json(request.inputs))


@given(distinct(json_able=True, min_size=0), PARAMETERS, st.text(max_size=8), st.booleans())
def test_a_response_survives_both_forms(
    outputs: tuple[Tensor, ...], parameters: dict[str, object], request_id: str, binary: bool
) -> None:
    response = InferResponse("digits", outputs, request_id, "3", parameters)
    encoded = encode_response(response, binary_by_default=binary)
    expected = response if binary else replace(response, outputs=said_from_json(outputs))
    assert parse_response(encoded.body, encoded.json_length) == expected


@given(tensors(json_able=False))
def test_a_tensor_becomes_an_array_and_back(tensor: Tensor) -> None:
    array = tensor.to_numpy()
    assert array.shape == tensor.shape
    assert tensor.items == len(array)
    assert Tensor.from_numpy(tensor.name, array) == tensor


@pytest.mark.parametrize("array", [np.arange(6, dtype=">i4").reshape(2, 3), np.arange(12, dtype="<i4").reshape(3, 4).T])
def test_arrays_of_any_layout_become_little_endian_row_major(array: np.ndarray[Any, Any]) -> None:
    tensor = Tensor.from_numpy("x", array)
    assert tensor.raw == struct.pack(f"<{array.size}i", *array.ravel().tolist())


def test_the_binary_data_of_a_parsed_request_is_not_copied() -> None:
    body, json_length = _binary_body([{"name": "x", "datatype": "UINT8", "shape": [2]}], b"ab")
    raw = parse_request(body, json_length).inputs[0].raw
    assert isinstance(raw, memoryview)
    assert raw.obj is body


@given(st.data())
def test_nested_json_data_means_the_same_as_flat(data: st.DataObject) -> None:
    array = data.draw(arrays_of("INT32", hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=3), finite=True))
    entry = {"name": "x", "datatype": "INT32", "shape": list(array.shape)}
    bodies = [json.dumps({"inputs": [entry | {"data": form.tolist()}]}).encode() for form in (array, array.ravel())]
    nested, flat = (parse_request(body, None) for body in bodies)
    assert nested == flat


# Triton's own client as the oracle


def _triton_input(tensor: Tensor, binary: bool) -> InferInput:
    array = tensor.to_numpy()
    triton = InferInput(tensor.name, list(tensor.shape), tensor.datatype)
    return triton.set_data_from_numpy(array, binary_data=binary)


def _triton_output(output: OutputRequest) -> InferRequestedOutput:
    return InferRequestedOutput(output.name, binary_data=output.binary, class_count=output.class_count)


def _head(body: bytes, json_length: int | None) -> dict[str, Any]:
    """The JSON object, its numbers at their tensor's precision: we write 0.1 for the FP32 of 0.10000000149011612."""
    head: dict[str, Any] = json.loads(body[:json_length])
    for entry in head["inputs"]:
        if "data" in entry and entry["datatype"] in ("FP16", "FP32"):
            entry["data"] = np.array(entry["data"], DATATYPES[entry["datatype"]]).tolist()
    return head


@given(requests(json_able=True), st.booleans(), st.integers(0, 9), st.none() | st.integers(1, 10**9))
def test_tritons_client_writes_what_we_write(
    request: InferRequest, binary: bool, priority: int, timeout_us: int | None
) -> None:
    body, json_length = InferenceServerClient.generate_request_body(
        [_triton_input(tensor, binary) for tensor in request.inputs],
        outputs=[_triton_output(output) for output in request.outputs],
        request_id=request.id,
        priority=priority,
        timeout=timeout_us,
    )
    parameters = {"priority": priority} if priority else {}
    if timeout_us is not None:
        parameters["timeout"] = timeout_us
    ours = replace(request, parameters=parameters, binary_by_default=not request.outputs)
    encoded = encode_request(ours, binary=binary)
    assert (encoded.json_length is None) == (json_length is None)
    assert _head(encoded.body, encoded.json_length) == _head(body, json_length)
    if json_length is not None:
        assert encoded.body[encoded.json_length :] == body[json_length:]
    expected = replace(ours, inputs=ours.inputs if binary else said_from_json(ours.inputs))
    assert parse_request(body, json_length) == expected


@given(distinct(json_able=True, min_size=1), st.data())
def test_tritons_client_reads_what_we_write(outputs: tuple[Tensor, ...], data: st.DataObject) -> None:
    wanted = [OutputRequest(tensor.name, data.draw(st.booleans())) for tensor in data.draw(st.permutations(outputs))]
    encoded = encode_response(InferResponse("digits", outputs, "7"), requested=wanted)
    result = InferenceServerClient.parse_response_body(encoded.body, header_length=encoded.json_length)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == [output.name for output in wanted]
    assert result.get_response()["id"] == "7"
    for tensor in outputs:
        ours, theirs = tensor.to_numpy(), result.as_numpy(tensor.name)
        texts = [item.encode() if isinstance(item, str) else item for item in theirs.ravel().tolist()]
        assert theirs.shape == ours.shape
        assert texts == ours.ravel().tolist()


@given(requests(json_able=False))
def test_the_outputs_asked_for_are_the_ones_written(request: InferRequest) -> None:
    response = InferResponse("digits", request.inputs)
    wanted = [OutputRequest(request.inputs[-1].name, binary=True)]
    encoded = encode_response(response, requested=wanted)
    assert parse_response(encoded.body, encoded.json_length).outputs == request.inputs[-1:]


def test_fields_which_other_servers_write_as_null_count_as_absent() -> None:
    output = {"name": "y", "datatype": "INT64", "shape": [1], "parameters": None, "data": [7]}
    body = {"model_name": "m", "model_version": None, "id": None, "parameters": None, "outputs": [output]}
    assert parse_response(json.dumps(body).encode(), None) == InferResponse(
        "m", said_from_json((Tensor.from_numpy("y", np.array([7])),))
    )


# Batches


@st.composite
def cuts(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    counts = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
    trailing = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3))
    return draw(tensors(json_able=False, shape=st.just((sum(counts), *trailing)))), counts


@given(cuts())
def test_joining_undoes_cutting(cut: tuple[Tensor, list[int]]) -> None:
    tensor, counts = cut
    parts = split(tensor, counts)
    assert [part.items for part in parts] == counts
    assert concat(parts) == tensor


@given(cuts())
def test_cutting_and_joining_agree_with_numpy(cut: tuple[Tensor, list[int]]) -> None:
    tensor, counts = cut
    expected = np.split(tensor.to_numpy(), np.cumsum(counts)[:-1])
    parts = [part.to_numpy() for part in split(tensor, counts)]
    np.testing.assert_equal(parts, expected)
    np.testing.assert_equal(concat(split(tensor, counts)).to_numpy(), np.concatenate(expected))


def test_cutting_copies_nothing() -> None:
    raw = b"abcdef"
    parts = split(Tensor("x", "UINT8", (6,), raw), [2, 4])
    assert all(isinstance(part.raw, memoryview) and part.raw.obj is raw for part in parts)


A = Tensor.from_numpy("a", np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "other",
    [
        replace(A, name="b"),
        replace(A, datatype="INT32"),
        Tensor.from_numpy("a", np.zeros((2, 4), np.float32)),
        Tensor.from_numpy("a", np.zeros((2, 3, 1), np.float32)),
    ],
)
def test_tensors_that_differ_do_not_join(other: Tensor) -> None:
    with pytest.raises(WireError, match="cannot join"):
        concat([A, other])


def test_no_tensors_do_not_join() -> None:
    with pytest.raises(WireError):
        concat([])


@pytest.mark.parametrize("counts", [[], [1], [3], [3, -1], [1, 2]])
def test_counts_that_do_not_add_up_do_not_cut(counts: list[int]) -> None:
    with pytest.raises(WireError, match="cannot be cut"):
        split(A, counts)


# Images in JSON


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_base64_text_from_json_becomes_the_bytes_it_stands_for(images: list[bytes]) -> None:
    data = [base64.b64encode(image).decode() for image in images]
    entry = {"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}
    parsed = parse_request(json.dumps({"inputs": [entry]}).encode(), None).inputs[0]
    assert base64_elements(parsed) == Tensor.from_elements("image", images)


def test_bytes_that_came_in_binary_form_are_not_taken_for_base64() -> None:
    tensor = Tensor.from_elements("image", [b"QUJD"])
    assert base64_elements(tensor) is tensor


@pytest.mark.parametrize("text", [b"Q", b"QUJD\n", b"\xff\xd8", b"QU-_", b"=QUJ"])
def test_what_is_not_base64_is_refused_by_name(text: bytes) -> None:
    tensor = replace(Tensor.from_elements("image", [b"QUJD", text]), from_json=True)
    with pytest.raises(WireError, match="'image' .* not base64"):
        base64_elements(tensor)


# Frames


@given(PARAMETERS, st.binary(max_size=40), st.data())
def test_a_frame_returns_what_was_put_in(header: dict[str, object], body: bytes, data: st.DataObject) -> None:
    lengths = st.none() | st.integers(1, len(body)) if body else st.none()
    payload = Encoded(body, data.draw(lengths))
    assert unpack_frame(memoryview(pack_frame(header, payload))) == (header, payload)


def test_a_frame_cut_off_anywhere_is_refused() -> None:
    frame = pack_frame({"model": "digits"}, Encoded(b"{}", 2))
    for length in range(len(frame)):
        with pytest.raises(WireError, match="cut off" if length >= 4 else "does not begin"):
            unpack_frame(frame[:length])


@pytest.mark.parametrize(
    "frame",
    [
        b"<html>bad gateway</html>",
        b"EBF1" + struct.pack("<I", 2) + b"[]" + struct.pack("<I", 0),
        b"EBF1" + struct.pack("<I", 2) + b"{]" + struct.pack("<I", 0),
        b"EBF1" + struct.pack("<I", 2**32 - 1) + b"{}" + struct.pack("<I", 0),
    ],
)
def test_what_is_no_frame_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError, match="frame"):
        unpack_frame(frame)


# Malformed bodies: (the message names the culprit, the request)


def _binary_body(entries: list[dict[str, Any]], raw: bytes, size: object = None) -> tuple[bytes, int]:
    size = len(raw) if size is None else size
    inputs = [{"parameters": {"binary_data_size": size}} | entry for entry in entries]
    head = json.dumps({"inputs": inputs}).encode()
    return head + raw, len(head)


def _one_sentence(message: str) -> bool:
    return message.endswith(".") and "\n" not in message and len(message) < 400


def _refusal(body: bytes, json_length: int | None) -> str:
    with pytest.raises(WireError) as caught:
        parse_request(body, json_length)
    message = str(caught.value)
    assert _one_sentence(message)
    return message


GOOD = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}


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
        ("BF16", {"inputs": [GOOD | {"datatype": "BF16"}]}),
        ("'x' needs a 'shape'", {"inputs": [_without("shape")]}),
        ("'x' needs a 'shape'", {"inputs": [GOOD | {"shape": []}]}),
        ("'x' needs a 'shape'", {"inputs": [GOOD | {"shape": [1] * 33}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [-2]}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [2.0]}]}),
        ("'shape'", {"inputs": [GOOD | {"shape": [True, 2]}]}),
        ("'shape' of more elements", {"inputs": [GOOD | {"shape": [0, 2**40, 2**40], "data": []}]}),
        ("'x' needs 'data'", {"inputs": [_without("data")]}),
        ("'x' needs 'data'", {"inputs": [GOOD | {"data": 3}]}),
        ("does not fill its shape [3]", {"inputs": [GOOD | {"shape": [3]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2], [3]]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2], 3]}]}),
        ("does not fill", {"inputs": [GOOD | {"shape": [2, 2], "data": [[1, 2, 3, 4]]}]}),
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
        ("not a string", {"inputs": [GOOD | {"datatype": "BYTES", "data": ["a", 1]}]}),
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
        ("has 4 bytes of data where its shape needs 8", X, b"\0" * 4, None),
        ("has 12 bytes of data where its shape needs 8", X, b"\0" * 12, None),
        ("has 7 bytes of data left of the 8", X, b"\0" * 7, 8),
        ("1 bytes after the data of its last tensor", X, b"\0" * 9, 8),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, -8),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, "8"),
        ("'binary_data_size' of tensor 'x'", X, b"\0" * 8, True),
        ("both 'data' and 'binary_data_size'", X | {"data": [1, 2]}, b"\0" * 8, None),
        ("unknown datatype", X | {"datatype": "STRING"}, b"\0" * 8, None),
        ("BF16", X | {"datatype": "BF16"}, b"\0" * 4, None),
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
            _refusal(encoded.body, json_length)


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
    with pytest.raises(WireError, match=r"no output 'score'; the outputs are: 'scores'\."):
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
        A.elements()

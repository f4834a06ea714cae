"""The wire format against itself (round trips), Triton's own client and numpy; malformed bodies are elsewhere."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import struct
import subprocess
import sys
from dataclasses import replace
from typing import Any
from unittest import mock
from zlib import crc32

import numpy as np
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.wire_strategies import PARAMETERS, arrays_of, distinct, requests, tensors
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from scheduler.wire import (
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
    item_crc32,
    pack_frame,
    parse_request,
    parse_response,
    split,
    unpack_frame,
)
from scheduler.wire import body as body_module
from scheduler.wire.ordinary import plain_request, plain_response
from scheduler.wire.tensor import pieces_of


def said_from_json(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(replace(tensor, from_json=True) for tensor in tensors)


# Round trips


@settings(deadline=None)
@given(requests(json_able=False))
def test_a_request_survives_the_binary_form(request: InferRequest) -> None:
    encoded = encode_request(request)
    assert encoded.json_length is not None
    assert parse_request(encoded.body, encoded.json_length) == request


@settings(deadline=None)
@given(requests(json_able=True))
def test_a_request_survives_json_bit_for_bit(request: InferRequest) -> None:
    encoded = encode_request(request, binary=False)
    assert encoded.json_length is None
    assert parse_request(encoded.body, None) == replace(request, inputs=said_from_json(request.inputs))


@settings(deadline=None)
@given(distinct(json_able=True, min_size=0), PARAMETERS, st.text(max_size=8), st.booleans())
def test_a_response_survives_both_forms(
    outputs: tuple[Tensor, ...], parameters: dict[str, object], request_id: str, binary: bool
) -> None:
    response = InferResponse("digits", outputs, request_id, "3", parameters)
    encoded = encode_response(response, binary_by_default=binary)
    expected = response if binary else replace(response, outputs=said_from_json(outputs))
    assert parse_response(encoded.body, encoded.json_length) == expected


@settings(deadline=None)
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


def test_an_fp32_whose_shortest_text_rounds_twice_survives_json() -> None:
    tensor = Tensor("x", "FP32", (2,), struct.pack("<2I", 0x15AE43FD, 0x95AE43FD))
    encoded = encode_response(InferResponse("m", (tensor,)))
    assert parse_response(encoded.body, None).outputs[0].raw == tensor.raw


def test_doubles_with_the_longest_texts_are_written_in_json_without_harm_to_the_process() -> None:
    values = np.full(4000, -1.2345678901234567e-300)
    script = (
        "import numpy as np; from scheduler.wire import *\n"
        "y = Tensor.from_numpy('y', np.full(4000, -1.2345678901234567e-300))\n"
        "for _ in range(300): body = encode_response(InferResponse('m', (y,))).body\n"
        "print(parse_response(body, None).outputs[0].raw == y.raw)"
    )
    # In a process of its own, which the fault of orjson 3.13.0 would end.
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr
    body = encode_response(InferResponse("m", (Tensor.from_numpy("y", values),))).body
    assert parse_response(body, None).outputs[0].to_numpy().tolist() == values.tolist()


def test_the_binary_data_of_a_parsed_request_is_not_copied() -> None:
    encoded = encode_request(InferRequest("", (Tensor("x", "UINT8", (2,), b"ab"),)))
    raw = parse_request(encoded.body, encoded.json_length).inputs[0].raw
    assert isinstance(raw, memoryview)
    assert raw.obj is encoded.body


@settings(deadline=None)
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


@settings(deadline=None)
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
    assert json.loads(encoded.body[: encoded.json_length]) == json.loads(body[:json_length])
    if json_length is not None:
        assert encoded.body[encoded.json_length :] == body[json_length:]
    expected = replace(ours, inputs=ours.inputs if binary else said_from_json(ours.inputs))
    assert parse_request(body, json_length) == expected


@settings(deadline=None)
@given(distinct(json_able=True, min_size=1), st.data())
def test_tritons_client_reads_what_we_write(outputs: tuple[Tensor, ...], data: st.DataObject) -> None:
    wanted = [OutputRequest(tensor.name, data.draw(st.booleans())) for tensor in data.draw(st.permutations(outputs))]
    encoded = encode_response(InferResponse("digits", outputs, "7"), requested=wanted)
    result = InferenceServerClient.parse_response_body(encoded.body, header_length=encoded.json_length)
    assert [entry["name"] for entry in result.get_response()["outputs"]] == [output.name for output in wanted]
    assert result.get_response()["id"] == "7"
    for output in wanted:
        assert ("data" in result.get_output(output.name)) != output.binary
    for tensor in outputs:
        ours, theirs = tensor.to_numpy(), result.as_numpy(tensor.name)
        texts = [item.encode() if isinstance(item, str) else item for item in theirs.ravel().tolist()]
        assert theirs.shape == ours.shape
        assert texts == ours.ravel().tolist()


@settings(deadline=None)
@given(requests(json_able=False))
def test_the_outputs_asked_for_are_the_ones_written(request: InferRequest) -> None:
    response = InferResponse("digits", request.inputs)
    wanted = [OutputRequest(request.inputs[-1].name, binary=True)]
    encoded = encode_response(response, requested=wanted)
    assert parse_response(encoded.body, encoded.json_length).outputs == request.inputs[-1:]


PLAIN = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}


@pytest.mark.parametrize("default", [True, False])
def test_an_output_takes_its_form_from_the_request_unless_it_has_its_own(default: bool) -> None:
    outputs = [{"name": "plain"}, {"name": "own", "parameters": {"binary_data": not default}}]
    body = {"inputs": [PLAIN], "outputs": outputs, "parameters": {"binary_data_output": default}}
    parsed = parse_request(json.dumps(body).encode(), None)
    assert parsed.outputs == (OutputRequest("plain", default), OutputRequest("own", not default))


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


@settings(deadline=None)
@given(cuts())
def test_joining_undoes_cutting(cut: tuple[Tensor, list[int]]) -> None:
    tensor, counts = cut
    parts = split(tensor, counts)
    assert [part.items for part in parts] == counts
    assert concat(parts) == tensor


@settings(deadline=None)
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
    with pytest.raises(WireError, match="cannot be split"):
        split(A, counts)


# Images in JSON


@settings(deadline=None)
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


@settings(deadline=None)
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


def test_where_elements_end_belongs_to_the_data_of_each_tensor() -> None:
    tensor = Tensor.from_elements("image", [b"a", b"bc"])
    assert tensor.elements() == tensor.elements() == [b"a", b"bc"]
    other = dataclasses.replace(tensor, raw=Tensor.from_elements("image", [b"abc", b"d"]).raw)
    assert other.elements() == [b"abc", b"d"]
    assert tensor == Tensor.from_elements("image", [b"a", b"bc"])
    assert "_ends" not in repr(tensor)


@given(st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=3), min_size=2, max_size=4))
def test_a_gathered_tensor_is_the_joined_one(parts: list[list[bytes]]) -> None:
    gathered = concat([Tensor.from_elements("x", part) for part in parts])
    joined = Tensor.from_elements("x", [element for part in parts for element in part])
    assert gathered == joined
    assert joined == gathered
    assert (gathered.items, gathered.elements(), bytes(gathered.raw)) == (joined.items, joined.elements(), joined.raw)
    assert b"".join(pieces_of(gathered)) == joined.raw
    assert item_crc32([gathered]) == "".join(f"{crc32(framed(element)):08x}" for element in joined.elements())


def framed(element: bytes) -> bytes:
    return len(element).to_bytes(4, "little") + element


TEXTS = st.text("AQgw+/=_- \nä", max_size=9) | st.binary(max_size=9).map(lambda data: base64.b64encode(data).decode())


# RFC 4648, section 4. The standard library is no oracle for what is refused: "=" is empty in Python 3.10, "AAAA=" in
# 3.13.
BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


@given(TEXTS)
@example("=")
@example("AAAA=")
@example("AA==AAAA")
@example("AA=A")
def test_what_the_rfc_calls_base64_is_decoded_and_nothing_else(text: str) -> None:
    sent = replace(Tensor.from_elements("x", [text.encode()]), from_json=True)
    if BASE64.fullmatch(text):
        assert base64_elements(sent).elements() == [base64.b64decode(text)]
    else:
        with pytest.raises(WireError, match="not base64"):
            base64_elements(sent)


OUTPUTS = st.lists(tensors(json_able=False), min_size=1, max_size=3, unique_by=lambda tensor: tensor.name)


@given(OUTPUTS, st.text(max_size=5), PARAMETERS)
def test_an_answer_from_a_template_is_the_text_that_json_has_for_it(
    outputs: list[Tensor], request_id: str, parameters: dict[str, object]
) -> None:
    response = InferResponse("m", tuple(outputs), request_id, "1", parameters)
    head: dict[str, object] = {"model_name": "m", "model_version": "1"}
    head |= {"id": request_id} if request_id else {}
    head |= {"parameters": parameters} if parameters else {}
    head["outputs"] = [
        {
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.datatype,
            "parameters": {"binary_data_size": len(tensor.raw)},
        }
        for tensor in outputs
    ]
    text = orjson.dumps(head)
    encoded = encode_response(response, binary_by_default=True)
    assert (encoded.body, encoded.json_length) == (text + b"".join(tensor.raw for tensor in outputs), len(text))


HEADS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**65) | st.floats() | st.sampled_from(["", "x", "FP32", "BYTES", "é"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["id", "inputs", "outputs", "parameters", "name", "shape", "datatype", "data", "binary_data_size"]
                + ["binary_data", "classification", "binary_data_output", "priority", "other"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
PARTS = {"name": "x", "datatype": "UINT8", "shape": [3], "parameters": {"binary_data_size": 3}}


@given(
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters", "inputs", "other"]), HEADS, max_size=2),
    st.dictionaries(st.sampled_from([*PARTS, "data"]), HEADS, max_size=1),
    st.sampled_from([b"", b" ", b"\n", b"\\u0041"]),
)
def test_a_head_that_is_read_by_its_types_says_what_it_says_to_the_other_reader(
    head: dict[str, object], entry: dict[str, object], before: bytes
) -> None:
    """With whatever a head may have beside, or instead of, what an ordinary one has."""
    try:
        text = before + orjson.dumps({"inputs": [{**PARTS, **entry}], **head})
    except TypeError:  # a whole number of more than 64 bits
        text = json.dumps({"inputs": [{**PARTS, **entry}], **head}).encode()
    body = text + b"abc"
    found = plain_request(body, len(text))
    if found is not None:
        with mock.patch.object(body_module, "plain_request", return_value=None):
            assert found == parse_request(body, len(text))


@given(
    st.dictionaries(st.sampled_from(["id", "outputs", "parameters", "model_name", "model_version"]), HEADS, max_size=2),
    st.dictionaries(st.sampled_from([*PARTS, "data"]), HEADS, max_size=1),
    PARAMETERS,
)
def test_an_answer_that_is_read_by_its_types_says_what_it_says_to_the_other_reader(
    head: dict[str, object], entry: dict[str, object], parameters: dict[str, object]
) -> None:
    said = {"model_name": "m", "outputs": [{**PARTS, **entry}], "parameters": parameters, **head}
    try:
        text = orjson.dumps(said)
    except TypeError:  # a whole number of more than 64 bits
        text = json.dumps(said).encode()
    body = text + b"abc"
    found = plain_response(body, len(text))
    if found is not None:
        with mock.patch.object(body_module, "plain_response", return_value=None):
            assert found == parse_response(body, len(text))


def test_an_ordinary_answer_is_read_by_its_types() -> None:
    response = InferResponse("m", (Tensor.from_elements("y", [b"abc"]),), "7", "1", {"service_s": 0.25, "cold": False})
    encoded = encode_response(response, binary_by_default=True)
    assert plain_response(encoded.body, encoded.json_length) == response


def test_an_ordinary_head_is_read_by_its_types() -> None:
    request = InferRequest("r", (Tensor.from_elements("x", [b"abc"]),), (OutputRequest("y", True, 3),), {"timeout": 5})
    encoded = encode_request(request)
    assert plain_request(encoded.body, encoded.json_length) == request

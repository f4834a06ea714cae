"""A batch at a served model: what is refused, what fails alone, and that tensors are not copied."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.edge_fakes import FakeModel
from support.own_models import FunctionRuntime, adding_model, length_of, own_card, two_pictures_model

from models.batch import Batch, Prepared, outputs_as_tensors, rehearsal_request
from models.card import TensorSpec
from models.catalogue import names, shipped
from models.errors import ModelError
from models.serving import ServedModel
from scheduler.wire import (
    InferRequest,
    OutputRequest,
    Tensor,
    WireError,
    encode_request,
    parse_request,
)
from scripts.hostile_clients.attacks import one_colour_png


def request(**arrays: np.ndarray) -> InferRequest:
    return InferRequest("r", tuple(Tensor.from_numpy(name, array) for name, array in arrays.items()))


def texts(*elements: bytes) -> np.ndarray:
    array = np.empty(len(elements), np.object_)
    array[:] = elements
    return array


def prepared(model: ServedModel, asked: InferRequest, *, threads: int = 0) -> Prepared:
    batch = Batch(model, asked, max_items=8)
    if not threads:
        return batch.prepare_here()
    with ThreadPoolExecutor(threads) as pool:
        batch.start(pool, threads)
        return batch.wait()


def answer(model: ServedModel, asked: InferRequest, *, threads: int = 0) -> dict[str, list[object]]:
    batch = prepared(model, asked, threads=threads)
    outputs = model.answer(batch.inputs, errors=batch.errors)
    return {tensor.name: tensor.to_numpy().tolist() for tensor in outputs_as_tensors(outputs)}


@given(st.integers(0, 60))
def test_a_binary_tensor_is_a_view_of_the_body_unless_it_begins_at_an_odd_address(padding: int) -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([1, 2], np.int64)
    asked = InferRequest("r" * padding, request(a=a, b=b).inputs)
    encoded = encode_request(asked)
    body = np.frombuffer(encoded.body, np.uint8)
    inputs = prepared(adding_model(), parse_request(encoded.body, encoded.json_length)).inputs

    for name, array in (("a", a), ("b", b)):
        got = inputs[name]
        assert got.tolist() == array.tolist()
        assert got.flags.aligned
        offset = got.ctypes.data - body.ctypes.data
        assert np.shares_memory(got, body) or not 0 <= offset < len(body)
    assert encoded.json_length is not None
    if (body.ctypes.data + encoded.json_length) % 8 == 0:
        assert np.shares_memory(inputs["a"], body)


def test_ragged_outputs_come_with_their_rows() -> None:
    asked = request(a=np.ones((3, 4), np.float32), b=np.array([2, 0, 1]))

    assert answer(adding_model(), asked) == {
        "sum": [6, 4, 5],
        "rows": [[2, 2], [2, 2], [1, 1]],
        "rows_rows": [2, 0, 1],
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([b"x", b"xyz", b"broken", b"bug"]), min_size=3, max_size=24), st.integers(0, 3))
def test_an_item_with_a_broken_element_fails_alone_whichever_input_it_is_in(
    elements: list[bytes], threads: int
) -> None:
    items = len(elements) // 3
    left = texts(*elements[:items])
    right = texts(*elements[items : 3 * items]).reshape(items, 2)
    number = np.arange(items, dtype=np.float32)

    got = answer(two_pictures_model(), request(left=left, right=right, number=number), threads=threads)

    for index in range(items):
        own = [left[index], *right[index]]
        broken = b"broken" in own or b"bug" in own
        assert bool(got["item_error"][index]) is broken
        assert got["total"][index] == (0 if broken else sum(map(len, own)) + index)


def test_a_bug_of_a_decoder_is_named_without_its_words() -> None:
    model = two_pictures_model()
    [error] = answer(
        model, request(left=texts(b"bug"), right=texts(b"x", b"x").reshape(1, 2), number=np.zeros(1, np.float32))
    )["item_error"]

    assert error == b"input 'left' cannot be decoded (KeyError): check the item"


def test_a_broken_item_of_a_model_without_item_errors_fails_the_request() -> None:
    card = own_card("audio", [TensorSpec("clip", "BYTES")], [TensorSpec("y", "FP32")])
    model = ServedModel(card, FunctionRuntime(dict), decoders={"clip": length_of})

    with pytest.raises(WireError, match="item 1 of the request is broken: the picture is broken"):
        prepared(model, request(clip=texts(b"x", b"broken")))


def test_elements_of_unlike_shapes_cannot_share_a_batch() -> None:
    card = own_card("m", [TensorSpec("image", "BYTES", picture=True)], [TensorSpec("y", "FP32")])
    model = ServedModel(card, FunctionRuntime(dict), decoders={"image": lambda element: np.zeros(len(element))})

    with pytest.raises(ModelError, match=r"input 'image' has elements that were decoded to unlike shapes, \[1\] and"):
        prepared(model, request(image=texts(b"x", b"xx")))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request(a=np.ones((1, 2), np.float32)), "input 'b' is missing; model adding takes 'a', 'b'"),
        (request(a=np.ones((1, 2), np.float64), b=np.ones(1, np.int64)), "input 'a' must be FP32, not FP64"),
        (request(a=np.ones(1, np.float32), b=np.ones(1, np.int64)), r"must have the shape \[n, any\]"),
        (request(a=np.ones((2, 2), np.float32), b=np.ones(1, np.int64)), "'a' and 'b' have 2 and 1 items"),
        (request(a=np.ones((9, 2), np.float32), b=np.ones(9, np.int64)), "9 items, but model adding takes at most 8"),
    ],
)
def test_inputs_that_are_not_the_models_are_refused(asked: InferRequest, words: str) -> None:
    with pytest.raises(WireError, match=words):
        Batch(adding_model(), asked, max_items=8)


def test_an_output_that_the_model_lacks_is_refused_with_those_it_has() -> None:
    inputs = request(a=np.ones((1, 2), np.float32), b=np.ones(1, np.int64)).inputs
    for wanted, words in (
        (OutputRequest("max", binary=True), "no output 'max'; it has sum, rows, rows_rows"),
        (OutputRequest("sum", binary=True, class_count=2), "classification"),
    ):
        with pytest.raises(WireError, match=words):
            Batch(adding_model(), InferRequest("r", inputs, (wanted,)), max_items=8)
    Batch(adding_model(), InferRequest("r", inputs, (OutputRequest("rows_rows", binary=True),)), max_items=8)


def test_text_in_json_is_text_where_the_model_does_not_decode_it() -> None:
    card = own_card("words", [TensorSpec("text", "BYTES")], [TensorSpec("y", "FP32")])
    model = ServedModel(card, FunctionRuntime(dict), decoders={})
    body = b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [2], "data": ["hello", "b64="]}]}'

    assert prepared(model, parse_request(body, None)).inputs["text"].tolist() == [b"hello", b"b64="]


def test_made_up_requests_pass_the_checks_of_every_shipped_model() -> None:
    for name in names():
        card = shipped(name)
        model = ServedModel(card, FunctionRuntime(dict), decoders={"image": length_of})
        assert Batch(model, rehearsal_request(card, 3), max_items=3).items == 3


def test_the_largest_pictures_of_a_batch_fail_alone_where_it_has_too_many_pixels() -> None:
    decoded: list[bytes] = []

    def decode(element: bytes) -> np.ndarray:
        decoded.append(element)
        return np.zeros((1, 2, 2), np.float32)

    card = replace(shipped("digits"), max_batch_pixels=1_000_000)
    model = ServedModel(card, FakeModel(), decoders={"image": decode})  # type: ignore[arg-type]
    small, large = one_colour_png(600, 600), one_colour_png(1000, 900)
    asked = InferRequest("", (Tensor.from_elements("image", [small, large, small]),))
    found = Batch(model, asked, max_items=8).prepare_here()
    assert found.errors == (
        "",
        "the image has 1000 x 900 pixels, and its batch 1620000 to decode, over the limit of 1000000: scale it down, or"
        " send fewer at once",
        "",
    )
    assert decoded == [small, small]
    assert len(found.inputs["image"]) == 2

"""A raw request is the one tensor that its bytes can mean, or a sentence."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.ingress.model_metadata import ModelCard, TensorSpec
from scheduler.daemon.raw_request import raw_request
from scheduler.domain.plans import ServiceClass
from scheduler.wire import DATATYPES, WireError


def card(*inputs: TensorSpec) -> ModelCard:
    classes = MappingProxyType({"default": ServiceClass()})
    return ModelCard("net", inputs, (TensorSpec("y", "FP32", ()),), (), 8, 1, 1, classes, "default")


def test_a_picture_is_the_body_itself() -> None:
    request = raw_request(card(TensorSpec("image", "BYTES", (), picture=True)), b"\x89PNG")
    [tensor] = request.inputs
    assert (tensor.name, tensor.datatype, tensor.shape, tensor.elements()) == ("image", "BYTES", (1,), [b"\x89PNG"])
    assert request.binary_by_default
    assert not tensor.from_json


def test_texts_of_one_element_keep_their_axes() -> None:
    [tensor] = raw_request(card(TensorSpec("text", "BYTES", (1, -1))), b"hello").inputs
    assert (tensor.shape, tensor.elements()) == ((1, 1, 1), [b"hello"])


@given(
    st.sampled_from([name for name in DATATYPES if name != "BOOL"]),
    st.lists(st.integers(1, 4), max_size=3),
    st.none() | st.tuples(st.integers(0, 3), st.integers(0, 5)),
)
def test_numbers_get_the_shape_that_their_count_allows(
    datatype: str, shape: list[int], varying: tuple[int, int] | None
) -> None:
    whole, described = list(shape), list(shape)
    if varying is not None:
        at = min(varying[0], len(shape))
        whole.insert(at, varying[1])
        described.insert(at, -1)
    array = np.arange(np.prod([1, *whole], dtype=int)).astype(DATATYPES[datatype]).reshape(1, *whole)
    [tensor] = raw_request(card(TensorSpec("x", datatype, tuple(described))), array.tobytes()).inputs
    np.testing.assert_array_equal(tensor.to_numpy(), array)


@pytest.mark.parametrize(
    ("inputs", "body", "sentence"),
    [
        ((("x", "FP32", ()), ("y", "FP32", ())), b"1234", "needs a model with one input; model net has 'x', 'y'"),
        ((("x", "FP32", (-1, -1)),), b"1234", "'x' of model net has several lengths that vary"),
        ((("x", "FP32", (-1, 2)),), b"1234", "needs a multiple of 8 bytes, not 4"),
        ((("x", "FP32", (2,)),), b"1234", "has 4 bytes of data, but its shape needs 8"),
        ((("x", "BYTES", (2,)),), b"1234", "has more than one element in an item"),
        ((("x", "BOOL", (2,)),), b"\x01\x02", "a byte that is neither 0 nor 1"),
    ],
)
def test_what_the_bytes_cannot_mean_is_named(
    inputs: tuple[tuple[str, str, tuple[int, ...]], ...], body: bytes, sentence: str
) -> None:
    with pytest.raises(WireError) as caught:
        raw_request(card(*(TensorSpec(*spec) for spec in inputs)), body)
    assert sentence in str(caught.value)

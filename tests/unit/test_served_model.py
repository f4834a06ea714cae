"""A served model: a broken item fails alone, unlike numbers of rows stay with their items, lies of a card are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.card import Card, TensorSpec
from models.errors import ModelError
from models.runtime import Array, RuntimeReport
from models.serving import ServedModel, activated


class Answering:
    """A runtime with the answers of a test."""

    report = RuntimeReport("test", "cpu")

    def __init__(self, outputs: Mapping[str, Array | Sequence[Array]]) -> None:
        self.outputs = outputs
        self.batches: list[Mapping[str, Array]] = []

    def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array | Sequence[Array]]:
        self.batches.append(inputs)
        return self.outputs


def card(*outputs: TensorSpec, activation: str = "none", picture: bool = True) -> Card:
    taken = TensorSpec("image", "BYTES", picture=True) if picture else TensorSpec("x", "FP32")
    return Card("m", Path(), "python", (taken,), outputs, activation=activation)


SCORE = TensorSpec("score", "FP32", (2,))
BOXES = TensorSpec("boxes", "FP32", (4,), ragged=True)


def test_a_broken_item_gets_zeros_and_its_sentence() -> None:
    runtime = Answering({"score": np.array([[1, 2], [3, 4]], np.float32)})
    model = ServedModel(card(SCORE), runtime, decoders={})

    answer = model.answer({"image": np.zeros((2, 1))}, errors=("", "broken", ""))

    assert answer["score"].tolist() == [[1, 2], [0, 0], [3, 4]]
    assert answer["item_error"].tolist() == [b"", b"broken", b""]


def test_a_batch_of_broken_items_does_not_reach_the_network() -> None:
    runtime = Answering({})
    model = ServedModel(card(SCORE, BOXES), runtime, decoders={})

    answer = model.answer({}, errors=("a", "b"))

    assert runtime.batches == []
    assert answer["score"].tolist() == [[0, 0], [0, 0]]
    assert answer["boxes"].shape == (0, 4)
    assert answer["boxes_rows"].tolist() == [0, 0]


@given(st.lists(st.one_of(st.none(), st.integers(0, 4)), min_size=1, max_size=6), st.booleans())
def test_rows_stay_with_their_items(rows: list[int | None], as_list: bool) -> None:
    """`rows` has the number of rows of each item, None for a broken item."""
    parts = [np.full((count, 4), index, np.float32) for index, count in enumerate(rows) if count is not None]
    counts = np.array([len(part) for part in parts], np.int64)
    whole = np.concatenate(parts) if parts else np.zeros((0, 4), np.float32)
    runtime = Answering({"boxes": parts} if as_list else {"boxes": whole, "boxes_rows": counts})
    model = ServedModel(card(BOXES), runtime, decoders={})

    answer = model.answer({}, errors=tuple("" if count is not None else "broken" for count in rows))

    assert answer["boxes_rows"].tolist() == [count or 0 for count in rows]
    edges = np.cumsum([0, *answer["boxes_rows"]])
    for index, count in enumerate(rows):
        assert answer["boxes"][edges[index] : edges[index + 1], 0].tolist() == [index] * (count or 0)


@pytest.mark.parametrize(
    ("outputs", "sentence"),
    [
        ({}, "the network has no output 'score'"),
        ({"score": np.zeros((1, 3), np.float32)}, r"has shape \[1, 3\], but the card says \[1, 2\]"),
        ({"score": np.zeros((2, 2), np.float32)}, r"has shape \[2, 2\], but the card says \[1, 2\]"),
        ({"score": np.array([["a", "b"]])}, "but the card says FP32"),
    ],
)
def test_a_network_that_contradicts_its_card_is_named(outputs: Mapping[str, Array], sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        ServedModel(card(SCORE), Answering(outputs), decoders={}).answer({}, errors=("",))


@pytest.mark.parametrize("rows", [[2], [-1], [1, 0], []])
def test_rows_that_do_not_add_up_are_named(rows: list[int]) -> None:
    runtime = Answering({"boxes": np.zeros((1, 4), np.float32), "boxes_rows": np.array(rows, np.int64)})
    with pytest.raises(ModelError, match="do not fit 1 items"):
        ServedModel(card(BOXES), runtime, decoders={}).answer({}, errors=("",))


def test_an_output_in_another_precision_becomes_what_the_card_says() -> None:
    runtime = Answering({"score": np.array([[0.5, 0.5]], np.float16)})
    answer = ServedModel(card(SCORE, picture=False), runtime, decoders={}).answer({}, errors=("",))
    assert answer["score"].dtype == np.float32
    assert list(answer) == ["score"]


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_activations_are_probabilities(values: list[float]) -> None:
    row = np.array([values], np.float32)
    softmax, sigmoid = activated(row, "softmax"), activated(row, "sigmoid")
    assert softmax.sum() == pytest.approx(1, abs=1e-5)
    assert np.isfinite(sigmoid).all()
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()
    assert activated(row, "none") is row

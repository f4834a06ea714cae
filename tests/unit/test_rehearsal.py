"""Made-up batches: of the card's types and shapes, the same item whatever its batch, pictures that a decoder reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from models.card import Card, TensorSpec
from models.rehearsal import ANY_LENGTH, png, rehearsal_inputs
from models.runtime import NUMPY_DTYPES


def card(*inputs: TensorSpec) -> Card:
    return Card("m", Path(), "python", inputs, (TensorSpec("y", "FP32"),))


@pytest.mark.parametrize("datatype", NUMPY_DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (2, -1)])
def test_values_have_the_cards_type_and_shape(datatype: str, shape: tuple[int, ...]) -> None:
    made = rehearsal_inputs(card(TensorSpec("x", datatype, shape)), 5)["x"]
    assert made.dtype == NUMPY_DTYPES[datatype]
    assert made.shape == (5, *(ANY_LENGTH if length == -1 else length for length in shape))


def test_an_item_does_not_depend_on_its_batch_but_on_the_seed() -> None:
    spec = TensorSpec("x", "FP32", (3,))
    alone, among = (rehearsal_inputs(card(spec), items)["x"] for items in (1, 4))
    assert (alone[0] == among[0]).all()
    assert (among[0] != among[1]).any()
    assert (rehearsal_inputs(card(spec), 1, seed=1)["x"] != alone).any()


def test_pictures_are_read_by_a_decoder() -> None:
    made = rehearsal_inputs(card(TensorSpec("image", "BYTES", picture=True)), 2, side=50)["image"]
    for element in made:
        decoded = cv2.imdecode(np.frombuffer(element, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        assert decoded.shape == (50, 50, 3)
        assert np.ptp(decoded) > 0


def test_png_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    decoded = cv2.imdecode(np.frombuffer(png(pixels), np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert (decoded[:, :, ::-1] == pixels).all()

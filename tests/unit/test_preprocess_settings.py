"""The table `[preprocess]`: what is written is what a network gets, and what cannot be used is named by its key."""

from __future__ import annotations

from typing import Any

import pytest

from models.preprocess_settings import DIGITS, IMAGENET, Preprocess, PreprocessError


def test_only_the_size_must_be_given() -> None:
    preprocess = Preprocess(size=224)

    assert (preprocess.scaled, preprocess.shape, preprocess.input_shape) == ((224, 224), (224, 224, 3), (3, 224, 224))
    assert (preprocess.means, preprocess.stds) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert (preprocess.background_rgb, preprocess.fill_rgb) == ((255, 255, 255), (114, 114, 114))


def test_a_table_of_toml_gives_every_setting() -> None:
    table: dict[str, Any] = {
        "size": [640, 480],
        "resize": "letterbox",
        "crop": [600, 400],
        "mean": [0, 0.5, 1],
        "std": 0.25,
        "layout": "HWC",
        "colour": "BGR",
        "background": "#0a0B0c",
        "fill": "black",
    }

    preprocess = Preprocess.from_table(table)

    assert (preprocess.scaled, preprocess.input_shape) == ((640, 480), (600, 400, 3))
    assert (preprocess.means, preprocess.stds) == ((0.0, 0.5, 1.0), (0.25, 0.25, 0.25))
    assert (preprocess.background_rgb, preprocess.fill_rgb) == ((10, 11, 12), (0, 0, 0))
    assert preprocess == Preprocess(**table)
    assert hash(preprocess) == hash(Preprocess(**table))


def test_the_shipped_settings() -> None:
    assert (DIGITS.input_shape, DIGITS.means, DIGITS.stds) == ((1, 28, 28), (1.0,), (-1.0,))
    assert (IMAGENET.scaled, IMAGENET.input_shape) == ((256, 256), (3, 224, 224))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "size is missing"),
        ({"size": 224, "colour_order": "RGB"}, "colour_order is no key of .preprocess.: it has size, resize, "),
        ({"size": "big"}, "size is 'big': give a number of pixels, or .height, width."),
        ({"size": True}, "size is True: give a number of pixels"),
        ({"size": 224.0}, "size is 224.0: give a number of pixels"),
        ({"size": [224]}, "size is .224.: give a number of pixels"),
        ({"size": 0}, "size is 0: give 1 to 8192 pixels"),
        ({"size": [1, 8193]}, "size is .1, 8193.: give 1 to 8192 pixels"),
        ({"size": 224, "crop": [1]}, "crop is .1.: give a number of pixels"),
        ({"size": [300, 200], "crop": 224}, "crop is larger than size: .224, 224. of .300, 200."),
        ({"size": 224, "resize": "cover"}, "resize is 'cover': choose shorter, stretch or letterbox"),
        ({"size": 224, "layout": "NCHW"}, "layout is 'NCHW': choose CHW or HWC"),
        ({"size": 224, "colour": ["RGB"]}, "colour is .'RGB'.: choose RGB, BGR or GREY"),
        ({"size": 224, "mean": [0.5, 0.5]}, r"mean has 2 numbers: give one, or one for each channel \(3\)"),
        ({"size": 224, "colour": "GREY", "mean": [1, 2, 3]}, r"mean has 3 numbers: .* \(1\)"),
        ({"size": 224, "mean": "half"}, "mean is 'half': give a number"),
        ({"size": 224, "mean": [0.5, None, 0.5]}, "mean is .*: give a number"),
        ({"size": 224, "std": float("nan")}, "std is nan: give finite numbers"),
        ({"size": 224, "std": [1, 0, 1]}, "std is 0, and values are divided by it"),
        ({"size": 224, "background": "grey"}, "background is 'grey': give white, black or #rrggbb"),
        ({"size": 224, "background": 114}, "background is 114: give white, black or #rrggbb"),
        ({"size": 224, "background": "#12345"}, "background is '#12345': give"),
        ({"size": 224, "background": "1234567"}, "background is '1234567': give"),
        ({"size": 224, "fill": 256}, "fill is 256: give a grey value from 0 to 255, white, black or #rrggbb"),
        ({"size": 224, "fill": True}, "fill is True: give a grey value"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_key(table: dict[str, Any], message: str) -> None:
    with pytest.raises(PreprocessError, match=f"^{message}") as refusal:
        Preprocess.from_table(table)

    assert str(refusal.value).startswith(refusal.value.key)

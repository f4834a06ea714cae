"""A request is checked against its model: open axes take any length, and ragged outputs bring their counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scheduler.daemon.config.config import load_config
from scheduler.daemon.http.classify import Question, classify_call
from scheduler.daemon.ingress.checks import infer_call
from scheduler.daemon.ingress.model_metadata import ModelCard, checked_inputs, model_cards
from scheduler.wire import InferRequest, OutputRequest, Tensor, WireError

MODEL = """
[edge]
[[model]]
name = "detector"
edge_profile = "orin-resnet50"
max_items = 4
inputs = [
    { name = "sound", datatype = "FP32", shape = [2, -1] },
    { name = "gain", datatype = "FP32" },
]
outputs = [
    { name = "boxes", datatype = "FP32", shape = [4], ragged = true },
    { name = "score", datatype = "FP32", shape = [-1] },
]
"""
PICTURES = MODEL.replace('"sound", datatype = "FP32", shape = [2, -1]', '"image", datatype = "BYTES", picture = true')


def card(tmp_path: Path, text: str = MODEL) -> ModelCard:
    (tmp_path / "edgeburst.toml").write_text(text)
    return model_cards(load_config(tmp_path / "edgeburst.toml", {}))["detector"]


def given(length: int, items: int = 2, channels: int = 2) -> tuple[Tensor, ...]:
    sound = Tensor.from_numpy("sound", np.zeros((items, channels, length), np.float32))
    return sound, Tensor.from_numpy("gain", np.zeros(items, np.float32))


def test_an_open_axis_takes_any_length_and_calls_know_their_shapes(tmp_path: Path) -> None:
    detector = card(tmp_path)
    for length in (1, 7, 500):
        assert checked_inputs(detector, given(length)) == given(length)
    call = infer_call(detector, InferRequest("", given(7)), {}, received_at_s=0.0, max_timeout_s=1.0)
    assert (call.item_shapes, call.outputs.ragged) == (((2, 7), ()), frozenset({"boxes"}))


def test_the_metadata_has_open_axes_and_the_counts_of_ragged_outputs(tmp_path: Path) -> None:
    metadata = card(tmp_path).metadata()
    assert metadata["inputs"][0] == {"name": "sound", "datatype": "FP32", "shape": [-1, 2, -1]}
    assert metadata["outputs"] == [
        {"name": "boxes", "datatype": "FP32", "shape": [-1, 4]},
        {"name": "score", "datatype": "FP32", "shape": [-1, -1]},
        {"name": "boxes_rows", "datatype": "INT64", "shape": [-1]},
    ]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (given(7, channels=3), r"input 'sound' must have the shape \[n, 2, any\] for n items, not \[2, 3, 7\]"),
        (given(7)[:1], "input 'gain' is missing; model detector takes 'sound', 'gain'"),
        (given(7, items=5), "the request has 5 items, but model detector takes at most 4"),
        ((given(7)[0], given(7, items=1)[1]), "inputs 'sound' and 'gain' have 2 and 1 items"),
    ],
)
def test_other_shapes_are_refused(tmp_path: Path, tensors: tuple[Tensor, ...], words: str) -> None:
    with pytest.raises(WireError, match=words):
        checked_inputs(card(tmp_path), tensors)


def test_ragged_outputs_have_no_classes(tmp_path: Path) -> None:
    detector = card(tmp_path)
    asked = InferRequest("", given(7), (OutputRequest("boxes_rows", True), OutputRequest("boxes", False, 3)))
    with pytest.raises(WireError, match="output 'boxes' is ragged and has no classes"):
        infer_call(detector, asked, {}, received_at_s=0.0, max_timeout_s=1.0)
    one = card(tmp_path, PICTURES.replace('    { name = "gain", datatype = "FP32" },\n', ""))
    question = Question("", None, 1, "default", "")
    with pytest.raises(WireError, match="output 'boxes' of model detector is ragged and has no classes"):
        classify_call(one, b"x", question, received_at_s=0.0)

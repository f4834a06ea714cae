"""An answer is taken only if it fits the model's card; the bound of its size holds for every answer that fits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.card import TensorSpec
from scheduler import wire
from scheduler.daemon.model_outputs import HEADER_BYTES, ModelOutputs
from scheduler.wire import InferResponse, OutputRequest, Tensor, WireError

SCORES = TensorSpec("scores", "FP32", (3,))
BOXES = TensorSpec("boxes", "FP32", (4,), ragged=True)
ROWS = TensorSpec("boxes_rows", "INT64")
ERRORS = TensorSpec("item_error", "BYTES")


def scores(items: int, **changes: object) -> Tensor:
    return replace(Tensor.from_numpy("scores", np.ones((items, 3), np.float32)), **changes)


def boxes(*counts: int, value: float = 1.0) -> tuple[Tensor, Tensor]:
    rows = Tensor.from_numpy("boxes", np.full((sum(counts), 4), value, np.float32))
    return rows, Tensor.from_numpy("boxes_rows", np.array(counts, np.int64))


def test_outputs_that_the_card_names_are_kept_in_its_order_and_others_left_out() -> None:
    outputs = ModelOutputs((BOXES, ROWS, SCORES, ERRORS))
    errors = Tensor.from_elements("item_error", [b"", b"no picture"])
    debug = Tensor.from_numpy("debug", np.zeros(5, np.float32))
    fitting = outputs.fitting((errors, debug, scores(2), *boxes(0, 3)), 2)
    assert [output.name for output in fitting] == ["boxes", "boxes_rows", "scores", "item_error"]


def test_item_errors_may_be_missing_and_may_come_where_the_card_has_none() -> None:
    no_errors = ModelOutputs((SCORES, ERRORS)).fitting((scores(2),), 2)
    assert [output.name for output in no_errors] == ["scores", "item_error"]
    assert no_errors[1].elements() == [b"", b""]
    errors = Tensor.from_elements("item_error", [b"", b""])
    fitting = ModelOutputs((SCORES,)).fitting((scores(2), errors), 2)
    assert [output.name for output in fitting] == ["scores", "item_error"]


def test_without_a_description_only_rows_are_counted() -> None:
    other = Tensor.from_numpy("anything", np.zeros((2, 7), np.float64))
    assert ModelOutputs().fitting((other,), 2) == (other,)
    with pytest.raises(WireError, match="has 2 rows for 3 items"):
        ModelOutputs().fitting((other,), 3)


@pytest.mark.parametrize(
    ("given_outputs", "sentence"),
    [
        ((), "it lacks the output 'scores' of the model's card, and has no outputs"),
        ((scores(2, name="logits"),), "it lacks the output 'scores' of the model's card, and has 'logits'"),
        (
            (Tensor.from_numpy("scores", np.ones((2, 3), np.float64)),),
            "output 'scores' is FP64, but the model's card says FP32",
        ),
        (
            (Tensor.from_numpy("scores", np.ones((2, 6), np.float32)),),
            r"output 'scores' has the shape \[6\] for each item, but the model's card says \[3\]",
        ),
        ((Tensor.from_numpy("scores", np.ones((2, 3, 1), np.float32)),), r"has the shape \[3, 1\] for each item"),
        ((scores(3),), "has 3 rows for 2 items"),
        ((scores(2), Tensor.from_elements("item_error", [b""])), "'item_error' has 1 rows for 2 items"),
        ((scores(2), Tensor.from_numpy("item_error", np.ones(2, np.float32))), "'item_error' is FP32"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(given_outputs: tuple[Tensor, ...], sentence: str) -> None:
    with pytest.raises(WireError, match=sentence):
        ModelOutputs((SCORES,)).fitting(given_outputs, 2)


def test_rows_of_a_ragged_output_have_the_shape_of_the_card() -> None:
    wide = Tensor.from_numpy("boxes", np.ones((3, 5), np.float32)), boxes(1, 2)[1]
    with pytest.raises(WireError, match=r"output 'boxes' has the shape \[5\] for each row"):
        ModelOutputs((BOXES, ROWS)).fitting(wide, 2)


VALUES = st.sampled_from([0.0, -1.5, math.nan, math.inf, -math.inf])


@given(st.lists(st.tuples(st.lists(VALUES, min_size=3, max_size=3), st.lists(VALUES, max_size=3)), min_size=1))
def test_items_that_are_not_finite_are_those_that_a_look_at_each_value_finds(
    items: list[tuple[list[float], list[float]]],
) -> None:
    fixed = Tensor.from_numpy("scores", np.array([row for row, _ in items], np.float32))
    values = np.array([value for _, ragged in items for value in ragged], np.float32)
    rows = Tensor.from_numpy("boxes", np.repeat(values[:, np.newaxis], 4, axis=1))
    counts = Tensor.from_numpy("boxes_rows", np.array([len(ragged) for _, ragged in items], np.int64))
    outputs = (fixed, rows, counts)

    def not_finite(*specs: TensorSpec) -> frozenset[int]:
        return ModelOutputs((*specs, ROWS)).not_finite(outputs, len(items))

    def found(part: int) -> set[int]:
        return {number for number, item in enumerate(items) if not all(map(math.isfinite, item[part]))}

    assert not_finite(SCORES, BOXES) == found(0) | found(1)
    assert not_finite(replace(SCORES, finite=False), BOXES) == found(1)
    assert not_finite(replace(SCORES, finite=False), replace(BOXES, finite=False)) == frozenset()


def test_what_a_failed_item_holds_does_not_matter() -> None:
    values = Tensor.from_numpy("scores", np.array([[1, 1, 1], [math.nan] * 3, [math.nan] * 3], np.float32))
    errors = Tensor.from_elements("item_error", [b"", b"no picture", b""])
    assert ModelOutputs((SCORES,)).not_finite((values, errors), 3) == {2}


@given(
    st.integers(1, 40),
    st.lists(st.sampled_from(["FP16", "FP32", "FP64", "INT64", "UINT8", "BOOL"]), min_size=1, max_size=3),
    st.integers(1, 200),
    st.booleans(),
)
def test_the_largest_answer_that_fits_is_within_the_bound_in_either_encoding(
    items: int, datatypes: list[str], width: int, binary: bool
) -> None:
    specs = tuple(TensorSpec(f"y{number}", datatype, (width,)) for number, datatype in enumerate(datatypes))
    tensors = []
    for spec in specs:
        dtype = wire.DATATYPES[spec.datatype]
        longest = -np.finfo(dtype).max if dtype.kind == "f" else np.iinfo(dtype).min if dtype.kind == "i" else 1
        tensors.append(Tensor.from_numpy(spec.name, np.full((items, width), longest, dtype)))
    asked = [OutputRequest(spec.name, binary) for spec in specs]
    body = wire.encode_response(InferResponse("m", tuple(tensors)), requested=asked).body
    assert len(body) <= ModelOutputs(specs).limit_bytes(items)


def test_outputs_without_a_fixed_size_have_the_bound_that_is_configured() -> None:
    def item_bytes(*specs: TensorSpec) -> int:
        return ModelOutputs(specs, open_bytes=1000).limit_bytes(5) - HEADER_BYTES

    assert item_bytes() == 5 * 1000
    assert item_bytes(BOXES, ROWS) == item_bytes(TensorSpec("t", "BYTES"), ROWS) == 5 * 1032
    assert item_bytes(TensorSpec("y", "FP32", (-1,)), ROWS) == 5 * 1032
    # Ten numbers and a sentence about each item: an answer of 10 MB is none of this model.
    assert ModelOutputs((TensorSpec("y", "FP32", (10,)), ERRORS)).limit_bytes(64) < 2 * HEADER_BYTES

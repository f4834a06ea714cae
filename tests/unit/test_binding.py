"""A network's tensors are the card's by name, or by order where the names differ and the counts agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.binding import bind_inputs, bind_outputs, named_outputs
from models.card import Card, TensorSpec
from models.errors import ModelError


def card(inputs: str, outputs: str) -> Card:
    """Returns a card with tensors of these names; a ragged one ends in *."""
    taken, given = (
        tuple(TensorSpec(name.rstrip("*"), "FP32", ragged=name.endswith("*")) for name in names.split())
        for names in (inputs, outputs)
    )
    return Card("m", Path("folder"), "onnx", taken, given)


def test_inputs_of_the_same_names_are_bound_by_name_in_any_order() -> None:
    assert bind_inputs(card("a b", "y"), ["b", "a"]) == ("b", "a")


def test_inputs_of_other_names_are_bound_by_order() -> None:
    assert bind_inputs(card("a b", "y"), ["input.1", "input.2"]) == ("a", "b")


def test_a_wrong_number_of_inputs_names_both_lists() -> None:
    with pytest.raises(ModelError, match=r"takes 1 inputs \(x\), but its card names 2 \(a, b\).*model.toml"):
        bind_inputs(card("a b", "y"), ["x"])


def test_outputs_are_bound_by_name_and_further_ones_left_out() -> None:
    assert bind_outputs(card("x", "scores"), ["hidden", "scores"]) == {"scores": 1}


def test_outputs_of_other_names_are_bound_by_order() -> None:
    assert bind_outputs(card("x", "a b"), ["0", "1"]) == {"a": 0, "b": 1}


def test_a_wrong_number_of_outputs_is_refused() -> None:
    with pytest.raises(ModelError, match=r"gives 3 outputs .* names 2"):
        bind_outputs(card("x", "a b"), ["0", "1", "2"])


@pytest.mark.parametrize(
    ("names", "rows"),
    [
        (["boxes", "labels", "boxes_rows", "labels_rows"], (2, 3)),
        (["boxes", "boxes_rows", "labels"], (1, 1)),
        (["0", "1", "2", "3"], (2, 3)),
        (["0", "1", "2"], (2, 2)),
    ],
)
def test_rows_are_bound_each_or_shared(names: list[str], rows: tuple[int, int]) -> None:
    bound = bind_outputs(card("x", "boxes* labels*"), names)
    assert (bound["boxes_rows"], bound["labels_rows"]) == rows


def test_rows_may_come_with_the_arrays_themselves() -> None:
    assert bind_outputs(card("x", "boxes* labels*"), ["boxes", "labels"]) == {"boxes": 0, "labels": 1}


def test_one_tensor_a_tuple_and_a_mapping_are_named() -> None:
    assert named_outputs(card("x", "y"), 5) == {"y": 5}
    assert named_outputs(card("x", "a b"), (5, 6)) == {"a": 5, "b": 6}
    assert named_outputs(card("x", "a b"), {"b": 5, "a": 6}) == {"a": 6, "b": 5}
    assert named_outputs(card("x", "y"), {"logits": 5}) == {"y": 5}


def test_detections_are_columns_of_one_array_an_item() -> None:
    items = [{"labels": 1, "boxes": 2}, {"labels": 3, "boxes": 4}]
    wanted = {"boxes": [2, 4], "labels": [1, 3]}
    assert named_outputs(card("x", "boxes* labels*"), items) == wanted
    # TorchScript's detectors give losses too.
    assert named_outputs(card("x", "boxes* labels*"), ({}, items)) == wanted


def test_a_list_is_one_array_an_item_for_the_only_ragged_output() -> None:
    assert named_outputs(card("x", "boxes*"), [5, 6, 7]) == {"boxes": [5, 6, 7]}

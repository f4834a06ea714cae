"""Ragged outputs: each request gets exactly the rows of its items, and counts that do not fit are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.wire_strategies import arrays_of

from scheduler.wire import DATATYPES, Tensor, WireError, check_rows, part_outputs, row_counts, split_ragged


@st.composite
def detections(draw: st.DrawFn) -> tuple[Any, list[int], list[int]]:
    """Returns an array of rows, how many rows each item has, and how many items each request has."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    rows = draw(st.lists(st.integers(0, 3), min_size=sum(counts), max_size=sum(counts)))
    row = draw(st.sampled_from([(), (4,), (2, 0), (3, 2)]))
    return draw(arrays_of(draw(st.sampled_from(sorted(DATATYPES))), (sum(rows), *row), finite=False)), rows, counts


def naive(array: Any, rows: list[int], counts: list[int]) -> list[Any]:
    """The rows of each request, item by item."""
    items, at = [], 0
    for number in rows:
        items.append(array[at : at + number])
        at += number
    parts = []
    for count in counts:
        own, items = items[:count], items[count:]
        parts.append(np.concatenate(own))
    return parts


def counted(rows: list[int], name: str = "boxes_rows") -> Tensor:
    return Tensor.from_numpy(name, np.array(rows, np.int64))


@given(detections())
def test_each_request_gets_the_rows_of_its_items(made: tuple[Any, list[int], list[int]]) -> None:
    array, rows, counts = made
    boxes = Tensor.from_numpy("boxes", array)
    parts = split_ragged(boxes, rows, counts)
    for tensor, wanted in zip(parts, naive(array, rows, counts), strict=True):
        assert tensor.shape == wanted.shape
        assert tensor.to_numpy().tobytes() == wanted.tobytes()
    whole = part_outputs((boxes, counted(rows)), counts, {"boxes"})
    assert [part[0].to_numpy().tobytes() for part in whole] == [tensor.to_numpy().tobytes() for tensor in parts]
    assert sum([part[1].to_numpy().tolist() for part in whole], []) == rows
    for part, items in zip(whole, counts, strict=True):
        # What a request gets is again an answer that fits.
        check_rows(part, items, {"boxes"})


@given(st.lists(st.lists(st.binary(max_size=5), max_size=3), min_size=1, max_size=6), st.data())
def test_texts_are_split_by_rows_too(items: list[list[bytes]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(items)))
    labels = Tensor.from_elements("labels", [text for item in items for text in item])
    counts = [first, len(items) - first]
    parts = split_ragged(labels, [len(item) for item in items], counts)
    assert [part.elements() for part in parts] == [sum(items[:first], []), sum(items[first:], [])]


def test_items_without_rows_are_items() -> None:
    none = Tensor.from_numpy("boxes", np.zeros((0, 4), np.float32))
    assert [part.shape for part in split_ragged(none, [0, 0, 0], [2, 1])] == [(0, 4), (0, 4)]


BOXES = Tensor.from_numpy("boxes", np.zeros((3, 4), np.float32))


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (None, "there is no output 'boxes_rows'"),
        (counted([1, 1]), "has 3 rows, which 'boxes_rows' .1, 1. do not fit"),
        (counted([4, -1]), "has 3 rows, which 'boxes_rows' .4, -1. do not fit"),
        (counted([2**62, 2**62, 2**62, 2**62, 3]), "must be INT64 with shape .2."),
        (counted([1, 1, 1]), r"must be INT64 with shape \[2\], not INT64 \[3\]"),
        (Tensor.from_numpy("boxes_rows", np.array([1, 2], np.int32)), "must be INT64 with shape .2., not INT32"),
        (Tensor.from_numpy("boxes_rows", np.array([[1], [2]])), r"not INT64 \[2, 1\]"),
    ],
)
def test_counts_that_do_not_fit_are_refused(counts: Tensor | None, words: str) -> None:
    outputs = (BOXES,) if counts is None else (BOXES, counts)
    with pytest.raises(WireError, match=words):
        check_rows(outputs, 2, {"boxes"})
    with pytest.raises(WireError, match=words):
        part_outputs(outputs, [1, 1], {"boxes"})


def test_sums_do_not_overflow() -> None:
    huge = [2**62, 2**62, 2**62, 2**62, 3]
    with pytest.raises(WireError, match="do not fit"):
        row_counts(BOXES, [counted(huge)], len(huge))


@pytest.mark.parametrize(("rows", "counts"), [([1, 2], [1]), ([1, 2], [3, -1]), ([-1, 4], [1, 1])])
def test_a_split_that_does_not_add_up_is_refused(rows: list[int], counts: list[int]) -> None:
    with pytest.raises(WireError, match="cannot be split"):
        split_ragged(BOXES, rows, counts)


def test_other_outputs_have_one_row_for_each_item() -> None:
    with pytest.raises(WireError, match="output 'boxes' has 3 rows for 2 items"):
        check_rows((BOXES,), 2)
    with pytest.raises(WireError, match="the answer has no outputs"):
        check_rows((), 2, {"boxes"})

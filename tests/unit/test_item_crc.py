"""The sum of each item is zlib's over its own bytes in all inputs, whatever batch it is in."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.wire import ITEM_CRC32, Tensor, concat, echoed, item_crc32, mixed_up

ITEMS = st.lists(st.tuples(st.lists(st.binary(max_size=9), min_size=2, max_size=2), st.floats(width=32)), min_size=1)


def inputs(items: list[tuple[list[bytes], float]]) -> tuple[Tensor, Tensor]:
    texts = Tensor.from_elements("t", [text for row, _ in items for text in row], (len(items), 2))
    return texts, Tensor.from_numpy("x", np.array([value for _, value in items], np.float32))


@given(ITEMS)
def test_each_items_sum_is_that_of_its_bytes_alone(items: list[tuple[list[bytes], float]]) -> None:
    wanted = [
        zlib.crc32(b"".join(len(text).to_bytes(4, "little") + text for text in row) + np.float32(value).tobytes())
        for row, value in items
    ]
    assert item_crc32(inputs(items)) == "".join(f"{value:08x}" for value in wanted)


@given(ITEMS, ITEMS)
def test_the_sums_of_a_batch_are_those_of_its_requests(
    one: list[tuple[list[bytes], float]], other: list[tuple[list[bytes], float]]
) -> None:
    joined = [concat(pair) for pair in zip(inputs(one), inputs(other), strict=True)]
    assert item_crc32(joined) == item_crc32(inputs(one)) + item_crc32(inputs(other))


def test_texts_that_came_in_json_are_not_summed() -> None:
    (given_texts, values) = inputs([([b"a", b"b"], 1.0)])
    assert echoed([given_texts, values]) == {ITEM_CRC32: item_crc32([given_texts, values])}
    assert echoed([Tensor("t", "BYTES", (1,), b"\x01\0\0\0a", from_json=True)]) == {}


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("0000000100000002", ""),
        (None, ""),
        (7, ""),
        ("0000000200000001", "it is about the items of the batch in another order"),
        ("0000000100000003", "it is about other items than were sent, from item 1 on"),
        ("00000001", "it is about 1 items, but 2 were sent"),
        ("", "it is about 0 items, but 2 were sent"),
    ],
)
def test_what_a_server_says_of_the_items_is_compared(said: object, problem: str) -> None:
    assert mixed_up(said, "0000000100000002") == problem
    assert mixed_up(said, "") == ""

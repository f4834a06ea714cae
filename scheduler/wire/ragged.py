"""Ragged outputs: items have unlike numbers of rows, and a second output counts the rows of each item."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import accumulate

import numpy as np

from scheduler.wire.error import WireError, shown
from scheduler.wire.tensor import DATATYPES, Tensor, split

ROWS_SUFFIX = "_rows"
"""The rows of the output NAME are counted by the output NAME_rows: INT64, shape [n]."""


def row_counts(output: Tensor, outputs: Sequence[Tensor], items: int) -> list[int]:
    """Returns how many rows of a ragged output belong to each item.

    Args:
        output: the ragged output: the rows of all items, one item after the other.
        outputs: all outputs of the answer.
        items: of the batch.

    Raises:
        WireError: the output that counts them is missing, has another form, or does not fit.

    >>> boxes = Tensor.from_numpy("boxes", np.zeros((3, 4), np.float32))
    >>> row_counts(boxes, [boxes, Tensor.from_numpy("boxes_rows", np.array([3, 0]))], 2)
    [3, 0]
    """
    name = output.name + ROWS_SUFFIX
    counts = next((other for other in outputs if other.name == name), None)
    if counts is None:
        raise WireError(f"output {shown(output.name)} is ragged, but there is no output {shown(name)} with its rows")
    if counts.datatype != "INT64" or counts.shape != (items,):
        raise WireError(
            f"output {shown(name)} must be INT64 with shape [{items}], not {counts.datatype} {list(counts.shape)}"
        )
    rows: list[int] = np.frombuffer(counts.raw, DATATYPES["INT64"]).tolist()
    # Python's whole numbers have no overflow that could make a wrong sum right.
    if min(rows, default=0) < 0 or sum(rows) != output.items:
        few = ", ".join(map(str, rows[:16])) + (", ..." if len(rows) > 16 else "")
        raise WireError(f"output {shown(output.name)} has {output.items} rows, which {shown(name)} ({few}) do not fit")
    return rows


def split_ragged(output: Tensor, rows: Sequence[int], counts: Sequence[int]) -> list[Tensor]:
    """Splits a ragged output into the rows of each request's items.

    Args:
        output: the rows of all items.
        rows: how many belong to each item; see `row_counts`.
        counts: the items of each request, in order.

    Raises:
        WireError: the counts do not add up.
    """
    if min(rows, default=0) < 0 or min(counts, default=0) < 0 or sum(counts) != len(rows):
        raise WireError(f"output {shown(output.name)} cannot be split into {list(counts)} items of {list(rows)} rows")
    ends = [0, *accumulate(rows)]
    edges = [0, *accumulate(counts)]
    return split(output, [ends[end] - ends[start] for start, end in zip(edges, edges[1:], strict=False)])


def check_rows(outputs: Sequence[Tensor], items: int, ragged: Collection[str] = ()) -> None:
    """Checks that outputs can be those of a batch of so many items.

    Args:
        outputs: of an answer.
        items: of the batch.
        ragged: names of the ragged outputs.

    Raises:
        WireError: there is no output, an output does not have one row for each item, or a ragged one does not have as
            many as its counts say.
    """
    if not outputs:
        raise WireError("the answer has no outputs")
    for output in outputs:
        if output.name in ragged:
            row_counts(output, outputs, items)
        elif output.items != items:
            raise WireError(f"output {output.name!r} has {output.items} rows for {items} items")


def part_outputs(
    outputs: Sequence[Tensor], counts: Sequence[int], ragged: Collection[str] = ()
) -> list[tuple[Tensor, ...]]:
    """Returns each request's rows of every output.

    Args:
        outputs: of a batch.
        counts: the items of each request, in the batch's order.
        ragged: names of the ragged outputs.

    Raises:
        WireError: an output does not have as many rows as the batch has items, or as its counts say.
    """
    items = sum(counts)
    parts = [
        split_ragged(output, row_counts(output, outputs, items), counts)
        if output.name in ragged
        else split(output, counts)
        for output in outputs
    ]
    return list(zip(*parts, strict=True))

"""The models of the worlds: what each item holds determines its one right answer, so that any other answer shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.wire import ITEM_ERROR, ROWS_SUFFIX, Tensor

REFUSED = -1
"""In a first value of numbers: servers refuse the whole batch that holds it."""
BAD = b"bad"
"""Beginning of a text that no server can read: it alone fails, by its item's error."""
SENTENCE = b"this text cannot be read"

MODELS = ("numbers", "words", "shapes")

_TENSORS = {
    "numbers": (
        'inputs = [{name = "x", datatype = "INT64", shape = [2]}]\n'
        'outputs = [{name = "y", datatype = "INT64", shape = [2]}, {name = "p", datatype = "FP32", shape = [2]}]'
    ),
    "words": (
        'inputs = [{name = "text", datatype = "BYTES", shape = [1]}]\n'
        'outputs = [{name = "label", datatype = "BYTES", shape = [1]}, {name = "item_error", datatype = "BYTES"}]'
    ),
    "shapes": (
        'inputs = [{name = "s", datatype = "FP32", shape = [-1]}]\n'
        'outputs = [{name = "boxes", datatype = "FP32", shape = [2], ragged = true},'
        ' {name = "total", datatype = "FP32", shape = [1]}]'
    ),
}


def tensors(model: str) -> str:
    """Returns the lines of a configuration that say what a model takes and gives."""
    return _TENSORS[model]


@dataclass(frozen=True, slots=True)
class Content:
    """What a request asks: its first item's number, and what is odd about it."""

    model: str
    number: int
    items: int
    odd: str = ""
    """"refused": the first item is refused by all servers; "bad": it cannot be read; "nan": it is not finite."""

    @property
    def spoilt(self) -> bool:
        """Whether the client may be told that its request is at fault."""
        return bool(self.odd)

    def inputs(self) -> tuple[Tensor, ...]:
        """Returns the request's inputs."""
        numbers = range(self.number, self.number + self.items)
        if self.model == "numbers":
            rows = np.array([[number, 7 * number + 3] for number in numbers], np.int64)
            if self.odd == "refused":
                rows[0, 0] = REFUSED
            return (Tensor.from_numpy("x", rows),)
        if self.model == "words":
            elements = [b"item %d" % number for number in numbers]
            if self.odd == "bad":
                elements = [BAD + element for element in elements]
            return (Tensor.from_elements("text", elements, (self.items, 1)),)
        length = 1 + self.number % 3
        values = np.array([[number % 9973 + at for at in range(length)] for number in numbers], np.float32)
        if self.odd == "nan":
            values[0, 0] = np.nan
        return (Tensor.from_numpy("s", values),)


def refused(model: str, inputs: Sequence[Tensor]) -> bool:
    """Whether a server refuses a batch for what one of its items holds."""
    return model == "numbers" and bool((inputs[0].to_numpy()[:, 0] == REFUSED).any())


def outputs(model: str, inputs: Sequence[Tensor], *, other_weights: bool = False) -> tuple[Tensor, ...]:
    """Returns the right answer to a batch; with other weights, one that looks as good and is wrong."""
    shift = 1 if other_weights else 0
    if model == "numbers":
        x = inputs[0].to_numpy()
        y = np.stack([31 * x[:, 0] + 17 * x[:, 1] + shift, x[:, 0] ^ x[:, 1]], axis=1)
        p = np.stack([x[:, 0] % 101, x[:, 1] % 103], axis=1).astype(np.float32) / 128
        return Tensor.from_numpy("y", y), Tensor.from_numpy("p", p)
    if model == "words":
        elements = inputs[0].elements()
        labels = [b"echo%d of " % shift + element for element in elements]
        errors = [SENTENCE if element.startswith(BAD) else b"" for element in elements]
        shape = (len(elements), 1)
        return Tensor.from_elements("label", labels, shape), Tensor.from_elements(ITEM_ERROR, errors)
    s = inputs[0].to_numpy()
    counts = np.array([0 if np.isnan(row[0]) else int(row[0]) % 4 for row in s], np.int64)
    boxes = [[row[0] + at + shift, len(row)] for row, count in zip(s, counts, strict=True) for at in range(count)]
    return (
        Tensor.from_numpy("boxes", np.array(boxes, np.float32).reshape(-1, 2)),
        Tensor.from_numpy("total", s.sum(axis=1, keepdims=True) + np.float32(shift)),
        Tensor.from_numpy("boxes" + ROWS_SUFFIX, counts),
    )


def same(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether an answer has exactly these outputs, in any order."""
    ours = {tensor.name: (tensor.datatype, tuple(tensor.shape), bytes(tensor.raw)) for tensor in expected}
    theirs = {tensor.name: (tensor.datatype, tuple(tensor.shape), bytes(tensor.raw)) for tensor in found}
    return ours == theirs

"""Served models of tests' own: any card, computed by a function, without a framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.card import Card, TensorSpec
from models.errors import ModelError
from models.runtime import RuntimeReport
from models.serving import ServedModel

Array = np.ndarray[Any, Any]
Outputs = Mapping[str, Array | Sequence[Array]]


class FunctionRuntime:
    """Computes by a function; remembers its batches."""

    report = RuntimeReport("test", "cpu")

    def __init__(self, compute: Callable[[Mapping[str, Array]], Outputs]) -> None:
        """Store the function."""
        self._compute = compute
        self.batches: list[Mapping[str, Array]] = []

    def run(self, inputs: Mapping[str, Array]) -> Outputs:
        """Return the function's outputs."""
        self.batches.append(inputs)
        return self._compute(inputs)


def own_card(name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], max_batch: int = 8) -> Card:
    """Return a card without files."""
    return Card(name, Path(name), "python", tuple(inputs), tuple(outputs), max_batch=max_batch)


def length_of(element: bytes) -> Array:
    """Decode an element to its length; `broken` is broken, `bug` finds a bug of the decoder."""
    if element == b"broken":
        raise ModelError("the picture is broken: send it again")
    if element == b"bug":
        raise KeyError("a bug")
    return np.array([len(element)], np.float32)


def adding_model() -> ServedModel:
    """Return a model of two tensors, `a` and `b` of any length, that answers `sum` and as many rows as `b` says."""
    card = own_card(
        "adding",
        [TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "INT64")],
        [TensorSpec("sum", "FP32"), TensorSpec("rows", "FP32", (2,), ragged=True)],
    )

    def compute(inputs: Mapping[str, Array]) -> Outputs:
        counts = inputs["b"]
        return {
            "sum": inputs["a"].sum(axis=1) + counts,
            "rows": [np.full((int(count), 2), count, np.float32) for count in counts],
        }

    return ServedModel(card, FunctionRuntime(compute), decoders={}, identity="sha256:adding")


def two_pictures_model() -> ServedModel:
    """Return a model of two inputs of pictures, and one of numbers, that answers the sum of lengths and number."""
    card = own_card(
        "two-pictures",
        [
            TensorSpec("left", "BYTES", picture=True),
            TensorSpec("right", "BYTES", (2,), picture=True),
            TensorSpec("number", "FP32"),
        ],
        [TensorSpec("total", "FP32")],
    )

    def compute(inputs: Mapping[str, Array]) -> Outputs:
        return {"total": inputs["left"][:, 0] + inputs["right"].sum(axis=(1, 2)) + inputs["number"]}

    return ServedModel(card, FunctionRuntime(compute), decoders={"left": length_of, "right": length_of})

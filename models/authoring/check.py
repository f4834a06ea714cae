"""Checks a model's folder: loads it, runs batches, compares each item with what it gives alone, measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.card import ITEM_ERROR, Card
from models.errors import ModelError
from models.rehearsal import rehearsal_inputs
from models.runtime import Array
from models.serving import ServedModel

_ENOUGH_S = 0.5
_REPEATS = 3


class CheckFailed(ModelError):
    """Error: the model does not do what its card says; the message says what."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Speed of one batch size: items and the median seconds of a batch, decoding included."""

    items: int
    batch_s: float

    @property
    def items_per_s(self) -> float:
        """Items per second."""
        return self.items / self.batch_s


def check_model(
    card: Card,
    model: ServedModel,
    *,
    clock: Callable[[], float] = time.perf_counter,
    on_batch: Callable[[], None] = lambda: None,
) -> tuple[list[Measured], float]:
    """Runs batches of 1, 2 and the largest size; `on_batch` is called after each that is timed.

    Returns:
        The speed of each, and the largest difference between an item in a batch and alone, as a fraction of the
        output's largest value (at least 1).

    Raises:
        ModelError: a batch fails.
        CheckFailed: an item gets something else in a batch than alone.
    """
    sizes = sorted({1, min(2, card.max_batch), card.max_batch})
    alone = [answered(model, card, 1, first=index) for index in range(min(card.max_batch, 4))]
    difference = 0.0
    for items in sizes:
        whole = answered(model, card, items)
        for index in range(min(items, len(alone))):
            difference = max(difference, _difference(card, whole, index, alone[index]))
    if difference > card.tolerance:
        raise CheckFailed(
            f"an item gets another answer in a batch than alone (by {difference:.3g} of the largest value, the card's"
            f" `tolerance` is {card.tolerance:g}): the network mixes its items, or the card's batch axis is wrong"
        )
    return [_measured(model, card, items, clock, on_batch) for items in sizes], difference


def answered(model: ServedModel, card: Card, items: int, *, first: int = 0) -> dict[str, Array]:
    """Returns the answer to a made-up batch that begins with the made-up item number `first`.

    Raises:
        ModelError: the batch fails, or its made-up pictures are refused.
    """
    inputs = {name: array[first:] for name, array in rehearsal_inputs(card, first + items).items()}
    prepared = {name: _prepared(model, name, array) for name, array in inputs.items()}
    return model.answer(prepared, errors=[""] * items)


def _prepared(model: ServedModel, name: str, array: Array) -> Array:
    if name not in model.encoded_inputs:
        return array
    elements: Sequence[Array] = [model.prepare(name, element) for element in array.ravel()]
    return np.stack(elements)


def _difference(card: Card, whole: dict[str, Array], index: int, alone: dict[str, Array]) -> float:
    """Returns the largest difference between item `index` of a batch and the same item alone, relative to the values.

    Raises:
        CheckFailed: they differ in shape, or in values that are no fractions.
    """
    largest = 0.0
    for spec in card.outputs:
        mine, other = whole[spec.name], alone[spec.name]
        if spec.ragged:
            edges = np.cumsum([0, *whole[spec.rows_name]])
            mine = mine[edges[index] : edges[index + 1]]
        else:
            mine = mine[index : index + 1]
        if mine.shape != other.shape:
            raise CheckFailed(
                f"output {spec.name!r} of an item has shape {list(mine.shape)} in a batch, {list(other.shape)} alone:"
                " the card's batch axis is wrong, or the output is ragged"
            )
        if mine.dtype.kind == "f":
            if spec.finite and not (np.isfinite(mine).all() and np.isfinite(other).all()):
                raise CheckFailed(
                    f"output {spec.name!r} of a made-up item holds NaN or infinity: correct the network, or allow them"
                    " with `finite = false`"
                )
            if not np.array_equal(np.isfinite(mine), np.isfinite(other)):
                raise CheckFailed(
                    f"output {spec.name!r} of an item is NaN or infinity in a batch or alone, not in both"
                )
            mine, other = (np.where(np.isfinite(array), array, 0) for array in (mine, other))
            scale = max(1.0, float(np.abs(other).max(initial=0)))
            largest = max(largest, float(np.abs(mine - other).max(initial=0)) / scale)
        elif not (mine == other).all():
            raise CheckFailed(f"output {spec.name!r} of an item is another one in a batch than alone")
    return largest


def _measured(
    model: ServedModel, card: Card, items: int, clock: Callable[[], float], on_batch: Callable[[], None]
) -> Measured:
    taken_s: list[float] = []
    while len(taken_s) < _REPEATS or sum(taken_s) < _ENOUGH_S:
        began_s = clock()
        answered(model, card, items)
        taken_s.append(clock() - began_s)
        on_batch()
    return Measured(items, float(np.median(taken_s)))


def refused_pictures(answer: dict[str, Array]) -> list[str]:
    """Returns the sentences of items that were refused; empty for a model without pictures."""
    return [error.decode() for error in answer.get(ITEM_ERROR, ()) if error]

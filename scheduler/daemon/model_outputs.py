"""What a model's card says of its outputs, and whether a backend's answer fits it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from models.card import TensorSpec
from scheduler import wire
from scheduler.wire import ITEM_ERROR, Tensor, WireError

HEADER_BYTES = 2**20
"""Room for what an answer has beside its data: names, shapes, parameters, the end of a log. Far more than is needed."""
OPEN_BYTES = 2**20
"""Most bytes of an item's outputs whose size the card leaves open, unless the configuration says otherwise."""
_ELEMENT_BYTES = 32
"""Of one element of fixed size: in JSON a double has up to 25 characters and a comma, in binary form at most 8."""
_SENTENCE_BYTES = 4096
"""Of the sentence about one broken item."""


@dataclass(frozen=True, slots=True)
class ModelOutputs:
    """The outputs of a model as its card or configuration describes them."""

    specs: tuple[TensorSpec, ...] = ()
    """All outputs of an answer, rows of ragged ones and `item_error` included; empty: nothing is known of them."""
    open_bytes: int = OPEN_BYTES
    """Most bytes for each item of the outputs that have no fixed size: ragged, BYTES, or an axis of any length."""
    ragged: frozenset[str] = field(init=False, repr=False, compare=False)
    """Names of the ragged outputs."""
    item_bytes: int = field(init=False, repr=False, compare=False)
    """The largest size of one item's part of an answer."""

    def __post_init__(self) -> None:
        """Works out once what is asked for each batch."""
        object.__setattr__(self, "ragged", frozenset([spec.name for spec in self.specs if spec.ragged]))
        object.__setattr__(self, "item_bytes", _item_bytes(self))

    def limit_bytes(self, items: int) -> int:
        """Returns the size of the largest answer that a batch of so many items can have, in any encoding.

        >>> ModelOutputs((TensorSpec("y", "FP32", (10,)),)).limit_bytes(4) - HEADER_BYTES
        1280
        """
        return HEADER_BYTES + items * self.item_bytes

    def fitting(self, outputs: Sequence[Tensor], items: int) -> tuple[Tensor, ...]:
        """Returns the outputs that the model has; others, which are not described, are left out.

        A server that does not know `item_error`, as one that is not ours, has failed at no item.

        Args:
            outputs: of an answer.
            items: of the batch.

        Raises:
            WireError: an output is missing, or has another datatype or shape than the card says.
        """
        kept = tuple(outputs)
        if self.specs:
            by_name = {output.name: output for output in outputs}
            kept = tuple([_fitting(spec, by_name) for spec in self.specs if spec.name != ITEM_ERROR])
            if ITEM_ERROR in by_name:
                kept = (*kept, _fitting(_ERRORS, by_name))
            elif any(spec.name == ITEM_ERROR for spec in self.specs):
                kept = (*kept, Tensor.from_elements(ITEM_ERROR, [b""] * items))
        wire.check_rows(kept, items, self.ragged)
        return kept

    def not_finite(self, outputs: Sequence[Tensor], items: int) -> frozenset[int]:
        """Returns the items with NaN or infinity in an output that must be finite; those that failed are left out.

        Args:
            outputs: of an answer that fits.
            items: of the batch.
        """
        by_name = {output.name: output for output in outputs}
        found: set[int] = set()
        for spec in self.specs:
            if not spec.finite or not spec.datatype.startswith("FP"):
                continue
            finite = np.isfinite(by_name[spec.name].to_numpy())
            if finite.all():
                continue
            rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
            if spec.ragged:
                counts = wire.row_counts(by_name[spec.name], outputs, items)
                rows = np.repeat(np.arange(items), counts)[rows]
            found.update(rows.tolist())
        if not found:
            return frozenset()
        failed = wire.item_errors(outputs)
        return frozenset(item for item in found if not (failed and failed[item]))


_ERRORS = TensorSpec(ITEM_ERROR, "BYTES")


def _item_bytes(outputs: ModelOutputs) -> int:
    """Returns the largest size of one item's part of an answer."""
    fixed, is_open = 0, not outputs.specs
    for spec in outputs.specs:
        if spec.name == ITEM_ERROR:
            fixed += _SENTENCE_BYTES
        elif spec.ragged or spec.datatype == "BYTES" or -1 in spec.shape:
            is_open = True
        else:
            fixed += _ELEMENT_BYTES * math.prod(spec.shape)
    return fixed + (outputs.open_bytes if is_open else 0)


def _fitting(spec: TensorSpec, by_name: dict[str, Tensor]) -> Tensor:
    output = by_name.get(spec.name)
    if output is None:
        given = ", ".join(repr(name[:64]) for name in list(by_name)[:8]) or "no outputs"
        raise WireError(f"it lacks the output {spec.name!r} of the model's card, and has {given}")
    if output.datatype != spec.datatype:
        raise WireError(f"output {spec.name!r} is {output.datatype}, but the model's card says {spec.datatype}")
    if not spec.fits(output.shape):
        per = "row" if spec.ragged else "item"
        raise WireError(
            f"output {spec.name!r} has the shape {list(output.shape[1:])} for each {per}, but the model's card says"
            f" {list(spec.shape)}"
        )
    return output

"""Whose fault it is that an answer's values are not finite: the input's, which is not either, or the backend's."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.daemon.bodies import PendingCall
from scheduler.daemon.calls import InferenceCall

BY_INPUT = (
    "an input of the request holds NaN or infinity, and so do the model's outputs; correct the input, or allow such"
    " outputs with `finite = false` in the model's card"
)
BY_BACKEND = "its values are NaN or infinity, which the model's card does not allow"


@dataclass(frozen=True, slots=True)
class NotFinite:
    """The requests of a batch whose outputs are not finite, by request id."""

    by_input: frozenset[int] = frozenset()
    by_backend: frozenset[int] = frozenset()


def sorted_by_fault(members: Sequence[PendingCall], items: Collection[int]) -> NotFinite:
    """Returns the members of a batch that have such items.

    Args:
        members: of the batch, in its order.
        items: numbers of the batch's items whose outputs are not finite.
    """
    if not items:
        return NotFinite()
    by_input: set[int] = set()
    by_backend: set[int] = set()
    first = 0
    for member in members:
        numbers = range(first, first + member.call.items)
        first += member.call.items
        if not any(number in items for number in numbers):
            continue
        (by_backend if _finite(member.call) else by_input).add(member.request_id)
    return NotFinite(frozenset(by_input), frozenset(by_backend))


def _finite(call: InferenceCall) -> bool:
    return all(bool(np.isfinite(tensor.to_numpy()).all()) for tensor in call.inputs if tensor.datatype.startswith("FP"))

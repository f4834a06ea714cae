"""Whether two runtimes of one model agree: outputs within the card's tolerance, and the same labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.card import Card, TensorSpec
from models.runtime import Array
from models.serving import activated


def disagreement(
    card: Card, reference: Mapping[str, Any], given: Mapping[str, Any], *, labels: bool = False
) -> str | None:
    """Returns how outputs of a runtime differ from those of the reference; None if they agree.

    Args:
        card: with the tolerance, of a difference relative to the larger of 1 and the output's largest value.
        reference: outputs by name, of the runtime that is trusted.
        given: outputs by name, of the same inputs.
        labels: whether the largest value of each item must be at the same place too.
    """
    for number, spec in enumerate(card.outputs):
        activation = card.activation if number == 0 and not spec.ragged else "none"
        wanted, found = (activated(_joined(outputs[spec.name]), activation) for outputs in (reference, given))
        problem = _difference(spec, wanted, found, card.tolerance)
        if problem is None and labels and number == 0 and _is_classes(spec, wanted):
            problem = _other_labels(spec, wanted, found)
        if problem is not None:
            return problem
    return None


def _joined(value: Any) -> Array:
    if isinstance(value, (list, tuple)):
        return np.concatenate([np.asarray(part) for part in value])
    return np.asarray(value)


def _difference(spec: TensorSpec, wanted: Array, found: Array, tolerance: float) -> str | None:
    if wanted.shape != found.shape:
        return f"output {spec.name!r} has shape {list(found.shape)}, not {list(wanted.shape)}"
    if wanted.dtype.kind not in "fc":
        return None if bool((wanted == found).all()) else f"output {spec.name!r} has other values"
    if not wanted.size:
        return None
    wide, other = wanted.astype(np.float64), found.astype(np.float64)
    same = (wide == other) | (np.isnan(wide) & np.isnan(other))
    largest = float(np.max(np.abs(wide), initial=0.0, where=np.isfinite(wide)))
    with np.errstate(invalid="ignore"):
        error = float(np.max(np.where(same, 0.0, np.abs(wide - other))))
    limit = tolerance * max(1.0, largest)
    return None if error <= limit else f"output {spec.name!r} differs by {error:.2g}, over {limit:.2g}"


def _is_classes(spec: TensorSpec, array: Array) -> bool:
    return not spec.ragged and array.dtype.kind == "f" and array.ndim >= 2 and array.shape[-1] > 1


def _other_labels(spec: TensorSpec, wanted: Array, found: Array) -> str | None:
    other = int((wanted.argmax(axis=-1) != found.argmax(axis=-1)).sum())
    return f"output {spec.name!r} has its largest value elsewhere in {other} places" if other else None

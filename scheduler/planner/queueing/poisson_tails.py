"""P(at least s Poisson arrivals) for whole arrays at once, from a table that is built when first needed."""

from functools import cache

import numpy as np

from scheduler.planner.queueing.matrices import Array, Indices

_STEP = 1 / 16


def certain_above(size: int) -> float:
    """Returns a mean above which fewer than `size` arrivals have a probability below 1e-11."""
    return float(size + 8 * np.sqrt(size) + 20)


@cache
def _table(size: int) -> Array:
    """P(at least s | mean x) at x = 0, 1/16, ...; rows s = -2 ... size + 1, so that neighbours need no special case."""
    means = np.arange(0.0, certain_above(size) + 2 * _STEP, _STEP)
    tails = np.ones((size + 4, len(means)))
    term = np.exp(-means)
    for s in range(1, size + 2):
        tails[s + 2] = np.maximum(tails[s + 1] - term, 0.0)
        term = term * means / s
    return tails


def neighbouring_tails(means: Array, sizes: Indices, *, largest: int) -> tuple[Array, Array, Array]:
    """Returns P(at least s - 1), P(at least s) and P(at least s + 1) arrivals.

    Cubic Hermite interpolation, whose slopes are differences of the same table (d/dx P(>= s) = P(>= s-1) - P(>= s));
    off by less than 1e-7.

    Args:
        means: expected arrivals, at least 0; any shape.
        sizes: s of each, 1 to `largest`; broadcast against `means`.
        largest: the largest s.
    """
    table = _table(largest)
    width = table.shape[1]
    scaled = np.minimum(means / _STEP, width - 1.001)
    left = scaled.astype(np.int64)
    part = scaled - left
    # Four neighbours in a column of the table, at either end of the step.
    at = sizes * width + left + _rows(width).reshape(4, *[1] * left.ndim)
    low, high = table.take(at), table.take(at + 1)
    h01 = part * part * (3 - 2 * part)
    h10, h11 = part * (1 - part) ** 2 * _STEP, part * part * (part - 1) * _STEP
    values = low[1:] + (high[1:] - low[1:]) * h01
    values += (low[:3] - low[1:]) * h10
    values += (high[:3] - high[1:]) * h11
    return values[0], values[1], values[2]


@cache
def _rows(width: int) -> Indices:
    """Where four rows of so many numbers start."""
    return np.arange(4) * width

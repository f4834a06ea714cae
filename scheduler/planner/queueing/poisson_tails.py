"""P(at least s Poisson arrivals) for whole arrays at once, from a table that is built at the first call.

With a mean of 1 at least one arrival comes with probability 1 - 1/e = 0.6321, and at least two with 1 - 2/e = 0.2642:

>>> before, tail, after = neighbouring_tails(np.array([1.0]), np.array([1]), largest=4)
>>> round(float(before[0]), 4), round(float(tail[0]), 4), round(float(after[0]), 4)
(1.0, 0.6321, 0.2642)
"""

from functools import cache

import numpy as np

from scheduler.planner.queueing.matrices import Array, Indices

_STEP = 1 / 16
"""Distance of the means in the table: the error of cubic interpolation grows with its fourth power, and 1/8 would make
it sixteen times as large."""


def saturated_mean(size: int) -> float:
    """Returns a mean above which fewer than `size` arrivals have a probability below 1e-11."""
    return float(size + 8 * np.sqrt(size) + 20)


@cache
def _table(size: int) -> Array:
    """Returns P(at least s | mean x) at x = 0, 1/16, ... for s = -2 ... size + 1, the neighbours of 1 ... size too."""
    means = np.arange(0.0, saturated_mean(size) + 2 * _STEP, _STEP)
    tails = np.ones((size + 4, len(means)))
    term = np.exp(-means)
    for s in range(1, size + 2):
        tails[s + 2] = np.maximum(tails[s + 1] - term, 0.0)
        term = term * means / s
    return tails


def neighbouring_tails(means: Array, sizes: Indices, *, largest: int) -> tuple[Array, Array, Array]:
    """Returns P(at least s - 1), P(at least s) and P(at least s + 1) arrivals.

    The values are interpolated by cubic Hermite polynomials, whose slopes are differences of the same table: d/dx P(>=
    s) = P(>= s - 1) - P(>= s). The error is below 1e-7.

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
    # Four neighbouring rows of the table, at both ends of the step.
    at = sizes * width + left + _row_starts(width).reshape(4, *[1] * left.ndim)
    low, high = table.take(at), table.take(at + 1)
    h01 = part * part * (3 - 2 * part)
    h10, h11 = part * (1 - part) ** 2 * _STEP, part * part * (part - 1) * _STEP
    values = low[1:] + (high[1:] - low[1:]) * h01
    values += (low[:3] - low[1:]) * h10
    values += (high[:3] - high[1:]) * h11
    return values[0], values[1], values[2]


@cache
def _row_starts(width: int) -> Indices:
    """Returns where four rows of `width` numbers start."""
    return np.arange(4) * width

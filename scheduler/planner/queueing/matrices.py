"""Small dense matrices of phase processes: stationary distributions, exponentials, arrays checked once."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_ALONE = 500_000
"""Multiplications up to which OpenBLAS leaves a product to one thread: it asks for 2^18 for each of two. A thread once
woken waits busily for tens of milliseconds, which costs more processor time than any product here takes."""

_FLOOR = 1e-100
"""Leaves a phase that is never left; what it adds to the others is nothing."""


def stationary(stochastic: Array) -> Array:
    """Returns the row vectors x = x P of stochastic matrices with one closed class.

    Elimination without subtractions (Grassmann, Taksar and Heyman, 1985), so that every entry is right to rounding.

    Args:
        stochastic: shape (..., m, m), rows sum to 1; diagonals are not read.

    Returns:
        Shape (..., m), rows sum to 1.

    >>> stationary(np.array([[0.5, 0.5], [0.25, 0.75]])).round(4).tolist()
    [0.3333, 0.6667]
    """
    return np.moveaxis(eliminated(np.moveaxis(stochastic, (-2, -1), (0, 1)).copy()), 0, -1)


def eliminated(work: Array) -> Array:
    """Returns the same for matrices whose phases come first, so that each step runs over all of them in a row.

    Args:
        work: shape (m, m, ...); overwritten.

    Returns:
        Shape (m, ...).
    """
    phases = len(work)
    for last in range(phases - 1, 0, -1):
        leaving = np.maximum(work[last, :last].sum(axis=0), _FLOOR)
        for phase in range(last):
            work[phase, last] /= leaving
            work[phase, :last] += work[phase, last] * work[last, :last]
    distribution = np.zeros(work.shape[1:])
    distribution[0] = 1.0
    for phase in range(1, phases):
        distribution[phase] = (distribution[:phase] * work[:phase, phase]).sum(axis=0)
    distribution /= distribution.sum(axis=0)
    return distribution


def product(left: Array, right: Array, out: Array | None = None) -> Array:
    """Returns the product of two matrices, in pieces that one thread works out.

    Args:
        left: shape (i, k).
        right: shape (k, j).
        out: where to put it, shape (i, j).
    """
    (rows, inner), columns = left.shape, right.shape[1]
    result = np.empty((rows, columns)) if out is None else out
    # As square as possible: a thin piece is read from memory faster than it is multiplied.
    side = math.isqrt(_ALONE // max(inner, 1))
    high = _piece(rows, max(side, _ALONE // max(inner * columns, 1)))
    wide = _piece(columns, _ALONE // max(inner * high, 1))
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            np.matmul(left[i : i + high], right[:, j : j + wide], out=result[i : i + high, j : j + wide])
    return result


def _piece(length: int, max_length: int) -> int:
    """All of so many rows or columns, or at most so many; then in whole blocks of eight, as BLAS takes them."""
    return length if length <= max_length else max(max_length // 8 * 8, 1)


def times(many: Array, one: Array) -> Array:
    """Returns many small matrices times one, in a single product: shapes (..., i, m) and (m, j) give (..., i, j)."""
    return product(many.reshape(-1, many.shape[-1]), one).reshape(*many.shape[:-1], one.shape[1])


def square(rows: Sequence[Sequence[float]]) -> Array:
    """Returns rows as an array of floats, shape (m, m)."""
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)

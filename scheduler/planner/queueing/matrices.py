"""Small dense matrices of phase processes: stationary distributions, and products that stay in one thread."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]

_ONE_THREAD = 500_000
"""Multiplications up to which OpenBLAS computes a product in one thread: it gives at least 2^18 to each thread. A
second thread, once started, waits busily for tens of milliseconds, which costs more processor time than any product
here."""

_MIN_LEAVING = 1e-100
"""Rate out of a phase that is never left; the phase then adds nothing to the others."""


def stationary(stochastic: Array) -> Array:
    """Returns the row vectors x = x P of stochastic matrices with one closed class.

    Elimination without subtractions (Grassmann, Taksar and Heyman, 1985), so that every entry is exact to rounding.

    Args:
        stochastic: shape (..., m, m), rows sum to 1; diagonals are not read.

    Returns:
        Shape (..., m), rows sum to 1.

    The first phase is left with probability 1/2 and the second with 1/4, so the second is twice as frequent:

    >>> stationary(np.array([[0.5, 0.5], [0.25, 0.75]])).round(4).tolist()
    [0.3333, 0.6667]
    """
    return np.moveaxis(eliminated(np.moveaxis(stochastic, (-2, -1), (0, 1)).copy()), 0, -1)


def eliminated(work: Array) -> Array:
    """Returns the same for matrices with the phases in the first two axes, which makes the inner loops long.

    Args:
        work: shape (m, m, ...); overwritten.

    Returns:
        Shape (m, ...).
    """
    phases = len(work)
    for last in range(phases - 1, 0, -1):
        leaving = np.maximum(work[last, :last].sum(axis=0), _MIN_LEAVING)
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
    """Returns the product of two matrices, computed in blocks that stay in one thread.

    Args:
        left: shape (i, k).
        right: shape (k, j).
        out: array for the result, shape (i, j); by default a new one.
    """
    (rows, inner), columns = left.shape, right.shape[1]
    result = np.empty((rows, columns)) if out is None else out
    # Blocks are as square as possible: reading a thin one from memory takes longer than multiplying it.
    side = math.isqrt(_ONE_THREAD // max(inner, 1))
    high = _piece(rows, max(side, _ONE_THREAD // max(inner * columns, 1)))
    wide = _piece(columns, _ONE_THREAD // max(inner * high, 1))
    for i in range(0, rows, high):
        for j in range(0, columns, wide):
            np.matmul(left[i : i + high], right[:, j : j + wide], out=result[i : i + high, j : j + wide])
    return result


def _piece(length: int, max_length: int) -> int:
    """Returns `length` if it is at most `max_length`, else a multiple of eight, the block size of BLAS, below that."""
    return length if length <= max_length else max(max_length // 8 * 8, 1)


def square(rows: Sequence[Sequence[float]]) -> Array:
    """Returns rows as an array of floats, shape (m, m)."""
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1)

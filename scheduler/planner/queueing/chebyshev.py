"""Interpolation at Chebyshev points, which is exact to rounding for entire functions."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.matrices import Array, product


def chebyshev_points(changes: float) -> Array:
    """Returns points of the second kind on (0, 1), ascending, enough for products of count matrices.

    The product of the count matrices of two parts of a time is a function of the point where the time is cut. It is a
    sum of exponentials with exponents up to the mean number of phase changes. The Chebyshev coefficients of e^(-a x)
    fall below rounding after about six times the square root of a.

    Args:
        changes: mean number of phase changes in the whole time.

    >>> chebyshev_points(0.0)[[0, 12, 24]].round(9).tolist()
    [0.0, 0.5, 1.0]
    """
    number = 24 + math.ceil(6 * math.sqrt(changes))
    return np.asarray((1 - np.cos(np.pi * np.arange(number + 1) / number)) / 2)


def interpolation(points: Array, places: Array) -> Array:
    """Returns weights that turn the values at the points into values at places in (0, 1), shape (..., points).

    Barycentric form (Berrut and Trefethen, 2004), exact at the points.

    Args:
        points: of the second kind, ascending.
        places: any shape.

    A parabola through its values at 0, 1/2 and 1 is exact everywhere; at 1/4 the weights are 3/8, 3/4 and -1/8:

    >>> interpolation(np.array([0.0, 0.5, 1.0]), np.array([0.25])).tolist()
    [[0.375, 0.75, -0.125]]
    """
    signs = (-1.0) ** np.arange(len(points))
    signs[[0, -1]] /= 2
    distance = np.asarray(places[..., None] - points)
    hit = distance == 0
    on_point = hit.any(axis=-1)
    # In place, since these arrays are large; the few places that are points are corrected afterwards.
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.divide(signs, distance, out=distance)
        weights /= weights.sum(axis=-1, keepdims=True)
    weights[on_point] = hit[on_point]
    return np.asarray(weights)


@dataclass(frozen=True, slots=True, eq=False)
class Interpolated:
    """A function on (0, 1) that is known at Chebyshev points.

    Attributes:
        points: shape (points,).
        values: shape (points, ...).
    """

    points: Array
    values: Array

    def at(self, places: Array) -> Array:
        """Returns the values at places, shape (places, ...)."""
        flat = product(interpolation(self.points, places), self.values.reshape(len(self.points), -1))
        return flat.reshape(len(places), *self.values.shape[1:])

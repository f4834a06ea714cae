"""The quantile of a distribution from its distribution function."""

from collections.abc import Callable

_HALVINGS = 46
"""Halves an interval to less than 1e-13 of itself."""


def lowest(fraction: Callable[[float], float], percentile: float, *, upper: float) -> float:
    """Returns the least x with fraction(x) >= percentile, to 1e-13 of `upper`.

    Args:
        fraction: a distribution function, ascending from 0 below 0; it may jump.
        percentile: above 0 and below 1.
        upper: where it is 1.

    Raises:
        ValueError: not a percentile.

    >>> round(lowest(lambda x: 0.25 if x < 2 else 1.0, 0.5, upper=10.0), 9)
    2.0
    """
    if not 0 < percentile < 1:
        raise ValueError(f"percentile must be above 0 and below 1, not {percentile}")
    low, high = 0.0, upper
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if fraction(middle) >= percentile:
            high = middle
        else:
            low = middle
    return high

"""Quantiles of a distribution, found by bisection of its distribution function."""

from collections.abc import Callable

_BISECTIONS = 46
"""Bisections of the interval: 2^-46 of it is less than 1e-13 of its upper end."""


def quantile(fraction: Callable[[float], float], percentile: float, *, upper: float) -> float:
    """Returns the least x with fraction(x) >= percentile, to 1e-13 of `upper`.

    Args:
        fraction: a distribution function, 0 below 0 and not descending; it may jump.
        percentile: above 0 and below 1.
        upper: a value where the distribution function is 1.

    Raises:
        ValueError: the percentile is out of range.

    Half of this distribution is reached only by the jump at 2:

    >>> round(quantile(lambda x: 0.25 if x < 2 else 1.0, 0.5, upper=10.0), 9)
    2.0
    """
    if not 0 < percentile < 1:
        raise ValueError(f"percentile must be above 0 and below 1, not {percentile}")
    low, high = 0.0, upper
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if fraction(middle) >= percentile:
            high = middle
        else:
            low = middle
    return high

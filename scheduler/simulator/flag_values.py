"""Values of flags of `simulate` that are more than a number."""

import argparse
import math
from collections.abc import Callable


def numbers(count: int) -> Callable[[str], tuple[float, ...]]:
    """Returns what reads so many numbers with commas between; ValueError for any other text."""

    def read(text: str) -> tuple[float, ...]:
        values = tuple(float(word) for word in text.split(","))
        if len(values) != count:
            raise ValueError
        return values

    read.__name__ = f"{count} numbers with commas between"
    return read


def tail_law(text: str) -> float:
    """Returns the exponent of a law of factors: 0 for lognormal ones.

    Raises:
        argparse.ArgumentTypeError: there is no such law.
    """
    name, _, exponent = text.partition(":")
    if text == "lognormal":
        return 0.0
    try:
        tail = float(exponent) if name == "pareto" else math.nan
    except ValueError:
        tail = math.nan
    # Up to 1 the mean is infinite, and so would be the cost.
    if not 1.0 < tail < math.inf:
        raise argparse.ArgumentTypeError(f"give lognormal, or pareto:ALPHA with ALPHA above 1, not {text!r}")
    return tail

"""The handwritten digits of scikit-learn, divided into training and held-out digits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits

Digits = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]

# Every fourth digit is held out. A fixed rule, unlike a shuffle, does not depend on a library's random generator.
_HELD_OUT_EVERY = 4


def held_out() -> Digits:
    """Returns the 449 held-out digits: images of shape 449 x 8 x 8 with ink from 0 to 16, and labels 0 to 9."""
    return _divided(held_out=True)


def training() -> Digits:
    """Returns the other 1,348 digits, in the same form."""
    return _divided(held_out=False)


def _divided(*, held_out: bool) -> Digits:
    digits = load_digits()
    chosen = (np.arange(len(digits.target)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1) == held_out
    return digits.images[chosen], digits.target[chosen]

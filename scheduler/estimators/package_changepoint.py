"""Changepoints by the densities and the hazard of the package bayesian-changepoint-detection.

The package is imported only when its detectors are asked for. Its own recursion keeps every run length since the start,
so its densities run behind the bounded recursion of `run_length` instead. It has Student's t only, so a count n is
watched as 2 sqrt(n + 3/8) (Anscombe 1948), whose variance is nearly 1 for Poisson counts of any rate above a few.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np

from scheduler.domain.errors import EdgeburstError
from scheduler.estimators.changepoint import NATIVE, REGIME_LENGTH, Detector, Detectors, bounded, count_step, level_step
from scheduler.estimators.densities import Floats, Rows

MODULE = "bayesian_changepoint_detection.online_changepoint_detection"
PARAMETERS = ("alpha", "beta", "kappa", "mu")
"""Attributes of the package's Student's t that hold one value for each run length."""
MIN_PDF = 1e-300
"""Stands in for a density that has underflowed to 0, whose logarithm would end the recursion."""
COUNT_MEAN = 7.0
"""Prior mean of a transformed count: that of 12 requests in a tick. The prior is so broad that it hardly matters."""
COUNT_WEIGHT = 0.02
"""Observations that the prior mean counts as: its standard deviation is 7, so that idle and 150 requests a tick are
both within two of them."""
COUNT_ALPHA = 4.0
"""Half the observations that the prior variance of 1 counts as."""


class PackageDensity(Protocol):
    """A density as the package writes it."""

    def pdf(self, data: float) -> Floats:
        """Returns the predictive density under each row."""

    def update_theta(self, data: float) -> None:
        """Updates every row with the value, then puts the prior in front."""


class AdaptedDensity:
    """Adapts a density of the package, such as its StudentT, to the bounded recursion.

    Args:
        density: the package's object.
    """

    def __init__(self, density: PackageDensity) -> None:
        """Stores the density."""
        self._density = density

    def log_pdf(self, value: float) -> Floats:
        """Returns the log predictive density of `value` under each row."""
        log_pdf: Floats = np.log(np.maximum(self._density.pdf(value), MIN_PDF))
        return log_pdf

    def update_theta(self, value: float) -> None:
        """Updates every row with `value`, then puts the prior in front."""
        self._density.update_theta(value)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        for name in PARAMETERS:
            setattr(self._density, name, getattr(self._density, name)[rows])


def anscombe(count: float) -> float:
    """Returns the value of a count whose variance is nearly 1 if the count is Poisson.

    >>> anscombe(0.625), anscombe(8.625)
    (2.0, 6.0)
    """
    return 2.0 * math.sqrt(count + 0.375)


def detectors_of(package: bool) -> Detectors:
    """Returns the detectors by the package, or by our densities.

    Raises:
        EdgeburstError: the package is asked for and not installed.
    """
    return package_detectors() if package else NATIVE


def package_detectors() -> Detectors:
    """Returns the detectors by the package.

    Raises:
        EdgeburstError: the package is not installed.
    """
    try:
        package = importlib.import_module(MODULE)
    except ImportError as error:
        raise EdgeburstError(
            'changepoints = "package" needs the Python package bayesian-changepoint-detection: install it from '
            "the source tree with pip install '.[client,bcd]', or write \"native\""
        ) from error
    return Detectors(counts=partial(_count_detector, package), levels=partial(_level_detector, package))


def _count_detector(package: Any) -> Detector:
    density = package.StudentT(alpha=COUNT_ALPHA, beta=COUNT_ALPHA, kappa=COUNT_WEIGHT, mu=COUNT_MEAN)
    return Detector(
        bounded(AdaptedDensity(density), _hazard(package)), step=count_step, min_step=0.1, transform=anscombe
    )


def _level_detector(package: Any, *, mean: float = 0.0, sigma: float = 0.2) -> Detector:
    density = package.StudentT(alpha=2.0, beta=2.0 * sigma**2, kappa=0.05, mu=mean)
    return Detector(bounded(AdaptedDensity(density), _hazard(package)), step=level_step, min_step=0.1)


def _hazard(package: Any) -> Callable[[Any], Floats]:
    return partial(package.constant_hazard, REGIME_LENGTH)

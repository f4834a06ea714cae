"""Scatter of service times as a lognormal, from the factor by which a percentile exceeds the median."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

_NORMAL = NormalDist()
_AGES = tuple((i + 0.5) / 16 for i in range(16))
"""Waits, as parts of the longest one, over which a probability is averaged. Judgement: expected fractions in time are
shown to a tenth of a percent, and 16 steps of a smooth function are exact to that."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Service time divided by its median, with a lognormal distribution.

    Attributes:
        margin: factor on the median at which `percentile` of the services are done, at least 1.
        percentile: between 0 and 1.

    At a percentile of 0.99 the normal quantile is 2.326, and ln 1.262 / 2.326 = 0.1:

    >>> round(Spread(margin=1.262, percentile=0.99).sigma, 3)
    0.1
    """

    margin: float
    percentile: float

    @property
    def sigma(self) -> float:
        """Standard deviation of the logarithm; 0 if the percentile does not determine it."""
        if self.margin <= 1.0 or not 0.5 < self.percentile < 1.0:
            return 0.0
        return math.log(self.margin) / _NORMAL.inv_cdf(self.percentile)

    @property
    def mean_factor(self) -> float:
        """Mean divided by median: the factor on money, which is a sum over services."""
        return math.exp(min(self.sigma, 3.0) ** 2 / 2)

    def within(self, available_s: float, median_s: float) -> float:
        """Returns the probability that a service of this median takes at most `available_s`."""
        if available_s <= 0 or median_s <= 0:
            return float(median_s <= 0 <= available_s)
        if self.sigma == 0:
            # Rounding must not reject a batch that was chosen to fit exactly.
            return float(median_s <= available_s * (1 + 1e-9))
        return _NORMAL.cdf(math.log(available_s / median_s) / self.sigma)

    def within_after_wait(self, available_s: float, median_s: float, *, longest_wait_s: float) -> float:
        """Returns the same for requests that have waited between 0 and `longest_wait_s`, all waits equally probable."""
        return math.fsum(self.within(available_s - age * longest_wait_s, median_s) for age in _AGES) / len(_AGES)


def margin_at(percentile: float, factors: Mapping[float, float]) -> float:
    """Returns the learned factor for a percentile: its own, else that of the next higher known one, else 1.

    It is never below 1: a plan does not assume services below the median.
    """
    if not factors:
        return 1.0
    known = min((p for p in factors if p >= percentile), default=max(factors))
    factor = factors[known]
    return max(1.0, factor) if math.isfinite(factor) else 1.0


def margin_of(sigma: float, percentile: float) -> float:
    """Returns the factor on a median that `percentile` (in (0, 1)) of a lognormal with this sigma stays below."""
    return max(1.0, math.exp(sigma * _NORMAL.inv_cdf(percentile)))

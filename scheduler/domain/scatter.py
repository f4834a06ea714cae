"""Scatter of services around their prediction, as a distribution that decisions can use."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from statistics import NormalDist

LEAST_BEYOND = 5
"""Residuals that must lie beyond a point before they are used there and not the fitted normal distribution."""
_NORMAL = NormalDist()
_ROOT_OF_2 = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class Scatter:
    """Distribution of log(observed / predicted): that of the last residuals, and beyond them a normal distribution.

    >>> scatter = Scatter(mean=0.0, sigma=0.1)
    >>> round(scatter.exceeds(0.2326), 3), round(scatter.quantile(0.99), 3)
    (0.01, 0.233)
    """

    mean: float = 0.0
    sigma: float = 0.1
    """Standard deviation of the normal distribution; 0: every service takes exactly what was predicted."""
    ordered: tuple[float, ...] = ()
    """The residuals, ascending."""

    def exceeds(self, residual: float) -> float:
        """Returns the probability that the next residual is above this one."""
        ordered = self.ordered
        count = len(ordered)
        if count >= 2 * LEAST_BEYOND:
            below = bisect_left(ordered, residual)
            if LEAST_BEYOND <= below <= count - LEAST_BEYOND:
                return (count - below) / (count + 1)
        sigma = self.sigma
        if sigma <= 0:
            return float(residual < self.mean)
        return 0.5 * math.erfc((residual - self.mean) / (sigma * _ROOT_OF_2))

    def quantile(self, percentile: float) -> float:
        """Returns the residual that the next one stays below with probability `percentile` (in (0, 1)).

        The next value exceeds the order statistic at position p (n + 1) with probability 1 - p, whatever the
        distribution (Hyndman & Fan 1996, definition 6).
        """
        count = len(self.ordered)
        if count * min(percentile, 1.0 - percentile) < LEAST_BEYOND:
            return self.mean + self.sigma * _NORMAL.inv_cdf(percentile)
        position = percentile * (count + 1) - 1.0
        low = int(position)
        return self.ordered[low] + (position - low) * (self.ordered[low + 1] - self.ordered[low])

"""How far answers stray from their prediction: quantiles over a bounded window."""

import math
from bisect import bisect_left, insort
from collections import deque
from statistics import NormalDist

PRIOR_WEIGHT = 8
"""Residuals that the prior scatter counts as."""
LEAST_BEYOND = 5
"""Residuals that must lie beyond a quantile before it is read off them and not off a fitted normal law."""


class ResidualWindow:
    """Quantiles of the last residuals of log(observed / predicted).

    A quantile that enough residuals lie beyond is an order statistic at position p (n + 1), which is what the next
    value exceeds with probability 1 - p whatever its law (Hyndman & Fan 1996, definition 6). Further out, where the
    window has next to no residuals, it is that of a normal law, which lognormal noise makes exact, with a scatter that
    starts from the prior and leaves it as residuals come in.

    Args:
        size: residuals kept.
        prior_sigma: scatter taken for granted before any is seen.

    >>> import numpy as np
    >>> window = ResidualWindow(size=500, prior_sigma=0.1)
    >>> for residual in np.random.default_rng(2).normal(0.0, 0.2, 500):
    ...     window.update(float(residual))
    >>> round(window.quantile(0.5), 1), round(window.quantile(0.99), 1)
    (-0.0, 0.5)
    """

    def __init__(self, *, size: int, prior_sigma: float) -> None:
        """Stores the parameters."""
        self._size = size
        self._prior_sigma = prior_sigma
        self._reset()

    def _reset(self) -> None:
        self._in_order: deque[float] = deque()
        self._sorted: list[float] = []
        self._seen = 0

    def __len__(self) -> int:
        """Number of residuals in the window."""
        return len(self._in_order)

    def update(self, residual: float) -> None:
        """Adds the newest residual; the oldest leaves a full window."""
        if len(self._in_order) == self._size:
            self._remove(self._in_order.popleft())
        self._in_order.append(residual)
        insort(self._sorted, residual)
        self._seen += 1

    def forget_newest(self) -> None:
        """Takes the newest residual out again, if there is one."""
        if self._in_order:
            self._remove(self._in_order.pop())

    def quantile(self, percentile: float) -> float:
        """Returns the residual that the next one stays below with probability `percentile` (in (0, 1))."""
        count = len(self._sorted)
        if count * min(percentile, 1.0 - percentile) < LEAST_BEYOND:
            return self._fitted(percentile)
        position = percentile * (count + 1) - 1.0
        low = int(position)
        return self._sorted[low] + (position - low) * (self._sorted[low + 1] - self._sorted[low])

    def _fitted(self, percentile: float) -> float:
        count = len(self._sorted)
        mean = math.fsum(self._sorted) / count if count else 0.0
        scatter = math.sqrt(math.fsum((x - mean) ** 2 for x in self._sorted) / count) if count else 0.0
        # `seen`, not `count`: a bounded window must not keep the prior alive for good.
        trust = self._seen / (self._seen + PRIOR_WEIGHT)
        sigma = trust * scatter + (1.0 - trust) * self._prior_sigma
        return trust * mean + sigma * NormalDist().inv_cdf(percentile)

    def _remove(self, residual: float) -> None:
        del self._sorted[bisect_left(self._sorted, residual)]

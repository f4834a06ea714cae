"""Residuals of predictions: a bounded window of them, and their distribution."""

import math
from bisect import bisect_left, insort
from collections import deque

from scheduler.domain.memory import entries, finite, logarithms, part_known
from scheduler.domain.scatter import Scatter

PRIOR_WEIGHT = 4
"""Residuals that the prior scatter counts as. Judgement: after a dozen answers the observed scatter has three quarters
of the weight; twice as many would keep the margin of a noisy backend too small for longer."""
STEPS = 2.0**40
"""Steps in a residual of 1 in which sums are stored. As integers, sums lose exactly what was once added."""


class ResidualWindow:
    """Quantiles of the last residuals of log(observed / predicted).

    The normal distribution, exact for lognormal noise, starts from the prior and leaves it as residuals come in.

    Args:
        size: number of residuals kept.
        prior_sigma: scatter before any residual is known.

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
        self._sum = 0
        self._sum_of_squares = 0
        self._seen = 0.0
        """Residuals learned; a part of one where they were saved and are not quite trusted."""
        self._scatter: Scatter | None = None

    def __len__(self) -> int:
        """Returns the number of residuals in the window."""
        return len(self._in_order)

    def update(self, residual: float) -> None:
        """Adds the newest residual; the oldest leaves a full window."""
        if len(self._in_order) == self._size:
            self._remove(self._in_order.popleft())
        self._in_order.append(residual)
        insort(self._sorted, residual)
        steps = int(residual * STEPS)
        self._sum += steps
        self._sum_of_squares += steps * steps
        self._seen += 1
        self._scatter = None

    def forget_newest(self) -> None:
        """Removes the newest residual, if there is one."""
        if self._in_order:
            self._remove(self._in_order.pop())
            self._scatter = None

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restored`."""
        return {"residuals": list(self._in_order), "seen": self._seen}

    def restored(self, content: object, *, age_s: float) -> "ResidualWindow":
        """Returns a window like this one that knows what a snapshot of that age knew, and trusts it less.

        Raises:
            KeyError, TypeError, ValueError: the content is no snapshot.
        """
        given = entries(content)
        window = ResidualWindow(size=self._size, prior_sigma=self._prior_sigma)
        for residual in logarithms(given["residuals"]):
            window.update(residual)
        window._seen = max(0.0, finite(given["seen"])) * part_known(age_s)
        return window

    def keep_newest(self, count: int) -> None:
        """Removes all residuals but the newest `count`."""
        while len(self._in_order) > count:
            self._remove(self._in_order.popleft())
        self._seen = min(self._seen, count)
        self._scatter = None

    def quantile(self, percentile: float) -> float:
        """Returns the residual that the next one stays below with probability `percentile` (in (0, 1))."""
        return self.scatter().quantile(percentile)

    @property
    def trust(self) -> float:
        """Weight of what was observed beside the prior, from 0 to 1."""
        # `seen`, not `count`: in a bounded window the prior would keep its weight for ever.
        return self._seen / (self._seen + PRIOR_WEIGHT)

    def forecast(self) -> Scatter:
        """Returns the distribution of the next residual without trust in a few that happen to be alike.

        A few residuals scatter about their own mean by less than the next one will: beside the prior, their distance
        from 0 counts where it is more than the prior says. With many it is the scatter.
        """
        scatter, count = self.scatter(), len(self._sorted)
        strayed = math.sqrt(self._sum_of_squares / count) / STEPS if count else 0.0
        more = (1.0 - self.trust) * max(0.0, strayed - self._prior_sigma)
        return Scatter(scatter.mean, scatter.sigma + more, scatter.ordered) if more else scatter

    def scatter(self) -> Scatter:
        """Returns the distribution of the next residual."""
        if self._scatter is None:
            mean, spread = self._moments()
            trust = self.trust
            sigma = trust * spread + (1.0 - trust) * self._prior_sigma
            self._scatter = Scatter(trust * mean, sigma, tuple(self._sorted))
        return self._scatter

    def _moments(self) -> tuple[float, float]:
        """Returns mean and standard deviation; zeros for an empty window."""
        count = len(self._sorted)
        if not count:
            return 0.0, 0.0
        variance = (count * self._sum_of_squares - self._sum * self._sum) / (count * count)
        return self._sum / (count * STEPS), math.sqrt(variance) / STEPS

    def _remove(self, residual: float) -> None:
        steps = int(residual * STEPS)
        self._sum -= steps
        self._sum_of_squares -= steps * steps
        del self._sorted[bisect_left(self._sorted, residual)]

"""Index of dispersion of a stream of counts: 1 for Poisson arrivals, more for bursts."""

MEMORY = 200
"""Pairs of counts after which older ones fade."""
PRIOR_WEIGHT = 20
"""Pairs of counts that the prior belief, Poisson, counts as."""


class IndexOfDispersion:
    """Variance over mean of counts, from the differences of neighbours.

    Two neighbours x, y of one Poisson rate have E[(x - y)^2 / (x + y)] = 1 whatever the rate is, and a change of
    rate spoils a single pair only; the sample variance would take every step for a burst. The estimator is
    von Neumann's mean square successive difference (1941), scaled by the mean.

    >>> dispersion = IndexOfDispersion()
    >>> for count in [8, 0] * 100:
    ...     dispersion.update(count)
    >>> round(dispersion.value, 1)
    7.4
    """

    def __init__(self) -> None:
        """Starts from Poisson."""
        self._reset()

    def _reset(self) -> None:
        self._value = 1.0
        self._pairs = PRIOR_WEIGHT
        self._previous: float | None = None

    @property
    def value(self) -> float:
        """Index of dispersion, 1 until something else is known."""
        return self._value

    def update(self, count: float) -> None:
        """Learns the count of the next interval.

        Args:
            count: events in the interval, 0 or more.
        """
        previous, self._previous = self._previous, count
        # Two empty intervals say nothing about how events cluster.
        if previous is None or previous + count <= 0:
            return
        self._pairs = min(self._pairs + 1, MEMORY)
        self._value += ((count - previous) ** 2 / (count + previous) - self._value) / self._pairs

"""Index of dispersion of a stream of counts: 1 for Poisson arrivals, more for bursts."""

from scheduler.domain.memory import entries, finite, part_known

MEMORY = 200
"""Pairs of counts after which older ones fade. Of Poisson counts the estimate then scatters by 0.09, with half the
memory by 0.11, and with twice as much by 0.07 (simulated at 12 a tick); it then follows changes half as fast."""
PRIOR_WEIGHT = 20
"""Pairs of counts that the prior, Poisson, counts as. Judgement: until 20 pairs (5 s of ticks) are seen the index stays
near 1, so that the first burst is no regime of bursts. With 40 the steps of scripts/changepoint_figures.py are detected
as before."""


class IndexOfDispersion:
    """Variance over mean of counts, from the differences of neighbours.

    Two neighbours x, y of the same Poisson rate have E[(x - y)^2 / (x + y)] = 1, whatever the rate is. A change of rate
    affects only one pair, while the sample variance would treat every step as a burst. The estimator is von Neumann's
    mean square successive difference (1941), scaled by the mean.

    Counts of 8 and 0 give 64 / 8 = 8 for every pair. The prior of 20 pairs at 1 still weighs 10 % after 199 pairs, so
    the estimate is below 8:

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

    def snapshot(self) -> dict[str, object]:
        """Returns what is known, for `restore`."""
        return {"value": self._value, "pairs": self._pairs}

    def restore(self, content: object, *, age_s: float) -> None:
        """Takes up what a snapshot of that age knew; KeyError, TypeError or ValueError where it is none."""
        given = entries(content)
        value, pairs = finite(given["value"]), finite(given["pairs"])
        if value < 0 or pairs < 0:
            raise ValueError("an index of dispersion is at least 0")
        self._value, self._pairs = value, min(MEMORY, max(PRIOR_WEIGHT, int(pairs * part_known(age_s))))

    @property
    def value(self) -> float:
        """Index of dispersion; 1 until counts are known."""
        return self._value

    def update(self, count: float) -> None:
        """Learns the count of the next interval.

        Args:
            count: events in the interval, 0 or more.
        """
        previous, self._previous = self._previous, count
        # Two empty intervals tell nothing about bursts.
        if previous is None or previous + count <= 0:
            return
        self._pairs = min(self._pairs + 1, MEMORY)
        self._value += ((count - previous) ** 2 / (count + previous) - self._value) / self._pairs

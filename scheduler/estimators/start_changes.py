"""Changes of the seconds that a tier's instances take to start."""

import math

from scheduler.estimators.changepoint import NATIVE, Change, Detectors

START_SIGMA = 0.2
"""Scatter of the logarithm of a start's seconds within a regime, before any is observed. Judgement: starts of one image
on one platform differ by a fifth; the detector learns the scatter from the first dozen."""
LEAST_STEP = 0.25
"""Change of the logarithm that is reported. Judgement: less than a quarter more or less changes no plan, and starts are
too few to tell it from chance."""


class StartChanges:
    """Watches the logarithms of the seconds of one tier's cold starts for changes of their level.

    >>> starts = StartChanges()
    >>> found = [starts.update(seconds) for seconds in [2.0, 2.1, 1.9] * 5 + [6.0, 6.3, 5.8, 6.1]]
    >>> [(change.run_length, round(math.exp(change.after_mean))) for change in found if change]
    [(2, 6)]
    """

    def __init__(self, detectors: Detectors = NATIVE) -> None:
        """Starts without any observation; `detectors` makes the one that watches the level."""
        self._detector = detectors.levels(sigma=START_SIGMA)

    def update(self, start_s: float) -> Change | None:
        """Learns from a cold start.

        Args:
            start_s: its seconds; not positive or not finite: ignored.

        Returns:
            The change of level that it revealed, or None; its means are logarithms of seconds.
        """
        if not (math.isfinite(start_s) and start_s > 0):
            return None
        change = self._detector.update(math.log(start_s))
        return change if change is not None and abs(change.after_mean - change.before_mean) >= LEAST_STEP else None

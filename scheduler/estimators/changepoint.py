"""Tells a change of regime from a wobble."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from scheduler.estimators.densities import GammaPoisson, NormalInverseGamma
from scheduler.estimators.run_length import RunLengthPosterior, constant_hazard

REGIME_LENGTH = 500.0
"""Mean length of a regime in observations, before anything is known: two minutes of 0.25 s ticks."""
MEMORY = 200.0
"""Observations after which a regime forgets; slower drift is followed, not flagged (a plan's expiry deals with it)."""
MAX_ROWS = 200
MASS_FLOOR = 1e-4
SHORT_RUN = 128
"""A change that has gone unnoticed for longer than this many observations was drift."""
EMPTY_TICK = 0.5
"""Counts below about this many a tick are alike: a step from one request a minute to two changes no plan."""


@dataclass(frozen=True, slots=True)
class Change:
    """A change of regime."""

    index: int
    """Number, from 0, of the observation that gave it away."""
    run_length: int
    """Observations since the change, the one that gave it away included."""
    before_mean: float
    after_mean: float
    probability: float
    """Posterior probability that the regime has changed."""


class Detector:
    """Finds changes in a stream by the fall of its most likely run length.

    Under a constant hazard P(run length = 0) equals the hazard after every value, whatever the value, and signals
    nothing. So a change is reported when the most likely run length has fallen to three quarters of the age of the
    regime or less, once so short a run has probability `confirm`. It is then taken for a fact: longer runs are ruled
    out. (With half the age for three quarters, the end of a spell of three observations went unnoticed.)

    Args:
        posterior: the recursion (Adams & MacKay 2007), new.
        step: size of the change from one mean to another.
        min_step: smaller changes are taken note of and not reported.
        confirm: probability that is needed.
        min_run: observations of the new regime that are needed, so that one freak value is no change.
        min_age: observations of the old regime that are needed; fewer are taken for a correction of where it began.

    >>> import numpy as np
    >>> counts = np.random.default_rng(7).poisson(np.repeat([12.0, 18.0], 200))
    >>> detector = count_detector()
    >>> changes = [change for count in counts if (change := detector.update(count))]
    >>> [(change.index <= 220, abs(change.index - change.run_length - 199) <= 5) for change in changes]
    [(True, True)]
    """

    def __init__(
        self,
        posterior: RunLengthPosterior,
        *,
        step: Callable[[float, float], float],
        min_step: float,
        confirm: float = 0.93,
        min_run: int = 2,
        min_age: int = 3,
    ) -> None:
        """Stores the parameters."""
        self._posterior = posterior
        self._step = step
        self._min_step = min_step
        self._confirm = confirm
        self._min_run = min_run
        self._min_age = min_age
        self._reset()

    def _reset(self) -> None:
        self._recent: deque[float] = deque(maxlen=2 * SHORT_RUN)
        self._observations = 0
        self._age = 0

    @property
    def run_length(self) -> int:
        """The most likely number of observations since the last change."""
        return self._posterior.most_likely

    def update(self, value: float) -> Change | None:
        """Takes in the next value.

        Args:
            value: a count, or the logarithm of a level; finite.

        Returns:
            The change that this value gives away, if any.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"a changepoint detector needs finite values, not {value}")
        self._posterior.update(value)
        self._recent.append(value)
        self._observations += 1
        self._age += 1
        return self._judge(self._posterior.most_likely)

    def _judge(self, run_length: int) -> Change | None:
        short = min(self._age - max(self._age // 4, self._min_age), SHORT_RUN)
        if not self._min_run <= run_length <= short:
            return None
        probability = self._posterior.mass_up_to(short)
        if probability < self._confirm:
            return None
        regimes = list(self._recent)[-self._age :]
        before, after = _mean(regimes[:-run_length]), _mean(regimes[-run_length:])
        self._posterior.condition(longest=short)
        self._age = run_length
        if abs(self._step(before, after)) < self._min_step:
            return None
        return Change(self._observations - 1, run_length, before, after, probability)


def count_detector() -> Detector:
    """Returns a detector for counts per tick, of any rate from idle to thousands and burstier than Poisson if need be.

    A tick is 0.25 s (arrival_rate). Parameters were chosen on seeded steps and on hours without one
    (scripts/changepoint_figures.py prints delays and false alarms). The prior of a new regime's rate is broad on a
    logarithmic scale: a fixed mean would delay the detection of rates far from it.
    """
    density = GammaPoisson(shape=0.5, rate=0.005, memory=MEMORY, bursty=True)
    return Detector(_bounded(density), step=_count_step, min_step=0.1)


def level_detector(*, mean: float = 0.0, sigma: float = 0.2) -> Detector:
    """Returns a detector for logarithms of a level, such as bandwidth, or service time over its prediction.

    Args:
        mean: logarithm around which levels are expected; being off by a factor of ten does no harm.
        sigma: scatter of the logarithms within a regime that is expected before any is seen.
    """
    density = NormalInverseGamma(alpha=2.0, beta=2.0 * sigma**2, kappa=0.05, mu=mean, memory=MEMORY)
    return Detector(_bounded(density), step=_level_step, min_step=0.1)


def _bounded(density: GammaPoisson | NormalInverseGamma) -> RunLengthPosterior:
    return RunLengthPosterior(
        density,
        partial(constant_hazard, REGIME_LENGTH),
        max_rows=MAX_ROWS,
        mass_floor=MASS_FLOOR,
        # As rare as changes: then one freak value weighs as much for an outlier as for a change.
        outlier_probability=1.0 / REGIME_LENGTH,
    )


def _count_step(before: float, after: float) -> float:
    return math.log((after + EMPTY_TICK) / (before + EMPTY_TICK))


def _level_step(before: float, after: float) -> float:
    return after - before


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

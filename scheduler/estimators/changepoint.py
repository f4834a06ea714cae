"""Detection of changes of regime in a stream of counts or levels, as against mere fluctuation."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

from scheduler.estimators.densities import Density, GammaPoisson, NormalInverseGamma
from scheduler.estimators.run_length import ALL_NATS, Hazard, RunLengthPosterior, constant_hazard

REGIME_LENGTH = 500.0
"""Prior mean length of a regime in observations, two minutes of 0.25 s ticks. With 250 steps of
scripts/changepoint_figures.py are detected 1 to 2 ticks earlier, and Poisson arrivals give a false alarm in 4 hours;
with 1000 they are detected up to 3.5 ticks later."""
MEMORY = 200.0
"""Observations after which a regime forgets: slower drift is followed and not reported (plans expire, which deals with
it). With 100 steps of a rate are detected 1 to 2.5 ticks later, with 400 up to 1 tick earlier."""
MAX_ROWS = 200
"""Largest number of run lengths: the mass floor keeps fewer than that in nearly all cases, so 100 and 400 detect the
same steps; it bounds the work of an update, 73 us for counts (scripts/changepoint_figures.py)."""
MASS_FLOOR = 1e-4
"""Mass below which a run length is dropped. With 1e-5 all steps of scripts/changepoint_figures.py are detected as soon;
with 1e-3 a rate of 46 requests a second that falls by a third is detected after 19.5 instead of 16.5 ticks."""
SHORT_RUN = 128
"""Longest run, in observations, that is reported as a change; a change unnoticed for longer was drift. With 64 a fall
of a rate by a third is missed in 2 % of the cases; 256 changes nothing."""
SPARSE_TOGETHER = 10
"""Counts are sparse where so many empty ticks may be taken together, and the regime is as old as two short runs.
Derived: each then tells a twentieth of a nat at most, so there is less than a count in twenty ticks, whose end is no
reported change (EMPTY_TICK)."""
SPARSE_NATS = 3.0
"""So much all empty ticks of a silence may then tell that are taken together: what runs tell that began with the last
count and expected more of them. Judgement: with 6 changes are reported as with 1, and as one by one."""
EMPTY_TICK = 0.5
"""Count that is added before rates are compared, so that counts below it are alike. Judgement: a step from one request
a minute to two changes no plan. With 0.25 or 1 steps from 20 requests a second are detected as before."""

NATIVE_HAZARD = partial(constant_hazard, REGIME_LENGTH)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of regime."""

    index: int
    """Number, from 0, of the observation that revealed it."""
    run_length: int
    """Observations since the change, with the one that revealed it."""
    before_mean: float
    after_mean: float
    probability: float
    """Posterior probability that the regime has changed."""


class Detector:
    """Detects changes in a stream by the fall of its most probable run length.

    Under a constant hazard P(run length = 0) equals the hazard after every value, whatever the value, and tells
    nothing. So a change is reported when the most probable run length has fallen to three quarters of the age of the
    regime or less, and a run of at most that length has probability `confirm`. The change then counts as certain:
    longer runs are excluded. (With half the age instead of three quarters, the end of a step that lasted three
    observations went unnoticed.)

    Args:
        posterior: the recursion (Adams & MacKay 2007), without values.
        step: returns the size of the change from one mean to another.
        min_step: smaller changes are taken into account and not reported.
        confirm: probability that is needed. With 0.86 instead of 0.93, steps of scripts/changepoint_figures.py are
            detected 1 to 2 observations earlier, and Poisson arrivals give a false alarm in 4 hours; with 0.965 they
            are detected up to 3.5 observations later.
        min_run: observations of the new regime that are needed, so that one outlier is no change.
        min_age: observations of the old regime that are needed; after fewer, the start of the regime is corrected
            instead.
        transform: makes of a value what the posterior gets; the means of a change are those of the values.

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
        transform: Callable[[float], float] | None = None,
    ) -> None:
        """Stores the parameters."""
        self._posterior = posterior
        self._step = step
        self._min_step = min_step
        self._confirm = confirm
        self._min_run = min_run
        self._min_age = min_age
        self._transform = transform
        self._reset()

    def _reset(self) -> None:
        self._recent: deque[float] = deque(maxlen=2 * SHORT_RUN)
        self._observations = 0
        self._age = 0
        self._empty = 0
        """Empty ticks that wait to be taken together."""

    @property
    def run_length(self) -> int:
        """The most probable number of observations since the last change."""
        return self._posterior.most_likely + self._empty

    def update(self, value: float) -> Change | None:
        """Updates the detector with the next value.

        Args:
            value: a count, or the logarithm of a level; finite.

        Returns:
            The change that this value reveals, or None.

        Raises:
            ValueError: the value is not finite.
        """
        if not math.isfinite(value):
            raise ValueError(f"a changepoint detector needs finite values, not {value}")
        changes = (*self._take_empty(all_of_them=True), self._take(value))
        return next((change for change in reversed(changes) if change is not None), None)

    def update_counts(self, counts: Iterable[int]) -> Iterator[Change]:
        """Updates the detector with the counts of ticks and yields the changes they reveal.

        Empty ticks wait until together they tell something, or a count comes: taken one by one, they would reveal no
        change before. Where counts are sparse they wait for one, or until they are as many as a short run.
        """
        for count, alike in groupby(counts):
            if not count:
                self._empty += sum(1 for _ in alike)
                yield from filter(None, self._take_empty(all_of_them=False))
                continue
            yield from filter(None, self._take_empty(all_of_them=True))
            yield from filter(None, [self._take(count) for _ in alike])

    def _take_empty(self, *, all_of_them: bool) -> Iterator[Change | None]:
        """Takes the empty ticks that wait, as many in each step as tell little; judges after each step."""
        while self._empty:
            if self._transform is not None or not self._recent:
                yield self._take_one_empty()
                continue
            together = self._posterior.empty_together()
            sparse = together >= SPARSE_TOGETHER and self._age >= 2 * SHORT_RUN
            # A pair with a count tells of dispersion, which matters from the next tick on; to empty ones it does not.
            if self._recent[-1] and not sparse:
                yield self._take_one_empty()
                continue
            if not all_of_them and (SHORT_RUN if sparse else together) > self._empty:
                return
            # A change that they reveal is still a short run at their end; where counts are sparse they reveal none.
            most = SHORT_RUN if sparse else min(SHORT_RUN // 2, self._age // 2)
            taken = self._posterior.update_empty(min(self._empty, most), nats=SPARSE_NATS if sparse else ALL_NATS)
            self._empty -= taken
            self._recent.extend([0.0] * taken)
            yield self._taken(taken)

    def _take_one_empty(self) -> Change | None:
        self._empty -= 1
        return self._take(0.0)

    def _take(self, value: float) -> Change | None:
        self._posterior.update(value if self._transform is None else self._transform(value))
        self._recent.append(value)
        return self._taken(1)

    def _taken(self, observations: int) -> Change | None:
        self._observations += observations
        self._age += observations
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
    """Returns a detector for counts per tick, of any rate from idle to thousands, also burstier than Poisson.

    A tick is 0.25 s (arrival_rate). The parameters were chosen on seeded steps and on hours without one
    (scripts/changepoint_figures.py prints delays and false alarms). The prior of a new regime's rate is broad on a
    logarithmic scale: a fixed mean would delay the detection of rates far from it.
    """
    density = GammaPoisson(shape=0.5, rate=0.005, memory=MEMORY, bursty=True)
    return Detector(bounded(density, NATIVE_HAZARD), step=count_step, min_step=0.1)


def level_detector(*, mean: float = 0.0, sigma: float = 0.2) -> Detector:
    """Returns a detector for logarithms of a level, such as bandwidth, or service time over its prediction.

    Args:
        mean: expected logarithm of the level; an error by a factor of ten does no harm.
        sigma: expected scatter of the logarithm within a regime, before any is observed.
    """
    density = NormalInverseGamma(alpha=2.0, beta=2.0 * sigma**2, kappa=0.05, mu=mean, memory=MEMORY)
    return Detector(bounded(density, NATIVE_HAZARD), step=level_step, min_step=0.1)


def bounded(density: Density, hazard: Hazard) -> RunLengthPosterior:
    """Returns the recursion with bounded work that all detectors use."""
    return RunLengthPosterior(
        density,
        hazard,
        max_rows=MAX_ROWS,
        mass_floor=MASS_FLOOR,
        # As rare as changes: an outlier is then as probable an explanation of one extreme value as a change.
        outlier_probability=1.0 / REGIME_LENGTH,
    )


def count_step(before: float, after: float) -> float:
    """Returns the logarithm of the ratio of two mean counts."""
    return math.log((after + EMPTY_TICK) / (before + EMPTY_TICK))


def level_step(before: float, after: float) -> float:
    """Returns the difference of two logarithms."""
    return after - before


class LevelDetector(Protocol):
    """Makes a detector of levels."""

    def __call__(self, *, mean: float = 0.0, sigma: float = 0.2) -> Detector:
        """Returns a detector; the arguments are those of `level_detector`."""


@dataclass(frozen=True, slots=True)
class Detectors:
    """How detectors are made: by these densities, or by those of a package."""

    counts: Callable[[], Detector]
    levels: LevelDetector


NATIVE = Detectors(counts=count_detector, levels=level_detector)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)

"""Length of the current regime: the run-length posterior, exact or with bounded work."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from scheduler.estimators.densities import CountDensity, Density, Floats

DROP_EVERY = 8
"""Values between checks for run lengths of negligible mass: a check costs more than a few more rows."""
LEAST_MASS = 1e-300
"""A run length of less is ruled out: its mass has underflowed or is about to."""

EMPTY_NATS = 0.5
"""So much, in nats, empty intervals that are taken together may tell. A run that began with them then doubles with each
step: n of them after n others tell half of ln 2. Judgement: single ones where each tells something, so that changes
are reported as soon as they are one by one."""

MOST_TOGETHER = 128
"""Most empty intervals that are waited for. Judgement: half a minute of ticks."""
ALL_NATS = 1.0
"""So much all that have passed may tell if they are taken together at once. Judgement: it includes what runs tell that
expected counts and end with the first of them."""

RunLengths = npt.NDArray[np.int64]
SINGLE: RunLengths = np.ones(1, dtype=np.int64)
Hazard = Callable[[RunLengths], Floats]
"""Probability that a run of each of these lengths ends now, in the library's signature."""


def constant_hazard(lam: float, run_lengths: RunLengths) -> Floats:
    """Returns the hazard of a regime that lasts `lam` observations on average, whatever its age.

    Args:
        lam: mean length of a regime in observations.
        run_lengths: shape (rows,).

    >>> constant_hazard(100.0, np.array([0, 1])).tolist()
    [0.01, 0.01]
    """
    return np.full(run_lengths.shape, 1.0 / lam)


class RunLengthPosterior:
    """P(run length | values so far), updated value by value.

    Adams & MacKay (2007), "Bayesian online changepoint detection", algorithm 1. With the default arguments it is the
    exact recursion, whose work grows with every value. With bounds, it drops run lengths of negligible mass. Above
    `max_rows` it merges the longest run lengths into the heaviest one of them.

    A regime ends with probability 1/2 after each value. The first count is 0: the run length is now 0 or 1, each with
    probability 1/2. The second count is 0 as well. A new run gives it the probability 1/2, a run of one the probability
    2/3 (see `GammaPoisson`), so the joint masses are 1/4 and 1/3. Half of each goes on, 1/8 and 1/6, and the other
    half, 7/24, begins anew. Divided by their sum 7/12:

    >>> from functools import partial
    >>> from scheduler.estimators.densities import GammaPoisson
    >>> posterior = RunLengthPosterior(GammaPoisson(shape=1.0, rate=1.0), partial(constant_hazard, 2.0))
    >>> posterior.update(0)
    >>> posterior.mass.round(4).tolist()
    [0.5, 0.5]
    >>> posterior.update(0)
    >>> posterior.mass.round(4).tolist(), [round(x, 4) for x in (1 / 2, 3 / 14, 2 / 7)]
    ([0.5, 0.2143, 0.2857], [0.5, 0.2143, 0.2857])

    After a step from 10 to 30 the most likely run length is the time since the step:

    >>> posterior = RunLengthPosterior(GammaPoisson(shape=1.0, rate=0.1), partial(constant_hazard, 100.0))
    >>> for count in [10] * 30 + [30] * 5:
    ...     posterior.update(count)
    >>> posterior.most_likely, round(float(posterior.mass[0]), 6)
    (5, 0.01)

    Args:
        density: predictive density, one row per run length.
        hazard: probability of a change by run length.
        max_rows: largest number of run lengths.
        mass_floor: run lengths with less mass are dropped.
        outlier_probability: probability that a value tells nothing about its regime and comes from the prior
            predictive. Without it one outlier outweighs any hazard and counts as two changes.
    """

    def __init__(
        self,
        density: Density,
        hazard: Hazard,
        *,
        max_rows: int | None = None,
        mass_floor: float = 0.0,
        outlier_probability: float = 0.0,
    ) -> None:
        """Stores the parameters; before the first value the run length is 0 for certain."""
        self._density = density
        self._counts = density if isinstance(density, CountDensity) else None
        self._hazard = hazard
        self._max_rows = max_rows
        self._mass_floor = mass_floor
        self._outlier_probability = outlier_probability
        self._reset()

    def _reset(self) -> None:
        self.mass: Floats = np.ones(1)
        self.run_lengths: RunLengths = np.zeros(1, dtype=np.int64)
        self._updates = 0
        self._together: int | None = None
        """How many empty intervals may be taken together; None: not worked out yet."""

    @property
    def most_likely(self) -> int:
        """The run length of largest mass."""
        return int(self.run_lengths[self.mass.argmax()])

    def mass_up_to(self, run_length: int) -> float:
        """Returns P(run length <= `run_length`)."""
        return float(self.mass[: int(np.searchsorted(self.run_lengths, run_length, side="right"))].sum())

    def update(self, value: float) -> None:
        """Updates the posterior with the next value."""
        joint = self._likelihood(value)
        joint *= self.mass
        hazard = self._hazard(self.run_lengths)
        self._density.update_theta(value)
        mass = np.empty(len(joint) + 1)
        mass[0] = joint.dot(hazard)
        np.multiply(joint, 1.0 - hazard, out=mass[1:])
        mass /= np.add.reduce(mass)
        run_lengths = np.zeros(len(mass), dtype=np.int64)
        np.add(self.run_lengths, 1, out=run_lengths[1:])
        self.mass, self.run_lengths = mass, run_lengths
        self._updates += 1
        self._together = None
        if self._updates % DROP_EVERY == 0:
            self._drop_negligible()
        self._merge_tail()

    def empty_together(self) -> int:
        """Returns how many counts of 0 may be taken together now, after a count of 0; 1: they are taken one by one.

        As many as tell EMPTY_NATS at the pace of the next, which tells most.
        """
        if self._together is None:
            told = EMPTY_NATS if self._counts is None else -float(self.mass.dot(self._counts.log_pdf(0.0)))
            self._together = MOST_TOGETHER if told * MOST_TOGETHER <= EMPTY_NATS else max(1, int(EMPTY_NATS / told))
        return self._together

    def update_empty(self, most: int, *, nats: float = ALL_NATS) -> int:
        """Updates the posterior with counts of 0 together, and returns how many were taken; the last was 0 too.

        They are all of `most` where they tell `nats` at most, otherwise as many as `empty_together()` says. Runs that
        begin meanwhile are lumped: those of 1, of 2 to 3, of 4 to 7 intervals and so on. The probability of what is
        observed is taken to fall evenly, and so is that of a row: the outlier's part is added to its mean.
        """
        if self._counts is not None and most > 1:
            for taken in (most, min(most, self.empty_together())):
                if taken > 1 and self._update_together(self._counts, taken, nats=nats if taken == most else math.inf):
                    return taken
        self.update(0.0)
        return 1

    def _update_together(self, density: CountDensity, taken: int, *, nats: float) -> bool:
        """Takes so many together, and returns whether; it does not if they tell more than `nats`."""
        first = np.append(0, 1 << np.arange((taken - 1).bit_length()))
        many = np.diff(first, append=taken)
        begun, runs = first + many // 2, len(first)
        log_pdf = density.log_pdf_empty(taken, begun)
        if self._outlier_probability:
            log_pdf[1:] = self._mixed(log_pdf[1:], np.append(begun[1:], np.full(len(self.mass), taken)))
        hazard = self._hazard(self.run_lengths)
        stays = 1.0 - hazard
        begins, stayed = float(hazard[0]), np.exp(log_pdf[runs:] + taken * np.log(stays))
        stayed *= self.mass
        falls = math.log(max(stayed.dot(1.0 / stays), LEAST_MASS))
        if falls < -nats:
            return False
        lumps = begins * many * np.exp(log_pdf[:runs] + begun * math.log1p(-begins) + falls * (1.0 - begun / taken))
        lumps[0] = (stayed / stays).dot(hazard) + begins / (1.0 - begins) * lumps[1:].sum()
        density.update_empty()
        self.mass = np.concatenate((lumps, stayed))
        self.mass /= self.mass.sum()
        self.run_lengths = np.concatenate((begun, self.run_lengths + taken))
        self._updates += taken
        self._together = None
        self._drop_negligible(many)
        self._merge_tail()
        return True

    def _mixed(self, log_pdf: Floats, intervals: RunLengths) -> Floats:
        """Returns the log densities of so many empty intervals, each of which may be an outlier.

        Args:
            log_pdf: without outliers; the first is that of one under the prior.
            intervals: how many each of them is of.
        """
        each = np.exp(log_pdf / intervals)
        each += self._outlier_probability * (each[0] - each)
        mixed: Floats = intervals * np.log(each)
        return mixed

    def condition(self, *, longest: int) -> None:
        """Excludes every run length above `longest`, after a change was reported and counts as certain."""
        self._keep(np.flatnonzero(self.run_lengths <= longest))

    def _likelihood(self, value: float) -> Floats:
        # Scaled so that the largest likelihood is 1 among the run lengths that are not ruled out: the recursion is
        # homogeneous, and with that mass the sum does not underflow.
        log_pdf = self._density.log_pdf(value)
        best = log_pdf.argmax()
        if self.mass[best] < LEAST_MASS:
            log_pdf = np.where(self.mass < LEAST_MASS, -np.inf, log_pdf)
            best = log_pdf.argmax()
        likelihood: Floats = np.exp(log_pdf - log_pdf[best])
        if self._outlier_probability:
            prior = self._outlier_probability * likelihood[0]
            likelihood *= 1.0 - self._outlier_probability
            likelihood += prior
        return likelihood

    def _drop_negligible(self, lumped: RunLengths = SINGLE) -> None:
        """Drops rows of negligible mass; the first rows stand for so many runs each, whose mean mass counts.

        One by one those runs would have been dropped, so a lump of them is no more worth its work.
        """
        kept = self.mass >= self._mass_floor
        if len(lumped) > 1:
            kept[: len(lumped)] = self.mass[: len(lumped)] >= self._mass_floor * lumped
        # Row 0 is the prior, from which the next run starts.
        kept[0] = True
        if not kept.all():
            self._keep(np.flatnonzero(kept))

    def _merge_tail(self) -> None:
        if self._max_rows is None or len(self.mass) <= self._max_rows:
            return
        last = self._max_rows - 1
        heaviest = last + int(self.mass[last:].argmax())
        self.mass[heaviest] = self.mass[last:].sum()
        self._keep(np.append(np.arange(last), heaviest))

    def _keep(self, rows: npt.NDArray[np.intp]) -> None:
        self._together = None
        self._density.select(rows)
        mass = self.mass.take(rows)
        self.mass = mass / mass.sum()
        self.run_lengths = self.run_lengths.take(rows)

"""Predictive densities for run lengths, in the form of the library bayesian_changepoint_detection.

A density has one row of parameters per run length. Row 0 is the prior, a run without observations. `update_theta`
updates every row with a value and puts the prior in front again. Unlike the library's densities these return
logarithms, so that nothing underflows, and can drop rows, so that the work per step is bounded.
"""

import math
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from scheduler.estimators.dispersion import IndexOfDispersion

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

FIRST_TERMS = 256
"""Observations for which terms that depend on their number alone are tabulated; the table grows with longer runs."""


class Density(Protocol):
    """What the run-length recursion needs of a predictive density."""

    def log_pdf(self, value: float) -> Floats:
        """Returns the log predictive density of `value` under each row, shape (rows,)."""

    def update_theta(self, value: float) -> None:
        """Updates every row with `value`, then puts the prior in front: one row more."""

    def select(self, rows: Rows) -> None:
        """Keeps only these rows, in this order."""


@runtime_checkable
class CountDensity(Density, Protocol):
    """A density of counts that takes empty intervals together."""

    def log_pdf_empty(self, intervals: int, begun: Rows) -> Floats:
        """Returns log predictive densities of counts of 0 in a row, shape (begun + rows,).

        First those of as many as each run has that begins meanwhile, under the prior; then that of all of them under
        each row.
        """

    def update_empty(self) -> None:
        """Updates every row with the intervals last asked about, and puts the rows of the runs that began in front."""


class NormalInverseGamma:
    """Normal values of unknown mean and variance; the predictive density is Student's t.

    The recursions are those of Murphy (2007), "Conjugate Bayesian analysis of the Gaussian distribution", section 3,
    with beta -> beta + w (value - mu)^2 and w = kappa / (2 (kappa + 1)). The same w is in Student's t, whose tail 1 +
    (value - mu)^2 / scale is therefore beta after the value over beta before: one logarithm for each row and value is
    enough. Terms that depend on the number of observations alone are tabulated.

    A prior that counts as one observation of 0, and one observation of 2, have the mean 1. With kappa = 1 the weight w
    is 1/4, so beta grows from 1 to 1 + 2^2 / 4 = 2:

    >>> density = NormalInverseGamma(alpha=1.0, beta=1.0, kappa=1.0, mu=0.0)
    >>> density.update_theta(2.0)
    >>> density.mu.tolist(), density.kappa.tolist(), density.beta.tolist()
    ([0.0, 1.0], [1.0, 2.0], [1.0, 2.0])

    Args:
        alpha: half the number of observations that the prior variance counts as.
        beta: alpha times the prior variance.
        kappa: number of observations that the prior mean counts as.
        mu: prior mean.
        memory: a run longer than this forgets: its mean and variance become moving averages over so many values, and
            slow drift is followed and not reported. Infinite: the library's StudentT exactly.
    """

    def __init__(self, *, alpha: float, beta: float, kappa: float, mu: float, memory: float = math.inf) -> None:
        """Stores the prior as the first row."""
        self._alpha, self._kappa, self._memory = alpha, kappa, memory
        self._prior: Floats = np.array([[mu], [beta], [math.log(beta)]])
        self._rows: Floats = self._prior
        """By row: mu, beta, and the logarithm of beta."""
        self._seen: Rows = np.zeros(1, dtype=np.intp)
        """Number of observations that each row counts as."""
        self._terms = _student_terms(alpha, kappa, FIRST_TERMS)
        self._look: tuple[float, Floats, Floats] | None = None
        """The last value given to `log_pdf`, the weighted steps of the means for it, and the rows that follow from it.
        """

    @property
    def mu(self) -> Floats:
        """Posterior mean by row."""
        mu: Floats = self._rows[0]
        return mu

    @property
    def beta(self) -> Floats:
        """Posterior beta by row."""
        beta: Floats = self._rows[1]
        return beta

    @property
    def alpha(self) -> Floats:
        """Posterior alpha by row."""
        alpha: Floats = self._alpha + 0.5 * self._seen.astype(np.float64)
        return alpha

    @property
    def kappa(self) -> Floats:
        """Posterior kappa by row."""
        kappa: Floats = self._kappa + self._seen.astype(np.float64)
        return kappa

    def log_pdf(self, value: float) -> Floats:
        """Returns the log of the Student-t predictive density under each row."""
        mu, beta, log_beta = self._rows
        log_norm, power, alpha, weight, share = self._terms.take(self._seen, axis=1)
        step = value - mu
        after = np.empty((3, len(mu) + 1))
        after[:, :1] = self._prior
        _, beta_after, log_after = after[:, 1:]
        # In place where that spares an array: with some eighty rows, calls cost more than the numbers.
        weight *= step
        weight *= step
        np.add(beta, weight, out=beta_after)
        np.log(beta_after, out=log_after)
        share *= step
        self._look = (value, share, after)
        power *= log_after
        log_pdf: Floats = alpha * log_beta
        log_pdf += log_norm
        log_pdf -= power
        return log_pdf

    def update_theta(self, value: float) -> None:
        """Updates every row with `value`, then puts the prior in front."""
        if self._look is None or self._look[0] != value:
            self.log_pdf(value)
        assert self._look is not None
        _, share, after = self._look
        np.add(self._rows[0], share, out=after[0, 1:])
        seen = np.zeros(len(self._seen) + 1, dtype=np.intp)
        np.add(self._seen, 1, out=seen[1:])
        if seen[-1] > self._memory:
            self._forget(after, seen)
        self._rows, self._seen, self._look = after, seen, None
        if seen[-1] >= self._terms.shape[1]:
            self._terms = _student_terms(self._alpha, self._kappa, 2 * int(seen[-1]))

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        self._rows, self._seen, self._look = self._rows.take(rows, axis=1), self._seen.take(rows), None

    def _forget(self, after: Floats, seen: Rows) -> None:
        """Keeps the counts of full rows; beta shrinks with alpha, so that the variance stays the same."""
        # Rows are in the order of their run lengths, so full rows come last, and all of them count as many.
        first = int(seen.searchsorted(self._memory, side="right"))
        seen[first:] -= 1
        alpha = self._alpha + 0.5 * float(seen[-1])
        _, beta, log_beta = after[:, first:]
        beta *= alpha / (alpha + 0.5)
        np.log(beta, out=log_beta)


class GammaPoisson:
    """Counts of unknown rate per interval; the predictive density is the negative binomial.

    Traffic is often burstier than Poisson, and a Poisson density would report every burst as a change. So with `bursty`
    a count x enters as x/D with the exposure 1/D, where D >= 1 is the measured index of dispersion (quasi-likelihood,
    McCullagh & Nelder 1989, chapter 9). The estimated rate is the same for every D.

    A prior of one event in one interval gives a count of 0 the probability 1/2. After a count of 3 it is 4 events in 2
    intervals, a rate of 2, and a count of 0 has the probability (2/3)^4:

    >>> density = GammaPoisson(shape=1.0, rate=1.0)
    >>> density.update_theta(3.0)
    >>> density.shape.tolist(), density.rate.tolist()
    ([1.0, 4.0], [1.0, 2.0])
    >>> np.exp(density.log_pdf(0.0)).round(4).tolist(), round((2 / 3) ** 4, 4)
    ([0.5, 0.1975], 0.1975)

    Args:
        shape: prior shape of the rate, the number of events that the prior counts as.
        rate: prior rate parameter, the number of intervals that the prior counts as.
        memory: number of intervals after which a run forgets (see NormalInverseGamma).
        bursty: whether to scale the counts by their index of dispersion.
    """

    def __init__(self, *, shape: float, rate: float, memory: float = math.inf, bursty: bool = False) -> None:
        """Stores the prior as the first row."""
        self._prior = (np.array([shape]), np.array([rate]))
        self._rate_max = rate + memory
        self._dispersion = IndexOfDispersion() if bursty else None
        self.shape, self.rate = self._prior
        self._emptied = self._prior
        """Shape and rate after the empty intervals last asked about, in the order of `log_pdf_empty`."""

    def log_pdf(self, value: float) -> Floats:
        """Returns the log of the negative binomial predictive density under each row."""
        exposure = self._exposure()
        events = exposure * value
        odds = self.rate / exposure
        if events == 0.0:
            # What the gamma functions would say of an empty interval, exactly: in silence there are many.
            nothing: Floats = -self.shape * np.log1p(1.0 / odds)
            return nothing
        ways = _log_gamma(self.shape + events) - _log_gamma(self.shape) - math.lgamma(events + 1.0)
        log_pdf: Floats = ways - self.shape * np.log1p(1.0 / odds) - events * np.log1p(odds)
        return log_pdf

    def update_theta(self, value: float) -> None:
        """Updates every row with `value`, then puts the prior in front."""
        exposure = self._exposure()
        shape, rate = self.shape + exposure * value, self.rate + exposure
        kept = np.minimum(1.0, self._rate_max / rate)
        self.shape = np.concatenate((self._prior[0], shape * kept))
        self.rate = np.concatenate((self._prior[1], rate * kept))
        if self._dispersion is not None:
            self._dispersion.update(value)

    def log_pdf_empty(self, intervals: int, begun: Rows) -> Floats:
        """Returns the log densities of counts of 0: of runs that begin meanwhile, then of all of them under each row.

        That of n of them without forgetting is shape * log(rate / (rate + n)).

        >>> density = GammaPoisson(shape=1.0, rate=1.0)
        >>> np.exp(density.log_pdf_empty(3, np.array([0, 2]))).round(4).tolist()
        [1.0, 0.3333, 0.25]
        """
        exposure, full = self._exposure(), self._rate_max
        empty = np.concatenate((begun, np.full(len(self.shape), intervals))).astype(np.float64)
        shape = np.concatenate((self._prior[0].repeat(len(begun)), self.shape))
        rate = np.concatenate((self._prior[1].repeat(len(begun)), self.rate))
        filling = np.minimum(empty, np.maximum(0.0, np.floor((full - rate) / exposure)))
        filled = rate + filling * exposure
        log_pdf: Floats = -shape * np.log(filled / rate)
        more = empty - filling
        if more.any():
            # The first that does not fit is forgotten in part; each of the others takes the same part of the shape.
            forgets, others = more > 0.0, np.maximum(0.0, more - 1.0)
            kept, part = shape * full / (filled + exposure), full / (full + exposure)
            left = np.exp(others * math.log(part))
            first, rest = shape * np.log1p(exposure / filled), kept * math.log(part) * (1.0 - left) / (1.0 - part)
            log_pdf += np.where(forgets, rest - first, 0.0)
            shape, filled = np.where(forgets, kept * left, shape), np.where(forgets, full, filled)
        self._emptied = shape, filled
        return log_pdf

    def update_empty(self) -> None:
        """Updates every row with the intervals last asked about, and puts the rows of the runs that began in front."""
        self.shape, self.rate = self._emptied
        if self._dispersion is not None:
            # Of empty intervals it learns only from the first.
            self._dispersion.update(0.0)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        self.shape, self.rate = self.shape[rows], self.rate[rows]

    def _exposure(self) -> float:
        return 1.0 if self._dispersion is None else 1.0 / max(1.0, self._dispersion.value)


def _student_terms(alpha: float, kappa: float, count: int) -> Floats:
    """Returns the terms of Student's t for 0 to `count` - 1 observations, shape (5, count).

    They are the logarithm of its constant, alpha + 1/2, alpha, w = kappa / (2 (kappa + 1)), and 1 / (kappa + 1).
    """
    counts = np.arange(count, dtype=np.float64)
    alphas: Floats = alpha + 0.5 * counts
    kappas: Floats = kappa + counts
    power, weight = alphas + 0.5, kappas / (2.0 * (kappas + 1.0))
    # ln G(alpha + 1/2) - ln G(alpha) - ln(2 pi (kappa + 1) / kappa) / 2; the part with beta is in the rows.
    log_norm = _log_gamma(power) - _log_gamma(alphas) + 0.5 * np.log(weight / math.pi)
    return np.stack((log_norm, power, alphas, weight, 1.0 / (kappas + 1.0)))


def _log_gamma(values: Floats) -> Floats:
    # numpy has no log-gamma. That of scipy costs the daemon a second and 60 MB at start; the C library takes 0.1 us a
    # row.
    return np.array([math.lgamma(value) for value in values.tolist()])

"""Predictive densities for run lengths, in the form of bayesian_changepoint_detection: `pdf(x)`, `update_theta(x)`.

A density holds one row of parameters per run length: row 0 is the prior (a run that has seen nothing), and
`update_theta` lets every row see the value and puts the prior in front again. On top of the library's form ours
answer in logarithms, so that nothing underflows, and drop rows, so that the work per step stays bounded.
"""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from scheduler.estimators.dispersion import IndexOfDispersion

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]

LEAST_PDF = 1e-300
"""Stands in for a density that has underflowed to 0, whose logarithm would end the recursion."""


class Density(Protocol):
    """What the run-length recursion needs of a predictive density."""

    def log_pdf(self, value: float) -> Floats:
        """Returns the log predictive density of `value` under each row, shape (rows,)."""

    def update_theta(self, value: float) -> None:
        """Lets every row see `value`, then puts the prior in front: one row more."""

    def select(self, rows: Rows) -> None:
        """Keeps only these rows, in this order."""


class LibraryForm(Protocol):
    """A density as the library writes it."""

    def pdf(self, data: float) -> Floats:
        """Returns the predictive density under each row."""

    def update_theta(self, data: float) -> None:
        """Lets every row see the value, then puts the prior in front."""


class LibraryDensity:
    """Fits a density in the library's form, such as its StudentT, to our bounded recursion.

    The oracle tests drive our recursion with the library's own densities through it. The daemon uses ours: importing
    the library's costs a second and 60 MB (scipy.stats).

    Args:
        density: the library's object.
        parameters: names of its attributes that hold one value per row.
    """

    def __init__(self, density: LibraryForm, parameters: Sequence[str] = ("alpha", "beta", "kappa", "mu")) -> None:
        """Stores the density."""
        self._density = density
        self._parameters = tuple(parameters)

    def log_pdf(self, value: float) -> Floats:
        """Returns the log predictive density of `value` under each row."""
        return np.log(np.maximum(self._density.pdf(value), LEAST_PDF))

    def update_theta(self, value: float) -> None:
        """Lets every row see `value`."""
        self._density.update_theta(value)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        for name in self._parameters:
            setattr(self._density, name, getattr(self._density, name)[rows])


class NormalInverseGamma:
    """Normal values of unknown mean and variance; the predictive density is Student's t.

    The recursions are those of Murphy (2007), "Conjugate Bayesian analysis of the Gaussian distribution", section 3.
    The normalising constant needs no gamma function after the first row: with c(a) = ln G(a + 1/2) - ln G(a),
    c(a + 1/2) = ln a - c(a).

    Args:
        alpha: half the number of observations the prior variance counts as.
        beta: alpha times the prior variance.
        kappa: number of observations the prior mean counts as.
        mu: prior mean.
        memory: a run longer than this forgets: its mean and variance become moving averages over so many values,
            and slow drift is followed instead of flagged. Infinite: the library's StudentT exactly.

    >>> density = NormalInverseGamma(alpha=1.0, beta=1.0, kappa=1.0, mu=0.0)
    >>> density.update_theta(2.0)
    >>> density.mu.tolist(), density.kappa.tolist()
    ([0.0, 1.0], [1.0, 2.0])
    """

    def __init__(self, *, alpha: float, beta: float, kappa: float, mu: float, memory: float = math.inf) -> None:
        """Stores the prior as the first row."""
        self._prior = tuple(np.array([value]) for value in (alpha, beta, kappa, mu, _log_gamma_step(alpha)))
        self._kappa_max = kappa + memory
        self.alpha, self.beta, self.kappa, self.mu, self._log_norm = self._prior

    def log_pdf(self, value: float) -> Floats:
        """Returns the log of the Student-t predictive density under each row."""
        spread = 2.0 * self.beta * (self.kappa + 1.0) / self.kappa
        tail = (self.alpha + 0.5) * np.log1p((value - self.mu) ** 2 / spread)
        log_pdf: Floats = self._log_norm - 0.5 * np.log(math.pi * spread) - tail
        return log_pdf

    def pdf(self, value: float) -> Floats:
        """Returns the Student-t predictive density under each row."""
        return np.exp(self.log_pdf(value))

    def update_theta(self, value: float) -> None:
        """Lets every row see `value`, then puts the prior in front."""
        kappa = self.kappa + 1.0
        alpha = self.alpha + 0.5
        beta = self.beta + self.kappa * (value - self.mu) ** 2 / (2.0 * kappa)
        mu = (self.kappa * self.mu + value) / kappa
        log_norm = np.log(self.alpha) - self._log_norm
        full = kappa > self._kappa_max
        if full.any():
            # The counts stay where they are; beta shrinks with alpha, which leaves the variance as it is.
            beta = np.where(full, beta * self.alpha / alpha, beta)
            kappa, alpha = np.where(full, self.kappa, kappa), np.where(full, self.alpha, alpha)
            log_norm = np.where(full, self._log_norm, log_norm)
        rows = zip(self._prior, (alpha, beta, kappa, mu, log_norm), strict=True)
        self.alpha, self.beta, self.kappa, self.mu, self._log_norm = (np.concatenate(pair) for pair in rows)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        self.alpha, self.beta, self.kappa = self.alpha[rows], self.beta[rows], self.kappa[rows]
        self.mu, self._log_norm = self.mu[rows], self._log_norm[rows]


class GammaPoisson:
    """Counts of unknown rate per interval; the predictive density is the negative binomial.

    Traffic is often burstier than Poisson. Taken for Poisson, every burst would pass for a change, so with `bursty`
    a count x enters as x/D with exposure 1/D, where D >= 1 is the index of dispersion measured on the way
    (quasi-likelihood, McCullagh & Nelder 1989, chapter 9). The estimated rate stays the same whatever D does.

    Args:
        shape: prior shape of the rate, the number of events the prior counts as.
        rate: prior rate parameter, the number of intervals the prior counts as.
        memory: a run longer than so many intervals forgets (see NormalInverseGamma).
        bursty: scale the counts by their index of dispersion.

    >>> density = GammaPoisson(shape=1.0, rate=1.0)
    >>> density.pdf(0.0).tolist()
    [0.5]
    >>> density.update_theta(3.0)
    >>> density.shape.tolist(), density.rate.tolist()
    ([1.0, 4.0], [1.0, 2.0])
    """

    def __init__(self, *, shape: float, rate: float, memory: float = math.inf, bursty: bool = False) -> None:
        """Stores the prior as the first row."""
        self._prior = (np.array([shape]), np.array([rate]))
        self._rate_max = rate + memory
        self._dispersion = IndexOfDispersion() if bursty else None
        self.shape, self.rate = self._prior

    def log_pdf(self, value: float) -> Floats:
        """Returns the log of the negative binomial predictive density under each row."""
        exposure = self._exposure()
        events = exposure * value
        odds = self.rate / exposure
        ways = _log_gamma(self.shape + events) - _log_gamma(self.shape) - math.lgamma(events + 1.0)
        log_pdf: Floats = ways - self.shape * np.log1p(1.0 / odds) - events * np.log1p(odds)
        return log_pdf

    def pdf(self, value: float) -> Floats:
        """Returns the negative binomial predictive density under each row."""
        return np.exp(self.log_pdf(value))

    def update_theta(self, value: float) -> None:
        """Lets every row see `value`, then puts the prior in front."""
        exposure = self._exposure()
        shape, rate = self.shape + exposure * value, self.rate + exposure
        kept = np.minimum(1.0, self._rate_max / rate)
        self.shape = np.concatenate((self._prior[0], shape * kept))
        self.rate = np.concatenate((self._prior[1], rate * kept))
        if self._dispersion is not None:
            self._dispersion.update(value)

    def select(self, rows: Rows) -> None:
        """Keeps only these rows."""
        self.shape, self.rate = self.shape[rows], self.rate[rows]

    def _exposure(self) -> float:
        return 1.0 if self._dispersion is None else 1.0 / max(1.0, self._dispersion.value)


def _log_gamma_step(alpha: float) -> float:
    return math.lgamma(alpha + 0.5) - math.lgamma(alpha)


def _log_gamma(values: Floats) -> Floats:
    # numpy has no log-gamma; scipy's costs the daemon a second and 60 MB at start, the C library's 0.1 us a row.
    return np.array([math.lgamma(value) for value in values.tolist()])

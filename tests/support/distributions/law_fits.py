"""Latency laws fitted to measured rows, with standard errors, and the range in which they may be used.

Numpy only: least squares for what is linear, Levenberg-Marquardt for the exponential.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.queueing.matrices import Array

_ROUNDS = 200
_ENOUGH = 1e-12
"""Relative gain of the sum of squares in a round that is not worth another."""


@dataclass(frozen=True, slots=True)
class LawFit:
    """A fitted law.

    Parameters:
        coefficients: in the order of the law.
        stderrs: of each, from the residuals; infinite where the rows leave no freedom.
        sigma_s: standard deviation of the residuals, seconds.
        measured: by variable, the smallest and the largest value measured.
    """

    coefficients: tuple[float, ...]
    stderrs: tuple[float, ...]
    sigma_s: float
    measured: Mapping[str, tuple[float, float]]

    def refuse_beyond(self, **values: float) -> None:
        """Refuses values outside the measured range, where a fit says nothing.

        Raises:
            PlanInputError: the message names the variable and its range.
        """
        for name, value in values.items():
            low, high = self.measured[name]
            if not low * (1 - 1e-9) <= value <= high * (1 + 1e-9):
                raise PlanInputError(
                    f"{name} {value:g} is beyond what the law was fitted to, {low:g} to {high:g}; measure there first"
                )


def fit_exponential(vcpu: Array, seconds: Array) -> LawFit:
    """Fits seconds = g0 exp(-vcpu / g1) + g2 for one batch size.

    Parameters:
        vcpu: vCPUs of each row, shape (rows,), at least three different ones.
        seconds: latency of each row, shape (rows,).

    Returns:
        (g0, g1, g2).

    Raises:
        PlanInputError: too few rows, or rows that are no numbers.

    >>> vcpu = np.array([0.5, 1.0, 2.0, 4.0, 8.0])
    >>> [round(g, 6) for g in fit_exponential(vcpu, 2.0 * np.exp(-vcpu / 0.8) + 0.3).coefficients]
    [2.0, 0.8, 0.3]
    """
    _check(seconds, vcpu, least=3, name="vcpu")

    def law(g: Array) -> Array:
        return np.asarray(g[0] * np.exp(-vcpu / g[1]) + g[2])

    def slopes(g: Array) -> Array:
        fall = np.exp(-vcpu / g[1])
        return np.stack([fall, g[0] * fall * vcpu / g[1] ** 2, np.ones_like(vcpu)], axis=1)

    starts = [_linear_start(vcpu, seconds, g1) for g1 in np.geomspace(vcpu.min() / 4, vcpu.max(), 12)]
    start = min(starts, key=lambda g: float(np.sum((law(g) - seconds) ** 2)))
    return _described(_levenberg(law, slopes, start, seconds), slopes, law, seconds, {"vcpu": vcpu})


def _linear_start(vcpu: Array, seconds: Array, g1: float) -> Array:
    """The best g0 and g2 for a given g1."""
    design = np.stack([np.exp(-vcpu / g1), np.ones_like(vcpu)], axis=1)
    g0, g2 = np.linalg.lstsq(design, seconds, rcond=None)[0]
    return np.array([g0, g1, g2])


def _levenberg(law: Callable[[Array], Array], slopes: Callable[[Array], Array], start: Array, seconds: Array) -> Array:
    """Least squares from a start; g1, the second coefficient, stays above 0."""
    best, damping = start, 1e-3
    squares = float(np.sum((law(best) - seconds) ** 2))
    for _ in range(_ROUNDS):
        jacobian, residual = slopes(best), seconds - law(best)
        normal = jacobian.T @ jacobian
        step = np.linalg.lstsq(normal + damping * np.diag(np.diag(normal)), jacobian.T @ residual, rcond=None)[0]
        tried = best + step
        tried_squares = float(np.sum((law(tried) - seconds) ** 2)) if tried[1] > 0 else math.inf
        if tried_squares < squares:
            gain = (squares - tried_squares) / max(squares, 1e-300)
            best, squares, damping = tried, tried_squares, damping / 4
            if gain < _ENOUGH:
                break
        else:
            damping *= 4
            if damping > 1e12:
                break
    return best


def fit_polynomial(batch: Array, memory_mb: Array, seconds: Array, *, degree: int) -> LawFit:
    """Fits PolynomialLatency's polynomial in batch size and memory.

    Parameters:
        batch: batch size of each row, shape (rows,).
        memory_mb: memory of each row, shape (rows,).
        seconds: latency of each row, shape (rows,).
        degree: of the polynomial.

    Returns:
        Its coefficients in the law's order.

    Raises:
        PlanInputError: fewer rows than coefficients, or rows that do not tell them apart.
    """
    powers = [(total - power, power) for total in range(degree + 1) for power in range(total + 1)]
    _check(seconds, batch, least=1, name="batch")
    # Memory in MB to the third power against 1 would cost the fit its digits.
    scales = float(np.abs(batch).max()), float(np.abs(memory_mb).max())
    columns = [(batch / scales[0]) ** k * (memory_mb / scales[1]) ** m for k, m in powers]
    sizes = np.array([scales[0] ** k * scales[1] ** m for k, m in powers])
    return _linear(np.stack(columns, axis=1), sizes, seconds, {"batch": batch, "memory_mb": memory_mb})


def fit_work(batch: Array, seconds: Array) -> LawFit:
    """Fits the work of SliceLatency, slope * batch + constant, to rows of the whole card.

    Parameters:
        batch: batch size of each row, shape (rows,).
        seconds: latency of each row, shape (rows,).

    Returns:
        (slope_s, constant_s).
    """
    _check(seconds, batch, least=2, name="batch")
    return _linear(np.stack([batch, np.ones_like(batch)], axis=1), np.ones(2), seconds, {"batch": batch})


def _check(seconds: Array, values: Array, *, least: int, name: str) -> None:
    if len(set(values.tolist())) < least:
        raise PlanInputError(f"{name} has {len(set(values.tolist()))} different values; a fit needs {least}")
    if not (np.isfinite(seconds).all() and np.isfinite(values).all() and (seconds > 0).all()):
        raise PlanInputError("seconds must be finite and above 0 in every row")


def _linear(design: Array, sizes: Array, seconds: Array, measured: Mapping[str, Array]) -> LawFit:
    if len(seconds) < design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        raise PlanInputError(f"{len(seconds)} rows do not tell {design.shape[1]} coefficients apart; measure more")
    found = np.asarray(np.linalg.lstsq(design, seconds, rcond=None)[0])
    fit = _described(found, lambda _: design, lambda g: np.asarray(design @ g), seconds, measured)
    scaled = tuple(float(x) for x in np.array(fit.coefficients) / sizes)
    return LawFit(scaled, tuple(float(x) for x in np.array(fit.stderrs) / sizes), fit.sigma_s, fit.measured)


def _described(
    found: Array,
    slopes: Callable[[Array], Array],
    law: Callable[[Array], Array],
    seconds: Array,
    measured: Mapping[str, Array],
) -> LawFit:
    """The fit with its errors: residual variance times the inverse of the normal matrix."""
    jacobian, residual = slopes(found), seconds - law(found)
    freedom = len(seconds) - len(found)
    ranges = {name: (float(values.min()), float(values.max())) for name, values in measured.items()}
    coefficients = tuple(float(x) for x in found)
    if freedom <= 0:
        return LawFit(coefficients, (math.inf,) * len(found), math.inf, ranges)
    sigma_s = math.sqrt(float(residual @ residual) / freedom)
    variances = np.diag(np.linalg.pinv(jacobian.T @ jacobian))
    return LawFit(coefficients, tuple(float(x) for x in sigma_s * np.sqrt(variances)), sigma_s, ranges)

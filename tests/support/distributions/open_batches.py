"""Open batches of classes with timeouts of their own: number of requests and time open, in closed form."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.matrices import Array


@dataclass(frozen=True, slots=True, eq=False)
class OpenBatches:
    """Poisson classes in order of timeout, and the time since opening cut at the timeouts.

    With L the rate of all, G(s) the part of them with a timeout above s, and m(s) = sum of rate_c min(s, timeout_c):
    a batch is still open at s, with k members besides the opener, with probability G(s) e_k(s), where
    e_k(s) = e^(-L s) m(s)^k / k!. Between two timeouts G is constant and m is linear.

    Attributes:
        order: which given class is the first, second, ... by timeout, shape (..., n).
        rates_rps: requests a second in that order, shape (..., n).
        total_rps: L, shape (..., 1).
        edges_s: 0 and the timeouts, shape (..., n + 1).
        masses: m at the edges, shape (..., n + 1).
        slopes: dm/ds between edges, which is also L G, shape (..., n).
    """

    order: npt.NDArray[np.intp]
    rates_rps: Array
    total_rps: Array
    edges_s: Array
    masses: Array
    slopes: Array

    @property
    def alive(self) -> Array:
        """G between the edges, shape (..., n)."""
        return np.asarray(self.slopes / self.total_rps)

    @property
    def ending_rps(self) -> Array:
        """Rate of the classes whose timeout is over, between the edges, shape (..., n)."""
        return np.asarray(self.total_rps - self.slopes)

    def terms(self, counts: int) -> Array:
        """Returns e_k at the edges for k < counts, shape (..., n + 1, counts)."""
        return open_terms(self.masses, self.total_rps * self.edges_s, counts)

    def integrals(self, terms: Array) -> Array:
        """Returns the integrals of e_k between edges, seconds, shape (..., n, counts)."""
        return integrals(terms[..., :-1, :], terms[..., 1:, :], slopes=self.slopes, total_rps=self.total_rps)


def open_batches(rates_rps: npt.ArrayLike, timeouts_s: npt.ArrayLike) -> OpenBatches:
    """Returns the classes of one or many buffers, checked and in order.

    Args:
        rates_rps: requests a second of each class, above 0, shape (..., n).
        timeouts_s: timeouts, at least 0, shape (..., n).

    Raises:
        ArrivalError: a rate or timeout out of range, or no class.
    """
    rates, timeouts = np.broadcast_arrays(np.asarray(rates_rps, np.float64), np.asarray(timeouts_s, np.float64))
    if not rates.shape or rates.shape[-1] == 0 or not (np.isfinite(rates).all() and (rates > 0).all()):
        raise ArrivalError("rates_rps must be above 0 and finite for every class, and there must be a class")
    if not (np.isfinite(timeouts).all() and (timeouts >= 0).all()):
        raise ArrivalError("timeouts_s must be at least 0 and finite for every class")
    order = np.argsort(timeouts, axis=-1, kind="stable")
    rates, timeouts = (np.take_along_axis(values, order, axis=-1) for values in (rates, timeouts))
    edges_s = _from_zero(timeouts)
    # Summed from the last class on, so that the last slope is its rate and not a difference of sums.
    slopes = np.cumsum(rates[..., ::-1], axis=-1)[..., ::-1]
    masses = _from_zero(np.cumsum(slopes * np.diff(edges_s, axis=-1), axis=-1))
    return OpenBatches(order, rates, slopes[..., :1], edges_s, masses, slopes)


def open_terms(masses: Array, ages: Array, counts: int) -> Array:
    """Returns e_k for k < counts, shape (..., counts).

    Args:
        masses: m(s), shape (...).
        ages: L s, shape (...).
        counts: how many k.
    """
    log_factorial = _from_zero(np.cumsum(np.log(np.arange(1, counts))))
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.arange(counts) * np.log(masses)[..., None] - ages[..., None] - log_factorial
    # 0 ln 0 is 0: no time, no member.
    logs[..., 0] = -ages
    return np.asarray(np.exp(logs))


def integrals(start: Array, end: Array, *, slopes: Array, total_rps: Array) -> Array:
    """Returns the integrals of e_k over stretches of one slope, by parts: L I_k = slope I_(k-1) - (change of e_k).

    Args:
        start: e_k where the stretches start, shape (..., counts).
        end: e_k where they end, shape (..., counts).
        slopes: dm/ds, shape (...).
        total_rps: L, broadcast to (...).
    """
    fall = (start - end) / np.asarray(total_rps)[..., None]
    ratio = slopes / total_rps
    result = np.empty_like(fall)
    before = np.zeros(fall.shape[:-1])
    for k in range(fall.shape[-1]):
        before = fall[..., k] + ratio * before
        result[..., k] = before
    return result


def _from_zero(values: Array) -> Array:
    return np.concatenate([np.zeros_like(values[..., :1]), values], axis=-1)

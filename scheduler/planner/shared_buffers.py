"""The exact law of one buffer that applications with different SLOs share, for many reserves at once.

Every application may wait until its SLO less a common reserve: timeouts slo_c - r. Then only the first piece of the
integrals depends on r, and so thousands of configurations can be judged. With m(z) = sum_c rate_c min(z, timeout_c) and
O_k(z) = e^(-rate z) m(z)^k / k! (k more requests within z of the first and none of them, nor it, timed out), theory 4.3
gives the sizes. The waits follow from the mass of requests that still wait at wait y in a batch of s:
Phi_{s-1}(y) = O_{s-1}(t_n) + rate * integral of O_{s-1} from y to t_n, the longest timeout, cut at the request's own.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from scheduler.planner.latency_laws import Array
from scheduler.planner.matrices import product
from scheduler.planner.poisson_tails import Indices, certain_above

_WIDTHS = np.array([0.1, 0.75, 2.5, 6.0])
_ORDERS = (2, 4, 7, 10, 10)
"""Expected arrivals between two timeouts, and nodes that integrate e^-x x^k over them to 1e-9; beyond, in pieces."""


@dataclass(frozen=True, eq=False)
class SizeLaw:
    """Batch sizes of a shared buffer for R reserves.

    Parameters:
        reserves_s: shape (R,).
        below: P(b requests) for b = 1 ... B - 1 without a cap, shape (R, B - 1): a cap keeps those below it.
        waiting: Phi_{s-1} just before the shortest timeout for s = 1 ... B, shape (R, B).
    """

    reserves_s: Array
    below: Array
    waiting: Array

    def up_to(self, max_batch: int) -> "SizeLaw":
        """Returns the same for no larger caps than `max_batch`."""
        if max_batch >= self.waiting.shape[1]:
            return self
        return SizeLaw(self.reserves_s, self.below[:, : max_batch - 1], self.waiting[:, :max_batch])

    def mean_sizes(self) -> Array:
        """Returns E[b] for caps 1 ... B, shape (R, B)."""
        return self._mean_sizes

    def averaged(self, values: Array) -> Array:
        """Returns the mean of a figure by batch size for caps 1 ... B, shape (R, n, B).

        Parameters:
            values: the figure for batches of 1 ... B, shape (n, B).
        """
        averages = self._reached[:, None, :] * values
        averages[:, :, 1:] += (self.below[:, None, :] * values[:, :-1]).cumsum(axis=2)
        return averages

    def reached(self) -> Array:
        """Returns P(b requests or more) for b = 1 ... B, shape (R, B): of a cap b, the batches that are full."""
        return self._reached

    @cached_property
    def _reached(self) -> Array:
        rest = np.ones((len(self.reserves_s), self.below.shape[1] + 1))
        np.maximum(1.0 - self.below.cumsum(axis=1), 0.0, out=rest[:, 1:])
        return rest

    @cached_property
    def _mean_sizes(self) -> Array:
        return self._reached.cumsum(axis=1)


@dataclass(frozen=True, eq=False)
class SharedBuffer:
    """Poisson applications that share a buffer.

    Parameters:
        slos_s: their SLOs, ascending, shape (n,).
        rates_rps: their rates, shape (n,).
    """

    slos_s: Array
    rates_rps: Array

    @cached_property
    def rate_rps(self) -> float:
        """All requests a second."""
        return float(self.rates_rps.sum())

    @property
    def strictest_s(self) -> float:
        """The smallest SLO."""
        return float(self.slos_s[0])

    @cached_property
    def open_beyond_s(self) -> float:
        """How much longer than the shortest timeout an uncapped batch stays open on average, seconds.

        E[b] without a cap is 1 + rate (shortest timeout + this), the same for every reserve.
        """
        if len(self.slos_s) == 1:
            return 0.0
        gone = np.cumsum(self.rates_rps)[:-1]
        gaps_s = np.diff(self.slos_s)
        hazard = np.concatenate([[0.0], np.cumsum(gone * gaps_s)])[:-1]
        left = 1 - gone / self.rate_rps
        return float(np.sum(left * np.exp(-hazard) * -np.expm1(-gone * gaps_s) / gone))

    def size_law(self, reserves_s: Array, *, max_batch: int) -> SizeLaw:
        """Returns the sizes for each reserve, none of which may exceed the strictest SLO.

        Parameters:
            reserves_s: shape (R,).
            max_batch: the largest cap, B.
        """
        rate, first_s = self.rate_rps, self.strictest_s - reserves_s
        beyond_s, weights = self._panels(max_batch)
        # In one go: openers at their own timeout, then the nodes between the shortest and the longest.
        steps_s = np.concatenate([self._extra_s, beyond_s])
        ended = self._extra_s.searchsorted(steps_s, side="right")
        over = self._over[ended]
        applications = len(self.slos_s)
        gone = over[applications:]
        weighing = np.zeros((len(steps_s), 3))
        weighing[:applications, 0] = self.rates_rps / rate
        weighing[applications:, 1] = weights * gone * (1 - gone / rate)
        weighing[applications:, 2] = weights * rate
        weighing[applications - 1, 2] = 1.0
        # m(z) after the shortest timeout.
        more = self._over_mass[ended] + (rate - over) * steps_s
        # O_k after the shortest timeout: some of the k came before it, which alone depends on the reserve, some since.
        before = _more_and_more(rate * first_s, rate * first_s, max_batch)
        since = _more_and_more(rate * steps_s, more, max_batch) @ weighing
        sums = _convolved(before.T, since)
        below = sums[:, :, 0].copy()
        below[:, 1:] += sums[:, :-1, 1]
        tails = np.maximum(1.0 - before.cumsum(axis=0), 0.0)
        return SizeLaw(reserves_s, below[:, :-1], sums[:, :, 2] + tails.T)

    def _panels(self, max_batch: int) -> tuple[Array, Array]:
        """Nodes and weights from the shortest to the longest timeout, counted from the shortest, seconds."""
        ends_s = distinct(np.minimum(self._extra_s, certain_above(max_batch) / self.rate_rps))
        lows_s, gaps_s = ends_s[:-1], ends_s[1:] - ends_s[:-1]
        arrivals = gaps_s * self.rate_rps
        pieces = np.ceil(arrivals / _WIDTHS[-1]).astype(np.int64)
        kinds = _WIDTHS.searchsorted(arrivals)
        if (pieces > 1).any():
            kinds, lows_s, gaps_s = kinds.repeat(pieces), lows_s.repeat(pieces), (gaps_s / pieces).repeat(pieces)
            lows_s = lows_s + gaps_s * _within(pieces)
        nodes, weights, used = (table[kinds] for table in _quadratures())
        return (lows_s[:, None] + gaps_s[:, None] * nodes)[used], (gaps_s[:, None] * weights)[used]

    @cached_property
    def _extra_s(self) -> Array:
        """How much longer than the shortest each timeout is, shape (n,)."""
        return self.slos_s - self.strictest_s

    @cached_property
    def _over(self) -> Array:
        """Rate of the first 0, 1, ... n applications."""
        return np.concatenate([[0.0], self.rates_rps.cumsum()])

    @cached_property
    def _over_mass(self) -> Array:
        """Their rates times how much longer than the shortest their timeouts are."""
        return np.concatenate([[0.0], (self.rates_rps * self._extra_s).cumsum()])


@cache
def _quadratures() -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Gauss-Legendre nodes and weights on (0, 1) for each order, and which of the columns it uses."""
    nodes, weights = np.zeros((2, len(_ORDERS), max(_ORDERS)))
    for kind, order in enumerate(_ORDERS):
        places, areas = np.polynomial.legendre.leggauss(order)
        nodes[kind, :order], weights[kind, :order] = (places + 1) / 2, areas / 2
    return nodes, weights, np.arange(max(_ORDERS)) < np.array(_ORDERS)[:, None]


def _within(pieces: Indices) -> Array:
    """0, 1, ... within each run of so many pieces."""
    starts = (pieces.cumsum() - pieces).repeat(pieces)
    return (np.arange(len(starts)) - starts).astype(np.float64)


def distinct(ascending: Array) -> Array:
    """Returns an ascending array without repetitions; `np.unique` loads half of numpy the first time."""
    return np.asarray(ascending[np.concatenate([[True], np.diff(ascending) > 0])])


def _more_and_more(age: Array, mean: Array, counts: int) -> Array:
    """e^-age mean^k / k! for k = 0 ... counts - 1, shape (counts, n)."""
    terms = np.empty((counts, len(age)))
    terms[0] = np.exp(-age)
    np.divide(mean, np.arange(1, counts)[:, None], out=terms[1:])
    return np.asarray(np.multiply.accumulate(terms, axis=0, out=terms))


def _convolved(first: Array, second: Array) -> Array:
    """Sums of first_j second_(k-j) over j, shape (R, counts, 3).

    Parameters:
        first: shape (R, counts).
        second: shape (counts, 3).
    """
    counts, kinds = second.shape
    padded = np.zeros((2 * counts - 1, kinds))
    padded[counts - 1 :] = second
    shifted = padded.take(_shifts(counts), axis=0)
    return product(first, shifted.reshape(counts, -1)).reshape(len(first), counts, kinds)


@cache
def _shifts(counts: int) -> Indices:
    """Where k - j lies behind counts - 1 that are nothing, by j and k."""
    return counts - 1 + np.arange(counts) - np.arange(counts)[:, None]


def mean_size_bound(*, rate_rps: float, shortest_s: float, beyond_s: float) -> float:
    """Returns E[b] without a cap, which no cap exceeds."""
    return 1.0 + rate_rps * (shortest_s + beyond_s) if math.isfinite(shortest_s) else math.inf

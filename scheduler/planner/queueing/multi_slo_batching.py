"""Exact batch sizes of one buffer that applications with different SLOs share, for many latency reserves at once.

Every request may wait for its SLO less a common latency reserve r, so the timeout of application c is slo_c - r. Only
the first part of the integrals below depends on r, so thousands of configurations can be evaluated at once.

Let m(z) = sum_c rate_c min(z, timeout_c). Then O_k(z) = e^(-rate z) m(z)^k / k! is the probability that k further
requests come within z of the first one and none of them has timed out by z. A batch closes at size b < B when the first
request times out, or when a further one does:

    p_b = sum_c rate_c / rate O_(b-1)(timeout_c) + integral of over(z) (1 - over(z) / rate) O_(b-2)(z) dz

from the shortest timeout t_1 to the longest t_n, where over(z) is the summed rate of the applications whose timeout is
below z. For the waits, this module prepares Phi_(s-1)(y) = O_(s-1)(t_n) + rate * integral of O_(s-1) from y to t_n; see
`multi_slo_lateness`.

Two applications have SLOs of 1 and 2 s and one request a second each. At a latency reserve of 0.5 s the timeouts are
0.5 and 1.5 s. A request stays alone if no other comes within its timeout, at 2 requests a second: (e^-1 + e^-3) / 2 =
0.2088.

>>> buffer = SharedBuffer(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
>>> distribution = buffer.size_distribution(np.array([0.5]), max_batch=2)
>>> distribution.below.round(4).tolist(), distribution.reached().round(4).tolist()
([[0.2088]], [[1.0, 0.7912]])
>>> distribution.mean_sizes().round(4).tolist()
[[1.0, 1.7912]]

Without a cap a batch is open beyond 0.5 s only if the second application opened it, half of the time. It then closes
0.5 s after the first request of the first application, and at the latest after 1.5 s: min(gap, 1 s) has the mean 1 -
1/e, half of which is 0.3161 s. So E[b] is 1 + 2 (0.5 + 0.3161).

>>> round(buffer.open_beyond_s, 4)
0.3161
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from scheduler.planner.queueing.matrices import Array, Indices, Mask, product
from scheduler.planner.queueing.poisson_tails import saturated_mean

_WIDTHS = np.array([0.1, 0.75, 2.5, 6.0])
_ORDERS = (2, 4, 7, 10, 10)
"""Expected arrivals between two timeouts, and the number of Gauss-Legendre nodes that integrate e^-x x^k over them to
1e-9. A longer interval is cut into pieces."""


@dataclass(frozen=True, eq=False)
class BatchSizeDistribution:
    """Batch sizes of a shared buffer for R latency reserves.

    Attributes:
        latency_reserves_s: the latency reserves, shape (R,).
        below: P(b requests) for b = 1 ... B - 1 without a cap, shape (R, B - 1). A cap does not change sizes below it.
        waiting: Phi_(s-1) just before the shortest timeout for s = 1 ... B, shape (R, B).
        early: P(at least k more requests before the shortest timeout) for k = 0 ... B + 1, shape (R, B + 2).
    """

    latency_reserves_s: Array
    below: Array
    waiting: Array
    early: Array

    def up_to(self, max_batch: int) -> "BatchSizeDistribution":
        """Returns the distribution for caps up to `max_batch`."""
        if max_batch >= self.waiting.shape[1]:
            return self
        below, waiting, early = (
            self.below[:, : max_batch - 1],
            self.waiting[:, :max_batch],
            self.early[:, : max_batch + 2],
        )
        return BatchSizeDistribution(self.latency_reserves_s, below, waiting, early)

    def mean_sizes(self) -> Array:
        """Returns E[b] for caps 1 ... B, shape (R, B)."""
        return self._mean_sizes

    def reached(self) -> Array:
        """Returns P(at least b requests) for b = 1 ... B, shape (R, B): the part of full batches with the cap b."""
        return self._reached

    @cached_property
    def _reached(self) -> Array:
        rest = np.ones((len(self.latency_reserves_s), self.below.shape[1] + 1))
        np.maximum(1.0 - self.below.cumsum(axis=1), 0.0, out=rest[:, 1:])
        return rest

    @cached_property
    def _mean_sizes(self) -> Array:
        return self._reached.cumsum(axis=1)


@dataclass(frozen=True, eq=False)
class SharedBuffer:
    """Applications with Poisson arrivals that share a buffer.

    Attributes:
        slos_s: their SLOs, ascending, shape (n,).
        rates_rps: their rates, shape (n,).
    """

    slos_s: Array
    rates_rps: Array

    @cached_property
    def rate_rps(self) -> float:
        """Requests a second of all applications."""
        return float(self.rates_rps.sum())

    @property
    def strictest_s(self) -> float:
        """The smallest SLO."""
        return float(self.slos_s[0])

    @cached_property
    def open_beyond_s(self) -> float:
        """Mean time that a batch without a cap stays open beyond the shortest timeout, seconds.

        E[b] without a cap is 1 + rate (shortest timeout + this time). The time is the same for every latency reserve.
        """
        # Plain numbers: for a dozen applications arrays take ten times as long.
        open_s = hazard = gone = 0.0
        slos_s = self.slos_s.tolist()
        for rate, slo_s, next_s in zip(self.rates_rps.tolist(), slos_s, slos_s[1:], strict=False):
            gone += rate
            passed = gone * (next_s - slo_s)
            open_s += (1 - gone / self.rate_rps) * math.exp(-hazard) * -math.expm1(-passed) / gone
            hazard += passed
        return open_s

    def size_distribution(self, latency_reserves_s: Array, *, max_batch: int) -> BatchSizeDistribution:
        """Returns the sizes for each latency reserve.

        Args:
            latency_reserves_s: the latency reserves, none above the strictest SLO, shape (R,).
            max_batch: the largest cap, B.
        """
        return size_distributions((self,), latency_reserves_s[None], max_batch=max_batch)

    def since_shortest(self, counts: int) -> Array:
        """Returns the terms without the latency reserve, see `_since_shortest`; cached, shape (1, counts, 3)."""
        if counts not in self._since:
            self._since[counts] = _since_shortest((self,), np.array([self.rate_rps]), counts)
        return self._since[counts]

    @cached_property
    def _since(self) -> dict[int, Array]:
        return {}


def size_distributions(
    buffers: Sequence[SharedBuffer], latency_reserves_s: Array, *, max_batch: int
) -> BatchSizeDistribution:
    """Returns the sizes of several buffers, each for its own latency reserves, in the order of the buffers.

    All buffers go through the same few steps over long arrays, which takes about as long as one buffer does.

    Args:
        buffers: S buffers.
        latency_reserves_s: latency reserves of each buffer, shape (S, R).
        max_batch: the largest cap, B.

    Returns:
        The distribution for S R latency reserves.
    """
    rates = np.array([buffer.rate_rps for buffer in buffers])
    shortest_s = np.array([buffer.strictest_s for buffer in buffers])[:, None] - latency_reserves_s
    # O_k after the shortest timeout: some of the k requests came before it, some after; only the first part depends on
    # the latency reserve.
    expected = (rates[:, None] * shortest_s).ravel()
    before = _poisson_terms(expected, expected, max_batch + 1).T
    early = np.ones((len(before), max_batch + 2))
    np.maximum(1.0 - before.cumsum(axis=1), 0.0, out=early[:, 1:])
    alone = len(buffers) == 1
    since = buffers[0].since_shortest(max_batch) if alone else _since_shortest(buffers, rates, max_batch)
    sums = _convolved(before[:, :-1].reshape(*latency_reserves_s.shape, max_batch), since)
    below = sums[:, :, 0].copy()
    below[:, 1:] += sums[:, :-1, 1]
    return BatchSizeDistribution(latency_reserves_s.ravel(), below[:, :-1], sums[:, :, 2] + early[:, 1:-1], early)


def _since_shortest(buffers: Sequence[SharedBuffer], rates_rps: Array, counts: int) -> Array:
    """Returns the terms after the shortest timeout, by the number k of further arrivals, shape (S, counts, 3).

    The columns are: batches that close when their first request times out, batches that close when a later request
    does, and Phi from the shortest timeout on.
    """
    slos_s, each_rps = (np.concatenate([getattr(b, key) for b in buffers]) for key in ("slos_s", "rates_rps"))
    lengths = np.array([len(buffer.slos_s) for buffer in buffers])
    owner = np.arange(len(buffers)).repeat(lengths)
    ends = lengths.cumsum() - 1
    extra_s = slos_s - slos_s[ends - lengths + 1][owner]
    over = _cumulative_in_runs(each_rps, ends, lengths)
    passed = _cumulative_in_runs(each_rps * extra_s, ends, lengths)
    node_s, weights, after = _panels(np.minimum(extra_s, (saturated_mean(counts) / rates_rps)[owner]), rates_rps[owner])
    # In one array: the timeouts of first requests, then the nodes between the shortest and the longest timeout.
    count = len(extra_s)
    steps_s = np.concatenate([extra_s, node_s])
    place = np.concatenate([np.arange(count), after])
    owner, over, passed = owner[place], over[place], passed[place]
    rates = rates_rps[owner]
    weighing = np.zeros((len(steps_s), len(buffers), 3))
    openers, nodes, gone = np.arange(count), np.arange(count, len(steps_s)), over[count:]
    weighing[openers, owner[:count], 0] = each_rps / rates[:count]
    weighing[ends, owner[ends], 2] = 1.0
    weighing[nodes, owner[count:], 1] = weights * gone * (1 - gone / rates[count:])
    weighing[nodes, owner[count:], 2] = weights * rates[count:]
    # m(z) after the shortest timeout.
    more = passed + (rates - over) * steps_s
    terms = _poisson_terms(rates * steps_s, more, counts)
    sums = product(terms, weighing.reshape(len(steps_s), -1)).reshape(counts, len(buffers), 3)
    return np.asarray(sums.transpose(1, 0, 2))


def _cumulative_in_runs(values: Array, ends: Indices, lengths: Indices) -> Array:
    """Returns cumulative sums within each run, which ends at `ends`, in the shape of `values` (all at least 0)."""
    sums = values.cumsum()
    before = np.concatenate([[0.0], sums[ends[:-1]]])
    return np.asarray(sums - before.repeat(lengths))


def _panels(ends_s: Array, rates_rps: Array) -> tuple[Array, Array, Indices]:
    """Returns nodes and weights between timeouts, and the number of the timeout before each node.

    Args:
        ends_s: timeouts of one buffer after another, counted from its shortest, seconds; cut where every batch is full.
        rates_rps: rate of the buffer of each timeout.
    """
    gaps_s = ends_s[1:] - ends_s[:-1]
    # From one buffer to the next the timeouts fall to 0, so that these gaps are skipped as well.
    after = np.flatnonzero(gaps_s > 0)
    lows_s, gaps_s = ends_s[after], gaps_s[after]
    arrivals = gaps_s * rates_rps[after]
    pieces = np.ceil(arrivals / _WIDTHS[-1]).astype(np.int64)
    kinds = _WIDTHS.searchsorted(arrivals)
    if (pieces > 1).any():
        kinds, after = kinds.repeat(pieces), after.repeat(pieces)
        lows_s, gaps_s = lows_s.repeat(pieces), (gaps_s / pieces).repeat(pieces)
        lows_s = lows_s + gaps_s * _numbered(pieces)
    nodes, weights, used = (table[kinds] for table in _quadratures())
    at_s = (lows_s[:, None] + gaps_s[:, None] * nodes)[used]
    return at_s, (gaps_s[:, None] * weights)[used], after.repeat(used.sum(axis=1))


@cache
def _quadratures() -> tuple[Array, Array, Mask]:
    """Returns Gauss-Legendre nodes and weights on (0, 1) for each order, and the columns that each order uses."""
    nodes, weights = np.zeros((2, len(_ORDERS), max(_ORDERS)))
    for kind, order in enumerate(_ORDERS):
        places, areas = np.polynomial.legendre.leggauss(order)
        nodes[kind, :order], weights[kind, :order] = (places + 1) / 2, areas / 2
    return nodes, weights, np.arange(max(_ORDERS)) < np.array(_ORDERS)[:, None]


def _numbered(pieces: Indices) -> Array:
    """Returns 0, 1, ... within each run of so many pieces."""
    starts = (pieces.cumsum() - pieces).repeat(pieces)
    return (np.arange(len(starts)) - starts).astype(np.float64)


def distinct(ascending: Array) -> Array:
    """Returns an ascending array without repetitions; `np.unique` would load half of numpy at its first call."""
    return np.asarray(ascending[np.concatenate([[True], np.diff(ascending) > 0])])


def _poisson_terms(age: Array, mean: Array, counts: int) -> Array:
    """Returns e^-age mean^k / k! for k = 0 ... counts - 1, shape (counts, n)."""
    terms = np.empty((counts, len(age)))
    terms[0] = np.exp(-age)
    np.divide(mean, np.arange(1, counts)[:, None], out=terms[1:])
    return np.asarray(np.multiply.accumulate(terms, axis=0, out=terms))


def _convolved(first: Array, second: Array) -> Array:
    """Returns sums of first_j second_(k-j) over j, shape (S R, counts, 3).

    Args:
        first: shape (S, R, counts).
        second: shape (S, counts, 3).
    """
    several, counts, kinds = second.shape
    padded = np.zeros((several, 2 * counts - 1, kinds))
    padded[:, counts - 1 :] = second
    shifted = padded.take(_shifted_places(counts), axis=1).reshape(several, counts, -1)
    sums = np.empty((*first.shape[:2], shifted.shape[2]))
    for ours, theirs, out in zip(first, shifted, sums, strict=True):
        product(ours, theirs, out=out)
    return sums.reshape(-1, counts, kinds)


@cache
def _shifted_places(counts: int) -> Indices:
    """Returns the places of k - j behind counts - 1 zeros, by j and k."""
    return counts - 1 + np.arange(counts) - np.arange(counts)[:, None]

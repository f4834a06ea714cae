"""Exact distribution of a batch buffer fed by Markovian arrivals: batch sizes, waits, latencies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scheduler.planner.queueing.chebyshev import chebyshev_points, interpolation
from scheduler.planner.queueing.map_counting import Counts, count_table
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, stationary
from scheduler.planner.queueing.quantile_search import quantile
from scheduler.planner.queueing.service_noise import NO_NOISE, Noise

TIE = 1e-12
"""Relative difference below which two times are equal. The first request of a batch waits exactly the timeout, and a
latency bound minus a service time must meet that atom whatever the last bit is."""


@dataclass(frozen=True, eq=False)
class BufferDistribution:
    """A buffer that opens with a request and closes at `max_batch` requests or `timeout_s` after it opened.

    A request is in a batch of b with probability b p_b / E[b], where p_b is the probability of a batch of b. In a batch
    that the timeout closes, the requests that wait longer than w are those of the first T - w seconds. In a full batch
    that fills at time u, they are those of the first u - w seconds. Both are counts up to a time, followed by the rest
    of the batch:

        late_b(w) = sum_j (1 + j) a P_j(T - w) P_(b-1-j)(w) 1                       b < B
        late_B(w) = sum_j (1 + j) a [integral of P_j over (0, T - w)] P_(B-2-j)(w) D1 1

    Here `a` is the distribution of the phase when a batch opens. `late` is stored at Chebyshev points in w and
    interpolated. It is an entire function of w. The number of points grows with the square root of phase changes in T,
    so that the error of the interpolation stays below 1e-10.

    With 10 Poisson arrivals a second and T = 0.1 s, a second request arrives in time with probability 1 - 1/e, so E[b]
    = 1.6321 for B = 2:

    >>> from scheduler.planner.queueing.map_process import mmpp2, poisson_arrivals
    >>> distribution = buffer_distribution(poisson_arrivals(10.0), max_batch=2, timeout_s=0.1)
    >>> distribution.sizes.round(4).tolist(), round(distribution.mean_size, 4)
    ([0.3679, 0.6321], 1.6321)

    With services of 0.1 and 0.15 s and a bound of 0.2 s, a request alone (0.3679 / 1.6321) is in time exactly. Of a
    full batch the second request waits for none (0.6321 / 1.6321), and the first one may wait 0.05 s, which has the
    probability (1 - e^-0.5) / 1.6321: together 0.8538. The longest latency is 0.1 + 0.15 s:

    >>> round(distribution.latency_within(0.2, [0.1, 0.15]), 4)
    0.8538
    >>> round(distribution.latency_quantile_s(0.999999, [0.1, 0.15]), 4)
    0.25

    Of two phases, a batch of one always opens at an arrival, in the phases of arrivals (see `MarkovianArrivals`):

    >>> bursty = mmpp2(rates_rps=(10.0, 50.0), leave_per_s=(1.0, 3.0))
    >>> buffer_distribution(bursty, max_batch=1, timeout_s=0.0).opening.round(9).tolist()
    [0.375, 0.625]

    Attributes:
        counts: count matrices of the arrivals, `max_batch` counts up to the timeout.
        max_batch: B, at least 1.
        timeout_s: T, finite.
        opening: distribution of the phase just after a batch has opened, shape (m,).
        sizes: p_b for b = 1 ... B, shape (B,).
    """

    counts: Counts
    max_batch: int
    timeout_s: float
    opening: Array
    sizes: Array

    @property
    def mean_size(self) -> float:
        """Mean requests in a batch."""
        return float(self.sizes @ np.arange(1, self.max_batch + 1))

    def within(self, waits_s: Array) -> Array:
        """Returns the fraction of all requests that are in batches of b and wait at most a given time.

        Args:
            waits_s: times, with b = 1 ... B in the first axis, shape (B, n).

        Returns:
            Shape (B, n).
        """
        inside = np.clip(waits_s / self.timeout_s if self.timeout_s > 0 else np.ones_like(waits_s), 0.0, 1.0)
        members = (self.sizes * np.arange(1, self.max_batch + 1))[:, None]
        late = np.where(waits_s >= self.timeout_s * (1 - TIE) - TIE, 0.0, self._interpolated(inside))
        # Both terms are sums of positive numbers; only rounding can make their difference negative.
        return np.where(waits_s < -TIE, 0.0, np.maximum(0.0, members - late)) / self.mean_size

    def wait_within(self, wait_s: float) -> float:
        """Returns the fraction of all requests that wait at most `wait_s`."""
        return float(self.within(np.full((self.max_batch, 1), wait_s)).sum())

    def latency_within(self, latency_s: float, services_s: Sequence[float] | Array, noise: Noise = NO_NOISE) -> float:
        """Returns the fraction of requests whose wait and service together take at most `latency_s`.

        Args:
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to `max_batch`.
            noise: factor on the service time, one for each batch.
        """
        slack = noise.slack(latency_s, np.asarray(services_s, dtype=np.float64), self.timeout_s)
        members = self.sizes * np.arange(1, self.max_batch + 1) / self.mean_size
        return float(slack.whole @ members + (self.within(slack.waits_s) * slack.weights).sum())

    def latency_quantile_s(
        self, percentile: float, services_s: Sequence[float] | Array, noise: Noise = NO_NOISE
    ) -> float:
        """Returns the least latency that a fraction `percentile` of the requests keeps, seconds.

        Args:
            percentile: above 0 and below 1.
            services_s: as in `latency_within`.
            noise: factor on the service time, one for each batch.
        """
        longest_s = self.timeout_s + float(np.max(services_s)) * noise.longest
        return quantile(lambda x: self.latency_within(x, services_s, noise), percentile, upper=longest_s)

    @cached_property
    def _points(self) -> Array:
        return chebyshev_points(self.counts.clock_per_s * self.timeout_s)

    @cached_property
    def _late(self) -> Array:
        """Requests in a batch of size b that wait longer than a point times T, times p_b, shape (points, B)."""
        arrive = self.counts.arrivals_rps
        waits_s = self._points * self.timeout_s
        before = self.counts.after(self.opening)
        early = before.at(self.timeout_s - waits_s)
        filling = before.integrated(self.timeout_s - waits_s)
        late = np.zeros((len(waits_s), self.max_batch))
        if self.max_batch > 1:
            late[:, :-1] = _followed(early, self.counts.before(np.ones(len(arrive))).at(waits_s))[:, :-1]
            late[:, -1] = _followed(filling, self.counts.before(arrive).at(waits_s))[:, self.max_batch - 2]
        return late

    def _interpolated(self, places: Array) -> Array:
        """Returns `late` of size b at places in (0, 1), shape (B, n)."""
        return np.asarray((interpolation(self._points, places) * self._late.T[:, None, :]).sum(axis=-1))


def buffer_distribution(process: MarkovianArrivals, *, max_batch: int, timeout_s: float) -> BufferDistribution:
    """Returns the distribution of a buffer.

    Args:
        process: the arrivals.
        max_batch: requests at which the buffer closes at once, at least 1.
        timeout_s: longest wait of the first request, finite, at least 0.

    Raises:
        ArrivalError: a parameter is out of range, or the table would not fit into memory.
    """
    check_buffer(max_batch, timeout_s)
    counts = count_table(process, counts=max_batch, longest_s=timeout_s)
    times_s = np.array([timeout_s])
    timed_out, filled = counts.at(times_s)[0], counts.integrated(times_s)[0]
    _, d1 = process.matrices()
    # Phase when a batch closes, then when the next batch opens.
    closes = timed_out[: max_batch - 1].sum(axis=0) + filled[max_batch - 2] @ d1 if max_batch > 1 else np.eye(len(d1))
    opening = stationary(closes @ process.to_next_arrival())
    sizes: Array = np.ones(1)
    if max_batch > 1:
        sizes = np.append(
            opening @ timed_out[: max_batch - 1].sum(axis=2).T, opening @ filled[max_batch - 2] @ d1.sum(axis=1)
        )
    return BufferDistribution(counts, max_batch, timeout_s, opening, sizes / sizes.sum())


def check_buffer(max_batch: int, timeout_s: float) -> None:
    """Checks the parameters of a buffer.

    Raises:
        ArrivalError: a parameter is out of range; the message names it.
    """
    if max_batch < 1:
        raise ArrivalError(f"max_batch must be at least 1, not {max_batch}")
    if not (math.isfinite(timeout_s) and timeout_s >= 0):
        raise ArrivalError(f"timeout_s must be at least 0 and finite, not {timeout_s}")


def _followed(early: Array, rest: Array) -> Array:
    """Returns sums of (1 + j) early_j rest_(k-j) over j by k: requests of the first part in batches of 1 + k.

    Args:
        early: row vectors, shape (times, counts, m).
        rest: column vectors, shape (times, counts, m).

    Returns:
        Shape (times, counts).
    """
    weighted = early * np.arange(1, early.shape[1] + 1)[:, None]
    backwards = rest[:, ::-1]
    totals = [
        np.einsum("tjm,tjm->t", weighted[:, : k + 1], backwards[:, rest.shape[1] - 1 - k :])
        for k in range(early.shape[1])
    ]
    return np.stack(totals, axis=1)

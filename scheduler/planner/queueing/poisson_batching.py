"""Exact batch sizes of a buffer fed by Poisson arrivals: opened by a request, closed by a size or a timeout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoissonBatchSizes:
    """A buffer that closes when it holds `max_batch` requests or `timeout_s` after its first one.

    Renewal-reward makes the cost of a request E[C(b)] / E[b] over batches, not the mean of C(b) / b, which is 18 % too
    high in the median.

    Attributes:
        rate_rps: requests a second; 0 is a limit, not an error.
        max_batch: size at which it closes at once, at least 1.
        timeout_s: longest the first request waits, at least 0; infinite: only the size closes it.

    References:
        Poisson p_b and waits: renewal argument over the opener; the waits of a full batch are partial sums of
        exponential gaps (Erlang) given that their total is at most the timeout.

    >>> distribution = PoissonBatchSizes(rate_rps=10.0, max_batch=3, timeout_s=0.1)
    >>> [round(p, 4) for p in distribution.sizes]
    [0.3679, 0.3679, 0.2642]
    """

    rate_rps: float
    max_batch: int
    timeout_s: float

    def __post_init__(self) -> None:
        """Refuses what is no buffer."""
        if self.max_batch < 1:
            raise ValueError(f"max_batch must be at least 1, not {self.max_batch}")
        if not (math.isfinite(self.rate_rps) and self.rate_rps >= 0 and self.timeout_s >= 0):
            raise ValueError(f"rate and timeout must be at least 0, not {self.rate_rps} and {self.timeout_s}")

    @property
    def expected_arrivals(self) -> float:
        """Mean number of arrivals in one timeout."""
        return self.rate_rps * self.timeout_s if self.rate_rps > 0 else 0.0

    @property
    def sizes(self) -> tuple[float, ...]:
        """Probability of a batch of 1, 2, ... `max_batch` requests."""
        below = [_poisson(k, self.expected_arrivals) for k in range(self.max_batch - 1)]
        return (*below, max(0.0, 1.0 - math.fsum(below)))

    @property
    def mean_size(self) -> float:
        """Mean requests in a batch."""
        return math.fsum(b * p for b, p in enumerate(self.sizes, start=1))

    def cost_per_request(self, costs: Sequence[float]) -> float:
        """Returns E[C(b)] / E[b].

        Args:
            costs: C(1), C(2), ... for every size up to `max_batch`.
        """
        sizes = self.sizes
        paid = math.fsum(p * cost for p, cost in zip(sizes, costs, strict=True))
        return paid / math.fsum(b * p for b, p in enumerate(sizes, start=1))

    @property
    def mean_wait_s(self) -> float:
        """Mean time a request spends in the buffer.

        Of a full batch of B the j-th waits for B - j arrivals; given their total y the i-th partial sum has mean
        i y / (B - 1), and E[y; y <= T] = (B - 1) / rate * P(at least B arrivals in T).
        """
        full, mean = self.max_batch, self.expected_arrivals
        if full == 1 or self.rate_rps == 0:
            return 0.0 if full == 1 else self.timeout_s
        timed_out_s = math.fsum(p * (b + 1) / 2 for b, p in enumerate(self.sizes[:-1], start=1) if p > 0)
        timed_out_s = timed_out_s * self.timeout_s if timed_out_s > 0 else 0.0
        reached = _poisson_at_least(full, mean)
        full_s = full / 2 * (full - 1) / self.rate_rps * reached if reached > 0 else 0.0
        return (timed_out_s + full_s) / self.mean_size

    def within(self, wait_s: float, size: int) -> float:
        """Returns the fraction of all requests that are in batches of `size` and wait at most `wait_s`."""
        if wait_s < 0:
            return 0.0
        if size < self.max_batch:
            share = _poisson(size - 1, self.expected_arrivals) / self.mean_size
            return share * size if wait_s >= self.timeout_s else share * (size - 1) * wait_s / self.timeout_s
        return self._full_within(min(wait_s, self.timeout_s)) / self.mean_size

    def _full_within(self, wait_s: float) -> float:
        """Requests of a full batch, times its probability, that wait at most `wait_s` <= timeout.

        The i-th of its partial sums is at most w, and the whole at most T, if at least i of the n = B - 1 further
        members come within w of the end and the rest within T - w: sum over the number k that comes within w.
        """
        n = self.max_batch - 1
        if self.rate_rps == 0 or n == 0:
            return float(n == 0)
        near, rest = self.rate_rps * wait_s, self.rate_rps * (self.timeout_s - wait_s)
        if math.isinf(rest):
            inside = [_poisson(k, near) for k in range(n)]
            return 1.0 + math.fsum(min(k, n) * p for k, p in enumerate(inside)) + n * (1 - math.fsum(inside))
        partial = math.fsum(k * _poisson(k, near) * _poisson_at_least(n - k, rest) for k in range(1, n))
        return self.sizes[-1] + partial + n * _poisson_at_least(n, near)

    def latency_within(self, latency_s: float, services_s: Sequence[float]) -> float:
        """Returns the fraction of requests whose wait and service together take at most `latency_s`.

        Args:
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to `max_batch`.
        """
        return math.fsum(self.within(latency_s - s, size) for size, s in enumerate(services_s, start=1))


def _poisson(count: int, mean: float) -> float:
    """Probability of `count` arrivals where `mean` are expected; in logarithms, so that large means do not overflow."""
    if mean == 0:
        return float(count == 0)
    if math.isinf(mean):
        return 0.0
    return math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))


def _poisson_at_least(count: int, mean: float) -> float:
    return max(0.0, 1.0 - math.fsum(_poisson(k, mean) for k in range(count)))

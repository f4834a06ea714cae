"""Waits and latencies in a buffer fed by Poisson arrivals, in closed form: an oracle for the numerical distributions.

The waits of a full batch are partial sums of exponential gaps (Erlang), given that their total is at most the timeout.
"""

import math
from collections.abc import Sequence

from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes


def mean_wait_s(batches: PoissonBatchSizes) -> float:
    """Returns the mean time that a request spends in the buffer.

    Of a full batch of B the j-th request waits for B - j arrivals. Given their total y the i-th partial sum has a mean
    of i y / (B - 1), and E[y; y <= T] = (B - 1) / rate * P(at least B arrivals in T).
    """
    full, mean = batches.max_batch, batches.expected_arrivals
    if full == 1 or batches.rate_rps == 0:
        return 0.0 if full == 1 else batches.timeout_s
    timed_out_s = math.fsum(p * (b + 1) / 2 for b, p in enumerate(batches.sizes[:-1], start=1) if p > 0)
    timed_out_s = timed_out_s * batches.timeout_s if timed_out_s > 0 else 0.0
    reached = _at_least(full, mean)
    full_s = full / 2 * (full - 1) / batches.rate_rps * reached if reached > 0 else 0.0
    return (timed_out_s + full_s) / batches.mean_size


def within(batches: PoissonBatchSizes, wait_s: float, size: int) -> float:
    """Returns the fraction of all requests that are in batches of `size` and wait at most `wait_s`."""
    if wait_s < 0:
        return 0.0
    if size < batches.max_batch:
        share = _exactly(size - 1, batches.expected_arrivals) / batches.mean_size
        return share * size if wait_s >= batches.timeout_s else share * (size - 1) * wait_s / batches.timeout_s
    return _full_within(batches, min(wait_s, batches.timeout_s)) / batches.mean_size


def latency_within(batches: PoissonBatchSizes, latency_s: float, services_s: Sequence[float]) -> float:
    """Returns the fraction of requests whose wait and service together take at most `latency_s`.

    Args:
        batches: the buffer.
        latency_s: the bound, seconds.
        services_s: service time of a batch of 1, 2, ... requests, for every size up to `max_batch`.
    """
    return math.fsum(within(batches, latency_s - s, size) for size, s in enumerate(services_s, start=1))


def _full_within(batches: PoissonBatchSizes, wait_s: float) -> float:
    """Requests of a full batch, times its probability, that wait at most `wait_s` <= timeout.

    The i-th of its partial sums is at most w, and the whole at most T, if at least i of the n = B - 1 further requests
    arrive within w of the end and the rest within T - w: a sum over the number k that arrives within w.
    """
    n = batches.max_batch - 1
    if batches.rate_rps == 0 or n == 0:
        return float(n == 0)
    near, rest = batches.rate_rps * wait_s, batches.rate_rps * (batches.timeout_s - wait_s)
    if math.isinf(rest):
        inside = [_exactly(k, near) for k in range(n)]
        return 1.0 + math.fsum(min(k, n) * p for k, p in enumerate(inside)) + n * (1 - math.fsum(inside))
    partial = math.fsum(k * _exactly(k, near) * _at_least(n - k, rest) for k in range(1, n))
    return batches.sizes[-1] + partial + n * _at_least(n, near)


def _exactly(count: int, mean: float) -> float:
    if mean == 0:
        return float(count == 0)
    return 0.0 if math.isinf(mean) else math.exp(count * math.log(mean) - mean - math.lgamma(count + 1))


def _at_least(count: int, mean: float) -> float:
    return max(0.0, 1.0 - math.fsum(_exactly(k, mean) for k in range(count)))

"""Means over a buffer's distribution that the planner itself never needs."""

from collections.abc import Sequence

import numpy as np

from scheduler.planner.queueing.chebyshev import chebyshev_points
from scheduler.planner.queueing.map_batching import BufferDistribution
from scheduler.planner.queueing.matrices import Array


def mean_wait_s(distribution: BufferDistribution) -> float:
    """Returns the mean time that a request spends in the buffer: the integral of P(wait > w) up to the timeout."""
    points = chebyshev_points(distribution.counts.clock_per_s * distribution.timeout_s)
    late = np.array([1 - distribution.wait_within(float(w)) for w in points * distribution.timeout_s])
    # At w = T no request waits longer, but the function jumps there: its limit from below counts.
    late[-1] = 1 - distribution.wait_within(distribution.timeout_s * (1 - 1e-9))
    return float(_integration(len(points)) @ late) * distribution.timeout_s


def cost_per_request(distribution: BufferDistribution, costs: Sequence[float] | Array) -> float:
    """Returns E[C(b)] / E[b].

    Args:
        distribution: the buffer.
        costs: C(1), C(2), ... for every size up to `max_batch`.
    """
    return float(distribution.sizes @ np.asarray(costs, dtype=np.float64)) / distribution.mean_size


def _integration(points: int) -> Array:
    """Returns weights of values at Chebyshev points for the integral over (0, 1) (Clenshaw and Curtis, 1960)."""
    number = points - 1
    angles = np.pi * np.arange(points) / number
    weights = np.ones(points)
    for k in range(1, number // 2 + 1):
        factor = 1.0 if 2 * k == number else 2.0
        weights -= factor * np.cos(2 * k * angles) / (4 * k * k - 1)
    weights /= number
    weights[[0, -1]] /= 2
    return weights

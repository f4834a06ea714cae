"""Exact distribution of one buffer shared by classes of Poisson arrivals, each class with a timeout of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from support.distributions.class_waits import ClassWaits, class_waits
from support.distributions.open_batches import OpenBatches, open_batches

from scheduler.planner.queueing.map_batching import TIE
from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.matrices import Array
from scheduler.planner.queueing.quantile_search import quantile
from scheduler.planner.queueing.service_noise import NO_NOISE, Noise


def class_sizes(rates_rps: npt.ArrayLike, timeouts_s: npt.ArrayLike, *, max_batch: int) -> Array:
    """Returns p_b, the probability of a batch of b = 1 ... `max_batch`, for many buffers at once.

    A batch closes at the earliest of its members' arrival + timeout, or when it is full.

    Args:
        rates_rps: requests a second of each class, above 0, shape (..., n).
        timeouts_s: longest that a member of each class lets its batch wait, at least 0, shape (..., n).
        max_batch: B, at least 1.

    Returns:
        Shape (..., B).

    >>> class_sizes([5.0, 5.0], [[0.1, 0.1], [0.0, 0.1]], max_batch=3).round(4).tolist()
    [[0.3679, 0.3679, 0.2642], [0.6839, 0.25, 0.0661]]
    """
    return _sizes(open_batches(rates_rps, timeouts_s), max_batch)


def uncapped_mean_size(rates_rps: npt.ArrayLike, timeouts_s: npt.ArrayLike) -> Array:
    """Returns the mean batch of buffers that close by time only; with a cap it is smaller.

    Args:
        rates_rps: requests a second of each class, above 0, shape (..., n).
        timeouts_s: timeouts of the classes, at least 0, shape (..., n).

    Returns:
        Shape (...): 1 + total rate times the mean time open.
    """
    batches = open_batches(rates_rps, timeouts_s)
    lengths_s, ending_rps = np.diff(batches.edges_s, axis=-1), batches.ending_rps
    hazard = np.cumsum(ending_rps * lengths_s, axis=-1)
    open_s = np.where(ending_rps > 0, -np.expm1(-ending_rps * lengths_s), lengths_s)
    open_s /= np.where(ending_rps > 0, ending_rps, 1.0)
    still = batches.alive * np.exp(ending_rps * lengths_s - hazard)
    return np.asarray(1 + batches.total_rps[..., 0] * (still * open_s).sum(axis=-1))


def _sizes(batches: OpenBatches, max_batch: int) -> Array:
    if max_batch < 1:
        raise ArrivalError(f"max_batch must be at least 1, not {max_batch}")
    if max_batch == 1:
        return np.ones((*batches.total_rps.shape[:-1], 1))
    terms = batches.terms(max_batch)
    between = batches.integrals(terms)
    # The first request's timeout closes; a further one's does while the first one's is not over; the last arrival
    # fills.
    sizes = np.einsum("...n,...nk->...k", batches.rates_rps / batches.total_rps, terms[..., 1:, :])
    sizes[..., 1:] += np.einsum("...n,...nk->...k", batches.ending_rps * batches.alive, between[..., :-1])
    sizes[..., -1] = (batches.slopes * between[..., max_batch - 2]).sum(axis=-1)
    sizes = np.maximum(sizes, 0.0)
    return np.asarray(sizes / sizes.sum(axis=-1, keepdims=True))


@dataclass(frozen=True, eq=False)
class ClassBufferDistribution:
    """One buffer for several Poisson classes, each with its own timeout.

    Attributes:
        rates_rps: requests a second of each class, shape (n,).
        timeouts_s: timeouts of the classes, shape (n,).
        max_batch: B.
        sizes: p_b for b = 1 ... B, shape (B,).

    References:
        Members whose timeout is not over are a thinned Poisson process; see `OpenBatches` and `ClassWaits`.

    >>> distribution = class_buffer_distribution([20.0, 5.0], [0.05, 0.4], max_batch=4)
    >>> within = distribution.latency_within([0.18, 0.4], [0.1, 0.12, 0.14, 0.16])
    >>> round(distribution.mean_size, 4), within.round(4).tolist()
    (2.4021, [0.7206, 0.9948])
    """

    rates_rps: Array
    timeouts_s: Array
    max_batch: int
    sizes: Array

    @property
    def mean_size(self) -> float:
        """Mean requests in a batch, all classes together."""
        return float(self.sizes @ np.arange(1, self.max_batch + 1))

    def cost_per_request(self, costs: Sequence[float] | Array) -> float:
        """Returns E[C(b)] / E[b].

        Args:
            costs: C(1), C(2), ... for every size up to `max_batch`.
        """
        return float(self.sizes @ np.asarray(costs, dtype=np.float64)) / self.mean_size

    def within(self, of_class: int, waits_s: Array) -> Array:
        """Returns the fraction of a class that is in batches of b and waits at most so long.

        Args:
            of_class: index of the class.
            waits_s: for b = 1 ... B in the first axis, shape (B, q).

        Returns:
            Shape (B, q).
        """
        if self.max_batch == 1:
            return np.where(waits_s < -TIE, 0.0, 1.0)
        timeout_s = float(self.timeouts_s[of_class])
        rank = int(np.flatnonzero(self._waits.batches.order == of_class)[0])
        whole = waits_s >= timeout_s * (1 - TIE) - TIE
        members = self._waits.within(rank, np.where(whole, timeout_s, np.maximum(waits_s, 0.0)), whole=whole)
        per_batch = self.mean_size * self.rates_rps[of_class] / self.rates_rps.sum()
        return np.where(waits_s < -TIE, 0.0, np.maximum(members, 0.0) / per_batch)

    def class_latency_within(
        self, of_class: int, latency_s: float, services_s: Sequence[float] | Array, noise: Noise = NO_NOISE
    ) -> float:
        """Returns the fraction of a class whose wait and service together take at most `latency_s`.

        Args:
            of_class: index of the class.
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to `max_batch`.
            noise: what multiplies it, once a batch.
        """
        timeout_s = float(self.timeouts_s[of_class])
        slack = noise.slack(latency_s, np.asarray(services_s, dtype=np.float64), timeout_s)
        waits_s = np.concatenate([slack.waits_s, np.full((self.max_batch, 1), timeout_s)], axis=1)
        weights = np.concatenate([slack.weights, slack.whole[:, None]], axis=1)
        return float((self.within(of_class, waits_s) * weights).sum())

    def latency_within(
        self, latencies_s: Sequence[float] | Array, services_s: Sequence[float] | Array, noise: Noise = NO_NOISE
    ) -> Array:
        """Returns the fraction of each class that stays within its own bound of `latencies_s`, shape (n,)."""
        fractions = [
            self.class_latency_within(of_class, float(latency_s), services_s, noise)
            for of_class, latency_s in enumerate(latencies_s)
        ]
        return np.array(fractions)

    def latency_quantile_s(
        self, percentile: float, services_s: Sequence[float] | Array, *, of_class: int, noise: Noise = NO_NOISE
    ) -> float:
        """Returns the least latency that a fraction `percentile` of one class stays within, seconds.

        Args:
            percentile: above 0 and below 1.
            services_s: as in `class_latency_within`.
            of_class: index of the class.
            noise: what multiplies service times, once a batch.
        """
        longest_s = float(self.timeouts_s[of_class]) + float(np.max(services_s)) * noise.longest
        return quantile(
            lambda latency_s: self.class_latency_within(of_class, latency_s, services_s, noise),
            percentile,
            upper=longest_s,
        )

    @cached_property
    def _waits(self) -> ClassWaits:
        return class_waits(open_batches(self.rates_rps, self.timeouts_s), self.max_batch)


def class_buffer_distribution(
    rates_rps: npt.ArrayLike, timeouts_s: npt.ArrayLike, *, max_batch: int
) -> ClassBufferDistribution:
    """Returns the distribution of a buffer.

    Args:
        rates_rps: requests a second of each class, above 0, shape (n,).
        timeouts_s: longest that a member of each class lets its batch wait, at least 0, shape (n,).
        max_batch: requests at which it closes at once, at least 1.

    Raises:
        ArrivalError: no buffer; the message names the field.
    """
    rates, timeouts = np.broadcast_arrays(np.asarray(rates_rps, np.float64), np.asarray(timeouts_s, np.float64))
    return ClassBufferDistribution(rates, timeouts, max_batch, class_sizes(rates, timeouts, max_batch=max_batch))

"""Latency models of functions: seconds of a batch as a function of its size and of the resources of the function.

Each model tabulates all configurations and batch sizes at once: the mean, the worst case, the distribution as a few
atoms, and the billed seconds. An atom is never too short: a continuous part of a distribution is cut into cells, and
the slow end of a cell stands for the whole cell.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.matrices import Array

_CELLS = 8
"""Cells of the uniform part of a time-sliced service: an atom is at most an eighth of a pause too late. On 12 random
sets of 12 applications (profile of scripts/planner_figures) plans cost 0.08 % more with 4 cells, as much with 16."""
_TAIL = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
"""Quantiles at which a lognormal distribution is cut. The slow end of a cell stands for the cell, and 0.9999 for the
last one. Judgement: they are dense where the percentiles of SLOs lie; more of them would make latencies between two
quantiles less pessimistic, and the percentile search slower."""
_BILL_CELLS = 64
"""Equally probable cells over which the billed seconds of a lognormal service are averaged. At sigma 0.3 the mean over
64 cells is 0.10 % below the true one, 0.19 % with 32 and 0.05 % with 128; money needs no more."""
_WORST_QUANTILE = 0.999
"""Quantile that stands for the worst case of a lognormal service, which has no upper bound. Judgement: one batch in a
thousand may exceed it; 0.9999 instead would lengthen the worst case by a factor of 1.21 at sigma 0.3."""


@dataclass(frozen=True, slots=True, eq=False)
class Resources:
    """Resources of the configurations of one kind, each of shape (n,).

    Attributes:
        vcpu: vCPUs.
        memory_gb: memory, GB; of the smallest batch, where it depends on the batch.
        gpu_gb: GPU memory, GB; 0 without a GPU.
    """

    vcpu: Array
    memory_gb: Array
    gpu_gb: Array


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTable:
    """Service times of n configurations for batches of 1, 2, ... B items.

    Attributes:
        mean_s: mean, shape (n, B).
        worst_s: worst case, or the quantile 0.999 where a model has no upper bound; shape (n, B).
        atoms_s: atoms of the distribution, ascending along the last axis and, as a whole, with the batch size; shape
            (n, B, A).
        weights: probability of each atom, shape (n, B, A); they sum to 1 along the last axis.
        billed_s: expected billed seconds, rounded up as the provider does; shape (n, B).
    """

    mean_s: Array
    worst_s: Array
    atoms_s: Array
    weights: Array
    billed_s: Array

    def after(self, path_s: Array) -> "ServiceTable":
        """Returns the table with seconds added before every service, which are not billed.

        Args:
            path_s: seconds by batch size, shape (B,).
        """
        return ServiceTable(
            self.mean_s + path_s, self.worst_s + path_s, self.atoms_s + path_s[:, None], self.weights, self.billed_s
        )

    def with_cold_starts(self, *, probability: float, seconds: float) -> "ServiceTable":
        """Returns the table in which some batches find no warm instance. The cold start itself is not billed.

        Args:
            probability: probability of a cold start, 0 to 1.
            seconds: length of a cold start.
        """
        if probability <= 0:
            return self
        atoms_s = np.concatenate([self.atoms_s, self.atoms_s + seconds], axis=2)
        weights = np.concatenate([self.weights * (1 - probability), self.weights * probability], axis=2)
        order = np.argsort(atoms_s, axis=2, kind="stable")
        return ServiceTable(
            self.mean_s + probability * seconds,
            self.worst_s + seconds,
            np.take_along_axis(atoms_s, order, axis=2),
            np.take_along_axis(weights, order, axis=2),
            self.billed_s,
        )


class ConfigurationLatency(Protocol):
    """A latency model that tabulates itself for many configurations at once."""

    def table(self, resources: Resources, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the services of every configuration for 1 to `max_batch` items, billed in steps of `grain_s`."""
        ...


def rounded_up_s(seconds: Array, grain_s: float) -> Array:
    """Returns durations as they are billed. An excess of a billionth of a grain is rounding and not billed."""
    return np.ceil(seconds / grain_s - 1e-9) * grain_s


@dataclass(frozen=True, slots=True)
class ExponentialLatency:
    """CPU functions (HarmonyBatch): seconds = g0 exp(-vcpu / g1) + g2, with coefficients by batch size.

    The distribution between mean and worst case is unknown: latencies use the worst case, and money uses the mean.

    With g0 = 1, g1 = 1 and g2 = 0.5, one vCPU takes 1 / e + 0.5 = 0.868 s, and many vCPUs take 0.5 s:

    >>> model = ExponentialLatency(mean=((1.0, 1.0, 0.5),), worst=((1.0, 1.0, 0.6),))
    >>> table = model.table(Resources(np.array([1.0, 40.0]), np.ones(2), np.zeros(2)), max_batch=1, grain_s=0.1)
    >>> table.mean_s.round(3).tolist(), table.worst_s.round(3).tolist(), table.billed_s.round(3).tolist()
    ([[0.868], [0.5]], [[0.968], [0.6]], [[0.9], [0.5]])

    Attributes:
        mean: (g0, g1, g2) of the mean for a batch of 1, 2, ... items.
        worst: the same for the slowest observed services.
    """

    mean: tuple[tuple[float, float, float], ...]
    worst: tuple[tuple[float, float, float], ...]

    def table(self, resources: Resources, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the table; see `ConfigurationLatency`."""
        mean_s = _exponential(self.mean[:max_batch], resources.vcpu)
        worst_s = np.maximum(mean_s, _exponential(self.worst[:max_batch], resources.vcpu))
        return _one_atom(mean_s, worst_s, rounded_up_s(mean_s, grain_s))


def _exponential(coefficients: tuple[tuple[float, float, float], ...], vcpu: Array) -> Array:
    g0, g1, g2 = np.array(coefficients).T
    return np.asarray(g0 * np.exp(-vcpu[:, None] / g1) + g2)


@dataclass(frozen=True, slots=True)
class SliceLatency:
    """A share of a GPU in time slices; a batch is work of x = slope * batch + constant seconds on the whole card.

    The share is g of G gigabytes. The function runs for a slice of s = g t seconds in every period of P = G t seconds,
    and a batch arrives at a random point of the period. The work needs n = ceil(x / s) slices, the last of which it
    uses for l = x - (n - 1) s seconds. The service time L is

        x + (P - s)(n - 1 + U)   with probability (P - s) / P   (the batch arrives in a pause; U is uniform on (0, 1)),
        x + (P - s) n            with probability l / P         (it arrives in a slice and meets n pauses),
        x + (P - s)(n - 1)       with probability (s - l) / P   (it arrives in a slice and meets n - 1 pauses).

    The bill is E ceil(L), not ceil(E L).

    Two of 4 GB with t = 1 s run for 2 s and then pause for 2 s. Work of 3 s needs n = 2 slices, the last for l = 1 s.
    So L is 3 + 2 (1 + U) with probability 1/2, that is 5 to 7 s, 7 s with probability 1/4 and 5 s with probability 1/4;
    the mean is 6 s:

    >>> model = SliceLatency(slope_s=1.0, constant_s=2.0, slice_s=1.0, card_gb=4.0)
    >>> table = model.table(Resources(np.ones(1), np.ones(1), np.array([2.0])), max_batch=1, grain_s=1.0)
    >>> table.mean_s.tolist(), table.worst_s.tolist()
    ([[6.0]], [[7.0]])
    >>> table.atoms_s[0, 0].tolist()
    [5.0, 5.25, 5.5, 5.75, 6.0, 6.25, 6.5, 6.75, 7.0]
    >>> table.weights[0, 0].tolist()
    [0.25, 0.0625, 0.0625, 0.0625, 0.0625, 0.0625, 0.0625, 0.0625, 0.3125]

    The bill is 5 s for the shortest, 6 or 7 s with equal probability for an arrival in a pause, and 7 s for the
    longest: 5/4 + 6.5/2 + 7/4:

    >>> table.billed_s.tolist()
    [[6.25]]

    Attributes:
        slope_s: seconds an item on the whole card.
        constant_s: seconds a batch on the whole card.
        slice_s: t, seconds of a slice for each GB.
        card_gb: G, memory of the whole card.
        on_gpu: fraction of the work that the GPU does.
        on_cpu: fraction that vCPUs do, in seconds of one vCPU.
        worst_factor: factor on the longest service of a shared card (HarmonyBatch measured 1.2).
        fluid: mean and bill as HarmonyBatch assumes them, G / g times the work, rounded up after averaging. They are
            wrong by -73 to +66 %, and serve to reproduce its figures.
    """

    slope_s: float
    constant_s: float
    slice_s: float
    card_gb: float
    on_gpu: float = 1.0
    on_cpu: float = 0.0
    worst_factor: float = 1.0
    fluid: bool = False

    def table(self, resources: Resources, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the table; see `ConfigurationLatency`."""
        work_s = np.maximum(self.slope_s * np.arange(1, max_batch + 1) + self.constant_s, 1e-9)[None, :]
        share = resources.gpu_gb[:, None]
        rest_s = self.on_cpu * work_s / resources.vcpu[:, None]
        slices = _Slices.of(self.on_gpu * work_s, slice_s=share * self.slice_s, period_s=self.card_gb * self.slice_s)
        whole = np.broadcast_to(share >= self.card_gb, slices.longest_s.shape)
        worst_s = np.where(whole, 1.0, self.worst_factor) * slices.longest_s + rest_s
        if self.fluid:
            mean_s = self.card_gb / share * self.on_gpu * work_s + rest_s
            billed_s = rounded_up_s(mean_s, grain_s)
        else:
            mean_s = slices.mean_s + rest_s
            billed_s = slices.billed_s(rest_s, grain_s)
        atoms_s, weights = slices.atoms()
        return ServiceTable(mean_s, worst_s, atoms_s + rest_s[:, :, None], weights, billed_s)


@dataclass(frozen=True, slots=True, eq=False)
class _Slices:
    """The parts of the distribution of a time-sliced service, each of shape (n, B)."""

    first_s: Array
    """x + (P - s)(n - 1): the service with the smallest number of pauses."""
    pause_s: Array
    """P - s: length of a pause."""
    waiting: Array
    """Probability of an arrival in a pause. The service is then uniform from `first_s` over `pause_s`."""
    short: Array
    """Probability of the smallest number of pauses."""

    @staticmethod
    def of(work_s: Array, *, slice_s: Array, period_s: float) -> "_Slices":
        pauses = np.ceil(work_s / slice_s - 1e-12)
        last_s = work_s - (pauses - 1) * slice_s
        pause_s = np.maximum(period_s - slice_s, 0.0) + 0.0 * work_s
        return _Slices(
            first_s=work_s + pause_s * (pauses - 1),
            pause_s=pause_s,
            waiting=pause_s / period_s,
            short=(slice_s - last_s) / period_s,
        )

    @property
    def longest_s(self) -> Array:
        return self.first_s + self.pause_s

    @property
    def mean_s(self) -> Array:
        long = 1 - self.waiting - self.short
        return self.first_s + self.pause_s * (self.waiting / 2 + long)

    def atoms(self) -> tuple[Array, Array]:
        """Returns atoms and weights: the shortest service, the cells of the uniform part, the longest service."""
        ends = np.concatenate([[0.0], np.arange(1, _CELLS + 1) / _CELLS])
        atoms_s = self.first_s[:, :, None] + self.pause_s[:, :, None] * ends
        weights = np.repeat(self.waiting[:, :, None] / _CELLS, len(ends), axis=2)
        weights[:, :, 0] = self.short
        weights[:, :, -1] += 1 - self.waiting - self.short
        return atoms_s, weights

    def billed_s(self, rest_s: Array, grain_s: float) -> Array:
        """Returns E ceil(L): the two atoms, and the uniform part by integrating the steps of the ceiling function."""
        low = (self.first_s + rest_s) / grain_s
        high = low + self.pause_s / grain_s
        ends = self.short * np.ceil(low - 1e-9) + (1 - self.waiting - self.short) * np.ceil(high - 1e-9)
        span = np.maximum(high - low, 1e-300)
        between = np.where(self.pause_s > 0, (_ceiling_integral(high) - _ceiling_integral(low)) / span, 0.0)
        return np.asarray((ends + self.waiting * between) * grain_s)


def _ceiling_integral(x: Array) -> Array:
    """Returns the integral of ceil from 0 to x."""
    whole = np.floor(x)
    return np.asarray(whole * (whole + 1) / 2 + (x - whole) * (whole + 1))


@dataclass(frozen=True, slots=True)
class PolynomialLatency:
    """A polynomial in the batch size k and the memory m in MB (BATCH).

    Its terms are ordered by degree: 1; k, m; k^2, k m, m^2; k^3, ... A batch of 2 with 1024 MB takes 1 + 0.5 * 2 -
    0.001 * 1024 = 0.976 s with the coefficients (1, 0.5, -0.001):

    >>> model = PolynomialLatency((1.0, 0.5, -0.001))
    >>> table = model.table(Resources(np.ones(1), np.array([1.0]), np.zeros(1)), max_batch=2, grain_s=0.1)
    >>> table.mean_s.round(3).tolist(), table.billed_s.round(3).tolist()
    ([[0.476, 0.976]], [[0.5, 1.0]])

    Attributes:
        coefficients: 3, 6, 10, 15, ... of them; their number gives the degree.
    """

    coefficients: tuple[float, ...]

    def table(self, resources: Resources, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the table; see `ConfigurationLatency`."""
        batch = np.arange(1.0, max_batch + 1)[None, :]
        memory_mb = resources.memory_gb[:, None] * 1024
        seconds: Array = np.zeros((len(resources.memory_gb), max_batch))
        terms = iter(self.coefficients)
        for degree in range(self.degree + 1):
            for power in range(degree + 1):
                seconds = seconds + next(terms) * batch ** (degree - power) * memory_mb**power
        return deterministic(np.maximum(seconds, 1e-9), grain_s=grain_s)

    @property
    def degree(self) -> int:
        """The degree of the polynomial."""
        return int(math.sqrt(2 * len(self.coefficients))) - 1


@dataclass(frozen=True, slots=True)
class TableLatency:
    """Measured medians by configuration and batch size, with a lognormal scatter.

    Attributes:
        seconds: one row for each configuration, in the order of the grid; one column for each batch size from 1.
        sigma: standard deviation of the logarithm of a service time; 0: no scatter.
    """

    seconds: tuple[tuple[float, ...], ...]
    sigma: float = 0.0

    def table(self, resources: Resources, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the table; see `ConfigurationLatency`."""
        medians_s = np.array(self.seconds)[: len(resources.vcpu), :max_batch]
        return deterministic(medians_s, grain_s=grain_s) if self.sigma == 0 else _spread(medians_s, self.sigma, grain_s)


def deterministic(seconds: Array, *, grain_s: float) -> ServiceTable:
    """Returns the table of services that always take the same time; `seconds` has the shape (n, B)."""
    return _one_atom(seconds, seconds, rounded_up_s(seconds, grain_s))


def _one_atom(mean_s: Array, worst_s: Array, billed_s: Array) -> ServiceTable:
    """Returns a distribution of one atom, the worst case. A larger batch never counts as faster: that would be noise of
    a fit.
    """
    worst_s = np.maximum.accumulate(worst_s, axis=1)
    return ServiceTable(mean_s, worst_s, worst_s[:, :, None], np.ones((*worst_s.shape, 1)), billed_s)


def _spread(medians_s: Array, sigma: float, grain_s: float) -> ServiceTable:
    normal = NormalDist()
    factors = np.array([math.exp(sigma * normal.inv_cdf(q)) for q in _TAIL])
    weights = np.diff([0.0, *_TAIL[:-1], 1.0])
    slow_s = np.maximum.accumulate(medians_s, axis=1)
    cells = np.array([math.exp(sigma * normal.inv_cdf((i + 0.5) / _BILL_CELLS)) for i in range(_BILL_CELLS)])
    return ServiceTable(
        mean_s=medians_s * math.exp(sigma**2 / 2),
        worst_s=slow_s * math.exp(sigma * normal.inv_cdf(_WORST_QUANTILE)),
        atoms_s=slow_s[:, :, None] * factors,
        weights=np.broadcast_to(weights, (*medians_s.shape, len(factors))),
        billed_s=rounded_up_s(medians_s[:, :, None] * cells, grain_s).mean(axis=2),
    )

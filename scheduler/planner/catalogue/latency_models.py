"""Latency models of functions: seconds of a batch by its size and by what the function is given.

Every model tabulates all configurations and batch sizes at once: its mean, its worst case, its distribution as a few
atoms (never too short: a continuous piece is cut into cells and each stands for its slow end), and the time billed.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.matrices import Array

_CELLS = 8
"""Cells of the uniform part of a time-sliced service: its atoms are at most an eighth of a slice period too late."""
_TAIL = (0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999)
"""Quantiles at which a lognormal spread is cut; each cell stands for its slow end, the last one for 0.9999."""
_BILL_CELLS = 64
_WORST_QUANTILE = 0.999


@dataclass(frozen=True, slots=True, eq=False)
class Grants:
    """What the configurations of one kind are given, each of shape (n,).

    Attributes:
        vcpu: vCPUs.
        memory_gb: memory, GB (of the smallest batch, where it depends on the batch).
        gpu_gb: GPU memory, GB; 0 without a GPU.
    """

    vcpu: Array
    memory_gb: Array
    gpu_gb: Array


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTable:
    """Service times of n configurations for batches of 1, 2, ... B items.

    Attributes:
        mean_s: shape (n, B).
        worst_s: what never takes longer, or hardly ever (0.999) where a model has no end; shape (n, B).
        atoms_s: the distribution, ascending along the last axis and, as a whole, with the batch; shape (n, B, A).
        weights: probability of each atom; shape (n, B, A), sums to 1.
        billed_s: expected seconds on the bill, rounded up as the provider does; shape (n, B).
    """

    mean_s: Array
    worst_s: Array
    atoms_s: Array
    weights: Array
    billed_s: Array

    def after(self, path_s: Array) -> "ServiceTable":
        """Returns the table with seconds in front of every service, which are not billed.

        Args:
            path_s: seconds by batch size, shape (B,).
        """
        return ServiceTable(
            self.mean_s + path_s, self.worst_s + path_s, self.atoms_s + path_s[:, None], self.weights, self.billed_s
        )

    def with_cold_starts(self, *, probability: float, seconds: float) -> "ServiceTable":
        """Returns the table in which some batches find no warm instance; the cold start itself is not billed.

        Args:
            probability: of a cold start, 0 to 1.
            seconds: how long it takes.
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

    def table(self, grants: Grants, *, max_batch: int, grain_s: float) -> ServiceTable:
        """Returns the services of every configuration for 1 to `max_batch` items, billed in steps of `grain_s`."""
        ...


def rounded_up_s(seconds: Array, grain_s: float) -> Array:
    """Returns durations as they are billed; a billionth of a grain too much is not another grain."""
    return np.ceil(seconds / grain_s - 1e-9) * grain_s


@dataclass(frozen=True, slots=True)
class ExponentialLatency:
    """CPU functions (HarmonyBatch): seconds = g0 exp(-vcpu / g1) + g2, coefficients by batch size.

    Between mean and worst case nothing is known: latency goes by the worst case, money by the mean.

    Attributes:
        mean: (g0, g1, g2) for a batch of 1, 2, ... items.
        worst: the same for the slowest observed.
    """

    mean: tuple[tuple[float, float, float], ...]
    worst: tuple[tuple[float, float, float], ...]

    def table(self, grants: Grants, *, max_batch: int, grain_s: float) -> ServiceTable:
        """See ConfigurationLatency."""
        mean_s = _exponential(self.mean[:max_batch], grants.vcpu)
        worst_s = np.maximum(mean_s, _exponential(self.worst[:max_batch], grants.vcpu))
        return _certain(mean_s, worst_s, rounded_up_s(mean_s, grain_s))


def _exponential(coefficients: tuple[tuple[float, float, float], ...], vcpu: Array) -> Array:
    g0, g1, g2 = np.array(coefficients).T
    return np.asarray(g0 * np.exp(-vcpu[:, None] / g1) + g2)


@dataclass(frozen=True, slots=True)
class SliceLatency:
    """A share of a GPU by time slices: work x = slope * batch + constant seconds on the whole card.

    With share g of G, slice s = g t, period P = G t, random phase, n = ceil(x / s), l = x - (n - 1) s: the service is
    x + (P - s)(n - 1 + U), U uniform on (0, 1), with probability (P - s) / P; x + (P - s) n with probability l / P;
    x + (P - s)(n - 1) with probability (s - l) / P. The bill is E ceil(L), not ceil(E L).

    Attributes:
        slope_s: seconds an item on the whole card.
        constant_s: seconds a batch on the whole card.
        slice_s: t, seconds of a slice for each GB.
        card_gb: G, memory of the whole card.
        on_gpu: fraction of the work that the GPU does.
        on_cpu: fraction that vCPUs do, in so many seconds of one vCPU.
        worst_factor: factor on the longest service of a shared card (HarmonyBatch measured 1.2).
        fluid: bill and mean as HarmonyBatch assumes, G / g times the work, rounded up after averaging. Wrong by
            -73 to +66 %; to reproduce its figures.
    """

    slope_s: float
    constant_s: float
    slice_s: float
    card_gb: float
    on_gpu: float = 1.0
    on_cpu: float = 0.0
    worst_factor: float = 1.0
    fluid: bool = False

    def table(self, grants: Grants, *, max_batch: int, grain_s: float) -> ServiceTable:
        """See ConfigurationLatency."""
        work_s = np.maximum(self.slope_s * np.arange(1, max_batch + 1) + self.constant_s, 1e-9)[None, :]
        share = grants.gpu_gb[:, None]
        rest_s = self.on_cpu * work_s / grants.vcpu[:, None]
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
    """The pieces of the distribution of a time-sliced service, each of shape (n, B)."""

    first_s: Array
    """x + (P - s)(n - 1): without another pause."""
    pause_s: Array
    """P - s."""
    waiting: Array
    """Probability of arriving in a pause: uniform from `first_s` over `pause_s`."""
    short: Array
    """Probability of one pause less."""

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
        """Returns atoms and weights: without another pause, the cells of the pause, its end."""
        ends = np.concatenate([[0.0], np.arange(1, _CELLS + 1) / _CELLS])
        atoms_s = self.first_s[:, :, None] + self.pause_s[:, :, None] * ends
        weights = np.repeat(self.waiting[:, :, None] / _CELLS, len(ends), axis=2)
        weights[:, :, 0] = self.short
        weights[:, :, -1] += 1 - self.waiting - self.short
        return atoms_s, weights

    def billed_s(self, rest_s: Array, grain_s: float) -> Array:
        """Returns E ceil(L): the two atoms, and the uniform piece by integrating the steps of the ceiling."""
        low = (self.first_s + rest_s) / grain_s
        high = low + self.pause_s / grain_s
        ends = self.short * np.ceil(low - 1e-9) + (1 - self.waiting - self.short) * np.ceil(high - 1e-9)
        span = np.maximum(high - low, 1e-300)
        between = np.where(self.pause_s > 0, (_ceiling_integral(high) - _ceiling_integral(low)) / span, 0.0)
        return np.asarray((ends + self.waiting * between) * grain_s)


def _ceiling_integral(x: Array) -> Array:
    """The integral of ceil from 0 to x."""
    whole = np.floor(x)
    return np.asarray(whole * (whole + 1) / 2 + (x - whole) * (whole + 1))


@dataclass(frozen=True, slots=True)
class PolynomialLatency:
    """A polynomial in batch size k and memory m in MB (BATCH): 1; k, m; k^2, km, m^2; k^3, ... by rising degree.

    Attributes:
        coefficients: 3, 6, 10, 15, ... of them; the count says the degree.
    """

    coefficients: tuple[float, ...]

    def table(self, grants: Grants, *, max_batch: int, grain_s: float) -> ServiceTable:
        """See ConfigurationLatency."""
        batch = np.arange(1.0, max_batch + 1)[None, :]
        memory_mb = grants.memory_gb[:, None] * 1024
        seconds = np.zeros((len(grants.memory_gb), max_batch))
        terms = iter(self.coefficients)
        for degree in range(self.degree + 1):
            for power in range(degree + 1):
                seconds = seconds + next(terms) * batch ** (degree - power) * memory_mb**power
        return deterministic(np.maximum(seconds, 1e-9), grain_s=grain_s)

    @property
    def degree(self) -> int:
        """The highest power."""
        return int(math.sqrt(2 * len(self.coefficients))) - 1


@dataclass(frozen=True, slots=True)
class TableLatency:
    """Measured medians by configuration and batch size, with a lognormal spread.

    Attributes:
        seconds: one row for each configuration, in the order of the grid; a column for each batch size from 1.
        sigma: standard deviation of the logarithm of a service time; 0: none.
    """

    seconds: tuple[tuple[float, ...], ...]
    sigma: float = 0.0

    def table(self, grants: Grants, *, max_batch: int, grain_s: float) -> ServiceTable:
        """See ConfigurationLatency."""
        medians_s = np.array(self.seconds)[: len(grants.vcpu), :max_batch]
        return deterministic(medians_s, grain_s=grain_s) if self.sigma == 0 else _spread(medians_s, self.sigma, grain_s)


def deterministic(seconds: Array, *, grain_s: float) -> ServiceTable:
    """Returns the table of services that always take the same time; `seconds` has the shape (n, B)."""
    return _certain(seconds, seconds, rounded_up_s(seconds, grain_s))


def _certain(mean_s: Array, worst_s: Array, billed_s: Array) -> ServiceTable:
    """A distribution of one atom, the worst case. No larger batch counts as faster: only noise of a fit says so."""
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

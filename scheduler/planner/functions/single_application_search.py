"""One application, any Markovian arrival process, one function: configuration x cap x timeout on one grid (BATCH).

The batch distributions of all caps and timeouts come from one table of counts. Lateness is computed for as few
configurations as possible. Where even the longest service is in time no request is late, which gives a cost that others
must stay below. A request that is late on one function is also late on a slower one, so bisection by speed settles the
cheaper points that remain. The optimum is that of the whole grid.

One Poisson request a second with an SLO of 2 s, and a function that takes 0.5 s for one request and 0.6 s for two, at a
price of 1 a second. Timeouts are 0, 0.5, ... 2 s. If no request may be late, the timeout is at most 1.4 s, so 1 s is
the best; with p = 1/e a request costs (0.5 p + 0.6 (1 - p)) / (2 - p) = 0.3451:

>>> from scheduler.planner.catalogue.configurations import Family
>>> from scheduler.planner.catalogue.latency_models import TableLatency
>>> from scheduler.planner.catalogue.prices import PriceSheet
>>> from scheduler.planner.queueing.map_process import poisson_arrivals
>>> one = np.ones(1)
>>> sheet = PriceSheet("s", "CNY", "", "", "", grain_s=1e-9, per_vcpu_s=1.0)
>>> family = Family("cpu", TableLatency(((0.5, 0.6),)), one, np.zeros(1), np.ones((1, 2)), np.array([2.0]))
>>> kinds = [family.tabulated(sheet)]
>>> search = ProcessSearch.of(poisson_arrivals(1.0), kinds, percentile=0.98, step_s=0.5, steps=4)
>>> found = search.cheapest(2.0, worst_case=True)
>>> found.cap, found.timeout_s, round(found.cost, 4)
(2, 1.0, 0.3451)

At a timeout of 1.5 s the first request of a full batch is late if it waits longer than 1.4 s, which happens to (e^-1.4
- e^-1.5) / 1.7769 = 1.3 % of the requests. A request alone takes exactly 2 s, which is the latency at the percentile:

>>> found = search.cheapest(2.0)
>>> found.cap, found.timeout_s, round(found.cost, 4), round(found.latency_s, 3)
(2, 1.5, 0.3251, 2.0)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.queueing.map_batching import buffer_distribution
from scheduler.planner.queueing.map_batching_grid import BufferGrid, buffer_grid
from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, Mask, product

TIMEOUTS = 100
"""Timeouts by default: 0, 1/100, ... 1 of the SLO. On 10 random bursty processes (profile of scripts/planner_figures)
plans cost 0.23 % more with 50 timeouts and 0.22 % less with 200; the latter take 0.019 instead of 0.012 s."""
_TOLERANCE = 1e-9
"""Tolerance on a fraction of requests in time: the distributions are exact to about 1e-10."""
_BISECTIONS = 3
"""Bisections of a latency that are computed at once: a call takes as long for seven latencies as for one."""


@dataclass(frozen=True, slots=True)
class ProcessChoice:
    """A function for one application.

    Attributes:
        cost: expected money a request.
        family: number of its kind among those searched.
        index: number of the configuration within the kind.
        cap: size at which a batch leaves at once.
        timeout_s: longest wait of the first request.
        mean_size: mean requests in a batch.
        latency_s: latency at the percentile.
    """

    cost: float
    family: int
    index: int
    cap: int
    timeout_s: float
    mean_size: float
    latency_s: float


@dataclass(frozen=True, slots=True, eq=False)
class ProcessSearch:
    """The grid of one application.

    Attributes:
        process: its arrivals.
        families: configurations to choose from.
        percentile: fraction of the requests that must meet the SLO.
        grid: the batch distributions.
        costs: money a request by kind, each of shape (timeouts, n, B); infinite where a cap is not allowed.
    """

    process: MarkovianArrivals
    families: tuple[Configurations, ...]
    percentile: float
    grid: BufferGrid
    costs: tuple[Array, ...]

    @staticmethod
    def of(
        process: MarkovianArrivals,
        families: Sequence[Configurations],
        *,
        percentile: float,
        step_s: float,
        steps: int = TIMEOUTS,
    ) -> "ProcessSearch":
        """Computes the cost of every point of the grid.

        Args:
            process: the arrivals.
            families: configurations to choose from.
            percentile: fraction of the requests that must meet the SLO.
            step_s: distance of two timeouts.
            steps: number of timeouts above 0.
        """
        caps = max(family.max_batch for family in families)
        grid = buffer_grid(process, max_batch=caps, step_s=step_s, steps=steps)
        sizes = [grid.sizes(cap) for cap in range(1, caps + 1)]
        costs = tuple(_costs(grid, sizes, family) for family in families)
        return ProcessSearch(process, tuple(families), percentile, grid, costs)

    def cheapest(self, slo_s: float, *, worst_case: bool = False) -> ProcessChoice | None:
        """Returns the cheapest point that keeps the percentile within the SLO; None if none does.

        Args:
            slo_s: the SLO.
            worst_case: whether no request may ever be late; the timeout is then at most slo - L_max(cap).
        """
        best: tuple[float, int, int, int, int] | None = None
        # The kind that might be cheapest comes first: then the others often have no point that costs less.
        least = [float(costs.min()) for costs in self.costs]
        for number in sorted(range(len(least)), key=lambda kind: least[kind]):
            below = best[0] if best else math.inf
            if not least[number] < below:
                break
            feasibility = _Feasibility(self, number, slo_s)
            found = feasibility.cheapest_never_late() if worst_case else feasibility.cheapest(below)
            if found is not None and found[0] < below:
                best = (found[0], number, *found[1:])
        return None if best is None else self._choice(*best)

    def fastest(self, budget: float, *, slo_s: float = math.inf) -> ProcessChoice | None:
        """Returns the point with the lowest latency at the percentile that costs at most `budget`; None if none does.

        Args:
            budget: money a request.
            slo_s: a latency that must not be exceeded either.
        """
        longest_s = float(self.grid.timeouts_s[-1]) + max(float(f.services.worst_s.max()) for f in self.families)
        low_s, high_s = 0.0, min(slo_s, longest_s * 2)
        allowed = [np.where(costs <= budget * (1 + 1e-12), costs, np.inf) for costs in self.costs]
        affordable = ProcessSearch(self.process, self.families, self.percentile, self.grid, tuple(allowed))
        found = affordable.cheapest(high_s)
        while found is not None and high_s - low_s > 1e-4 * high_s:
            middle_s = (low_s + high_s) / 2
            better = affordable.cheapest(middle_s)
            found, low_s, high_s = (found, middle_s, high_s) if better is None else (better, low_s, middle_s)
        return found

    def _choice(self, cost: float, number: int, cap: int, timeout: int, index: int) -> ProcessChoice:
        services = self.families[number].services
        timeout_s = float(self.grid.timeouts_s[timeout])
        distribution = buffer_distribution(self.process, max_batch=cap + 1, timeout_s=timeout_s)
        atoms_s, weights = services.atoms_s[index, : cap + 1], services.weights[index, : cap + 1]

        def within(latencies_s: Array) -> Array:
            waits_s = latencies_s[:, None] - atoms_s[:, None, :]
            fractions = distribution.within(waits_s.reshape(cap + 1, -1)).reshape(waits_s.shape)
            return np.asarray((fractions * weights[:, None, :]).sum(axis=(0, 2)))

        latency_s = quantile_s(within, self.percentile, longest_s=timeout_s + float(atoms_s.max()))
        mean_size = float(self.grid.mean_sizes[timeout, cap])
        return ProcessChoice(cost, number, index, cap + 1, timeout_s, mean_size, latency_s)


def quantile_s(within: Callable[[Array], Array], percentile: float, *, longest_s: float) -> float:
    """Returns the least latency that a fraction `percentile` of the requests keeps, from above within 0.1 ms.

    Args:
        within: returns the fraction of requests within some latencies, shape (n,) both.
        percentile: between 0 and 1.
        longest_s: the longest latency.
    """
    low_s, high_s = 0.0, longest_s
    left = math.ceil(math.log2(max(longest_s / 1e-4, 1.0)))
    while left > 0:
        bisections = min(left, _BISECTIONS)
        ends_s = np.linspace(low_s, high_s, 2**bisections + 1, dtype=np.float64)
        # One more than the latencies between that are too short; if all are, the end of the interval is long enough.
        first = 1 + int((within(ends_s[1:-1]) < percentile - _TOLERANCE).sum())
        low_s, high_s, left = float(ends_s[first - 1]), float(ends_s[first]), left - bisections
    return high_s


def _costs(grid: BufferGrid, sizes: Sequence[Array], family: Configurations) -> Array:
    """Returns the cost per request of every timeout, configuration and cap of a kind, shape (timeouts, n, B)."""
    costs = np.empty((family.max_batch, len(grid.timeouts_s), len(family.vcpu)))
    for cap in range(1, family.max_batch + 1):
        # The fee counts as the price of one more size, and all prices are divided beforehand: one product is enough.
        shares = np.ones((len(grid.timeouts_s), cap + 1))
        shares[:, :cap] = sizes[cap - 1]
        shares /= grid.mean_sizes[:, cap - 1, None]
        prices = np.full((cap + 1, len(family.vcpu)), family.per_call)
        np.multiply(family.services.billed_s[:, :cap].T, family.per_s[:, cap - 1], out=prices[:cap])
        product(shares, prices, out=costs[cap - 1])
        np.copyto(costs[cap - 1], np.inf, where=~family.allowed[:, cap - 1])
    return np.asarray(costs.transpose(1, 2, 0))


_Point = tuple[float, int, int, int]
"""Cost, cap (from 0), timeout and configuration."""


class _Feasibility:
    """Which points of one kind keep the percentile, as far as known, by cap, timeout and configuration."""

    def __init__(self, search: ProcessSearch, number: int, slo_s: float) -> None:
        self._search = search
        self._slo_s = slo_s
        self._costs = search.costs[number].transpose(2, 0, 1)
        services = self._services = search.families[number].services
        # No smaller batch takes longer than the longest service of all batches up to the cap.
        self._in_time = self._within_slo(np.maximum.accumulate(services.atoms_s[:, :, -1], axis=1))
        # A request that is too late alone and at once is not helped by waiting for others.
        alone = reached(services.atoms_s[:, 0], services.weights[:, 0], np.array([[slo_s]]))[:, 0]
        self._open = ~self._in_time & (alone >= search.percentile - _TOLERANCE)

    def cheapest_never_late(self) -> _Point | None:
        """Returns the cheapest point at which no request is ever late, by the worst case; None if there is none."""
        return self._cheapest(self._within_slo(self._services.worst_s))

    def cheapest(self, below: float) -> _Point | None:
        """Returns the cheapest point that keeps the percentile and costs less than `below`; None if there is none."""
        while True:
            best = self._cheapest(self._in_time)
            self._open &= self._costs < min(below, best[0] if best else math.inf)
            if not self._open.any():
                return best if best and best[0] < below else None
            self._settle_median()

    def _within_slo(self, services_s: Array) -> Mask:
        """Returns where the timeout and the service of a full batch, shape (n, B), together are within the SLO."""
        left_s = self._slo_s - self._search.grid.timeouts_s
        return np.asarray(services_s.T[:, None, :] <= left_s[:, None] + 1e-12)

    def _cheapest(self, among: Mask) -> _Point | None:
        costs = np.where(among, self._costs, np.inf)
        place = int(np.argmin(costs))
        if not np.isfinite(costs.flat[place]):
            return None
        cap, timeout, index = (int(x) for x in np.unravel_index(place, costs.shape))
        return float(costs.flat[place]), cap, timeout, index

    def _settle_median(self) -> None:
        """Settles the configuration of median speed among those with open points, and what follows for the others."""
        services = self._services
        rows = np.flatnonzero(self._open.any(axis=(0, 1)))
        speed = services.mean_s[rows].sum(axis=1)
        tested = int(np.argsort(speed, kind="stable")[len(rows) // 2])
        caps = np.flatnonzero(self._open[:, :, rows[tested]].any(axis=1)) + 1
        atoms_s, weights = services.atoms_s[rows], services.weights[rows]
        within = self._search.grid.mixed_within(self._slo_s, atoms_s[tested], weights[tested], caps=caps)
        in_time = within >= self._search.percentile - _TOLERANCE
        slower, faster = _compared(atoms_s, weights, tested)
        for at, cap in enumerate(caps.tolist()):
            settled = in_time[:, at, None] & faster[:, :cap].all(axis=1)
            late = ~in_time[:, at, None] & slower[:, :cap].all(axis=1)
            self._in_time[cap - 1][:, rows] |= settled & self._open[cap - 1][:, rows]
            self._open[cap - 1][:, rows] &= ~(settled | late)


def reached(atoms_s: Array, weights: Array, times_s: Array) -> Array:
    """Returns the probability of a service of at most a given time, shape (..., K).

    Args:
        atoms_s: services, shape (..., A).
        weights: probability of each, shape (..., A).
        times_s: times, shape (..., K).
    """
    return np.asarray((weights[..., None, :] * (atoms_s[..., None, :] <= times_s[..., :, None])).sum(axis=-1))


def _compared(atoms_s: Array, weights: Array, tested: int) -> tuple[Mask, Mask]:
    """Returns which configurations are slower, and which are faster, than one at each batch size, shape (n, B)."""
    ours_s, ours = atoms_s[tested], weights[tested]
    at_theirs = reached(ours_s[None], ours[None], atoms_s)
    slower = (reached(atoms_s, weights, atoms_s) <= at_theirs + _TOLERANCE).all(axis=2)
    at_ours = reached(atoms_s, weights, np.broadcast_to(ours_s, atoms_s.shape))
    faster = (at_ours >= reached(ours_s, ours, ours_s)[None] - _TOLERANCE).all(axis=2)
    return np.asarray(slower), np.asarray(faster)

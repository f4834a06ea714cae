"""One application, any Markovian arrival process, one function: configuration x cap x timeout on one grid (BATCH).

The batch law of every cap and timeout comes from one table of counts. Which of them keep the percentile is asked for
as few configurations as needed: who is late on a function is later still on a slower one, so that a search by halves
settles them all; the optimum is that of the whole grid.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.arrivals import MarkovianArrivals
from scheduler.planner.buffer_grid import BufferGrid, buffer_grid
from scheduler.planner.buffers import buffer_law
from scheduler.planner.configurations import Configurations
from scheduler.planner.latency_laws import Array

TIMEOUTS = 100
"""Timeouts are 0, 1/100, ... 1 of the SLO, if nothing else is asked for."""
_TOLERANCE = 1e-9
_UNKNOWN, _IN_TIME, _LATE = 0, 1, -1
_States = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class ProcessChoice:
    """A function for one application.

    Parameters:
        cost: money a request.
        family: which of the searched kinds.
        index: which configuration of it.
        cap: size at which a batch leaves at once.
        timeout_s: longest that its first request waits.
        mean_size: requests in a batch.
        latency_s: at the percentile.
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

    Parameters:
        process: its arrivals.
        families: configurations to choose from.
        percentile: which shall be within the SLO.
        grid: the batch laws.
        costs: money a request of every kind, each of shape (timeouts, n, B); infinite where not allowed.
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
        """Works out what every point of the grid costs.

        Parameters:
            process: the arrivals.
            families: configurations to choose from.
            percentile: which shall be within the SLO.
            step_s: distance of two timeouts.
            steps: how many; timeout 0 comes besides.
        """
        caps = max(family.max_batch for family in families)
        grid = buffer_grid(process, max_batch=caps, step_s=step_s, steps=steps)
        sizes = [grid.sizes(cap) for cap in range(1, caps + 1)]
        costs = tuple(_costs(grid, sizes, family) for family in families)
        return ProcessSearch(process, tuple(families), percentile, grid, costs)

    def cheapest(self, slo_s: float, *, worst_case: bool = False) -> ProcessChoice | None:
        """Returns the cheapest point that keeps the percentile within the SLO; None if none does.

        Parameters:
            slo_s: the SLO.
            worst_case: nobody may ever be late, and so the timeout is at most slo - L_max(cap).
        """
        best: tuple[float, int, int, int, int] | None = None
        for number, family in enumerate(self.families):
            below = best[0] if best else math.inf
            late = _Certainty(self, number, slo_s) if not worst_case else None
            found = late.cheapest(below) if late else self._cheapest_certain(family, number, slo_s)
            if found is not None and found[0] < below:
                best = (found[0], number, *found[1:])
        return None if best is None else self._choice(*best)

    def fastest(self, budget: float, *, slo_s: float = math.inf) -> ProcessChoice | None:
        """Returns the point with the lowest latency at the percentile that costs at most `budget`; None if none does.

        Parameters:
            budget: money a request.
            slo_s: a latency that may not be exceeded besides.
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

    def _cheapest_certain(
        self, family: Configurations, number: int, slo_s: float
    ) -> tuple[float, int, int, int] | None:
        in_time = self.grid.timeouts_s[:, None, None] + family.services.worst_s <= slo_s + 1e-12
        costs = np.where(in_time, self.costs[number], np.inf)
        place = int(np.argmin(costs))
        if not np.isfinite(costs.flat[place]):
            return None
        timeout, index, cap = (int(x) for x in np.unravel_index(place, costs.shape))
        return float(costs.flat[place]), timeout, index, cap

    def _choice(self, cost: float, number: int, timeout: int, index: int, cap: int) -> ProcessChoice:
        services = self.families[number].services
        timeout_s = float(self.grid.timeouts_s[timeout])
        law = buffer_law(self.process, max_batch=cap + 1, timeout_s=timeout_s)
        atoms_s, weights = services.atoms_s[index, : cap + 1], services.weights[index, : cap + 1]

        def within(latency_s: float) -> float:
            return float((law.within(latency_s - atoms_s) * weights).sum())

        latency_s = quantile_s(within, self.percentile, longest_s=timeout_s + float(atoms_s.max()))
        mean_size = float(self.grid.mean_sizes[timeout, cap])
        return ProcessChoice(cost, number, index, cap + 1, timeout_s, mean_size, latency_s)


def quantile_s(within: Callable[[float], float], percentile: float, *, longest_s: float) -> float:
    """Returns the least latency, to 0.1 ms from above, that a fraction `percentile` of the requests stays within.

    Parameters:
        within: fraction of requests within a latency.
        percentile: between 0 and 1.
        longest_s: the longest latency.
    """
    low_s, high_s = 0.0, longest_s
    while high_s - low_s > 1e-4:
        middle_s = (low_s + high_s) / 2
        if within(middle_s) >= percentile - _TOLERANCE:
            high_s = middle_s
        else:
            low_s = middle_s
    return high_s


def _costs(grid: BufferGrid, sizes: Sequence[Array], family: Configurations) -> Array:
    """Cost per request of every timeout, configuration and cap of a kind, shape (timeouts, n, B)."""
    costs = np.empty((len(grid.timeouts_s), len(family.vcpu), family.max_batch))
    for cap in range(1, family.max_batch + 1):
        spent_s = sizes[cap - 1] @ family.services.billed_s[:, :cap].T
        paid = family.per_s[:, cap - 1] * spent_s + family.per_call
        costs[:, :, cap - 1] = paid / grid.mean_sizes[:, cap - 1, None]
    return np.where(family.allowed, costs, np.inf)


class _Certainty:
    """What is known of who is late among the configurations of one kind."""

    def __init__(self, search: ProcessSearch, number: int, slo_s: float) -> None:
        self._search = search
        self._slo_s = slo_s
        self._costs = search.costs[number]
        self._services = search.families[number].services
        self._known: _States = np.zeros(self._costs.shape, dtype=np.int8)

    def cheapest(self, below: float) -> tuple[float, int, int, int] | None:
        """Returns cost, timeout, configuration and cap (from 0) of the cheapest point in time, None if none is."""
        # Alone and at once too late: then waiting for others does not help.
        alone = reached(self._services.atoms_s[:, 0], self._services.weights[:, 0], np.array([[self._slo_s]]))[:, 0]
        self._known[:, alone < self._search.percentile - _TOLERANCE] = _LATE
        while True:
            sure = np.where(self._known == _IN_TIME, self._costs, np.inf)
            place = int(np.argmin(sure))
            best = min(below, float(sure.flat[place]))
            open_points = (self._known == _UNKNOWN) & (self._costs < best)
            if not open_points.any():
                if not sure.flat[place] < below:
                    return None
                timeout, index, cap = (int(x) for x in np.unravel_index(place, sure.shape))
                return float(sure.flat[place]), timeout, index, cap
            self._ask(open_points)

    def _ask(self, open_points: npt.NDArray[np.bool_]) -> None:
        """Settles the configuration of median speed among those with open points, and what follows for the others."""
        services = self._services
        rows = np.flatnonzero(open_points.any(axis=(0, 2)))
        speed = services.mean_s[rows].sum(axis=1)
        asked = int(rows[np.argsort(speed, kind="stable")[len(rows) // 2]])
        caps = np.flatnonzero(open_points[:, asked].any(axis=0)) + 1
        atoms_s, weights = services.atoms_s[asked], services.weights[asked]
        within = self._search.grid.mixed_within(self._slo_s, atoms_s, weights, caps=caps)
        in_time = within >= self._search.percentile - _TOLERANCE
        slower, faster = _compared(services.atoms_s, services.weights, asked)
        for at, cap in enumerate(caps.tolist()):
            state = self._known[:, :, cap - 1]
            state[np.ix_(~in_time[:, at], slower[:, :cap].all(axis=1))] = _LATE
            state[np.ix_(in_time[:, at], faster[:, :cap].all(axis=1))] = _IN_TIME


def reached(atoms_s: Array, weights: Array, times_s: Array) -> Array:
    """Returns the probability of a service of at most so long, shape (..., K).

    Parameters:
        atoms_s: services, shape (..., A).
        weights: probability of each, shape (..., A).
        times_s: how long, shape (..., K).
    """
    return np.asarray((weights[..., None, :] * (atoms_s[..., None, :] <= times_s[..., :, None])).sum(axis=-1))


def _compared(atoms_s: Array, weights: Array, asked: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Which configurations are slower, and which are faster, than one, as distributions by batch size, shape (n, B)."""
    ours_s, ours = atoms_s[asked], weights[asked]
    at_theirs = reached(ours_s[None], ours[None], atoms_s)
    slower = (reached(atoms_s, weights, atoms_s) <= at_theirs + _TOLERANCE).all(axis=2)
    at_ours = reached(atoms_s, weights, np.broadcast_to(ours_s, atoms_s.shape))
    faster = (at_ours >= reached(ours_s, ours, ours_s)[None] - _TOLERANCE).all(axis=2)
    return np.asarray(slower), np.asarray(faster)

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
_CELLS = 20
"""Equally likely services that stand for a distribution, each at its slow end."""
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
        self._services_s = _equally_likely(search.families[number])
        self._known: _States = np.zeros(self._costs.shape, dtype=np.int8)
        # Alone and at once too late: then waiting for others does not help.
        alone = (self._services_s[:, :, 0] <= slo_s).mean(axis=1) < search.percentile - _TOLERANCE
        self._known[:, alone] = _LATE

    def cheapest(self, below: float) -> tuple[float, int, int, int] | None:
        """Returns cost, timeout, configuration and cap (from 0) of the cheapest point in time, None if none is."""
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
        rows = np.flatnonzero(open_points.any(axis=(0, 2)))
        speed = self._services_s[rows].sum(axis=(1, 2))
        asked = int(rows[np.argsort(speed, kind="stable")[len(rows) // 2]])
        caps = np.flatnonzero(open_points[:, asked].any(axis=0))
        grid, services_s = self._search.grid, self._services_s[asked]
        largest = grid.max_batch
        within = np.mean(
            [grid.latency_within(self._slo_s, _padded(one, largest), caps=(caps + 1).tolist()) for one in services_s],
            axis=0,
        )
        in_time = within >= self._search.percentile - _TOLERANCE
        for at, cap in enumerate(caps.tolist()):
            ours = services_s[:, : cap + 1]
            theirs = self._services_s[:, :, : cap + 1]
            slower = (theirs >= ours).all(axis=(1, 2))
            faster = (theirs <= ours).all(axis=(1, 2))
            state = self._known[:, :, cap]
            state[np.ix_(~in_time[:, at], slower)] = _LATE
            state[np.ix_(in_time[:, at], faster)] = _IN_TIME


def _padded(services_s: Array, width: int) -> list[float]:
    return [float(x) for x in np.pad(services_s, (0, width - len(services_s)), mode="edge")]


def _equally_likely(family: Configurations) -> Array:
    """Services as equally likely tables, each cell at its slow end, shape (n, Q, B)."""
    atoms_s, weights = family.services.atoms_s, family.services.weights
    if atoms_s.shape[2] == 1:
        return np.swapaxes(atoms_s, 1, 2)
    reached = np.cumsum(weights, axis=2)
    cells = [
        np.take_along_axis(
            atoms_s, np.minimum((reached < q - 1e-9).sum(axis=2), atoms_s.shape[2] - 1)[:, :, None], axis=2
        )[:, :, 0]
        for q in (np.arange(_CELLS) + 1) / _CELLS
    ]
    return np.stack(cells, axis=1)

"""The cheapest function for applications that share a buffer: configuration x cap x timeouts, optimal on its grid.

`worst-case` gives every application the timeout slo - L_max(cap), as HarmonyBatch does: nobody is ever late.
`percentile` tries reserves between nothing and the strictest SLO and asks the exact law whether every application's
percentile holds; the worst-case plan is among its candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.configurations import Configurations
from scheduler.planner.latency_laws import Array
from scheduler.planner.lateness import SharedWaits, StrictestLateness
from scheduler.planner.poisson_tails import Indices
from scheduler.planner.shared_buffers import SharedBuffer, SizeLaw

RESERVES = 32
"""The `percentile` objective tries reserves of 1/32, 2/32, ... of the strictest SLO."""
_FIRST_CHUNK = 12


@dataclass(frozen=True, slots=True)
class Choice:
    """A function for a buffer, and what it leads to.

    Parameters:
        cost: money a request.
        family: which of the searched kinds.
        index: which configuration of it.
        cap: size at which a batch leaves at once.
        reserve_s: an application's timeout is its SLO less this.
    """

    cost: float
    family: int
    index: int
    cap: int
    reserve_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """All pairs of configuration and cap, flat, with what a bound on their cost needs; see `space_of`.

    Parameters:
        families: the configurations by kind.
        family: of each pair, shape (M,).
        index: configuration within its family.
        row: configuration over all families.
        cap: largest batch.
        worst_s: longest service of a batch of up to `cap`.
        per_s: money a second.
        per_call: money a call.
        hull_s: lower convex hull of the seconds billed by batch size, a row for each configuration, shape (N, B).
        least: cheapest request of any batch size up to 1 ... B on that hull, shape (M, B).
    """

    families: tuple[Configurations, ...]
    family: Indices
    index: Indices
    row: Indices
    cap: Indices
    worst_s: Array
    per_s: Array
    per_call: Array
    hull_s: Array
    least: Array

    @property
    def max_batch(self) -> int:
        """The largest cap."""
        return int(self.hull_s.shape[1])

    def cost_bounds(self, mean_sizes: Array, which: Indices) -> Array:
        """Returns costs per request below which no batch law with at most such mean sizes comes.

        E[C(b)] / E[b] is at least h(m) / m for some m up to the mean size, h the lower convex hull of C (Jensen).

        Parameters:
            mean_sizes: upper bounds on E[b], shape (..., len(which)).
            which: pairs, shape (K,).
        """
        sizes = np.clip(mean_sizes, 1.0, self.cap[which])
        whole = np.minimum(sizes.astype(np.int64), self.max_batch - 1) if self.max_batch > 1 else sizes.astype(np.int64)
        part = sizes - whole
        rows = self.row[which]
        low_s, high_s = self.hull_s[rows, whole - 1], self.hull_s[rows, np.minimum(whole, self.max_batch - 1)]
        there = (self.per_s[which] * (low_s + (high_s - low_s) * part) + self.per_call[which]) / sizes
        return np.asarray(np.minimum(there, self.least[which, whole - 1]))


def space_of(families: Sequence[Configurations]) -> Space:
    """Returns the pairs of the configurations' kinds."""
    max_batch = max(family.max_batch for family in families)
    offsets = np.cumsum([0, *(len(family.vcpu) for family in families)])
    billed_s = np.concatenate([_padded(family.services.billed_s, max_batch) for family in families])
    hull_s = _lower_hull(billed_s)
    parts = []
    for number, family in enumerate(families):
        index, cap = np.nonzero(family.allowed)
        worst_s = np.maximum.accumulate(family.services.worst_s, axis=1)[index, cap]
        kind = np.full(len(index), number)
        fee = np.full(len(index), family.per_call)
        parts.append((kind, index, index + offsets[number], cap + 1, worst_s, family.per_s[index, cap], fee))
    kind, index, row, cap, worst_s, per_s, fee = (np.concatenate(column) for column in zip(*parts, strict=True))
    by_size = (per_s[:, None] * hull_s[row] + fee[:, None]) / np.arange(1, max_batch + 1)
    least = np.minimum.accumulate(by_size, axis=1)
    return Space(tuple(families), kind, index, row, cap, worst_s, per_s, fee, hull_s, least)


def _padded(values: Array, width: int) -> Array:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), mode="edge")


def _lower_hull(values: Array) -> Array:
    """Lower convex hull of each row at 1 ... B: along the smallest slope to any later point, again and again."""
    hull = values.copy()
    width = values.shape[1]
    for at in range(width - 1):
        slopes = (values[:, at + 1 :] - hull[:, at : at + 1]) / np.arange(1, width - at)
        hull[:, at + 1] = hull[:, at] + slopes.min(axis=1)
    return hull


def worst_case(space: Space, buffer: SharedBuffer, *, below: float = math.inf) -> Choice | None:
    """Returns the cheapest choice with timeouts slo - L_max(cap); None if none is in time and cheaper than `below`.

    Parameters:
        space: the pairs to choose from.
        buffer: the applications that share the buffer.
        below: a cost per request that others reach already.
    """
    which = np.flatnonzero(space.worst_s <= buffer.strictest_s)
    shortest_s = buffer.strictest_s - space.worst_s[which]
    bounds = space.cost_bounds(1 + buffer.rate_rps * (shortest_s + buffer.open_beyond_s()), which)
    order = which[np.argsort(bounds, kind="stable")]
    bounds = np.sort(bounds)
    best: Choice | None = None
    start, count = 0, _FIRST_CHUNK
    while start < len(order) and bounds[start] < below:
        chunk = order[start : start + count]
        costs = _costs(space, buffer, chunk)
        cheapest = int(np.argmin(costs))
        if costs[cheapest] < below:
            pair = int(chunk[cheapest])
            below = float(costs[cheapest])
            best = _choice(space, pair, below, float(space.worst_s[pair]))
        start, count = start + count, count * 2
    return best


def _choice(space: Space, pair: int, cost: float, reserve_s: float) -> Choice:
    return Choice(cost, int(space.family[pair]), int(space.index[pair]), int(space.cap[pair]), reserve_s)


def _costs(space: Space, buffer: SharedBuffer, pairs: Indices) -> Array:
    """Exact cost per request of some pairs in the worst case, shape (len(pairs),)."""
    caps = space.cap[pairs]
    law = buffer.size_law(space.worst_s[pairs], max_batch=int(caps.max()))
    here = np.arange(len(pairs))
    below = np.where(np.arange(1, int(caps.max()))[None, :] < caps[:, None], law.below, 0.0)
    full = law.reached()[here, caps - 1]
    billed_s = np.stack([_billed_s(space, pair, int(caps.max())) for pair in pairs])
    spent_s = (below * billed_s[:, :-1]).sum(axis=1) + full * billed_s[here, caps - 1]
    sizes = (below * np.arange(1, int(caps.max()))).sum(axis=1) + full * caps
    return np.asarray((space.per_s[pairs] * spent_s + space.per_call[pairs]) / sizes)


def _billed_s(space: Space, pair: int, width: int) -> Array:
    family = space.families[int(space.family[pair])]
    row = family.services.billed_s[int(space.index[pair])]
    return np.asarray(np.pad(row, (0, max(0, width - len(row))), mode="edge")[:width])


def percentile(
    space: Space, buffer: SharedBuffer, percentiles: Array, *, below: float = math.inf, reserves_s: Array | None = None
) -> Choice | None:
    """Returns the cheapest choice whose percentiles hold for every application; None if none is cheaper than `below`.

    Parameters:
        space: the pairs to choose from.
        buffer: the applications that share the buffer.
        percentiles: of each application, shape (n,), in the buffer's order.
        below: a cost per request that others reach already.
        reserves_s: what to try instead of the usual grid, each at most the strictest SLO.
    """
    best = worst_case(space, buffer, below=below)
    below = best.cost if best else below
    if reserves_s is None:
        reserves_s = buffer.strictest_s * np.arange(1, RESERVES + 1) / RESERVES
    law = buffer.size_law(reserves_s, max_batch=space.max_batch)
    for number in range(len(space.families)):
        found = _FamilySearch(space, number, buffer, law, percentiles).cheaper_than(below)
        if found is not None:
            best, below = found, found.cost
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _FamilySearch:
    """The `percentile` objective over one kind of function."""

    space: Space
    number: int
    buffer: SharedBuffer
    law: SizeLaw
    percentiles: Array

    def cheaper_than(self, below: float) -> Choice | None:
        family = self.space.families[self.number]
        costs = self._costs(family)
        promising = costs < below
        rows = np.flatnonzero(promising.any(axis=(0, 2)))
        if len(rows) == 0:
            return None
        costs = costs[:, rows]
        services = family.services
        strictest = StrictestLateness.of(self.buffer, self.law, services.atoms_s[rows], services.weights[rows])
        best: Choice | None = None
        cheapest = costs.min(axis=(1, 2))
        for reserve in np.argsort(cheapest, kind="stable"):
            if cheapest[reserve] >= below:
                break
            late = strictest.fractions(int(reserve)) > 1 - self.percentiles[0] + 1e-12
            candidates = np.where(late, np.inf, costs[reserve])
            found = self._first_in_time(candidates, rows, int(reserve), below)
            if found is not None:
                best, below = found, found.cost
        return best

    def _costs(self, family: Configurations) -> Array:
        """Cost per request of every reserve, configuration and cap, shape (R, n, B); infinite where not allowed."""
        caps = family.max_batch
        law = SizeLaw(self.law.reserves_s, self.law.below[:, : caps - 1], self.law.waiting[:, :caps])
        spent_s = law.averaged(family.services.billed_s)
        costs = (family.per_s * spent_s + family.per_call) / law.mean_sizes()[:, None, :]
        return np.where(family.allowed, costs, np.inf)

    def _first_in_time(self, costs: Array, rows: Indices, reserve: int, below: float) -> Choice | None:
        """The cheapest candidate whose other applications are in time as well."""
        flat = costs.ravel()
        waits: SharedWaits | None = None
        for position in np.argsort(flat, kind="stable"):
            if flat[position] >= below:
                return None
            row, cap = divmod(int(position), costs.shape[1])
            if len(self.percentiles) > 1:
                waits = waits or SharedWaits.of(self.buffer, self.law, reserve)
                if not self._holds(waits, int(rows[row]), cap + 1):
                    continue
            reserve_s = float(self.law.reserves_s[reserve])
            return Choice(float(flat[position]), self.number, int(rows[row]), cap + 1, reserve_s)
        return None

    def _holds(self, waits: SharedWaits, index: int, cap: int) -> bool:
        services = self.space.families[self.number].services
        late = waits.late(self.buffer.slos_s, services.atoms_s[index, :cap], services.weights[index, :cap])
        return bool((late <= 1 - self.percentiles + 1e-12).all())

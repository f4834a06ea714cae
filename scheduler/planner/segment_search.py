"""The cheapest function for applications that share a buffer: configuration x cap x timeouts, optimal on its grid.

`worst-case` gives every application the timeout slo - L_max(cap), as HarmonyBatch does: nobody is ever late.
`percentile` tries reserves up to the strictest SLO and asks the exact law whether every application's percentile
holds; the worst-case plan is among its candidates. A reserve is never below the shortest service of a single request:
beyond it, whoever stays alone until the timeout is late for certain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.configurations import Configurations
from scheduler.planner.latency_laws import Array
from scheduler.planner.lateness import SharedWaits, StrictestLateness
from scheduler.planner.poisson_tails import Indices
from scheduler.planner.shared_buffers import SharedBuffer, SizeLaw

Mask = npt.NDArray[np.bool_]

RESERVES = 32
"""The `percentile` objective tries reserves of 1/32, 2/32, ... of the strictest SLO, if not told otherwise."""
_TOO_MANY = 600
"""Pairs for which it takes longer to rule out reserves than to try them."""
_FIRST_CHUNK = 12
_TOLERANCE = 1e-12
"""Rounding must not fail a plan in which nobody is late."""


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
        least_s: the least reserve that `percentile` may try, see `space_of`.
        cautious: whether that is the shortest service of a full batch.
        per_s: money a second.
        per_call: money a call.
        billed_s: expected seconds billed by batch size, a row for each configuration, shape (N, B).
        hull_s: their lower convex hull, shape (N, B).
        least: cheapest request of any batch size up to 1 ... B on that hull, shape (M, B).
        floor: cheapest request of any size up to the cap, shape (M,).
    """

    families: tuple[Configurations, ...]
    family: Indices
    index: Indices
    row: Indices
    cap: Indices
    worst_s: Array
    least_s: Array
    cautious: bool
    per_s: Array
    per_call: Array
    billed_s: Array
    hull_s: Array
    least: Array
    floor: Array

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
        sizes = np.minimum(np.maximum(mean_sizes, 1.0), self.cap[which])
        whole = sizes.astype(np.int64)
        part = sizes - whole
        width = self.max_batch
        at = self.row[which] * width - 1 + whole
        low_s, high_s = self.hull_s.take(at), self.hull_s.take(at + (whole < width))
        there = (self.per_s[which] * (low_s + (high_s - low_s) * part) + self.per_call[which]) / sizes
        return np.asarray(np.minimum(there, self.least.take(which * width - 1 + whole)))


def space_of(families: Sequence[Configurations], *, cautious: bool = False) -> Space:
    """Returns the pairs of the configurations' kinds.

    Parameters:
        families: the configurations by kind.
        cautious: no reserve below the shortest service of a full batch, rather than of a single request: a smaller
            grid with far better bounds, for many applications.
    """
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
        least_s = family.services.atoms_s[index, cap if cautious else 0, 0]
        parts.append((kind, index, index + offsets[number], cap + 1, worst_s, least_s, family.per_s[index, cap], fee))
    kind, index, row, cap, worst_s, least_s, per_s, fee = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    by_size = (per_s[:, None] * hull_s[row] + fee[:, None]) / np.arange(1, max_batch + 1)
    least = np.minimum.accumulate(by_size, axis=1)
    floor = least[np.arange(len(cap)), cap - 1]
    return Space(
        tuple(families), kind, index, row, cap, worst_s, least_s, cautious, per_s, fee, billed_s, hull_s, least, floor
    )


def _padded(values: Array, width: int) -> Array:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), mode="edge")


def _lower_hull(values: Array) -> Array:
    """Lower convex hull of each row at 1 ... B: along the smallest slope to any later point, again and again."""
    hull: Array = values.copy()
    width = values.shape[1]
    for at in range(width - 1):
        slopes: Array = (values[:, at + 1 :] - hull[:, at : at + 1]) / np.arange(1, width - at)
        hull[:, at + 1] = hull[:, at] + slopes.min(axis=1)
    return hull


def worst_case(
    space: Space, buffer: SharedBuffer, *, below: float = math.inf, among: Indices | None = None
) -> Choice | None:
    """Returns the cheapest choice with timeouts slo - L_max(cap); None if none is in time and cheaper than `below`.

    Parameters:
        space: the pairs to choose from.
        buffer: the applications that share the buffer.
        below: a cost per request that others reach already.
        among: pairs to look at; None: all.
    """
    among = np.arange(len(space.cap)) if among is None else among
    which = among[space.worst_s[among] <= buffer.strictest_s]
    shortest_s = buffer.strictest_s - space.worst_s[which]
    bounds = space.cost_bounds(1 + buffer.rate_rps * (shortest_s + buffer.open_beyond_s), which)
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
    billed_s = space.billed_s[space.row[pairs], : int(caps.max())]
    spent_s = (below * billed_s[:, :-1]).sum(axis=1) + full * billed_s[here, caps - 1]
    sizes = (below * np.arange(1, int(caps.max()))).sum(axis=1) + full * caps
    return np.asarray((space.per_s[pairs] * spent_s + space.per_call[pairs]) / sizes)


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
    if reserves_s is None:
        reserves_s = buffer.strictest_s * np.arange(1, RESERVES + 1) / RESERVES
    reserves_s = np.sort(reserves_s)
    pairs, left_s = _hopeful(space, buffer, reserves_s, below, np.flatnonzero(space.floor < below))
    if len(pairs) == 0:
        return None
    best = worst_case(space, buffer, below=below, among=pairs)
    if best is not None:
        below = best.cost
        pairs, left_s = _hopeful(space, buffer, reserves_s, below, pairs[space.floor[pairs] < below])
    if len(pairs) == 0:
        return best
    law = buffer.size_law(left_s, max_batch=int(space.cap[pairs].max()))
    for number in range(len(space.families)):
        rows = _rows(space, pairs, number)
        found = _FamilySearch(space, number, buffer, law, percentiles).cheaper_than(below, rows)
        if found is not None:
            best, below = found, found.cost
    return best


def _rows(space: Space, pairs: Indices, number: int) -> Indices:
    """Configurations of a kind that some pairs have."""
    return np.flatnonzero(np.bincount(space.index[pairs[space.family[pairs] == number]]))


def _hopeful(
    space: Space, buffer: SharedBuffer, reserves_s: Array, below: float, pairs: Indices
) -> tuple[Indices, Array]:
    """The pairs and the reserves, ascending, that might cost less if percentiles held."""
    if len(pairs) > _TOO_MANY:
        pairs = pairs[_might_cost_less(space, buffer, reserves_s[:1], below, pairs)[0]]
    if len(pairs) > _TOO_MANY:
        return pairs, reserves_s
    might = _might_cost_less(space, buffer, reserves_s, below, pairs)
    return pairs[might.any(axis=0)], reserves_s[might.any(axis=1)]


def _might_cost_less(space: Space, buffer: SharedBuffer, reserves_s: Array, below: float, pairs: Indices) -> Mask:
    """Which pairs might cost less at such reserves or at the smallest that a pair may have, shape (R, K)."""
    least_s = np.maximum(space.least_s[pairs], reserves_s[:, None])
    in_time = least_s <= buffer.strictest_s
    if math.isinf(below):
        return np.asarray(in_time)
    sizes = 1 + buffer.rate_rps * (buffer.strictest_s - least_s + buffer.open_beyond_s)
    return np.asarray(in_time & (space.cost_bounds(sizes, pairs) < below))


@dataclass(frozen=True, slots=True, eq=False)
class _FamilySearch:
    """The `percentile` objective over one kind of function."""

    space: Space
    number: int
    buffer: SharedBuffer
    law: SizeLaw
    percentiles: Array

    def cheaper_than(self, below: float, rows: Indices) -> Choice | None:
        """Returns the cheapest choice among some configurations that costs less than `below`, None if there is none."""
        if len(rows) == 0:
            return None
        costs = self._costs(rows)
        cheap: Mask = np.asarray((costs < below).any(axis=2))
        reserves, kept = np.flatnonzero(cheap.any(axis=1)), cheap.any(axis=0)
        if len(reserves) == 0:
            return None
        rows, costs = rows[kept], costs[:, kept]
        services = self.space.families[self.number].services
        atoms_s, weights = (x[rows, : costs.shape[2]] for x in (services.atoms_s, services.weights))
        strictest = StrictestLateness.of(self.buffer, self.law, atoms_s, weights)
        late = strictest.fractions(reserves) > 1 - self.percentiles[0] + _TOLERANCE
        candidates = np.where(late, np.inf, costs[reserves])
        return self._first_in_time(candidates, rows, reserves, below)

    def _costs(self, rows: Indices) -> Array:
        """Cost per request of every reserve, configuration and cap, shape (R, n, B); infinite where not allowed."""
        family = self.space.families[self.number]
        caps = min(family.max_batch, self.law.waiting.shape[1])
        law = self.law.up_to(caps)
        spent_s = law.averaged(family.services.billed_s[rows, :caps])
        costs = (family.per_s[rows, :caps] * spent_s + family.per_call) / law.mean_sizes()[:, None, :]
        shortest_s = family.services.atoms_s[rows, :caps, 0]
        least_s = shortest_s if self.space.cautious else shortest_s[:, :1]
        enough = self.law.reserves_s[:, None, None] >= least_s
        return np.where(family.allowed[rows, :caps] & enough, costs, np.inf)

    def _first_in_time(self, costs: Array, rows: Indices, reserves: Indices, below: float) -> Choice | None:
        """The cheapest candidate, shape (K, n, B), whose other applications are in time as well."""
        flat = costs.ravel()
        possible = np.flatnonzero(flat < below)
        stricter = _stricter(self.percentiles)
        waits: dict[int, SharedWaits] = {}
        for position in possible[np.argsort(flat[possible], kind="stable")].tolist():
            number, row, cap = np.unravel_index(position, costs.shape)
            reserve, index = int(reserves[number]), int(rows[row])
            if len(stricter):
                if reserve not in waits:
                    waits[reserve] = SharedWaits.of(self.buffer, self.law, reserve)
                if not self._holds(waits[reserve], index, int(cap) + 1, stricter):
                    continue
            return Choice(float(flat[position]), self.number, index, int(cap) + 1, float(self.law.reserves_s[reserve]))
        return None

    def _holds(self, waits: SharedWaits, index: int, cap: int, which: Indices) -> bool:
        services = self.space.families[self.number].services
        atoms_s, weights = services.atoms_s[index, :cap], services.weights[index, :cap]
        late = waits.late(self.buffer.slos_s[which], atoms_s, weights, which=which)
        return bool((late <= 1 - self.percentiles[which] + _TOLERANCE).all())


def _stricter(percentiles: Array) -> Indices:
    """The applications whose percentile is above that of all with shorter SLOs: checked besides the first.

    Under one reserve lateness falls with the SLO: its derivative is a sum of -O_{s-1} and of differences of Phi_{s-1},
    which falls with the wait, as long as services do not get shorter with the batch.
    """
    highest = np.maximum.accumulate(percentiles)
    return np.flatnonzero(percentiles[1:] > highest[:-1]) + 1

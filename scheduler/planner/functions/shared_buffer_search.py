"""The cheapest function for applications that share a buffer: configuration x cap x timeouts, optimal on its grid.

`worst_case` gives every application the timeout slo - L_max(cap), as HarmonyBatch does: no request is ever late.
`percentile` tries latency reserves up to the strictest SLO, and checks by the exact distribution that every application
keeps its percentile; the worst-case choice is among its candidates. A latency reserve is never below the shortest
service of a single request: with less, a request that stays alone until the timeout is late for certain.

One application with an SLO of 2 s sends one request a second. A function at a price of 1 a second takes 0.5 s for one
request and 0.6 s for two. The worst case keeps 0.6 s in reserve, so the timeout is 1.4 s; with p = e^-1.4 = 0.2466 a
request costs (0.5 p + 0.6 (1 - p)) / (2 - p) = 0.3281:

>>> from scheduler.planner.catalogue.configurations import Family
>>> from scheduler.planner.catalogue.latency_models import TableLatency
>>> from scheduler.planner.catalogue.prices import PriceSheet
>>> from scheduler.planner.functions.cost_bounds import space_of
>>> one = np.ones(1)
>>> sheet = PriceSheet("s", "CNY", "", "", "", grain_s=1e-9, per_vcpu_s=1.0)
>>> family = Family("cpu", TableLatency(((0.5, 0.6),)), one, np.zeros(1), np.ones((1, 2)), np.array([2.0]))
>>> space, buffer = space_of([family.tabulated(sheet)]), SharedBuffer(np.array([2.0]), one)
>>> found = worst_case(space, buffer)
>>> found.cap, found.latency_reserve_s, round(found.cost, 4)
(2, 0.6, 0.3281)

At a percentile of 0.98 a reserve of 0.5 s is enough: the first request of a full batch is late if it waits between 1.4
and 1.5 s, which happens to (e^-1.4 - e^-1.5) / 1.7769 = 1.3 % of the requests. With p = e^-1.5 the cost is 0.3251. For
0.99 that is too many, and the next reserve of the grid, 9/32 of the SLO, is the best:

>>> for wanted in (0.98, 0.99):
...     found = percentile(space, buffer, np.array([wanted]))
...     found.cap, found.latency_reserve_s, round(found.cost, 4)
(2, 0.5, 0.3251)
(2, 0.5625, 0.327)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from scheduler.planner.functions.cost_bounds import Space
from scheduler.planner.functions.shared_buffer_costs import TOLERANCE, Candidates, Rows, SharedBufferCosts
from scheduler.planner.queueing.matrices import Array, Indices, Mask
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer
from scheduler.planner.queueing.multi_slo_lateness import SharedWaits

LATENCY_RESERVES = 32
"""Latency reserves that the `percentile` objective tries by default: 1/32, 2/32, ... of the strictest SLO. On 12 random
sets of 12 applications (profile of scripts/planner_figures) plans cost 0.87 % more with 16 and 0.35 % less with 64; the
latter take 0.051 instead of 0.045 s."""
_FIRST_CHUNK = 12
"""Pairs whose exact cost is computed first; the number doubles until a bound excludes the rest. Anything from 3 to 96
takes the same time for a plan of 12 applications (0.041 to 0.043 s)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A function for a buffer.

    Attributes:
        cost: expected money a request.
        family: number of its kind among those searched.
        index: number of the configuration within the kind.
        cap: size at which a batch leaves at once.
        latency_reserve_s: the timeout of an application is its SLO less this time.
    """

    cost: float
    family: int
    index: int
    cap: int
    latency_reserve_s: float


def worst_case(
    space: Space, buffer: SharedBuffer, *, below: float = math.inf, among: Indices | None = None
) -> Choice | None:
    """Returns the cheapest choice with timeouts slo - L_max(cap); None if none is in time and costs less than `below`.

    Args:
        space: the pairs to choose from.
        buffer: the applications that share the buffer.
        below: cost per request that is known to be possible.
        among: pairs to search; None: all.
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


def _choice(space: Space, pair: int, cost: float, latency_reserve_s: float) -> Choice:
    return Choice(cost, int(space.family[pair]), int(space.index[pair]), int(space.cap[pair]), latency_reserve_s)


def _costs(space: Space, buffer: SharedBuffer, pairs: Indices) -> Array:
    """Returns the exact cost per request of some pairs in the worst case, shape (len(pairs),)."""
    caps = space.cap[pairs]
    distribution = buffer.size_distribution(space.worst_s[pairs], max_batch=int(caps.max()))
    here = np.arange(len(pairs))
    below = np.where(np.arange(1, int(caps.max()))[None, :] < caps[:, None], distribution.below, 0.0)
    full = distribution.reached()[here, caps - 1]
    billed_s = space.billed_s[space.row[pairs], : int(caps.max())]
    spent_s = (below * billed_s[:, :-1]).sum(axis=1) + full * billed_s[here, caps - 1]
    sizes = (below * np.arange(1, int(caps.max()))).sum(axis=1) + full * caps
    return np.asarray((space.per_s[pairs] * spent_s + space.per_call[pairs]) / sizes)


def percentile(
    space: Space,
    buffer: SharedBuffer,
    percentiles: Array,
    *,
    below: float = math.inf,
    latency_reserves_s: Array | None = None,
    warm_start: Choice | None = None,
) -> Choice | None:
    """Returns the cheapest choice that keeps every percentile; None if none costs less than `below`.

    Args:
        space: the pairs to choose from.
        buffer: the applications that share the buffer.
        percentiles: percentile of each application, in the order of the buffer, shape (n,).
        below: cost per request that is known to be possible.
        latency_reserves_s: latency reserves to try, each at most the strictest SLO; None: the default grid.
        warm_start: a choice whose configuration is searched first, since its cost excludes most others; None: none.
    """
    if latency_reserves_s is None:
        latency_reserves_s = buffer.strictest_s * np.arange(1, LATENCY_RESERVES + 1) / LATENCY_RESERVES
    search = _PercentileSearch(space, buffer, percentiles, np.sort(latency_reserves_s)[None])
    best: Choice | None = None
    pairs: Indices = np.arange(len(space.cap))
    if warm_start is not None:
        # Together with its neighbours, which are often as hard to exclude.
        near = (space.family == warm_start.family) & (np.abs(space.index - warm_start.index) <= 1)
        best = search.cheapest(pairs[near], below)
        below = below if best is None else best.cost
    pairs = search.candidate_pairs(pairs, below)
    certain = worst_case(space, buffer, below=below, among=pairs)
    if certain is not None:
        best, below = certain, certain.cost
        pairs = search.candidate_pairs(pairs, below)
    if warm_start is not None:
        pairs = pairs[~near[pairs]]
    found = search.cheapest(pairs, below)
    return best if found is None else found


@dataclass(frozen=True, eq=False)
class _PercentileSearch:
    """The search over latency reserves, shape (1, R), ascending, for one buffer."""

    space: Space
    buffer: SharedBuffer
    percentiles: Array
    latency_reserves_s: Array

    @cached_property
    def buffer_costs(self) -> SharedBufferCosts:
        """The costs under every latency reserve, for caps of any pair."""
        return SharedBufferCosts.of(
            (self.buffer,),
            self.latency_reserves_s,
            max_batch=self.space.max_batch,
            reserve_full_batch=self.space.reserve_full_batch,
        )

    def candidate_pairs(self, pairs: Indices, below: float) -> Indices:
        """Returns the pairs whose cost may be below a bound at the smallest latency reserve that each may have."""
        space, buffer = self.space, self.buffer
        pairs = pairs[space.floor[pairs] < below]
        min_reserve_s = np.maximum(space.min_reserve_s[pairs], self.latency_reserves_s[0, 0])
        might = min_reserve_s <= buffer.strictest_s
        if not math.isinf(below):
            sizes = 1 + buffer.rate_rps * (buffer.strictest_s - min_reserve_s + buffer.open_beyond_s)
            might &= space.cost_bounds(sizes, pairs) < below
        return np.asarray(pairs[might])

    def cheapest(self, pairs: Indices, below: float) -> Choice | None:
        """Returns the cheapest choice among the configurations of some pairs; None if none costs less than `below`."""
        best: Choice | None = None
        for number, rows in enumerate(_rows(self.space, np.zeros_like(pairs), pairs)):
            if len(rows.indices) == 0:
                continue
            candidates = self.buffer_costs.candidates(rows, np.array([below]), self.percentiles[:1])
            found = _first_in_time(self.buffer_costs, number, candidates, self.percentiles, below)
            if found is not None:
                best, below = found, found.cost
        return best


def _rows(space: Space, owner: Indices, pair: Indices) -> list[Rows]:
    """Returns the configurations of some pairs by kind, each for one buffer, from arrays of shape (K,)."""
    rows = []
    for number, family in enumerate(space.families):
        ours, count = space.family[pair] == number, len(family.vcpu)
        places = np.flatnonzero(np.bincount(owner[ours] * count + space.index[pair[ours]]))
        rows.append(Rows(family, places // count, places % count))
    return rows


def _first_in_time(
    costs: SharedBufferCosts, number: int, candidates: Candidates, percentiles: Array, below: float
) -> Choice | None:
    """Returns the cheapest candidate that keeps the other applications' percentiles too; None if none costs less."""
    buffer, distribution = costs.buffers[0], costs.distribution
    flat, caps = candidates.costs.ravel(), candidates.costs.shape[1]
    possible = np.flatnonzero(flat < below)
    stricter = _stricter(percentiles)
    waits: dict[int, SharedWaits] = {}
    for position in possible[np.argsort(flat[possible], kind="stable")].tolist():
        at, cap = divmod(position, caps)
        reserve_row, index = int(candidates.reserve_rows[at]), int(candidates.indices[at])
        if len(stricter):
            if reserve_row not in waits:
                waits[reserve_row] = SharedWaits.of(buffer, distribution, reserve_row)
            services = candidates.family.services
            atoms_s, weights = services.atoms_s[index, : cap + 1], services.weights[index, : cap + 1]
            late = waits[reserve_row].late(buffer.slos_s[stricter], atoms_s, weights, which=stricter)
            if not (late <= 1 - percentiles[stricter] + TOLERANCE).all():
                continue
        return Choice(
            float(flat[position]), number, index, cap + 1, float(distribution.latency_reserves_s[reserve_row])
        )
    return None


def _stricter(percentiles: Array) -> Indices:
    """Returns the applications whose percentile is above that of all with shorter SLOs; only these need a check.

    Under one latency reserve, lateness falls with the SLO: its derivative is a sum of -O_(s-1) and of differences of
    Phi_(s-1), which falls with the wait, as long as services do not get shorter with the batch.
    """
    highest = np.maximum.accumulate(percentiles)
    return np.flatnonzero(percentiles[1:] > highest[:-1]) + 1


def pruned(
    space: Space,
    buffers: Sequence[SharedBuffer],
    percentiles: Array,
    *,
    below: Array,
    latency_reserves_s: Array,
) -> Mask:
    """Returns which buffers have no choice below their bound that `percentile` would find, shape (S,).

    All buffers are computed at once, which takes far less time than one search after another. Only the application with
    the strictest SLO is checked, and a buffer whose worst-case choice may be cheap enough is kept. So no buffer is
    pruned by mistake.

    Args:
        space: the pairs to choose from.
        buffers: S buffers.
        percentiles: percentile of the application with the strictest SLO in each, shape (S,).
        below: a cost per request for each buffer, shape (S,).
        latency_reserves_s: latency reserves to try, ascending, shape (S, R).
    """
    owner, pair = np.nonzero(space.floor < below[:, None])
    rates, strictest_s, beyond_s = (
        np.array([getattr(buffer, key) for buffer in buffers]) for key in ("rate_rps", "strictest_s", "open_beyond_s")
    )

    def might(min_reserve_s: Array) -> Mask:
        """Returns where the cost may be below the bound at a latency reserve of at least `min_reserve_s`."""
        left_s = strictest_s[owner] - min_reserve_s
        bounds = space.cost_bounds(1 + rates[owner] * (left_s + beyond_s[owner]), pair)
        return np.asarray((left_s >= 0) & (bounds < below[owner]))

    candidate = might(np.maximum(space.min_reserve_s[pair], latency_reserves_s[owner, 0]))
    owner, pair = owner[candidate], pair[candidate]
    found = np.bincount(owner[might(space.worst_s[pair])], minlength=len(buffers)) > 0
    open_still = ~found[owner]
    owner, pair = owner[open_still], pair[open_still]
    if len(owner) == 0:
        return ~found
    # Only the buffers that have pairs left.
    has = np.bincount(owner) > 0
    kept, owner = np.flatnonzero(has), (has.cumsum() - 1)[owner]
    costs = SharedBufferCosts.of(
        [buffers[i] for i in kept.tolist()],
        latency_reserves_s[kept],
        max_batch=int(space.cap[pair].max()),
        reserve_full_batch=space.reserve_full_batch,
    )
    for rows in _rows(space, owner, pair):
        candidates = costs.candidates(rows, below[kept], percentiles[kept])
        found[kept[costs.owner[candidates.reserve_rows[np.isfinite(candidates.costs).any(axis=1)]]]] = True
    return ~found

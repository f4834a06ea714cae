"""Groups of applications on shared functions: optimal over contiguous groups by SLO, by dynamic programming.

f(j) = min over i of f(i) + w(i, j), where w is the rate of applications i ... j - 1 times their lowest cost per
request. A segment is searched only if a lower bound of its cost does not exclude it (see `Space.cost_bounds`).

Two applications have one request a second each. Alone they cost 1 and 2 a request, together 1.2; so together is
cheaper, 2.4 instead of 3 a second. The bounds exclude nothing here:

>>> costs = {(0, 1): 1.0, (1, 2): 2.0, (0, 2): 1.2}
>>> def search(buffer: SharedBuffer, which: slice, below: float) -> Choice | None:
...     cost = costs[which.start, which.stop]
...     return Choice(cost, 0, 0, 1, 0.0) if cost < below else None
>>> def buffers(start: int, end: int) -> SharedBuffer:
...     return SharedBuffer(np.array([1.0, 2.0])[start:end], np.ones(end - start))
>>> found = best_grouping(np.zeros((2, 2)), buffers=buffers, search=search)
>>> [(group.start, group.end) for group in found.groups], found.cost_per_s, found.segments_total
([(0, 2)], 2.4, 3)

With 1.6 together it costs 3.2 a second, and two groups are better:

>>> costs[0, 2] = 1.6
>>> found = best_grouping(np.zeros((2, 2)), buffers=buffers, search=search)
>>> [(group.start, group.end) for group in found.groups], found.cost_per_s
([(0, 1), (1, 2)], 3.0)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.functions.cost_bounds import Space
from scheduler.planner.functions.shared_buffer_search import Choice
from scheduler.planner.queueing.matrices import Array, Indices, Mask
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer

Search = Callable[[SharedBuffer, slice, float], Choice | None]
"""Returns the cheapest choice for a segment that costs less than a bound, or None."""
Prune = Callable[[Sequence[SharedBuffer], Sequence[int], Array], Mask]
"""Returns which of several segments have no choice below a bound, from their first applications and bounds."""
_COARSE, _FINE = (24, 4), (160, 16)
"""Buckets, and steps for a request, in the table of bounds. Judgement: the fine table takes longer to build, and saves
searches only where there are many segments."""
_MANY = 40
"""Applications above which the fine table is used."""
_MIN_PRUNED_TOGETHER = 3
"""Fewest segments that are pruned together and not searched one by one. A plan of 12 applications (12 random sets on
the profile of scripts/planner_figures) takes 0.045 s with 2 or 3, 0.048 s with 5 and 0.054 s with 8."""


@dataclass(frozen=True, slots=True)
class Group:
    """Applications `start` to `end` - 1 in order of SLO, and their function."""

    start: int
    end: int
    choice: Choice


@dataclass(frozen=True, slots=True)
class Grouping:
    """The cheapest grouping of applications.

    Attributes:
        groups: the groups in order of SLO; empty if some application cannot be in time.
        cost_per_s: cost a second of all groups.
        segments_total: number of segments.
        segments_pruned: number of segments that a bound excluded before a search.
        infeasible_at: the first application that no segment can serve in time; None if there is none.
    """

    groups: tuple[Group, ...]
    cost_per_s: float
    segments_total: int
    segments_pruned: int
    infeasible_at: int | None = None


def best_grouping(
    bounds: Array,
    *,
    buffers: Callable[[int, int], SharedBuffer],
    search: Search,
    prune: Prune | None = None,
) -> Grouping:
    """Returns the optimal grouping.

    Args:
        bounds: lower bound on the cost per second of each segment i <= j, at [i, j] for i ... j inclusive, shape (n,
            n).
        buffers: returns the buffer of a segment.
        search: returns the choice of a segment below a cost per request.
        prune: tells which of several segments need no search; None: search all.
    """
    count = len(bounds)
    total = [0.0] + [math.inf] * count
    last: list[Group | None] = [None] * (count + 1)
    searched = 0
    for end in range(1, count + 1):
        guesses = np.array(total[:end]) + bounds[:end, end - 1]
        # The start of the last group of one application less is a good first guess: it lets the bound exclude more.
        previous = last[end - 1]
        order = [] if previous is None else [previous.start]
        order += [start for start in np.argsort(guesses, kind="stable").tolist() if start not in order]
        pruned: set[int] | None = None
        for place, start in enumerate(order):
            if guesses[start] >= total[end]:
                continue
            searched += 1
            if pruned is None and prune is not None and math.isfinite(total[end]):
                rest = [other for other in order[place:] if guesses[other] < total[end]]
                pruned = _pruned(rest, end, total, buffers, prune)
            if pruned and start in pruned:
                continue
            buffer = buffers(start, end)
            left = (total[end] - total[start]) / buffer.rate_rps
            choice = search(buffer, slice(start, end), left)
            if choice is not None:
                total[end] = total[start] + choice.cost * buffer.rate_rps
                last[end] = Group(start, end, choice)
    segments = count * (count + 1) // 2
    if math.isinf(total[count]):
        infeasible_at = next(end - 1 for end in range(1, count + 1) if math.isinf(total[end]))
        return Grouping((), math.inf, segments, segments - searched, infeasible_at)
    return Grouping(_backwards(last), total[count], segments, segments - searched)


def _pruned(
    starts: Sequence[int],
    end: int,
    total: Sequence[float],
    buffers: Callable[[int, int], SharedBuffer],
    prune: Prune,
) -> set[int]:
    """Returns the segments up to `end` that cannot lower its total cost; nearly always all of them."""
    if len(starts) < _MIN_PRUNED_TOGETHER:
        return set()
    segments = [buffers(start, end) for start in starts]
    below = [(total[end] - total[start]) / one.rate_rps for start, one in zip(starts, segments, strict=True)]
    return {start for start, out in zip(starts, prune(segments, starts, np.array(below)).tolist(), strict=True) if out}


def _backwards(last: Sequence[Group | None]) -> tuple[Group, ...]:
    groups: list[Group] = []
    end = len(last) - 1
    while end > 0:
        group = last[end]
        assert group is not None
        groups.append(group)
        end = group.start
    return tuple(reversed(groups))


def segment_bounds(space: Space, slos_s: Array, rates_rps: Array, *, latency_reserves_s: Array) -> Array:
    """Returns lower bounds on the cost per second of all segments, infinite where none is in time, shape (n, n).

    Pairs are sorted into buckets by their least latency reserve. All pairs of a bucket get the least one of the bucket,
    and a table holds the cheapest request for each mean batch size.

    Args:
        space: the pairs to choose from.
        slos_s: SLOs, ascending, shape (n,).
        rates_rps: requests a second, shape (n,).
        latency_reserves_s: the least latency reserve of each pair, shape (M,).
    """
    kept = _undominated(space, latency_reserves_s)
    order = kept[np.argsort(latency_reserves_s[kept], kind="stable")]
    buckets, fine = _FINE if len(slos_s) > _MANY else _COARSE
    edges = np.linspace(0, len(order), min(buckets, len(order)) + 1).astype(np.int64)
    starts_s = latency_reserves_s[order[edges[:-1]]]
    sizes = np.arange(1.0, space.max_batch + 1e-9, 1 / fine, dtype=np.float64)
    table = np.stack(
        [space.cost_bounds(sizes[:, None], order[a:b]).min(axis=1) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    )
    rates, beyond_s = _open_beyond(slos_s, rates_rps)
    bounds = np.full(rates.shape, np.inf)
    for start_s, row in zip(starts_s, table, strict=True):
        means = 1 + rates * (slos_s[:, None] - start_s + beyond_s)
        column = np.ceil((np.clip(means, 1.0, space.max_batch) - 1) * fine - 1e-9).astype(np.int64)
        in_time = (slos_s >= start_s)[:, None]
        bounds = np.where(in_time, np.minimum(bounds, row[np.minimum(column, len(row) - 1)]), bounds)
    return np.where(np.triu(np.ones(rates.shape, dtype=bool)), bounds * rates, np.inf)


def _undominated(space: Space, latency_reserves_s: Array) -> Indices:
    """Returns the pairs, except where the next larger cap costs no more and needs no longer latency reserve."""
    same = (space.row[1:] == space.row[:-1]) & (space.per_s[1:] <= space.per_s[:-1])
    dominated = same & (latency_reserves_s[1:] <= latency_reserves_s[:-1])
    return np.flatnonzero(~np.append(dominated, False))


def _open_beyond(slos_s: Array, rates_rps: Array) -> tuple[Array, Array]:
    """Returns rate and mean open time beyond the shortest timeout of segments i ... j without a cap, shape (n, n)."""
    count = len(slos_s)
    rates, beyond_s = np.zeros((count, count)), np.zeros((count, count))
    gaps_s = np.diff(slos_s)
    for i in range(count):
        gone = np.cumsum(rates_rps[i:])
        rates[i, i:] = gone
        early, gap_s = gone[:-1], gaps_s[i:]
        hazard = np.concatenate([[0.0], np.cumsum(early * gap_s)])[:-1]
        open_s = np.exp(-hazard) * -np.expm1(-early * gap_s) / early
        beyond_s[i, i + 1 :] = np.cumsum(open_s) - np.cumsum(open_s * early) / gone[1:]
    return rates, beyond_s

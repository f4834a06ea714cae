"""Applications grouped on shared functions: optimal over contiguous groups by SLO, by dynamic programming.

f(j) = min over i of f(i) + w(i, j), w the rate of applications i ... j - 1 times their lowest cost per request.
A segment is searched only while a bound below its cost leaves it a chance; the bound is exact (see Space.cost_bounds).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.functions.shared_buffer_search import Choice, Space
from scheduler.planner.queueing.matrices import Array, Indices, Mask
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer

Search = Callable[[SharedBuffer, slice, float], Choice | None]
"""Finds the cheapest choice for a segment that costs less than a bound."""
Prune = Callable[[Sequence[SharedBuffer], Sequence[int], Array], Mask]
"""Tells of several segments, given their first applications and a bound for each, which have no choice below it."""
_COARSE, _FINE = (24, 4), (160, 16)
"""Buckets, and steps to a request, in the table of bounds; the fine one pays for many applications only."""
_MANY = 40
_SEVERAL = 3
"""So many segments are sooner ruled out together than searched one by one."""


@dataclass(frozen=True, slots=True)
class Group:
    """Applications `start` to `end` - 1 in order of SLO, and their function."""

    start: int
    end: int
    choice: Choice


@dataclass(frozen=True, slots=True)
class Grouping:
    """The cheapest way to divide applications.

    Attributes:
        groups: in order of SLO; empty if some application cannot be served in time.
        cost_per_s: of all of them.
        segments_total: how many segments there are.
        segments_pruned: of these, how many a bound ruled out before their search.
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
        bounds: lower bound on the cost per second of each segment i <= j, at [i, j] for i ... j inclusive, (n, n).
        buffers: makes the buffer of a segment.
        search: finds a segment's choice below a cost per request.
        prune: tells cheaply which of several segments need no search.
    """
    count = len(bounds)
    total = [0.0] + [math.inf] * count
    last: list[Group | None] = [None] * (count + 1)
    searched = 0
    for end in range(1, count + 1):
        guesses = np.array(total[:end]) + bounds[:end, end - 1]
        # Where the last group of one application less began is a good first guess: what follows is cut off sooner.
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
    """Which segments up to `end` have no choice that would lower its total: nearly always all of them."""
    if len(starts) < _SEVERAL:
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

    Pairs are put into buckets by the least latency reserve each may have; within a bucket all have the shortest of
    them, and a table holds the cheapest request for each mean size.

    Args:
        space: the pairs to choose from.
        slos_s: ascending, shape (n,).
        rates_rps: shape (n,).
        latency_reserves_s: the least latency reserve that each pair may have, shape (M,).
    """
    kept = _undominated(space, latency_reserves_s)
    order = kept[np.argsort(latency_reserves_s[kept], kind="stable")]
    buckets, fine = _FINE if len(slos_s) > _MANY else _COARSE
    edges = np.linspace(0, len(order), min(buckets, len(order)) + 1).astype(np.int64)
    starts_s = latency_reserves_s[order[edges[:-1]]]
    sizes = np.arange(1.0, space.max_batch + 1e-9, 1 / fine)
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
    """All pairs, except where the next larger cap costs no more and needs no longer latency reserve."""
    same = (space.row[1:] == space.row[:-1]) & (space.per_s[1:] <= space.per_s[:-1])
    dominated = same & (latency_reserves_s[1:] <= latency_reserves_s[:-1])
    return np.flatnonzero(~np.append(dominated, False))


def _open_beyond(slos_s: Array, rates_rps: Array) -> tuple[Array, Array]:
    """Rate, and mean open time beyond the shortest timeout without a cap, of all segments i ... j, shape (n, n)."""
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

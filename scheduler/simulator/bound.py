"""The clairvoyant bound: the least money that anybody could spend who knows every arrival beforehand.

The edge serves one batch at a time and is free; functions serve any number of batches at once, each at a price. Every
request has the same SLO, and every batch takes consecutive requests: with equal SLOs some schedule that offloads
fewest requests is of that form, because two requests of different batches can change places. Let `f_i(c)` be the
earliest time at which the edge can be free when the first i requests are decided for money c. Then `f_j(c)` is the
least of

    max(f_{j-b}(c), a_j') + L(b)    over edge batches of b requests, a_j' the arrival of the last of them,
    f_{j-k}(c - price_k)            over function batches of k requests,

over all that finish within the SLO of their first request. Prices are rounded down to a grid, an eighth of the
cheapest price a request, so that c is a whole number; the result is exact on that grid.

Three facts keep it fast in plain numpy (as fast as a compiled triple loop, without a compiler to install or to wait
for). An edge that is free before the next arrival is no better than one that is free at it, so `f_i(c)` ends with the
first c at which it is `a_{i+1}`. `f_i(c)` falls in c and rises in i (leave out the last request of a schedule), so an
edge batch for which a smaller one could start as soon needs no look. Both leave, for each request, a narrow band of
money and few batch sizes, which are one array.

Work grows as requests x (arrivals within the SLO) x (money that one SLO's arrivals cost, in grid units): linear in
the number of requests, cubic in the SLO at a fixed rate. 20,000 requests at the Orin's law take 1 to 3 s; memory is
some 20 MB whatever their number.

References:
    P. Baptiste, "Batching identical jobs", Mathematical Methods of Operations Research 52 (2000), 355-367: batches
    of identical jobs with release dates and deadlines by dynamic programming.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.requests import Backend

Seconds = npt.NDArray[np.float64]

IGNORES = "noise, uplink, round trip, cold starts, concurrency limits, faults and rounding below 1/8 of a request"
GRID = 8
"""Parts of the cheapest price a request; money is counted in such parts."""
_TOLERANCE_S = 1e-9
"""As in the report: an answer at the very deadline is in time."""
_ROWS = 256
"""Requests between two moves of the window."""
_COLUMNS = 2048
"""Grid units of money that the window has room for beyond what one batch can cost."""
_ROW_GROUP = 16
"""Batch sizes that share one look at the money beyond which a smaller batch can start as soon."""


class BoundError(EdgeburstError):
    """There is no bound for this case; the message says why."""


@dataclass(frozen=True, slots=True)
class FunctionBatch:
    """One way to serve so many requests by functions.

    Attributes:
        items: requests in it.
        latency_s: from its last arrival to its answer.
        price: of the call, in grid units, rounded down.
    """

    items: int
    latency_s: float
    price: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What the bound is asked for.

    Attributes:
        arrivals_s: ascending, shape (requests,).
        slo_s: of every request.
        edge_s: least seconds of an edge batch of 1, 2, ... requests; empty where there is no edge.
        functions: the ways to serve a batch by functions within the SLO.
        unit: money of a grid unit.
        begins_s: nothing can be sent before; some requests may have arrived long ago.
    """

    arrivals_s: Seconds
    slo_s: float
    edge_s: Seconds
    functions: tuple[FunctionBatch, ...]
    unit: float
    begins_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """A batch of the schedule found: requests `first` to `first + items - 1`, counted from 0."""

    backend: Backend
    first: int
    items: int


def make_problem(
    arrivals_s: Sequence[float] | Seconds,
    *,
    slo_s: float,
    edge_latency: LatencyModel | None,
    tiers: Sequence[FunctionTier],
    max_items: int = 128,
) -> Problem:
    """Returns the problem for given laws and prices.

    Args:
        arrivals_s: seconds, ascending.
        slo_s: of every request, seconds.
        edge_latency: of the edge; None where there is none. Where more requests take less time, as measured rows may
            say, the lesser time counts for the smaller batch too: the bound stays below what anybody can reach.
        tiers: function configurations, a batch is served by any of them; with rows that fall the same holds.
        max_items: most requests in a batch.
    """
    ways = [
        (items, latency_s, tier.price.cost(latency_s))
        for tier in tiers
        for items, latency_s in enumerate(_rising_seconds(tier.latency, max_items).tolist(), start=1)
        if latency_s <= slo_s + _TOLERANCE_S
    ]
    unit = min((cost / items for items, _, cost in ways), default=0.0) / GRID
    return Problem(
        arrivals_s=np.asarray(arrivals_s, dtype=np.float64),
        slo_s=slo_s,
        edge_s=np.empty(0) if edge_latency is None else _rising_seconds(edge_latency, max_items),
        functions=tuple(
            FunctionBatch(items, latency_s, math.floor(cost / unit + 1e-9) if unit > 0 else 0)
            for items, latency_s, cost in ways
        ),
        unit=unit,
    )


def _rising_seconds(law: LatencyModel, max_items: int) -> Seconds:
    seconds = np.array([law.predict_s(items) for items in range(1, min(law.max_batch, max_items) + 1)])
    return np.minimum.accumulate(seconds[::-1])[::-1]


def clairvoyant_bound(problem: Problem) -> float:
    """Returns the least money, in the currency of the prices, less what rounding down to the grid takes off.

    Raises:
        BoundError: no schedule serves every request within the SLO.
    """
    lowest = 0
    for frontier in _frontiers(problem):
        lowest = frontier[0]
    return lowest * problem.unit


def clairvoyant_schedule(problem: Problem, *, edge_per_s: float = 0.0) -> list[PlacedBatch]:
    """Returns one schedule that costs the bound, in order of arrival.

    It keeps what the bound forgets: some 100 MB for 20,000 requests in deep overload.

    Args:
        problem: as for the bound.
        edge_per_s: money that an edge which is free a second sooner in the end is worth; 0: the least money counts.

    Raises:
        BoundError: no schedule serves every request within the SLO.
    """
    frontiers = [(0, np.array([problem.begins_s])), *((low, times.copy()) for low, times in _frontiers(problem))]
    placed: list[PlacedBatch] = []
    least, free_s = frontiers[-1]
    weighed = np.arange(len(free_s)) * problem.unit + (edge_per_s * free_s if edge_per_s else 0.0)
    j, money = len(problem.arrivals_s), least + int(np.argmin(weighed))
    while j > 0:
        batch, money = _predecessor(problem, frontiers, j, money)
        placed.append(batch)
        j = batch.first
    return placed[::-1]


def _predecessor(
    problem: Problem, frontiers: Sequence[tuple[int, Seconds]], j: int, money: int
) -> tuple[PlacedBatch, int]:
    """The last batch of a schedule that decides j requests for that money with the edge free as early as can be."""
    arrivals_s, last_s, free_s = problem.arrivals_s, problem.arrivals_s[j - 1], _at(frontiers[j], money)
    for way in problem.functions:
        i = j - way.items
        if i < 0 or max(last_s, problem.begins_s) + way.latency_s > arrivals_s[i] + problem.slo_s + _TOLERANCE_S:
            continue
        if _at(frontiers[i], money - way.price) <= free_s:
            return PlacedBatch(Backend.FUNCTION, i, way.items), money - way.price
    for items in range(1, min(j, len(problem.edge_s)) + 1):
        finish_s = max(_at(frontiers[j - items], money), last_s) + problem.edge_s[items - 1]
        if finish_s <= min(free_s, arrivals_s[j - items] + problem.slo_s) + 2 * _TOLERANCE_S:
            return PlacedBatch(Backend.EDGE, j - items, items), money
    raise AssertionError(f"no batch leads to {j} requests for {money}")


def _at(frontier: tuple[int, Seconds], money: int) -> float:
    low, times = frontier
    return math.inf if money < low else float(times[min(money - low, len(times) - 1)])


def _frontiers(problem: Problem) -> Iterator[tuple[int, Seconds]]:
    """Yields, after each request, the least money and from there the times at which the edge is free, till they end.

    The times are a view that the next step overwrites.
    """
    window = _Window(problem)
    for j in range(1, len(problem.arrivals_s) + 1):
        yield window.step(j)


class _Window:
    """The last rows of f: one row a request, one column a grid unit of money.

    A row is infinite below its least money and goes on with its last value beyond the most that helps.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._edge_s = problem.edge_s[::-1, None]
        self._reach = max([1, len(problem.edge_s), *(way.items for way in problem.functions)])
        self._dearest = max((way.price for way in problem.functions), default=0)
        self._single = min((way.price for way in problem.functions if way.items == 1), default=0)
        self._rows = np.full((self._reach + _ROWS, _COLUMNS + 2 * self._dearest), np.inf)
        self._rows[0] = problem.begins_s
        self._row, self._low, self._high, self._origin = 0, 0, 0, 0
        self._scratch = np.empty(0)
        self._mask = np.empty(0, dtype=np.bool_)

    def step(self, j: int) -> tuple[int, Seconds]:
        """Decides one request more and returns the new frontier."""
        top = self._high + self._single + 1
        if self._row + 1 == len(self._rows) or top > self._rows.shape[1]:
            self._move()
            top = self._high + self._single + 1
        low, row = self._low, self._row + 1
        times = self._rows[row]
        times[:low] = np.inf
        best = times[low:top]
        best.fill(np.inf)
        self._by_edge(j, row, low, best)
        self._by_functions(j, row, low, best)
        arrivals_s = self._problem.arrivals_s
        if j < len(arrivals_s):
            np.maximum(best, arrivals_s[j], out=best)
        if best[-1] == np.inf:
            raise BoundError(f"nobody can serve request {j} and all before it within {self._problem.slo_s:g} s")
        times[top:] = best[-1]
        self._row, self._low = row, low + int(np.argmax(best < np.inf))
        self._high = low + int(np.argmax(best <= best[-1]))
        return self._low + self._origin, times[self._low : self._high + 1]

    def _by_edge(self, j: int, row: int, low: int, best: Seconds) -> None:
        """Takes in every edge batch that ends with request j; rows up to `row - 1` are its sizes, descending."""
        arrivals_s, last_s = self._problem.arrivals_s, self._problem.arrivals_s[j - 1]
        most = min(len(self._edge_s), j)
        edge_s = self._edge_s[len(self._edge_s) - most :]
        latest_s = arrivals_s[j - most : j, None] + (self._problem.slo_s + _TOLERANCE_S) - edge_s
        # Sizes too large to be in time even at an idle edge come first: the latest starts ascend.
        first = int(np.searchsorted(latest_s[:, 0], last_s))
        end, width = row, len(best)
        while end > row - most + first and width > 0:
            begin = max(row - most + first, end - _ROW_GROUP)
            block = slice(begin - row + most, end - row + most)
            self._take(self._rows[begin:end, low : low + width], last_s, latest_s[block], edge_s[block], best[:width])
            # Where this group's largest batch can start at its last arrival, larger ones only finish later.
            width = int(np.count_nonzero(self._rows[begin, low : low + width] > last_s))
            end = begin

    def _take(self, free_s: Seconds, last_s: float, latest_s: Seconds, edge_s: Seconds, best: Seconds) -> None:
        if free_s.size > len(self._scratch):
            self._scratch, self._mask = np.empty(2 * free_s.size), np.empty(2 * free_s.size, dtype=np.bool_)
        finish_s = self._scratch[: free_s.size].reshape(free_s.shape)
        late = self._mask[: free_s.size].reshape(free_s.shape)
        np.maximum(free_s, last_s, out=finish_s)
        np.greater(finish_s, latest_s, out=late)
        finish_s += edge_s
        np.putmask(finish_s, late, np.inf)
        np.minimum(best, finish_s.min(axis=0), out=best)

    def _by_functions(self, j: int, row: int, low: int, best: Seconds) -> None:
        """Takes in every function batch that ends with request j: the same row, so many columns to the left."""
        arrivals_s, slo_s = self._problem.arrivals_s, self._problem.slo_s + _TOLERANCE_S
        for way in self._problem.functions:
            i = j - way.items
            leaves_s = max(arrivals_s[j - 1], self._problem.begins_s)
            if i < 0 or leaves_s + way.latency_s > arrivals_s[i] + slo_s:
                continue
            skip = max(0, way.price - low)
            if skip < len(best):
                source = self._rows[row - way.items, low + skip - way.price : low + len(best) - way.price]
                np.minimum(best[skip:], source, out=best[skip:])

    def _move(self) -> None:
        """Moves the rows still needed to the top, and the columns so that the oldest row's least money is first."""
        kept = self._rows[max(0, self._row + 1 - self._reach) : self._row + 1].copy()
        shift = int(np.argmax(kept[0] < np.inf))
        needed = self._high - shift + 2 * self._dearest + _COLUMNS // 2
        columns = max(self._rows.shape[1], needed)
        self._rows = np.full((self._reach + _ROWS, columns), np.inf)
        self._rows[: len(kept), : kept.shape[1] - shift] = kept[:, shift:]
        self._rows[: len(kept), kept.shape[1] - shift :] = kept[:, -1:]
        self._row = len(kept) - 1
        self._low, self._high, self._origin = self._low - shift, self._high - shift, self._origin + shift

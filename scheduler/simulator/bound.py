"""The clairvoyant bound: the least cost of any schedule, computed with every arrival time known in advance.

The edge serves one batch at a time and costs nothing. Functions serve any number of batches at once, each at a price.
All requests have the same SLO, and every batch consists of consecutive requests. This loses nothing: with equal SLOs
two requests of different batches can be exchanged, so that some schedule of least cost has this form. Let `f_i(c)` be
the earliest time at which the edge can be free after the first i requests were served at cost c. Then `f_j(c)` is the
minimum of

    max(f_{j-b}(c), a_j) + L(b)     over edge batches of b requests, a_j the arrival of the last of them,
    f_{j-k}(c - price_k)            over function batches of k requests,

where only batches count that finish within the SLO of their first request. Prices are rounded down to a grid of an
eighth of the cheapest price a request, so that c is a whole number; the result is exact on this grid.

Several machines are taken for one that starts a batch every `pace` seconds, where one machine starts one every L(b):
it must start early enough to have the pace's seconds before the deadline, and a whole L(b) between the last arrival
and the deadline (`machines`). That is below every schedule of the machines.

Two facts keep this fast in numpy, as fast as a compiled triple loop. First, an edge that is free before the next
arrival is no better than one that is free at this arrival: `f_i(c)` need not be computed beyond the first c at which
it is `a_{i+1}`. Second, `f_i(c)` decreases in c and increases in i: an edge batch can be skipped if a smaller one
could start as early. What remains for each request is a narrow range of costs and a few batch sizes, in one array.

The work grows as requests x (arrivals within the SLO) x (cost of the arrivals within one SLO, in grid units): linearly
in the number of requests, and with the cube of the SLO at a fixed rate. For 20,000 requests and the Orin's latency
model it takes 1 to 3 s. The memory is about 20 MB, whatever the number of requests.

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
"""Grid units in the cheapest price a request; costs are counted in these units."""
_TOLERANCE_S = 1e-9
"""As in the report: an answer exactly at the deadline is in time."""
_ROWS = 256
"""Requests between two moves of the window of rows."""
_COLUMNS = 2048
"""Grid units that the window holds in addition to the price of the most expensive batch."""
_ROW_GROUP = 16
"""Edge batch sizes that are handled in one array operation, before the range of costs is narrowed again."""


class BoundError(EdgeburstError):
    """Error: there is no bound for this case; the message says why."""


@dataclass(frozen=True, slots=True)
class FunctionBatch:
    """Function batch of a given size on a given tier.

    Attributes:
        items: requests in the batch.
        latency_s: seconds from its last arrival to its answer.
        price: price of the call in grid units, rounded down.
    """

    items: int
    latency_s: float
    price: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Input of the bound.

    Attributes:
        arrivals_s: arrival times in seconds, ascending, shape (requests,).
        slo_s: SLO of every request, seconds.
        edge_s: least seconds of an edge batch of 1, 2, ... requests; empty without an edge.
        functions: function batches of every size and tier whose latency is within the SLO.
        unit: cost of a grid unit, in the currency of the prices.
        begins_s: no batch can be sent before this time; requests may have arrived earlier.
        edge_beside_s: seconds of every edge batch, before its own, in which the edge serves others.
        pace_s: seconds from the start of an edge batch of 1, 2, ... requests to the next start; None: `edge_s`.
    """

    arrivals_s: Seconds
    slo_s: float
    edge_s: Seconds
    functions: tuple[FunctionBatch, ...]
    unit: float
    begins_s: float = -math.inf
    pace_s: Seconds | None = None
    edge_beside_s: float = 0.0


@dataclass(frozen=True, slots=True)
class PlacedBatch:
    """Batch of a schedule: the requests `first` to `first + items - 1`, counted from 0."""

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
    """Returns the problem for given latency models and prices.

    Measured rows may say that a larger batch takes less time than a smaller one. The smaller batch then counts with
    the time of the larger one, so that the bound stays below every schedule that can be reached.

    Args:
        arrivals_s: arrival times in seconds, ascending.
        slo_s: SLO of every request, seconds.
        edge_latency: latency model of the edge; None without an edge.
        tiers: function configurations; each function batch may use any of them.
        max_items: the largest number of requests in a batch.
    """
    batches = [
        (items, latency_s, tier.price.cost(latency_s))
        for tier, items, latency_s in each_function_batch(tiers, max_items)
        if latency_s <= slo_s + _TOLERANCE_S
    ]
    unit = min((cost / items for items, _, cost in batches), default=0.0) / GRID
    return Problem(
        arrivals_s=np.asarray(arrivals_s, dtype=np.float64),
        slo_s=slo_s,
        edge_s=rising_seconds(edge_latency, max_items),
        functions=tuple(
            FunctionBatch(items, latency_s, math.floor(cost / unit + 1e-9) if unit > 0 else 0)
            for items, latency_s, cost in batches
        ),
        unit=unit,
    )


def each_function_batch(tiers: Sequence[FunctionTier], max_items: int) -> Iterator[tuple[FunctionTier, int, float]]:
    """Yields tier, items and seconds of every function batch."""
    for tier in tiers:
        for items, seconds in enumerate(rising_seconds(tier.latency, max_items).tolist(), start=1):
            yield tier, items, seconds


def rising_seconds(latency: LatencyModel | None, max_items: int) -> Seconds:
    """Returns the seconds of batches of 1, 2, ... items; a smaller one never takes longer than a larger one.

    Without a latency model there are none.
    """
    if latency is None:
        return np.empty(0)
    seconds = np.array([latency.predict_s(items) for items in range(1, min(latency.max_batch, max_items) + 1)])
    return np.minimum.accumulate(seconds[::-1])[::-1]


def clairvoyant_bound(problem: Problem) -> float:
    """Returns the least cost in the currency of the prices, with every price rounded down to the grid.

    Raises:
        BoundError: no schedule serves every request within the SLO.
    """
    lowest = 0
    for frontier in _frontiers(problem):
        lowest = frontier[0]
    return lowest * problem.unit


def clairvoyant_schedule(problem: Problem, *, edge_per_s: float = 0.0) -> list[PlacedBatch]:
    """Returns one schedule whose cost is the bound, in order of arrival.

    All rows are kept in memory: about 100 MB for 20,000 requests in heavy overload.

    Args:
        problem: as for the bound.
        edge_per_s: value, a second, of an edge that is free earlier at the end of the schedule. With 0 the schedule of
            least cost is returned.

    The edge is one machine: of several, taken for one, there is a bound and no schedule.

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
    """Returns the last batch of a schedule that reaches `f_j(money)`, and the cost of the batches before it."""
    arrivals_s, last_s, free_s = problem.arrivals_s, problem.arrivals_s[j - 1], _at(frontiers[j], money)
    within_s = problem.slo_s - problem.edge_beside_s
    for batch in problem.functions:
        i = j - batch.items
        if i < 0 or max(last_s, problem.begins_s) + batch.latency_s > arrivals_s[i] + problem.slo_s + _TOLERANCE_S:
            continue
        if _at(frontiers[i], money - batch.price) <= free_s:
            return PlacedBatch(Backend.FUNCTION, i, batch.items), money - batch.price
    for items in range(1, min(j, len(problem.edge_s)) + 1):
        finish_s = max(_at(frontiers[j - items], money), last_s) + problem.edge_s[items - 1]
        if finish_s <= min(free_s, arrivals_s[j - items] + within_s) + 2 * _TOLERANCE_S:
            return PlacedBatch(Backend.EDGE, j - items, items), money
    raise AssertionError(f"no batch leads to {j} requests at cost {money}")


def _at(frontier: tuple[int, Seconds], money: int) -> float:
    low, times = frontier
    return math.inf if money < low else float(times[min(money - low, len(times) - 1)])


def _frontiers(problem: Problem) -> Iterator[tuple[int, Seconds]]:
    """Yields for each j the least cost c of serving j requests, and the values of `f_j` from this c on.

    The values are a view that the next step overwrites.
    """
    window = _Window(problem)
    for j in range(1, len(problem.arrivals_s) + 1):
        yield window.step(j)


class _Window:
    """Last rows of f: one row for each request, one column for each grid unit of cost.

    A row is infinite below its least cost. Beyond the highest cost that helps, it repeats its last value.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._edge_s = problem.edge_s[::-1]
        self._pace_s = (problem.edge_s if problem.pace_s is None else problem.pace_s)[::-1, None]
        self._reach = max([1, len(problem.edge_s), *(batch.items for batch in problem.functions)])
        self._max_price = max((batch.price for batch in problem.functions), default=0)
        self._single_price = min((batch.price for batch in problem.functions if batch.items == 1), default=0)
        self._rows = np.full((self._reach + _ROWS, _COLUMNS + 2 * self._max_price), np.inf)
        self._rows[0] = problem.begins_s
        self._row, self._low, self._high, self._origin = 0, 0, 0, 0
        self._scratch = np.empty(0)
        self._mask = np.empty(0, dtype=np.bool_)

    def step(self, j: int) -> tuple[int, Seconds]:
        """Computes the row of request j and returns its least cost and its values from there on."""
        top = self._high + self._single_price + 1
        if self._row + 1 == len(self._rows) or top > self._rows.shape[1]:
            self._move()
            top = self._high + self._single_price + 1
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
            raise BoundError(f"no schedule serves request {j} and all before it within {self._problem.slo_s:g} s")
        times[top:] = best[-1]
        self._row, self._low = row, low + int(np.argmax(best < np.inf))
        self._high = low + int(np.argmax(best <= best[-1]))
        return self._low + self._origin, times[self._low : self._high + 1]

    def _by_edge(self, j: int, row: int, low: int, best: Seconds) -> None:
        """Lowers `best` by every edge batch that ends with request j; earlier rows belong to larger batches."""
        arrivals_s, last_s = self._problem.arrivals_s, self._problem.arrivals_s[j - 1]
        max_items = min(len(self._edge_s), j)
        pace_s = self._pace_s[len(self._pace_s) - max_items :]
        within_s = self._problem.slo_s - self._problem.edge_beside_s
        deadlines_s = arrivals_s[j - max_items : j] + (within_s + _TOLERANCE_S)
        latest_s = deadlines_s[:, None] - pace_s
        # The latest start times ascend: sizes that are late even on an idle edge come first.
        first = int(np.searchsorted(deadlines_s - self._edge_s[len(self._edge_s) - max_items :], last_s))
        end, width = row, len(best)
        while end > row - max_items + first and width > 0:
            begin = max(row - max_items + first, end - _ROW_GROUP)
            block = slice(begin - row + max_items, end - row + max_items)
            self._take(self._rows[begin:end, low : low + width], last_s, latest_s[block], pace_s[block], best[:width])
            # At costs where this group's largest batch can start at its last arrival, larger batches finish later.
            width = int(np.count_nonzero(self._rows[begin, low : low + width] > last_s))
            end = begin

    def _take(self, free_s: Seconds, last_s: float, latest_s: Seconds, pace_s: Seconds, best: Seconds) -> None:
        if free_s.size > len(self._scratch):
            self._scratch, self._mask = np.empty(2 * free_s.size), np.empty(2 * free_s.size, dtype=np.bool_)
        finish_s = self._scratch[: free_s.size].reshape(free_s.shape)
        late = self._mask[: free_s.size].reshape(free_s.shape)
        np.maximum(free_s, last_s, out=finish_s)
        np.greater(finish_s, latest_s, out=late)
        finish_s += pace_s
        np.putmask(finish_s, late, np.inf)
        np.minimum(best, finish_s.min(axis=0), out=best)

    def _by_functions(self, j: int, row: int, low: int, best: Seconds) -> None:
        """Lowers `best` by every function batch that ends with request j: an earlier row, shifted by the price."""
        arrivals_s, slo_s = self._problem.arrivals_s, self._problem.slo_s + _TOLERANCE_S
        for batch in self._problem.functions:
            i = j - batch.items
            sent_s = max(arrivals_s[j - 1], self._problem.begins_s)
            if i < 0 or sent_s + batch.latency_s > arrivals_s[i] + slo_s:
                continue
            skip = max(0, batch.price - low)
            if skip < len(best):
                source = self._rows[row - batch.items, low + skip - batch.price : low + len(best) - batch.price]
                np.minimum(best[skip:], source, out=best[skip:])

    def _move(self) -> None:
        """Moves the rows still needed to the top, and the least cost of the oldest of them to the first column."""
        kept = self._rows[max(0, self._row + 1 - self._reach) : self._row + 1].copy()
        shift = int(np.argmax(kept[0] < np.inf))
        needed = self._high - shift + 2 * self._max_price + _COLUMNS // 2
        columns = max(self._rows.shape[1], needed)
        self._rows = np.full((self._reach + _ROWS, columns), np.inf)
        self._rows[: len(kept), : kept.shape[1] - shift] = kept[:, shift:]
        self._rows[: len(kept), kept.shape[1] - shift :] = kept[:, -1:]
        self._row = len(kept) - 1
        self._low, self._high, self._origin = self._low - shift, self._high - shift, self._origin + shift

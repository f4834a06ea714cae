"""The clairvoyant limit under noise: the least expected cost with every arrival, but no service time, known in advance.

It is the recursion of `bound` with services that scatter. A share 1 - p of the requests may be late or refused; a
multiplier w, the price of one of them, turns this into a cost. Let `V_i(t)` be the least expected cost of the requests
from i on, if the edge is free at t. It is the minimum of

    w late + E V_{i+b}(max(t, a_{i+b-1}) + L(b) X)     over edge batches of b consecutive requests, X lognormal,
    price + w late + V_{i+k}(t)                        over function batches of k, sent at the last arrival,
    w + V_{i+1}(t)                                     for a request that is refused,

where `late` is the expected number of late members, each by its own deadline. `V_0 - w (1 - p) n` is below the cost of
every such policy that keeps the percentile, whatever w is: the limit is the largest of these values (Lagrange dual).

Time is divided into steps, 150 in an SLO; twice as many change the limit by less than 0.1 %. Arrivals are rounded to
steps; the scatter of the edge is a quadrature with five nodes, each shared by the two steps around it; probabilities of
being late are exact on the steps. The work grows as requests x (arrivals within the SLO) x steps. As in `bound`,
a batch has consecutive requests.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.simulator.bound import each_function_batch, rising_seconds
from scheduler.simulator.lagrange_dual import largest

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]

STEPS = 150
"""Steps of time in an SLO."""
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_TOLERANCE_S = 1e-9
_ROUNDING = 1e-9
_LATEST_SIGMA = 3.0
"""No batch starts when its first member is in time only if the service is this many sigmas faster than its median."""
_NEVER = 1e30
"""The cost of what must not happen: finite, because it is multiplied with probabilities of 0."""
_FORBIDDEN = 1e12
"""What costs more must not happen: `_NEVER` times the least probability that is not 0 is more, and no money is."""
_WHOLE = 1e-6
"""Part of a step that is rounding: 150 steps of an SLO are seldom whole seconds."""
_SEARCHED = 4_000
"""Requests with which the multiplier is searched; the value is then that of all."""
_ROWS = 64
_COLUMNS = 64
"""Rows and columns between two moves of the window of `V`."""


IGNORES = "uplink, round trip, cold starts, concurrency limits and faults"


class LimitError(EdgeburstError):
    """Error: there is no limit for this case; the message says why."""


@dataclass(frozen=True, slots=True)
class NoisyBatch:
    """Function batch: its items, the median seconds of its service and the expected cost of the call."""

    items: int
    median_s: float
    cost: float


@dataclass(frozen=True, slots=True)
class NoisySite:
    """An edge and functions whose services scatter.

    Attributes:
        slo_s: SLO of every request, seconds.
        edge_s: median seconds of an edge batch of 1, 2, ... requests, rising; empty without an edge.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        functions: function batches that may be used; without any, what the edge does not serve is refused.
    """

    slo_s: float
    edge_s: Floats
    edge_noise: float
    function_noise: float
    functions: tuple[NoisyBatch, ...]


@dataclass(frozen=True, slots=True)
class NoisyProblem:
    """Input of the limit.

    Attributes:
        arrivals_s: arrival times in seconds, ascending, shape (requests,).
        site: that serves them.
        steps: steps of time in an SLO.
    """

    arrivals_s: Floats
    site: NoisySite
    steps: int = STEPS


@dataclass(frozen=True, slots=True)
class Limit:
    """Limit of a case.

    Attributes:
        cost: the expected cost, in the currency of the prices.
        multiplier: what one late request more would save, in the same currency; 0 where few are late anyway, infinite
            where none may be late.
    """

    cost: float
    multiplier: float


def make_noisy_site(
    *,
    slo_s: float,
    edge_latency: LatencyModel | None,
    edge_noise: float,
    tiers: Sequence[FunctionTier],
    function_noise: float,
    max_items: int = 128,
) -> NoisySite:
    """Returns the site for given latency models, prices and sigmas; `make_problem` says what the others mean."""
    batches = [
        NoisyBatch(items, median_s, expected_cost(tier.price, median_s, function_noise))
        for tier, items, median_s in each_function_batch(tiers, max_items)
    ]
    return NoisySite(
        slo_s=slo_s,
        edge_s=rising_seconds(edge_latency, max_items),
        edge_noise=edge_noise,
        function_noise=function_noise,
        functions=tuple(batches),
    )


def clairvoyant_limit(problem: NoisyProblem, percentile: float) -> Limit:
    """Returns the limit where a fraction `percentile` of the requests must be answered within the SLO.

    Raises:
        LimitError: no policy achieves that.
    """
    count = len(problem.arrivals_s)
    if not count:
        return Limit(0.0, 0.0)
    unit = min((batch.cost / batch.items for batch in problem.site.functions), default=0.0) or 1.0
    if percentile >= 1.0:
        cost, multiplier = float(least_costs(problem, [math.inf])[0]), math.inf
    else:
        part = replace(problem, arrivals_s=problem.arrivals_s[:_SEARCHED])
        mean, multiplier = largest(
            lambda tried: least_costs(problem, [w * unit for w in tried]) / (unit * count),
            1.0 - percentile,
            rough=lambda tried: least_costs(part, [w * unit for w in tried]) / (unit * len(part.arrivals_s)),
        )
        cost, multiplier = mean * unit * count, multiplier * unit
    if math.isinf(cost):
        raise LimitError(
            f"no policy is known to answer {percentile:g} of the requests within {problem.site.slo_s:g} s; "
            "lower the percentile or the rate, or allow a longer SLO"
        )
    return Limit(cost, multiplier)


def late_probability(slack_s: float, median_s: float, sigma: float) -> float:
    """Returns the probability that a service with this median takes longer than `slack_s`."""
    if slack_s <= 0:
        return 1.0 if slack_s < -_TOLERANCE_S or median_s > _TOLERANCE_S else 0.0
    if sigma <= 0:
        return 1.0 if median_s > slack_s + _TOLERANCE_S else 0.0
    return 0.5 * math.erfc(math.log(slack_s / median_s) / (sigma * math.sqrt(2.0)))


def expected_cost(price: Price, median_s: float, sigma: float) -> float:
    """Returns the expected cost of a call whose service is lognormal, billed in whole grains."""
    if sigma <= 0:
        return price.cost(median_s)
    grains = math.ceil(median_s * math.exp(8.0 * sigma) / price.grain_s)
    if grains > 100_000:
        return price.per_s * (median_s * math.exp(sigma**2 / 2) + price.grain_s / 2) + price.per_call
    billed = sum(late_probability(grain * price.grain_s, median_s, sigma) for grain in range(grains))
    return price.per_s * price.grain_s * billed + price.per_call


def service_steps(median_s: float, sigma: float, step_s: float) -> list[tuple[int, float]]:
    """Returns the quadrature of a service time as pairs of whole steps and probabilities.

    Its mean is exact to a millionth of a step.
    """
    nodes = zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True) if sigma > 0 else [(0.0, 1.0)]
    pairs = []
    for node, weight in nodes:
        length = median_s * math.exp(sigma * node) / step_s
        whole = math.floor(length + _WHOLE)
        part = length - whole
        part = part if part > _WHOLE else 0.0
        pairs += [(whole, weight * (1.0 - part)), (whole + 1, weight * part)]
    return pairs


def least_costs(problem: NoisyProblem, multipliers: Sequence[float]) -> Floats:
    """Returns for each multiplier w the least expected cost + w x (late or refused requests), shape (multipliers,).

    An infinite multiplier forbids what may be late; the value is then infinite where no schedule exists.
    """
    values = _Recursion(problem, multipliers).run()
    return np.where(values < _NEVER / 2, values, np.inf)


def late_by_functions(arrivals_s: Floats, batch: NoisyBatch, slo_s: float, sigma: float) -> Floats:
    """Returns the expected late members of a function batch from each request on; its size where too few are left."""
    late = np.full(len(arrivals_s), float(batch.items))
    count = len(arrivals_s) - batch.items + 1
    if count <= 0:
        return late
    late[:count] = 0.0
    for member in range(batch.items):
        waits_s = arrivals_s[batch.items - 1 :] - arrivals_s[member : member + count]
        late[:count] += [late_probability(slo_s - wait_s, batch.median_s, sigma) for wait_s in waits_s.tolist()]
    return late


class _Recursion:
    """`V` from the last request to the first; the last rows of it in a window of requests x steps of time."""

    def __init__(self, problem: NoisyProblem, multipliers: Sequence[float]) -> None:
        self._step_s = problem.site.slo_s / problem.steps
        self._at = np.rint(problem.arrivals_s / self._step_s).astype(np.int64)
        self._w = np.minimum(np.asarray(multipliers, dtype=np.float64), _NEVER)
        self._strict = np.flatnonzero(self._w >= _NEVER).tolist()
        self._functions = self._function_costs(problem)
        self._lay_out(problem)
        wide = len(self._w)
        self._reach = max(1, len(self._ends) - 1, *(items for items, _ in self._functions), 1)
        self._rows = np.zeros((wide, self._reach + _ROWS, _COLUMNS + self._columns))
        self._flat = self._rows.reshape(wide, -1)
        self._index = self._nodes + np.repeat(np.arange(1, len(self._ends)), np.diff(self._ends)) * self._rows.shape[2]
        self._slot = self._rows.shape[1] - self._reach
        self._base = int(self._at[-1]) - _COLUMNS + 1 if len(self._at) else 0
        sizes = len(self._ends) - 1
        self._late_from = np.zeros((sizes + 1, max(sizes, 1), problem.steps + 1))
        self._late = np.empty(self._ends[-1])
        self._costs = np.empty((wide, self._ends[-1]))
        self._scratch = np.empty(self._ends[-1])

    def _function_costs(self, problem: NoisyProblem) -> list[tuple[int, Floats]]:
        """Returns the sizes of function batches with their cost from each request on, shape (multipliers, requests)."""
        costs: dict[int, Floats] = {}
        for batch in problem.site.functions:
            rounded_s = self._at.astype(np.float64) * self._step_s
            late = late_by_functions(rounded_s, batch, problem.site.slo_s, problem.site.function_noise)
            cost = batch.cost + _priced(self._w, late)
            costs[batch.items] = np.minimum(costs.get(batch.items, np.inf), cost)
        return sorted(costs.items())

    def _lay_out(self, problem: NoisyProblem) -> None:
        """Lists (size, start) pairs of edge batches, start in steps after the first arrival, in one dimension."""
        sigma, steps, at = problem.site.edge_noise, problem.steps, self._at
        ends, starts, nodes, weights, lates = [0], [], [], [], []
        first, latest, columns = [], [], steps + 1
        for items, median_s in enumerate(problem.site.edge_s.tolist(), start=1):
            fastest_s = median_s * math.exp(-_LATEST_SIGMA * sigma)
            last = math.floor((problem.site.slo_s - fastest_s) / self._step_s + _WHOLE)
            if items > len(at):
                break
            soonest = int((at[items - 1 :] - at[: len(at) - items + 1]).min())
            if soonest > last:
                break
            start = np.arange(soonest, last + 1)
            pairs = service_steps(median_s, sigma, self._step_s)
            starts.append(start)
            nodes.append([start + steps_of for steps_of, _ in pairs])
            weights.append(np.array([[weight] * len(start) for _, weight in pairs]))
            slacks_s = (steps - np.arange(steps + 1)) * self._step_s
            lates.append([late_probability(slack_s, median_s, sigma) for slack_s in slacks_s.tolist()])
            ends.append(ends[-1] + len(start))
            first.append(soonest)
            latest.append(last)
            columns = max(columns, last + max(steps_of for steps_of, _ in pairs) + 1)
        self._ends, self._first, self._latest = ends, first, np.array(latest, dtype=np.int64)
        self._columns = columns
        self._nodes = np.concatenate(nodes, axis=1) if nodes else np.empty((0, 0), dtype=np.int64)
        self._weights = np.concatenate(weights, axis=1) if weights else np.empty((0, 0))
        self._late_table = np.array(lates).reshape(len(lates), steps + 1)

    def run(self) -> Floats:
        """Returns the value of the first request with an edge that is free."""
        if not len(self._at):
            return np.zeros(len(self._w))
        for i in range(len(self._at) - 1, -1, -1):
            self._step(i)
        return self._rows[:, self._slot, 0].copy()

    def _step(self, i: int) -> None:
        if self._slot == 0:
            self._rows[:, -self._reach :] = self._rows[:, : self._reach].copy()
            self._slot = self._rows.shape[1] - self._reach
        if self._at[i] < self._base:
            self._move(int(self._at[i]))
        self._slot -= 1
        begin = int(self._at[i]) - self._base
        best = self._rows[:, self._slot, begin : begin + self._columns]
        # A request that is refused.
        np.add(self._rows[:, self._slot + 1, begin : begin + self._columns], self._w[:, None], out=best)
        for items, costs in self._functions:
            if i + items <= len(self._at):
                later = self._rows[:, self._slot + items, begin : begin + self._columns]
                np.minimum(best, later + costs[:, i, None], out=best)
        self._by_edge(i, begin, best)
        for one in self._strict:
            best[one, best[one] > _FORBIDDEN] = _NEVER
        self._rows[:, self._slot, :begin] = best[:, :1]

    def _move(self, at: int) -> None:
        """Moves all rows to the right, so that the window begins before `at`; they are constant left of an arrival."""
        shift = self._base - (at - _COLUMNS + 1)
        width = self._rows.shape[2]
        if shift < width:
            self._rows[:, :, shift:] = self._rows[:, :, : width - shift].copy()
        self._rows[:, :, : min(shift, width)] = self._rows[:, :, :1].copy()
        self._base -= shift

    def _by_edge(self, i: int, begin: int, best: Floats) -> None:
        sizes = min(len(self._at) - i, len(self._latest))
        if not sizes:
            return
        spans = self._at[i : i + sizes + 1] - self._at[i]
        count = int(np.count_nonzero(spans[:sizes] <= self._latest[:sizes]))
        self._count_late(i, count, spans.tolist())
        end = self._ends[count]
        offset = self._slot * self._rows.shape[2] + begin
        scratch, late = self._scratch[:end], self._late[:end]
        for one, (flat, w) in enumerate(zip(self._flat, self._w.tolist(), strict=True)):
            costs, window = self._costs[one, :end], flat[offset:]
            costs[:] = _priced(w, late)
            for index, weights in zip(self._index, self._weights, strict=True):
                np.take(window, index[:end], out=scratch, mode="clip")
                np.multiply(scratch, weights[:end], out=scratch)
                np.add(costs, scratch, out=costs)
        lasts = spans[:count].tolist()
        at_last = np.empty((len(self._w), count))
        for b in range(count):
            position = self._ends[b] + lasts[b] - self._first[b]
            part = self._costs[:, position : self._ends[b + 1]]
            column = best[:, lasts[b] : lasts[b] + part.shape[1]]
            np.minimum(column, part, out=column)
            at_last[:, b] = part[:, 0]
        # An edge that is free earlier waits for the last arrival of a batch.
        waiting = np.minimum.accumulate(at_last[:, ::-1], axis=1)[:, ::-1]
        until = np.repeat(waiting, np.diff(spans[:count], prepend=-1), axis=1)
        np.minimum(best[:, : until.shape[1]], until, out=best[:, : until.shape[1]])

    def _count_late(self, i: int, count: int, spans: Sequence[int]) -> None:
        """Sets the expected late members of all edge batches of the requests from i on.

        `_late_from` holds, for each request j, the late among all requests from j on that have arrived by the start;
        the members of a batch are the difference of two such sums.
        """
        slots = len(self._late_from)
        mine, table = self._late_from[i % slots], self._late_table
        mine[:] = table
        if i + 1 < len(self._at):
            gap = spans[1] if len(spans) > 1 else int(self._at[i + 1] - self._at[i])
            if gap < table.shape[1]:
                mine[:, gap:] += self._late_from[(i + 1) % slots][:, : table.shape[1] - gap]
        for b in range(count):
            begin, end = spans[b], int(self._latest[b]) + 1
            position = self._ends[b] + begin - self._first[b]
            part = self._late[position : self._ends[b + 1]]
            part[:] = mine[b, begin:end]
            if b + 1 < len(spans) and spans[b + 1] < end:
                behind = spans[b + 1]
                part[behind - begin :] -= self._late_from[(i + b + 1) % slots][b, : end - behind]


def _priced(w: Floats | float, late: Floats) -> Floats:
    """Returns w x late, for each w; the highest w forbids lateness, rounding errors apart."""
    if isinstance(w, float):
        return w * late if w < _NEVER else np.where(late > _ROUNDING, _NEVER, 0.0)
    return np.array([_priced(one, late) for one in w.tolist()])

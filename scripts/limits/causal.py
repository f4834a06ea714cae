"""The causal reference: a Markov decision process that knows laws and rate, but neither arrivals nor service times.

Arrivals are Poisson. While the edge serves a batch of b requests, the state is b with the seconds it has run (so the
planned remaining service), the number of requests waiting and the age of the oldest. The decisions are those that
matter at the edge:

    - while none waits, whether the next arrival is spilled to a function or becomes the first member of the next batch;
      arrivals after a first member wait too;
    - how many spilled requests share a function batch, which leaves at the last of them;
    - when the edge is free, how many of the waiting it takes, oldest first, and what becomes of the others: they go to
      functions, wait for the next batch, or (the oldest) are refused.

Each late or refused request costs w. Given the age of the oldest, the other ages are uniform, which is exact for
Poisson arrivals that all wait. Services end at whole steps of time. Relative value iteration for a semi-Markov process
finds the least mean cost of a request; costs and w are in any one unit.

References:
    Y. Xu, J. Sun, S. Zhou, Z. Niu, "SMDP-based dynamic batching" (arXiv 2501.02181): one batch server under Poisson
    arrivals by relative value iteration.
    M. Puterman, "Markov Decision Processes" (1994), chapter 11: semi-Markov processes under the mean cost.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.simulator.limit import NoisyBatch, NoisySite, late_probability
from scheduler.simulator.policies.smdp import poisson_law

Floats = npt.NDArray[np.float64]

STEPS = 60
"""Steps of time in an SLO; twice as many change costs by about 0.0005 of all-function."""
LEFT = 12
"""Most requests that an edge batch leaves waiting."""
GATHERED = 6
"""Most requests that share a function batch."""
_LONGEST_SIGMA = 3.5
"""A service of this many sigmas above its median is the longest."""
_PRECISION = 1e-5
"""Of the mean cost of a request, in the unit of the costs."""
_SWEEPS = 3_000


class CausalError(Exception):
    """Error: value iteration has not converged."""


@dataclass(frozen=True, slots=True)
class CausalProblem:
    """Input of the decision process.

    Attributes:
        rate_rps: arrivals a second, Poisson.
        site: that serves them, with an edge.
        steps: steps of time in an SLO.
    """

    rate_rps: float
    site: NoisySite
    steps: int = STEPS


def service_law(median_s: float, sigma: float, step_s: float, longest: int) -> Floats:
    """Returns P(a service ends after t steps), t = 0 ... longest: lognormal, rounded to steps, at least one."""
    above = [late_probability((t + 0.5) * step_s, median_s, sigma) for t in range(1, longest)]
    return np.concatenate([[0.0], -np.diff([1.0, *above, 0.0])])


class CausalProcess:
    """Decision process at one rate; `solve` finds the least cost for one multiplier after another."""

    def __init__(self, problem: CausalProblem) -> None:
        """Computes what does not depend on the multiplier."""
        self._problem, self._step_s = problem, problem.site.slo_s / problem.steps
        self._per_step = problem.rate_rps * self._step_s
        self._lay_out()
        self._count_late()
        self._values = np.zeros((self._most + 1, self._ages))
        self._per_s = 0.0

    def _lay_out(self) -> None:
        """Sets the sizes of batches, the steps that each may take, and the arrivals meanwhile."""
        problem, sigma = self._problem, self._problem.site.edge_noise
        # Larger batches are so late, even if their members came at twice the rate, that none is ever begun.
        ages_s = np.arange(len(problem.site.edge_s)) / problem.rate_rps
        fits = problem.site.edge_s * math.exp(-2.0 * sigma) + 0.5 * ages_s <= problem.site.slo_s
        medians_s = problem.site.edge_s[: max(1, int(np.count_nonzero(fits)))].tolist()
        sizes = len(medians_s)
        longest = 1 + math.ceil(medians_s[-1] * math.exp(_LONGEST_SIGMA * sigma) / self._step_s)
        self._laws = np.array([service_law(one, sigma, self._step_s, longest) for one in medians_s])
        self._mean_s = self._laws @ np.arange(longest + 1) * self._step_s
        self._left_ages = problem.steps // 3 + 1
        self._ages = longest + self._left_ages + 1
        self._most = sizes + max(LEFT, sizes // 4)
        # The service in progress, seen after e steps of it: P(it takes t more), and P(it ends with the next step).
        above = 1.0 - np.cumsum(self._laws, axis=1)[:, :-1]
        above[above < 1e-12] = 0.0
        known = np.where(above > 0, above, np.inf)
        self._remaining = np.zeros((sizes, longest, longest + 1))
        for e in range(longest):
            self._remaining[:, e, 1 : longest + 1 - e] = self._laws[:, e + 1 :] / known[:, e, None]
        self._ends = np.where(above > 0, self._laws[:, 1:] / known, 1.0)
        most_joining = math.ceil(longest * self._per_step + 6.0 * math.sqrt(longest * self._per_step)) + 2
        self._joining = poisson_law(np.arange(longest + 1) * self._per_step, most_joining)
        in_step = max(4, math.ceil(self._per_step + 5.0 * math.sqrt(self._per_step)))
        [self._in_step] = poisson_law(np.array([self._per_step]), in_step)
        self._in_step[-1] += 1.0 - self._in_step.sum()
        self._any = -math.expm1(-self._per_step)
        # The mean part of a step before its first arrival, if it has one.
        self._before_first = 1.0 / self._per_step - math.exp(-self._per_step) / self._any

    def _count_late(self) -> None:
        """Counts the late members of edge batches, by waiting requests, age of the oldest and size of the batch."""
        problem, sizes = self._problem, len(self._laws)
        medians_s = problem.site.edge_s[:sizes].tolist()
        late = np.array([self._late_by_age(median_s, problem.site.edge_noise) for median_s in medians_s])
        below = np.zeros_like(late)
        below[:, 1:] = np.cumsum((late[:, 1:] + late[:, :-1]) / 2.0, axis=1)
        n, y, b = np.ogrid[0 : self._most + 1, 0 : self._ages, 1 : sizes + 1]
        self._left = np.broadcast_to(np.maximum(n - b, 0), (self._most + 1, self._ages, sizes))
        left_age = y * self._left / np.maximum(n, 1)
        self._whole = np.minimum(left_age.astype(np.int64), self._ages - 2)
        self._part = left_age - self._whole
        size = np.broadcast_to(b - 1, left_age.shape)
        of_left = below[size, self._whole] * (1.0 - self._part) + below[size, self._whole + 1] * self._part
        width = y - left_age
        others = np.where(width > 1e-9, (below.T[None] - of_left) / np.maximum(width, 1e-9), late.T[None])
        self._late = late.T[None] + (b - 1) * others
        self._impossible = np.broadcast_to(b > n, self._late.shape)

    def _late_by_age(self, median_s: float, sigma: float) -> list[float]:
        slacks_s = (self._problem.steps - np.arange(self._ages)) * self._step_s
        return [late_probability(slack_s, median_s, sigma) for slack_s in slacks_s.tolist()]

    def solve(self, w: float) -> float:
        """Returns the least mean cost of a request, lateness included at w; the next call begins with its values.

        Raises:
            CausalError: value iteration has not converged.
        """
        self._w = w
        self._price_functions()
        rate_rps = self._problem.rate_rps
        longest_s = float(self._mean_s.max()) + 1.0 / rate_rps
        for _ in range(_SWEEPS):
            values = self._swept()
            change = values - self._values
            low, high = float(change.min()), float(change.max())
            self._values = values - values[1, 0]
            self._per_s += 0.5 * (low + high) / longest_s
            if max(high, -low) / longest_s / rate_rps < _PRECISION:
                return self._per_s / rate_rps
        raise CausalError(f"no convergence at {rate_rps:g} requests/s and w {w:g}: {low:g} to {high:g}")

    def _price_functions(self) -> None:
        """Prices what leaves by function: consecutive arrivals by their number, and waiting ones by age, too."""
        w, problem = self._w, self._problem
        gathered = {1: w}
        by_age = {1: np.full(self._ages, w)}
        for batch in problem.site.functions:
            if batch.items > GATHERED:
                continue
            late = np.array(self._late_by_age(batch.median_s, problem.site.function_noise))
            # The mean over ages from 0 to y.
            mean = np.concatenate([late[:1], np.cumsum((late[1:] + late[:-1]) / 2.0) / np.arange(1, len(late))])
            known, aged = gathered.get(batch.items, math.inf), by_age.get(batch.items, np.inf)
            gathered[batch.items] = min(known, batch.cost + w * self._gathered_late(batch))
            by_age[batch.items] = np.minimum(aged, batch.cost + w * batch.items * mean)
        self._batch = np.zeros(GATHERED + 1)
        for items in range(1, GATHERED + 1):
            self._batch[items] = min(cost + self._batch[items - k] for k, cost in gathered.items() if k <= items)
        waiting = np.zeros((self._most + 1, self._ages))
        for items in range(1, self._most + 1):
            waiting[items] = np.min([cost + waiting[items - k] for k, cost in by_age.items() if k <= items], axis=0)
        self._spill = min(float(cost[0]) / k for k, cost in by_age.items())
        given = waiting[self._left, self._whole] * (1.0 - self._part)
        given += waiting[self._left, self._whole + 1] * self._part
        self._start = np.where(self._impossible, np.inf, w * self._late + given)

    def _gathered_late(self, batch: NoisyBatch) -> float:
        """Returns the expected late members of a function batch of consecutive arrivals: Erlang waits for the last."""
        problem, late = self._problem, 0.0
        grid_s = np.linspace(0.0, (batch.items + 6.0 * math.sqrt(batch.items)) / problem.rate_rps, 200)
        slacks_s = (problem.site.slo_s - grid_s).tolist()
        by_wait = np.array(
            [late_probability(slack_s, batch.median_s, problem.site.function_noise) for slack_s in slacks_s]
        )
        for gaps in range(batch.items):
            density = grid_s ** (gaps - 1) * np.exp(-problem.rate_rps * grid_s) if gaps else grid_s == 0.0
            late += float((density * by_wait).sum() / density.sum())
        return late

    def _swept(self) -> Floats:
        """Returns the values after one more edge batch, less the mean cost of its time."""
        idle = float(self._values[1, 0]) - self._per_s / self._problem.rate_rps
        values = np.asarray((self._start + (self._begun(idle) - self._per_s * self._mean_s)).min(axis=2))
        self._leave_some(values)
        values[0] = idle
        ages = np.arange(self._ages)
        for n in range(1, self._most + 1):
            refused = self._w + np.interp(ages * (n - 1) / n, ages, values[n - 1])
            np.minimum(values[n], refused, out=values[n])
        return values

    def _begun(self, idle: float) -> Floats:
        """Returns the values of beginning an edge batch of each size while no other request waits."""
        laws, longest, batch = self._laws, self._laws.shape[1] - 1, self._batch
        # The value of a free edge whose first waiting request came t steps ago.
        met = self._met(self._more_waiting(), waiting=1, age=0)
        earlier = np.concatenate([met[:1], met[:-1]])
        early, late = self._remaining @ met, self._remaining @ earlier
        first = self._any * (early + self._before_first * (late - early))
        # Backwards through the service: values by the number of spilled requests that wait for their function batch.
        values = np.tile(idle + batch, (len(laws), 1))
        held, sent = np.full_like(values, np.inf), np.empty_like(values)
        for e in range(longest - 1, -1, -1):
            ends = self._ends[:, e, None]
            onward = ends * (idle + batch) + (1.0 - ends) * values
            admitted = first[:, e, None] + (1.0 - self._any) * onward[:, :1] + batch
            spilled, arrived = self._in_step[0] * onward, onward
            for chance in self._in_step[1:].tolist():
                held[:, :-1] = arrived[:, 1:]
                sent[:, :-1] = batch[1:] + arrived[:, :1]
                sent[:, -1] = batch[-1] + arrived[:, 1]
                arrived = np.minimum(held, sent)
                spilled += chance * arrived
            values = np.minimum(admitted, spilled)
        return values[:, 0]

    def _more_waiting(self) -> Floats:
        """Returns the values for more waiting requests than are distinguished, too: the rest goes to functions."""
        more = LEFT + self._joining.shape[1] - self._most
        rest = self._values[-1] + self._spill * np.arange(1, more + 1)[:, None]
        return np.concatenate([self._values, rest])

    def _met(self, values: Floats, *, waiting: int, age: int) -> Floats:
        """Returns the value of an edge that is free after 0, 1, ... steps.

        Args:
            values: by waiting requests and age of the oldest.
            waiting: requests that wait now; others join them.
            age: age of the oldest now, in steps.
        """
        steps, most = self._joining.shape
        return np.asarray(np.einsum("tn,nt->t", self._joining, values[waiting : waiting + most, age : age + steps]))

    def _leave_some(self, values: Floats) -> None:
        """Lowers the values by batches that leave the newest requests waiting for the next one."""
        more = self._more_waiting()
        for left in range(1, LEFT + 1):
            count = min(len(self._laws), self._most - left)
            met = [self._met(more, waiting=left, age=age) for age in range(self._left_ages)]
            after = self._laws[:count] @ np.array(met).T - self._per_s * self._mean_s[:count, None]
            rows, n = np.arange(count)[:, None], np.arange(count) + left + 1
            whole, part = self._whole[n, :, rows[:, 0]], self._part[n, :, rows[:, 0]]
            late = self._late[n, :, rows[:, 0]]
            fits = whole + 1 < self._left_ages
            whole = np.where(fits, whole, 0)
            value = after[rows, whole] * (1.0 - part) + after[rows, whole + 1] * part + self._w * late
            values[n] = np.minimum(values[n], np.where(fits, value, np.inf))

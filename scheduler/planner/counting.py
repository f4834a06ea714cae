"""How many arrivals come in a time, and in which phase it ends: the count matrices of a Markovian arrival process."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.arrivals import ArrivalError, MarkovianArrivals
from scheduler.planner.matrices import Array

_NOTHING = 1e-18
"""Probability below which a count cannot matter any more."""
_RARE = 1e-13
"""Probability of so many ticks in a short time that they may be left out."""
_MOST_NUMBERS = 30_000_000
"""Bound of the table, 240 MB."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Count matrices of one process for every time up to a longest, from one table.

    P_k(t)[i, j] is the probability of k arrivals in t and phase j at its end, given phase i at its start. Phase changes
    are taken at the ticks of a Poisson clock that is at least as fast as every phase (uniformisation; Jensen, 1953):
    P_k(t) = sum over n of e^-(ct) (ct)^n / n! U_k(n), where U_k(n) counts over n ticks and does not depend on t. All
    terms are positive, so nothing cancels.

    Parameters:
        arrivals_rps: arrivals a second in each phase, shape (m,).
        clock_per_s: ticks a second, c.
        longest_s: up to which times are good.
        ticks: U, shape (ticks, counts, m, m).
    """

    arrivals_rps: Array
    clock_per_s: float
    longest_s: float
    ticks: Array

    @property
    def counts(self) -> int:
        """Counts 0, 1, ... are kept up to this one, exclusive."""
        return int(self.ticks.shape[1])

    def weights(self, times_s: Array) -> Array:
        """Returns the probability of n ticks, shape (times, ticks)."""
        number = np.arange(len(self.ticks))
        means = np.asarray(times_s, dtype=np.float64)[:, None] * self.clock_per_s
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(number))))])
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = number * np.log(means) - means - log_factorial
        # 0 ln 0 is 0: no time, no tick.
        logs[:, 0] = -means[:, 0]
        return np.asarray(np.exp(logs))

    def integrated_weights(self, times_s: Array) -> Array:
        """Returns the integral of `weights` from 0 to each time, seconds, shape (times, ticks).

        That is the probability of more than n ticks over the speed of the clock. Ticks beyond the table hold no count
        that is kept, but they do make "more than n".
        """
        weights = self.weights(times_s)
        beyond = np.maximum(0.0, 1.0 - weights.sum(axis=1, keepdims=True))
        above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1] - weights
        return np.asarray((above + beyond) / self.clock_per_s)

    def at(self, times_s: Array) -> Array:
        """Returns P_k(t), shape (times, counts, m, m)."""
        return self._mixed(self.weights(times_s), self.ticks)

    def integrated(self, times_s: Array) -> Array:
        """Returns the integral of P_k from 0 to t, seconds, shape (times, counts, m, m)."""
        return self._mixed(self.integrated_weights(times_s), self.ticks)

    def after(self, start: Array) -> "PhaseCounts":
        """Returns the counts from a start phase drawn from `start`, shape (m,)."""
        return PhaseCounts(self, np.einsum("i,nkij->nkj", start, self.ticks))

    def before(self, end: Array) -> "PhaseCounts":
        """Returns the counts weighed by what the end phase is worth: P_k(t) times the column `end`, shape (m,)."""
        return PhaseCounts(self, np.einsum("nkij,j->nki", self.ticks, end))

    def up_to(self, longest_s: float) -> "Counts":
        """Returns the same for short times only, without the ticks and counts that these cannot reach."""
        weights = self.weights(np.array([longest_s]))[0]
        ticks = int(np.flatnonzero(weights > _RARE)[-1]) + 1
        return Counts(self.arrivals_rps, self.clock_per_s, longest_s, self.ticks[:ticks, :ticks])

    @staticmethod
    def _mixed(weights: Array, ticks: Array) -> Array:
        flat = weights @ ticks.reshape(len(ticks), -1)
        return flat.reshape(len(weights), *ticks.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class PhaseCounts:
    """Count vectors: count matrices with a row on their left or a column on their right.

    Parameters:
        counts: where the weights come from.
        ticks: vectors for each number of ticks, shape (ticks, counts, m).
    """

    counts: Counts
    ticks: Array

    def at(self, times_s: Array) -> Array:
        """Returns the vectors at each time, shape (times, counts, m)."""
        return Counts._mixed(self.counts.weights(times_s), self.ticks)

    def integrated(self, times_s: Array) -> Array:
        """Returns their integrals from 0 to each time, shape (times, counts, m)."""
        return Counts._mixed(self.counts.integrated_weights(times_s), self.ticks)


def count_table(process: MarkovianArrivals, *, counts: int, longest_s: float) -> Counts:
    """Returns the count matrices of `process`.

    Parameters:
        process: the arrivals.
        counts: 0, 1, ... `counts` - 1 arrivals are told apart, at least 1.
        longest_s: longest time that will be asked for, finite.

    Raises:
        ArrivalError: so many phase changes fit in that time that the table would not fit in memory.
    """
    return count_rates(*process.matrices(), counts=counts, longest_s=longest_s)


def count_rates(d0: Array, d1: Array, *, counts: int, longest_s: float) -> Counts:
    """Returns the same for any rates that are not negative off the diagonal, whatever their rows sum to.

    Parameters:
        d0: rates of what is not counted, shape (m, m).
        d1: rates of what is counted, shape (m, m).
        counts: how many counts are told apart, at least 1.
        longest_s: longest time that will be asked for, finite.
    """
    phases = len(d0)
    clock_per_s = float(-d0.diagonal().min())
    most = _enough_ticks(clock_per_s * longest_s)
    tick = np.hstack([np.eye(phases) + d0 / clock_per_s, d1 / clock_per_s])
    now = np.zeros((counts * phases, phases))
    now[:phases] = np.eye(phases)
    ticks = [now]
    while len(ticks) < most and now.sum(axis=1).max() > _NOTHING:
        if len(ticks) * now.size > _MOST_NUMBERS:
            raise ArrivalError(
                f"{longest_s:g} s hold up to {most} changes of phase, too many to count {counts} arrivals exactly; "
                "shorten the timeout or lower the largest batch"
            )
        moved = now @ tick
        now = moved[:, :phases].copy()
        now[phases:] += moved[:-phases, phases:]
        ticks.append(now)
    return Counts(d1.sum(axis=1), clock_per_s, longest_s, np.stack(ticks).reshape(len(ticks), counts, phases, phases))


def _enough_ticks(mean: float) -> int:
    """So many ticks are exceeded with a probability below 1e-16 (Chernoff's bound for a Poisson number)."""
    return math.ceil(mean + 9 * math.sqrt(mean) + 30)

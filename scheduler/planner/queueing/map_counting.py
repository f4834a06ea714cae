"""Count matrices of a Markovian arrival process: the number of arrivals in a time, and the phase at its end."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, product

_NOTHING = 1e-18
"""Probability below which a count is treated as impossible: far below the 1e-13 to which the results are exact."""
_RARE = 1e-13
"""Probability of a number of ticks in a short time below which these ticks are left out."""
_MAX_ENTRIES = 30_000_000
"""Largest number of entries of a table, 240 MB."""
_UNLIKELY = 1e-20
"""Probability of a number of ticks that adds nothing to a sum over all numbers, in double precision."""
_TIMES = 32
"""Times that are computed at once: 32 neighbouring times need nearly the same ticks."""
_LOOKS = 4
"""Ticks between checks whether any count is left below the largest; a check takes as long as a tick."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Count matrices of one process for all times up to a longest one, from one table.

    P_k(t)[i, j] is the probability of k arrivals in the time t and phase j at its end, given phase i at its start.
    Transitions are taken at the ticks of a Poisson clock that is at least as fast as every phase (uniformisation;
    Jensen, 1953): P_k(t) = sum over n of e^-(ct) (ct)^n / n! U_k(n). Here U_k(n) counts arrivals over n ticks and does
    not depend on t. All terms are positive, so no digits cancel.

    In this example each phase has one arrival and one change a second, so the clock ticks twice a second, and each tick
    is an arrival or a change with equal probability. Two ticks from the first phase are two changes (1/4), a change and
    an arrival in either order (1/2), or two arrivals (1/4):

    >>> from scheduler.planner.queueing.map_process import mmpp2
    >>> counts = count_table(mmpp2(rates_rps=(1.0, 1.0), leave_per_s=(1.0, 1.0)), counts=3, longest_s=1.0)
    >>> counts.clock_per_s, counts.ticks[2, 0].tolist()
    (2.0, [[0.25, 0.0], [0.0, 0.5], [0.25, 0.0]])

    In one second there are k arrivals with Poisson probability, 1/e, 1/e and 1/(2e), whatever the phase at the end:

    >>> counts.at(np.array([1.0]))[0, :, 0].sum(axis=1).round(4).tolist()
    [0.3679, 0.3679, 0.1839]

    Attributes:
        arrivals_rps: arrivals a second in each phase, shape (m,).
        clock_per_s: ticks a second, c.
        longest_s: longest time that the table is valid for.
        ticks: U by number of ticks, first phase, count and last phase, shape (ticks, m, counts, m).
    """

    arrivals_rps: Array
    clock_per_s: float
    longest_s: float
    ticks: Array

    @property
    def counts(self) -> int:
        """Number of counts in the table: 0, 1, ... up to this number, exclusive."""
        return int(self.ticks.shape[2])

    def weights(self, times_s: Array) -> Array:
        """Returns the probability of n ticks in each time, shape (times, ticks)."""
        number = np.arange(len(self.ticks))
        means = np.asarray(times_s, dtype=np.float64)[:, None] * self.clock_per_s
        log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(number))))])
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = number * np.log(means) - means - log_factorial
        # 0 ln 0 is 0: in no time there is no tick.
        logs[:, 0] = -means[:, 0]
        return np.asarray(np.exp(logs))

    def integrated_weights(self, times_s: Array) -> Array:
        """Returns the integral of `weights` from 0 to each time, seconds, shape (times, ticks).

        It is the probability of more than n ticks, divided by the speed of the clock. Ticks beyond the table have no
        count in the table, but they count as "more than n".
        """
        weights = self.weights(times_s)
        beyond = np.maximum(0.0, 1.0 - weights.sum(axis=1, keepdims=True))
        above = np.cumsum(weights[:, ::-1], axis=1)[:, ::-1] - weights
        return np.asarray((above + beyond) / self.clock_per_s)

    def at(self, times_s: Array) -> Array:
        """Returns P_k(t), shape (times, counts, m, m)."""
        return np.asarray(_mixed(self.weights(times_s), self.ticks).transpose(0, 2, 1, 3))

    def integrated(self, times_s: Array) -> Array:
        """Returns the integral of P_k from 0 to t, seconds, shape (times, counts, m, m)."""
        return np.asarray(_mixed(self.integrated_weights(times_s), self.ticks).transpose(0, 2, 1, 3))

    def after(self, start: Array) -> "PhaseCounts":
        """Returns the count vectors from the distribution `start` of the first phase, shape (m,)."""
        return PhaseCounts(self, np.einsum("i,nikj->nkj", start, self.ticks))

    def before(self, end: Array) -> "PhaseCounts":
        """Returns the count vectors P_k(t) times the column `end`, which is a value by last phase, shape (m,)."""
        return PhaseCounts(self, np.ascontiguousarray((self.ticks @ end).transpose(0, 2, 1)))

    def stepped(self, steps: int) -> tuple[Array, Array]:
        """Returns P_k and its integral, seconds, at 0, 1, ... `steps` times the longest time.

        Two steps are made from every other point, by adding counts: the products then have few counts each, and all
        terms are positive.

        Returns:
            Both by time, first phase, count and last phase, shape (steps + 1, m, counts, m).
        """
        phases, counts = len(self.arrivals_rps), self.counts
        if (steps + 1) * self.ticks[0].size > _MAX_ENTRIES:
            raise ArrivalError(f"{steps} timeouts are too many to count {counts} arrivals exactly; choose fewer")
        length_s = np.array([self.longest_s])
        # Two steps from each point: preparing a point takes longer than the few more counts that two steps need.
        step = _twice(np.concatenate([self.at(length_s)[0], self.integrated(length_s)[0]], axis=2))
        few = int(np.flatnonzero(step.max(axis=(1, 2)) > _NOTHING)[-1]) + 1
        step = step[few - 1 :: -1].reshape(few * phases, 4 * phases)
        timed_out, filled = np.empty((2, steps + 1, phases, counts, phases))
        timed_out[0], filled[0] = 0.0, 0.0
        timed_out[0, :, 0] = np.eye(phases)
        # The counts of each first phase follow few - 1 zeros, so that each window holds the counts of one sum.
        padded = np.zeros((phases, few - 1 + counts, phases))
        windows = sliding_window_view(padded.ravel(), few * phases)[::phases]
        moved = np.empty((phases, few - 1 + counts, 2, 2, phases))
        for number in range(0, steps, 2):
            padded[:, few - 1 :] = timed_out[number]
            product(np.ascontiguousarray(windows), step, out=moved.reshape(-1, 4 * phases)[: len(windows)])
            for ahead in range(min(2, steps - number)):
                timed_out[number + 1 + ahead] = moved[:, :counts, ahead, 0]
                np.add(filled[number], moved[:, :counts, ahead, 1], out=filled[number + 1 + ahead])
        return timed_out, filled

    def up_to(self, longest_s: float) -> "Counts":
        """Returns the table for short times only, without the ticks and counts that these cannot reach."""
        significant = np.flatnonzero(self.weights(np.array([longest_s]))[0] > _RARE)
        # None is significant if far more ticks are: the ticks of the table then come in even shorter times.
        ticks = int(significant[-1]) + 1 if len(significant) else len(self.ticks)
        return Counts(self.arrivals_rps, self.clock_per_s, longest_s, self.ticks[:ticks, :, :ticks])


@dataclass(frozen=True, slots=True, eq=False)
class PhaseCounts:
    """Count vectors: count matrices times a row on their left or a column on their right.

    Attributes:
        counts: the table that the weights are taken from.
        ticks: vectors for each number of ticks, shape (ticks, counts, m).
    """

    counts: Counts
    ticks: Array

    def at(self, times_s: Array) -> Array:
        """Returns the vectors at each time, shape (times, counts, m)."""
        return _mixed(self.counts.weights(times_s), self.ticks)

    def integrated(self, times_s: Array) -> Array:
        """Returns the integrals of the vectors from 0 to each time, seconds, shape (times, counts, m)."""
        return _mixed(self.counts.integrated_weights(times_s), self.ticks)


def count_table(process: MarkovianArrivals, *, counts: int, longest_s: float) -> Counts:
    """Returns the count matrices of a process.

    Args:
        process: the arrivals.
        counts: number of counts 0, 1, ... to distinguish, at least 1.
        longest_s: longest time that the table is used for, finite.

    Raises:
        ArrivalError: so many transitions fit into that time that the table would not fit into memory.
    """
    return count_rates(*process.matrices(), counts=counts, longest_s=longest_s)


def count_rates(d0: Array, d1: Array, *, counts: int, longest_s: float) -> Counts:
    """Returns count matrices for any rates that are not negative off the diagonal, whatever their rows sum to.

    Args:
        d0: rates of transitions that are not counted, shape (m, m).
        d1: rates of transitions that are counted, shape (m, m).
        counts: number of counts to distinguish, at least 1.
        longest_s: longest time that the table is used for, finite.

    Raises:
        ArrivalError: the table would not fit into memory.
    """
    clock_per_s = float(-d0.diagonal().min())
    max_ticks = _enough_ticks(clock_per_s * longest_s)
    tick = np.hstack([np.eye(len(d0)) + d0 / clock_per_s, d1 / clock_per_s])
    ticks = _ticked(tick, counts=counts, max_ticks=max_ticks)
    if ticks is None:
        raise ArrivalError(
            f"{longest_s:g} s hold up to {max_ticks} changes of phase, too many to count {counts} arrivals exactly; "
            "shorten the timeout or lower the largest batch"
        )
    return Counts(d1.sum(axis=1), clock_per_s, longest_s, ticks)


def _ticked(tick: Array, *, counts: int, max_ticks: int) -> Array | None:
    """Returns counts over 0, 1, ... ticks, shape (ticks, m, counts, m); None if they need too much memory.

    It ends at the number of ticks after which no count of the table is possible any more.

    Args:
        tick: transition probabilities of a tick, without and with an arrival side by side, shape (m, 2 m).
        counts: number of counts to distinguish.
        max_ticks: number of ticks that is enough.
    """
    phases = len(tick)
    capacity = _MAX_ENTRIES // (counts * phases * phases) + 1
    ticks = np.zeros((min(max_ticks, capacity), phases, counts, phases))
    ticks[0, :, 0] = np.eye(phases)
    for number in range(1, max_ticks):
        before = ticks[number - 1]
        if number % _LOOKS == 0 and before.sum(axis=2).max() <= _NOTHING:
            # A copy and not a view, so that the rest of the memory is freed.
            return np.array(ticks[:number])
        if number == capacity:
            return None
        # After so few ticks no higher count is possible.
        reached = min(number, counts)
        moved = before[:, :reached] @ tick
        after = ticks[number]
        after[:, :reached] = moved[:, :, :phases]
        after[:, 1 : reached + 1] += moved[:, : counts - 1, phases:]
    return ticks


def _twice(step: Array) -> Array:
    """Returns P_k and its integral after one step and after two, side by side, shape (counts, m, 4 m).

    Args:
        step: P_k and its integral after one step, shape (counts, m, 2 m).
    """
    counts, phases, wide = step.shape
    significant = np.flatnonzero(step.max(axis=(1, 2)) > _NOTHING)
    few = int(significant[-1]) + 1
    first, second = step[:few, :, :phases], step[:few].transpose(1, 0, 2)
    pairs = (first.reshape(-1, phases) @ second.reshape(phases, -1)).reshape(few, phases, few, wide)
    both = np.zeros((counts + few, phases, 2 * wide))
    both[:counts, :, :wide] = step
    both[:few, :, wide + phases :] = step[:few, :, phases:]
    for count in range(few):
        both[count : count + few, :, wide:] += pairs[count].transpose(1, 0, 2)
    return both[:counts]


def _mixed(weights: Array, ticks: Array) -> Array:
    """Returns weighted sums of tables over the number of ticks, shape (times, ...).

    Args:
        weights: weight of each number of ticks at each time, shape (times, ticks).
        ticks: the tables, shape (ticks, ...).
    """
    flat = ticks.reshape(len(ticks), -1)
    mixed = np.empty((len(weights), flat.shape[1]))
    for start in range(0, len(weights), _TIMES):
        part = weights[start : start + _TIMES]
        significant = np.flatnonzero(part.max(axis=0) > _UNLIKELY)
        few = slice(int(significant[0]), int(significant[-1]) + 1) if len(significant) else slice(0, 1)
        product(part[:, few], flat[few], out=mixed[start : start + _TIMES])
    return mixed.reshape(len(weights), *ticks.shape[1:])


def _enough_ticks(mean: float) -> int:
    """Returns a number of ticks that is exceeded with a probability below 1e-16 (Chernoff's bound for Poisson)."""
    return math.ceil(mean + 9 * math.sqrt(mean) + 30)

"""How many arrivals come in a time, and in which phase it ends: the count matrices of a Markovian arrival process."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, product

_NOTHING = 1e-18
"""Probability below which a count cannot matter any more."""
_RARE = 1e-13
"""Probability of so many ticks in a short time that they may be left out."""
_MAX_ENTRIES = 30_000_000
"""Bound of the table, 240 MB."""
_UNLIKELY = 1e-20
"""Probability of a number of ticks that adds nothing, even to sums over all of them."""
_TIMES = 32
"""Times mixed at once: so many in a row need nearly the same ticks."""
_LOOKS = 4
"""Ticks after which it is looked whether anything is left to count; looking takes as long as a tick."""


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Count matrices of one process for every time up to a longest, from one table.

    P_k(t)[i, j] is the probability of k arrivals in t and phase j at its end, given phase i at its start. Phase changes
    are taken at the ticks of a Poisson clock that is at least as fast as every phase (uniformisation; Jensen, 1953):
    P_k(t) = sum over n of e^-(ct) (ct)^n / n! U_k(n), where U_k(n) counts over n ticks and does not depend on t. All
    terms are positive, so nothing cancels.

    Attributes:
        arrivals_rps: arrivals a second in each phase, shape (m,).
        clock_per_s: ticks a second, c.
        longest_s: up to which times are good.
        ticks: U by ticks, first phase, count and last phase, shape (ticks, m, counts, m).
    """

    arrivals_rps: Array
    clock_per_s: float
    longest_s: float
    ticks: Array

    @property
    def counts(self) -> int:
        """Counts 0, 1, ... are kept up to this one, exclusive."""
        return int(self.ticks.shape[2])

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
        return np.asarray(_mixed(self.weights(times_s), self.ticks).transpose(0, 2, 1, 3))

    def integrated(self, times_s: Array) -> Array:
        """Returns the integral of P_k from 0 to t, seconds, shape (times, counts, m, m)."""
        return np.asarray(_mixed(self.integrated_weights(times_s), self.ticks).transpose(0, 2, 1, 3))

    def after(self, start: Array) -> "PhaseCounts":
        """Returns the counts from a start phase drawn from `start`, shape (m,)."""
        return PhaseCounts(self, np.einsum("i,nikj->nkj", start, self.ticks))

    def before(self, end: Array) -> "PhaseCounts":
        """Returns the counts weighed by what the end phase is worth: P_k(t) times the column `end`, shape (m,)."""
        return PhaseCounts(self, np.ascontiguousarray((self.ticks @ end).transpose(0, 2, 1)))

    def stepped(self, steps: int) -> tuple[Array, Array]:
        """Returns P_k and its integral, seconds, at 0, 1, ... `steps` times the longest time.

        Two steps from every other point, counts added: products with few counts each, and all terms are positive again.

        Returns:
            Both by time, first phase, count and last phase, shape (steps + 1, m, counts, m).
        """
        phases, counts = len(self.arrivals_rps), self.counts
        if (steps + 1) * self.ticks[0].size > _MAX_ENTRIES:
            raise ArrivalError(f"{steps} timeouts are too many to count {counts} arrivals exactly; choose fewer")
        length_s = np.array([self.longest_s])
        # Two steps from each point: getting the point ready takes longer than the few counts more that two need.
        step = _twice(np.concatenate([self.at(length_s)[0], self.integrated(length_s)[0]], axis=2))
        few = int(np.flatnonzero(step.max(axis=(1, 2)) > _NOTHING)[-1]) + 1
        step = step[few - 1 :: -1].reshape(few * phases, 4 * phases)
        timed_out, filled = np.empty((2, steps + 1, phases, counts, phases))
        timed_out[0], filled[0] = 0.0, 0.0
        timed_out[0, :, 0] = np.eye(phases)
        # Counts of each first phase behind few - 1 that are nothing, so that each window has the counts of one sum.
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
        """Returns the same for short times only, without the ticks and counts that these cannot reach."""
        significant = np.flatnonzero(self.weights(np.array([longest_s]))[0] > _RARE)
        # None is significant if far more ticks are: then those of the table come in even shorter times.
        ticks = int(significant[-1]) + 1 if len(significant) else len(self.ticks)
        return Counts(self.arrivals_rps, self.clock_per_s, longest_s, self.ticks[:ticks, :, :ticks])


@dataclass(frozen=True, slots=True, eq=False)
class PhaseCounts:
    """Count vectors: count matrices with a row on their left or a column on their right.

    Attributes:
        counts: where the weights come from.
        ticks: vectors for each number of ticks, shape (ticks, counts, m).
    """

    counts: Counts
    ticks: Array

    def at(self, times_s: Array) -> Array:
        """Returns the vectors at each time, shape (times, counts, m)."""
        return _mixed(self.counts.weights(times_s), self.ticks)

    def integrated(self, times_s: Array) -> Array:
        """Returns their integrals from 0 to each time, shape (times, counts, m)."""
        return _mixed(self.counts.integrated_weights(times_s), self.ticks)


def count_table(process: MarkovianArrivals, *, counts: int, longest_s: float) -> Counts:
    """Returns the count matrices of `process`.

    Args:
        process: the arrivals.
        counts: 0, 1, ... `counts` - 1 arrivals are told apart, at least 1.
        longest_s: longest time that will be asked for, finite.

    Raises:
        ArrivalError: so many phase changes fit in that time that the table would not fit in memory.
    """
    return count_rates(*process.matrices(), counts=counts, longest_s=longest_s)


def count_rates(d0: Array, d1: Array, *, counts: int, longest_s: float) -> Counts:
    """Returns the same for any rates that are not negative off the diagonal, whatever their rows sum to.

    Args:
        d0: rates of what is not counted, shape (m, m).
        d1: rates of what is counted, shape (m, m).
        counts: how many counts are told apart, at least 1.
        longest_s: longest time that will be asked for, finite.
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
    """Counts over 0, 1, ... ticks until nothing is left to count, shape (ticks, m, counts, m); None if too many.

    Args:
        tick: what a tick does, without and with an arrival side by side, shape (m, 2 m).
        counts: how many counts are told apart.
        max_ticks: so many ticks are enough.
    """
    phases = len(tick)
    capacity = _MAX_ENTRIES // (counts * phases * phases) + 1
    ticks = np.zeros((min(max_ticks, capacity), phases, counts, phases))
    ticks[0, :, 0] = np.eye(phases)
    for number in range(1, max_ticks):
        before = ticks[number - 1]
        if number % _LOOKS == 0 and before.sum(axis=2).max() <= _NOTHING:
            # Not a view: the rest of the capacity is given back.
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
    """P_k and its integral side by side after one step and after two, shape (counts, m, 4 m).

    Args:
        step: the same after one step, shape (counts, m, 2 m).
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
    """Sums of tables by number of ticks, shape (times, ...).

    Args:
        weights: of each number at each time, shape (times, ticks).
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
    """So many ticks are exceeded with a probability below 1e-16 (Chernoff's bound for a Poisson number)."""
    return math.ceil(mean + 9 * math.sqrt(mean) + 30)

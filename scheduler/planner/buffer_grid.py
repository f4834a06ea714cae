"""The exact law of many batch buffers under one arrival process at once: every cap, every timeout of a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.arrivals import ArrivalError, MarkovianArrivals
from scheduler.planner.buffers import TIE, check_buffer
from scheduler.planner.counting import count_table
from scheduler.planner.grid_lateness import GridLateness, grid_lateness
from scheduler.planner.matrices import Array, stationary, times


@dataclass(frozen=True, slots=True, eq=False)
class BufferGrid:
    """Buffers with caps 1 ... B and timeouts 0, step, 2 step, ...: one table of count matrices serves them all.

    Parameters:
        timeouts_s: the timeouts, shape (timeouts,).
        closing: by size b < B that time closes and by first phase, probability, shape (timeouts, B, m).
        filling: by size b <= B that is full, likewise, shape (timeouts, B, m).
        opening: law of the phase just after opening for each cap, shape (timeouts, B, m).
        mean_sizes: E[b] for each cap, shape (timeouts, B).
        lateness: who waits too long.

    >>> from scheduler.planner.arrivals import poisson_arrivals
    >>> grid = buffer_grid(poisson_arrivals(10.0), max_batch=3, step_s=0.05, steps=2)
    >>> grid.sizes(3).round(4).tolist()
    [[1.0, 0.0, 0.0], [0.6065, 0.3033, 0.0902], [0.3679, 0.3679, 0.2642]]
    """

    timeouts_s: Array
    closing: Array
    filling: Array
    opening: Array
    mean_sizes: Array
    lateness: GridLateness

    @property
    def max_batch(self) -> int:
        """The largest cap B."""
        return int(self.opening.shape[1])

    def sizes(self, cap: int) -> Array:
        """Returns p_b of the buffers with one cap, shape (timeouts, cap).

        Parameters:
            cap: 1 to B.
        """
        self._check_cap(cap)
        opening = self.opening[:, cap - 1]
        below = np.einsum("ti,tki->tk", opening, self.closing[:, : cap - 1])
        full = np.einsum("ti,ti->t", opening, self.filling[:, cap - 1])
        return np.concatenate([below, full[:, None]], axis=1)

    def costs_per_request(self, costs: Sequence[float] | Array) -> Array:
        """Returns E[C(b)] / E[b] of every buffer, shape (timeouts, B).

        Parameters:
            costs: C(1), C(2), ... for every size up to B.
        """
        return _expected(self.opening, self.closing, self.filling, np.asarray(costs, np.float64)) / self.mean_sizes

    def latency_within(
        self, latency_s: float, services_s: Sequence[float] | Array, *, caps: Sequence[int] | None = None
    ) -> Array:
        """Returns the fraction of requests whose wait and service together take at most `latency_s`.

        Parameters:
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to B.
            caps: which caps to work out; None: every one.

        Returns:
            Shape (timeouts, caps).
        """
        waits_s = latency_s - np.asarray(services_s, dtype=np.float64)
        waits_s[np.abs(waits_s) < TIE] = 0.0
        chosen = np.arange(1, self.max_batch + 1) if caps is None else np.asarray(caps, dtype=np.intp)
        for cap in (int(chosen.min()), int(chosen.max())):
            self._check_cap(cap)
        late = np.zeros((len(self.timeouts_s), len(chosen), self.opening.shape[-1]))
        late[:, chosen == 1] = float(waits_s[0] < 0)
        several = chosen > 1
        by_time = np.cumsum(self.lateness.by_time(waits_s[: int(chosen.max()) - 1]), axis=1)
        by_size = self.lateness.by_size(chosen[several], waits_s[chosen[several] - 1])
        late[:, several] = by_time[:, chosen[several] - 2] + by_size
        parts = np.einsum("tci,tci->tc", self.opening[:, chosen - 1], late) / self.mean_sizes[:, chosen - 1]
        return np.asarray(1 - parts)

    def _check_cap(self, cap: int) -> None:
        if not 1 <= cap <= self.max_batch:
            raise ArrivalError(f"cap must be 1 to {self.max_batch}, the largest batch of this grid, not {cap}")


def buffer_grid(process: MarkovianArrivals, *, max_batch: int, step_s: float, steps: int) -> BufferGrid:
    """Returns the laws of all buffers with caps up to `max_batch` and timeouts up to `steps` times `step_s`.

    Parameters:
        process: the arrivals.
        max_batch: the largest cap, at least 1.
        step_s: distance of timeouts, above 0.
        steps: how many, at least 1; timeout 0 comes besides.

    Raises:
        ArrivalError: no grid, or one whose table would not fit in memory.
    """
    check_buffer(max_batch, step_s * steps)
    if not step_s > 0 or steps < 1:
        raise ArrivalError(f"step_s must be above 0 and steps at least 1, not {step_s} and {steps}")
    counts = count_table(process, counts=max_batch, longest_s=step_s * steps)
    timeouts_s: Array = np.arange(steps + 1, dtype=np.float64) * step_s
    timed_out, filled = counts.at(timeouts_s), counts.integrated(timeouts_s)
    lateness = grid_lateness(counts, step_s=step_s, timed_out=timed_out, filled=filled)
    closing, filling = lateness.closing, np.ones_like(lateness.closing)
    filling[:, 1:] = lateness.filling[:, :-1]
    opening = _opening(process, timed_out, filled)
    mean_sizes: Array = _expected(opening, closing, filling, np.arange(1.0, max_batch + 1))
    return BufferGrid(timeouts_s, closing, filling, opening, mean_sizes, lateness)


def _opening(process: MarkovianArrivals, timed_out: Array, filled: Array) -> Array:
    """Law of the phase in which batches open, for each timeout and cap, shape (timeouts, B, m)."""
    _, d1 = process.matrices()
    closes = np.empty_like(timed_out)
    closes[:, 0] = np.eye(process.phases)
    np.cumsum(timed_out[:, :-1], axis=1, out=closes[:, 1:])
    closes[:, 1:] += times(filled[:, :-1], d1)
    return stationary(times(closes, process.to_next_arrival()))


def _expected(opening: Array, closing: Array, filling: Array, values: Array) -> Array:
    """E[f(b)] for each timeout and cap, given f(1), f(2), ...; shape (timeouts, B)."""
    weighted = closing * values[:, None]
    sums = filling * values[:, None]
    sums[:, 1:] += np.cumsum(weighted[:, :-1], axis=1)
    return np.asarray(np.einsum("tbi,tbi->tb", opening, sums))

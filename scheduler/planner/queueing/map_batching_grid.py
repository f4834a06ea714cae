"""Exact distributions of many batch buffers under one arrival process at once: every cap, every timeout of a grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.map_batching import TIE, check_buffer
from scheduler.planner.queueing.map_counting import count_table
from scheduler.planner.queueing.map_grid_lateness import GridLateness, grid_lateness
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, Indices, eliminated, product

_PART = 32
"""Timeouts whose opening phases are computed at once: 32 of them stay in the processor's cache through all steps."""


@dataclass(frozen=True, slots=True, eq=False)
class BufferGrid:
    """Buffers with caps 1 ... B and timeouts 0, step, 2 step, ..., from one table of count matrices.

    With 10 Poisson arrivals a second, no further request arrives within 0.05 s with probability e^-0.5 = 0.6065, and
    within 0.1 s with 1/e = 0.3679. The rows are the timeouts 0, 0.05 and 0.1 s:

    >>> from scheduler.planner.queueing.map_process import poisson_arrivals
    >>> grid = buffer_grid(poisson_arrivals(10.0), max_batch=2, step_s=0.05, steps=2)
    >>> grid.sizes(2).round(4).tolist()
    [[1.0, 0.0], [0.6065, 0.3935], [0.3679, 0.6321]]

    With services of 0.1 and 0.15 s and a bound of 0.2 s, single requests are in time at both caps. A full batch may
    wait for 0.05 s, so only at the timeout of 0.1 s some requests are late (the case of `BufferDistribution`):

    >>> grid.latency_within(0.2, [0.1, 0.15]).round(4).tolist()
    [[1.0, 1.0], [1.0, 1.0], [1.0, 0.8538]]

    Attributes:
        timeouts_s: the timeouts, shape (timeouts,).
        closing: probability of a batch that the timeout closes at size b < B, by first phase, shape (timeouts, B, m).
        filling: probability of a full batch of size b <= B, by first phase, shape (timeouts, B, m).
        opening: distribution of the phase just after a batch has opened, for each cap, shape (timeouts, B, m).
        mean_sizes: E[b] for each cap, shape (timeouts, B).
        lateness: number of requests in a batch that wait longer than a bound.
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

        Args:
            cap: 1 to B.
        """
        self._check_cap(cap)
        opening = self.opening[:, cap - 1]
        below = np.einsum("ti,tki->tk", opening, self.closing[:, : cap - 1])
        full = np.einsum("ti,ti->t", opening, self.filling[:, cap - 1])
        return np.concatenate([below, full[:, None]], axis=1)

    def latency_within(
        self, latency_s: float, services_s: Sequence[float] | Array, *, caps: Sequence[int] | None = None
    ) -> Array:
        """Returns the fraction of requests whose wait and service together take at most `latency_s`.

        Args:
            latency_s: the bound, seconds.
            services_s: service time of a batch of 1, 2, ... requests, for every size up to B.
            caps: caps to compute; None: all.

        Returns:
            Shape (timeouts, caps).
        """
        chosen = np.arange(1, self.max_batch + 1) if caps is None else np.asarray(caps, dtype=np.intp)
        atoms_s = np.asarray(services_s, dtype=np.float64)[:, None]
        order = np.argsort(chosen, kind="stable")
        within = np.empty((len(self.timeouts_s), len(chosen)))
        within[:, order] = self.mixed_within(latency_s, atoms_s, np.ones_like(atoms_s), caps=chosen[order])
        return within

    def mixed_within(self, latency_s: float, atoms_s: Array, weights: Array, *, caps: Indices) -> Array:
        """Returns the same for services that take one of several times, shape (timeouts, caps).

        Args:
            latency_s: the bound, seconds.
            atoms_s: services of batches of 1, 2, ... up to the largest cap or beyond, shape (B, A).
            weights: probability of each, shape (B, A).
            caps: caps to compute, ascending, shape (caps,).
        """
        for cap in (int(caps[0]), int(caps[-1])):
            self._check_cap(cap)
        waits_s = latency_s - atoms_s
        waits_s[np.abs(waits_s) < TIE] = 0.0
        # In a batch of one a request waits for no other.
        parts = np.full((len(self.timeouts_s), len(caps)), float((weights[0] * (waits_s[0] < 0)).sum()))
        several = caps[caps > 1]
        if len(several):
            max_size = int(several[-1]) - 1
            by_time = self.lateness.by_time(waits_s[:max_size], weights[:max_size])
            late = self.lateness.by_size(several, waits_s[several - 1], weights[several - 1])
            late += np.cumsum(by_time, axis=0, out=by_time)[several - 2]
            alone = len(caps) - len(several)
            np.einsum("tci,cti->tc", self.opening[:, several - 1], late, out=parts[:, alone:])
            parts /= self.mean_sizes[:, caps - 1]
        return np.asarray(1 - parts)

    def _check_cap(self, cap: int) -> None:
        if not 1 <= cap <= self.max_batch:
            raise ArrivalError(f"cap must be 1 to {self.max_batch}, the largest batch of this grid, not {cap}")


def buffer_grid(process: MarkovianArrivals, *, max_batch: int, step_s: float, steps: int) -> BufferGrid:
    """Returns the distributions of all buffers with caps up to `max_batch` and timeouts up to `steps` times `step_s`.

    Args:
        process: the arrivals.
        max_batch: the largest cap, at least 1.
        step_s: distance of two timeouts, above 0.
        steps: number of timeouts above 0, at least 1.

    Raises:
        ArrivalError: a parameter is out of range, or the table would not fit into memory.
    """
    check_buffer(max_batch, step_s * steps)
    if not step_s > 0 or steps < 1:
        raise ArrivalError(f"step_s must be above 0 and steps at least 1, not {step_s} and {steps}")
    counts = count_table(process, counts=max_batch, longest_s=step_s)
    timeouts_s: Array = np.arange(steps + 1, dtype=np.float64) * step_s
    timed_out, filled = counts.stepped(steps)
    lateness = grid_lateness(counts, timed_out=timed_out, filled=filled)
    closing, filling = lateness.closing, np.ones_like(lateness.closing)
    filling[:, 1:] = lateness.filling[:, :-1]
    opening = _opening(process, timed_out, filled)
    mean_sizes = _mean_sizes(opening, closing, filling)
    return BufferGrid(timeouts_s, closing, filling, opening, mean_sizes, lateness)


def _opening(process: MarkovianArrivals, timed_out: Array, filled: Array) -> Array:
    """Returns the distribution of the phase in which batches open, for each timeout and cap, shape (timeouts, B, m)."""
    timeouts, phases, caps, _ = timed_out.shape
    distribution = np.empty((timeouts, caps, phases))
    to_next = process.to_next_arrival()
    filled_next = process.matrices()[1] @ to_next
    # In parts that stay in the processor's cache through all the steps.
    for start in range(0, timeouts, _PART):
        part = slice(start, start + _PART)
        work = _next_phases(timed_out[part], filled[part], to_next, filled_next)
        distribution[part] = np.moveaxis(eliminated(work), 0, -1)
    return distribution


def _next_phases(timed_out: Array, filled: Array, to_next: Array, filled_next: Array) -> Array:
    """Returns the phase in which the next batch opens, by the phase in which one opens, shape (m, m, timeouts, B).

    Args:
        timed_out: P_k at some timeouts, shape (timeouts, m, B, m).
        filled: integrals of P_k up to these timeouts, shape (timeouts, m, B, m).
        to_next: phase at the next arrival, by present phase, shape (m, m).
        filled_next: the same after an arrival that fills a batch, times its rate, shape (m, m).
    """
    timeouts, phases, caps, _ = timed_out.shape
    # The last phase comes first and the size last: sums and elimination then run along long rows.
    opens = product(to_next.T, timed_out.reshape(-1, phases).T).reshape(phases, timeouts, phases, caps)
    np.cumsum(opens, axis=3, out=opens)
    opens += product(filled_next.T, filled.reshape(-1, phases).T).reshape(opens.shape)
    first_next = np.empty((phases, phases, timeouts, caps))
    first_next[..., 0] = to_next[..., None]
    first_next[..., 1:] = opens[..., :-1].transpose(2, 0, 1, 3)
    return first_next


def _mean_sizes(opening: Array, closing: Array, filling: Array) -> Array:
    """Returns E[b] for each timeout and cap, shape (timeouts, B)."""
    sizes = np.arange(1.0, closing.shape[1] + 1)[:, None]
    weighted = closing * sizes
    sums = filling * sizes
    sums[:, 1:] += np.cumsum(weighted[:, :-1], axis=1)
    return np.asarray(np.einsum("tbi,tbi->tb", opening, sums))

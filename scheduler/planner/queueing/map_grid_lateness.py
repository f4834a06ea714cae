"""Numbers of late requests in buffers of every cap and timeout of a grid at once."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scheduler.planner.queueing.chebyshev import Interpolated, chebyshev_points
from scheduler.planner.queueing.map_counting import Counts
from scheduler.planner.queueing.matrices import Array, Indices, Mask, product

_SAME = 1e-9
"""Part of a step within which a wait counts as a point of the grid: rounding of a difference of times is far below it.
"""
_NEVER = 1e-13
"""Probability of a size below which its batches are skipped: no result changes by more than that."""
_TOGETHER = 32
"""Sizes that are computed at once. Small sizes need few counts, so that one part for all would waste work."""


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Positions of waits on the grid.

    Attributes:
        steps: waits rounded up to steps, shape (waits,).
        on_grid: whether the wait is a point of the grid, shape (waits,).
        added_s: seconds that rounding has added, shape (waits,).
    """

    steps: Indices
    on_grid: Mask
    added_s: Array


@dataclass(frozen=True, slots=True, eq=False)
class GridLateness:
    """Requests in a batch that wait longer than a given time, by the phase in which the batch opens.

    A wait w lies between two points of the grid; let e be the distance to the next one. Then P(T - w) = P(T - w - e)
    P(e) turns the short part into columns on the right, which are the same for every timeout. So no wait is rounded to
    the grid. The formulas are those of `BufferDistribution`.

    One Poisson arrival a second, and timeouts of 0, 1 and 2 s. A request that is alone until the timeout waits longer
    than 0.5 s if the timeout is longer; that has the probability 1/e = 0.3679 at 1 s and 0.1353 at 2 s. The first
    request of a full batch of two waits until the second arrives, longer than 0.5 s with the probability e^-0.5 - e^-T:

    >>> from scheduler.planner.queueing.map_counting import count_table
    >>> from scheduler.planner.queueing.map_process import poisson_arrivals
    >>> counts = count_table(poisson_arrivals(1.0), counts=2, longest_s=1.0)
    >>> timed_out, filled = counts.stepped(2)
    >>> lateness = grid_lateness(counts, timed_out=timed_out, filled=filled)
    >>> wait_s, certain = np.array([[0.5]]), np.ones((1, 1))
    >>> lateness.by_time(wait_s, certain)[0, :, 0].round(4).tolist()
    [0.0, 0.3679, 0.1353]
    >>> lateness.by_size(np.array([2]), wait_s, certain)[0, :, 0].round(4).tolist()
    [0.0, 0.2387, 0.4712]

    At a timeout of exactly the bound no request is late:

    >>> lateness.by_time(np.array([[1.0]]), certain)[0, :, 0].round(4).tolist()
    [0.0, 0.0, 0.1353]

    Attributes:
        step_s: distance of two points of the grid.
        short: count matrices up to one step.
        added: requests in the part of a step that rounding has added to a wait, by all requests in the step.
        to_full: P_k at the points, times the arrivals a second in the last phase, shape (points, B, m).
        timed_out: P_k at the points, shape (points, m, B, m).
        filled: integrals of P_k up to the points, shape (points, m, B, m).
        closing: P_k 1 at the points, shape (points, B, m).
        filling: integrals of P_k up to the points, times the arrivals a second, shape (points, B, m).
    """

    step_s: float
    short: Counts
    added: Interpolated
    to_full: Array
    timed_out: Array
    filled: Array
    closing: Array
    filling: Array

    def by_time(self, waits_s: Array, weights: Array) -> Array:
        """Returns the late requests in batches of 1, 2, ... that the timeout closes, shape (sizes, points, m).

        Args:
            waits_s: longest waits in time, by size and alternative, shape (sizes, A).
            weights: probability of each alternative, shape (sizes, A).
        """
        sizes = len(waits_s)
        late = _always_late(self.closing, np.arange(sizes), waits_s, weights)
        # One axis after the other: the first one is then read in long rows.
        possible = self.closing[:, :sizes].max(axis=0).max(axis=1) > _NEVER
        for which in _together(self._inside(waits_s) & (weights > 0) & possible[:, None], np.arange(sizes)):
            self._fill_by_time(late, which[0], waits_s[which], weights[which])
        return late

    def _fill_by_time(self, late: Array, lasts: Indices, waits_s: Array, weights: Array) -> None:
        """Adds the late requests for some waits in batches of 1 + `lasts` requests, ascending."""
        places, counts = self._places(waits_s), int(lasts[-1]) + 1
        added = self.added.at(places.added_s / self.step_s)
        beside = _followed_by(added, self.closing[places.steps - 1, :counts])
        beside[places.on_grid] = 0.0
        columns = (_ranked(self.closing[places.steps, :counts], lasts) + beside) * weights[:, None, None]
        # At T = w no request is late: the first one waits exactly T.
        first = places.on_grid.astype(np.intp)
        beyond = len(self.timed_out) - int(places.steps.min())
        _add(late, _applied(self.timed_out[:beyond], _backwards(columns, lasts)), lasts, places.steps, first)

    def by_size(self, caps: Indices, waits_s: Array, weights: Array) -> Array:
        """Returns the late requests in full batches, shape (caps, points, m).

        Args:
            caps: sizes of full batches, at least 2, ascending, shape (caps,).
            waits_s: longest waits in time of each, shape (caps, A).
            weights: probability of each, shape (caps, A).
        """
        late = _always_late(self.filling, caps - 2, waits_s, weights, more=1)
        for which in _together(self._inside(waits_s) & (weights > 0), caps - 2):
            self._fill_by_size(late, which[0], caps[which[0]] - 2, waits_s[which], weights[which])
        return late

    def _fill_by_size(self, late: Array, rows: Indices, lasts: Indices, waits_s: Array, weights: Array) -> None:
        """Adds the late requests for some waits in full batches of 2 + `lasts` (ascending) to rows of `late`."""
        places, counts = self._places(waits_s), int(lasts[-1]) + 1
        # The rest of the wait after whole steps.
        part = self.short.at(np.where(places.on_grid, 0.0, self.step_s - places.added_s))
        whole = self.to_full[places.steps - ~places.on_grid, :counts] * weights[:, None, None]
        columns = _ranked(_followed_by(part, whole), lasts)
        # Requests in the rounded part came earlier: the rank of the columns counts them.
        rounded = _followed_by(self.short.integrated(places.added_s), columns)
        # No request is late at timeouts below the wait, so these points of the grid are skipped.
        beyond = len(self.filled) - int(places.steps.min())
        filled = _applied(self.filled[:beyond], _backwards(columns, lasts))
        filled += _applied(self.timed_out[:beyond], _backwards(rounded, lasts))
        _add(late, filled, rows, places.steps, np.zeros_like(places.steps))

    def _inside(self, waits_s: Array) -> Mask:
        """Returns which waits are exceeded by some timeout of the grid."""
        return np.asarray((waits_s >= 0) & (waits_s < (len(self.closing) - 1 - _SAME) * self.step_s))

    def _places(self, waits_s: Array) -> _Places:
        steps = np.ceil(waits_s / self.step_s - _SAME).astype(np.intp)
        added_s = np.clip(steps * self.step_s - waits_s, 0.0, self.step_s)
        on_grid = added_s < _SAME * self.step_s
        return _Places(steps, on_grid, np.where(on_grid, 0.0, added_s))


def grid_lateness(counts: Counts, *, timed_out: Array, filled: Array) -> GridLateness:
    """Returns the lateness of buffers on a grid.

    Args:
        counts: count matrices up to one step.
        timed_out: P_k at the points, shape (points, m, B, m).
        filled: integrals of P_k up to the points, shape (points, m, B, m).
    """
    arrive, step_s = counts.arrivals_rps, counts.longest_s
    short = counts.up_to(step_s)
    return GridLateness(
        step_s=step_s,
        short=short,
        added=_added(short, step_s),
        to_full=_by_count(timed_out, arrive),
        timed_out=timed_out,
        filled=filled,
        closing=_by_count(timed_out, np.ones_like(arrive)),
        filling=_by_count(filled, arrive),
    )


def _always_late(closed: Array, lasts: Indices, waits_s: Array, weights: Array, *, more: int = 0) -> Array:
    """Returns the requests that are late at every timeout, shape (sizes, points, m): their service alone is too long.

    Args:
        closed: probability of a batch by the number of requests after the first, shape (points, B, m).
        lasts: number of requests after the first, shape (sizes,).
        waits_s: longest waits in time, shape (sizes, A).
        weights: probability of each, shape (sizes, A).
        more: requests in the batch besides the first and `lasts`.
    """
    late = np.zeros((len(lasts), len(closed), closed.shape[2]))
    late_members = (weights * (waits_s < 0)).sum(axis=1) * (lasts + 1 + more)
    rows = np.flatnonzero(late_members)
    late[rows] = closed[:, lasts[rows]].transpose(1, 0, 2) * late_members[rows, None, None]
    return late


def _by_count(tables: Array, worth: Array) -> Array:
    """Returns tables of shape (points, m, B, m) times a column over the last phase, shape (points, B, m)."""
    return np.ascontiguousarray((tables @ worth).transpose(0, 2, 1))


def _added(short: Counts, step_s: float) -> Interpolated:
    """Returns the requests in the first part of a step, by all in the step, as a function of that part (0 to 1)."""
    points = chebyshev_points(short.clock_per_s * step_s)
    return Interpolated(points, _joint(_counted(short.at(points * step_s)), short.at((1 - points) * step_s)))


def _together(asked: Mask, sizes: Indices) -> list[tuple[Indices, Indices]]:
    """Returns the true places of a mask of shape (sizes, A) as rows and columns, in parts of few sizes each."""
    rows, columns = np.nonzero(asked)
    edges = np.searchsorted(sizes[rows], np.arange(0, int(sizes[-1]) + 1 + _TOGETHER, _TOGETHER))
    return [(rows[a:b], columns[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True) if a < b]


def _applied(tables: Array, columns: Array) -> Array:
    """Returns count matrices at all points times columns of the first counts, shape (columns, points, m).

    Args:
        tables: shape (points, m, B, m).
        columns: shape (columns, counts, m).
    """
    points, phases = tables.shape[:2]
    flat = tables.reshape(points * phases, -1)[:, : columns[0].size]
    return product(columns.reshape(len(columns), -1), flat.T).reshape(len(columns), points, phases)


def _add(late: Array, applied: Array, rows: Indices, skipped: Indices, first: Indices) -> None:
    """Adds the points of each column to its row of `late`, `skipped` points later and without the first ones."""
    points = late.shape[1]
    for one, row, later, start in zip(applied, rows.tolist(), skipped.tolist(), first.tolist(), strict=True):
        late[row, later + start :] += one[start : points - later]


def _backwards(columns: Array, lasts: Indices) -> Array:
    """Returns columns in the order `last`, `last` - 1, ..., 0, then zeros, shape (columns, counts, m)."""
    turned = np.zeros_like(columns)
    # Row by row: copying slices is far faster than picking single counts.
    for ours, theirs, last in zip(turned, columns, lasts.tolist(), strict=True):
        ours[: last + 1] = theirs[last::-1]
    return turned


def _joint(first: Array, second: Array) -> Array:
    """Returns counts of two parts of a time, one after the other, both of shape (waits, few, m, m)."""
    last = range(first.shape[3])
    return np.stack([_followed_by(first, np.ascontiguousarray(second[..., phase])) for phase in last], axis=3)


def _followed_by(short: Array, columns: Array) -> Array:
    """Returns counts in a short part and then a long one, a convolution over the count, shape (waits, B, m).

    Args:
        short: shape (waits, few, m, m).
        columns: shape (waits, B, m).
    """
    waits, few, phases, _ = short.shape
    padded = np.zeros((waits, few - 1 + columns.shape[1], phases))
    padded[:, few - 1 :] = columns
    # Each row holds the columns of one count; one product then sums over the short count and the phase.
    windows = sliding_window_view(padded.reshape(waits, -1), few * phases, axis=1)[:, ::phases]
    # Overlapping rows are copied, because BLAS does not take them.
    return np.asarray(
        np.ascontiguousarray(windows) @ short[:, ::-1].transpose(0, 1, 3, 2).reshape(waits, few * phases, phases)
    )


def _counted(short: Array) -> Array:
    return np.asarray(short * np.arange(short.shape[1])[:, None, None])


def _ranked(columns: Array, lasts: Indices) -> Array:
    """Returns columns by the count k of later requests times the last - k + 1 earlier ones: (sizes, counts, m)."""
    before = lasts[:, None] + 1 - np.arange(columns.shape[1])
    return np.asarray(columns * before[..., None])

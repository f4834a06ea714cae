"""Who is late, in buffers of every cap and timeout of a grid at once."""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from scheduler.planner.queueing.chebyshev import Interpolated, chebyshev_points
from scheduler.planner.queueing.map_counting import Counts
from scheduler.planner.queueing.matrices import Array, Indices, Mask, product

_SAME = 1e-9
"""Parts of a step within which a wait is on the grid."""
_NEVER = 1e-13
"""Probability below which no batch of a size is looked at: nobody can be late in it."""
_TOGETHER = 32
"""Sizes treated at once: small ones need few counts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where waits lie on the grid.

    Attributes:
        steps: waits rounded up, in steps, shape (waits,).
        on_grid: where nothing was rounded, shape (waits,).
        added_s: what rounding added, shape (waits,).
    """

    steps: Indices
    on_grid: Mask
    added_s: Array


@dataclass(frozen=True, slots=True, eq=False)
class GridLateness:
    """Requests a batch that wait longer than a given time, by the phase in which the batch opens.

    A wait w lies between two points of the grid. With e what is missing to the next, P(T - w) = P(T - w - e) P(e) lets
    the short piece be counted with the columns on its right, which are the same for every timeout. So no wait is moved
    to the grid; see `BufferDistribution` for the formulas.

    Attributes:
        step_s: distance of the points.
        short: count matrices up to one step.
        added: requests in what rounding added to a wait, by all requests in the step.
        to_full: P_k at the points, weighed by the arrivals a second in the last phase, shape (points, B, m).
        timed_out: P_k at the points, shape (points, m, B, m).
        filled: integrals of P_k up to the points, in the same shape.
        closing: P_k 1 at the points, shape (points, B, m).
        filling: integrals of P_k up to the points, weighed by the arrivals, shape (points, B, m).
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
        """Returns who is late in batches of 1, 2, ... that time closes, shape (sizes, points, m).

        Args:
            waits_s: longest waits in time, by size and alternative, shape (sizes, A).
            weights: probability of each alternative, shape (sizes, A).
        """
        sizes = len(waits_s)
        late = _always_late(self.closing, np.arange(sizes), waits_s, weights)
        # One axis after the other: the first is walked through in long rows.
        possible = self.closing[:, :sizes].max(axis=0).max(axis=1) > _NEVER
        for which in _together(self._inside(waits_s) & (weights > 0) & possible[:, None], np.arange(sizes)):
            self._fill_by_time(late, which[0], waits_s[which], weights[which])
        return late

    def _fill_by_time(self, late: Array, lasts: Indices, waits_s: Array, weights: Array) -> None:
        """Adds some waits in batches of 1 + `lasts`, ascending."""
        places, counts = self._places(waits_s), int(lasts[-1]) + 1
        added = self.added.at(places.added_s / self.step_s)
        beside = _followed_by(added, self.closing[places.steps - 1, :counts])
        beside[places.on_grid] = 0.0
        columns = (_ranked(self.closing[places.steps, :counts], lasts) + beside) * weights[:, None, None]
        # At T = w nobody is late: the first request waits exactly T.
        first = places.on_grid.astype(np.intp)
        beyond = len(self.timed_out) - int(places.steps.min())
        _add(late, _applied(self.timed_out[:beyond], _backwards(columns, lasts)), lasts, places.steps, first)

    def by_size(self, caps: Indices, waits_s: Array, weights: Array) -> Array:
        """Returns who is late in full batches, shape (caps, points, m).

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
        """Adds some waits in full batches of 2 + `lasts`, ascending, to rows."""
        places, counts = self._places(waits_s), int(lasts[-1]) + 1
        # What a step lacks to the wait, after whole steps.
        part = self.short.at(np.where(places.on_grid, 0.0, self.step_s - places.added_s))
        whole = self.to_full[places.steps - ~places.on_grid, :counts] * weights[:, None, None]
        columns = _ranked(_followed_by(part, whole), lasts)
        # Who came in what was rounded came before: the rank of the columns counts them.
        rounded = _followed_by(self.short.integrated(places.added_s), columns)
        # Nobody is late at timeouts below the wait: so many points of the grid are left behind the shortest.
        beyond = len(self.filled) - int(places.steps.min())
        filled = _applied(self.filled[:beyond], _backwards(columns, lasts))
        filled += _applied(self.timed_out[:beyond], _backwards(rounded, lasts))
        _add(late, filled, rows, places.steps, np.zeros_like(places.steps))

    def _inside(self, waits_s: Array) -> Mask:
        """Which waits some timeout of the grid exceeds."""
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
        step_s: distance of the points.
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
    """Who is late however long or short the timeout, shape (sizes, points, m).

    Args:
        closed: probability of batches by how many come later, shape (points, B, m).
        lasts: how many come later, shape (sizes,).
        waits_s: longest waits in time, shape (sizes, A).
        weights: probability of each, shape (sizes, A).
        more: requests besides the first and those.
    """
    late = np.zeros((len(lasts), len(closed), closed.shape[2]))
    late_members = (weights * (waits_s < 0)).sum(axis=1) * (lasts + 1 + more)
    rows = np.flatnonzero(late_members)
    late[rows] = closed[:, lasts[rows]].transpose(1, 0, 2) * late_members[rows, None, None]
    return late


def _by_count(tables: Array, worth: Array) -> Array:
    """Tables of shape (points, m, B, m), weighed by what the last phase is worth, shape (points, B, m)."""
    return np.ascontiguousarray((tables @ worth).transpose(0, 2, 1))


def _added(short: Counts, step_s: float) -> Interpolated:
    """Requests in the first part of a step, by all in the step, as a function of that part, 0 to 1."""
    points = chebyshev_points(short.clock_per_s * step_s)
    return Interpolated(points, _joint(_counted(short.at(points * step_s)), short.at((1 - points) * step_s)))


def _together(asked: Mask, sizes: Indices) -> list[tuple[Indices, Indices]]:
    """Places of what is asked, shape (sizes, A), as rows and columns, in parts of few sizes."""
    rows, columns = np.nonzero(asked)
    edges = np.searchsorted(sizes[rows], np.arange(0, int(sizes[-1]) + 1 + _TOGETHER, _TOGETHER))
    return [(rows[a:b], columns[a:b]) for a, b in zip(edges[:-1], edges[1:], strict=True) if a < b]


def _applied(tables: Array, columns: Array) -> Array:
    """Count matrices at all points times columns of the first counts: (columns, points, m).

    Args:
        tables: shape (points, m, B, m).
        columns: shape (columns, counts, m).
    """
    points, phases = tables.shape[:2]
    flat = tables.reshape(points * phases, -1)[:, : columns[0].size]
    return product(columns.reshape(len(columns), -1), flat.T).reshape(len(columns), points, phases)


def _add(late: Array, applied: Array, rows: Indices, skipped: Indices, first: Indices) -> None:
    """Adds each column's points to its row of `late`, so many points later, without the first."""
    points = late.shape[1]
    for one, row, later, start in zip(applied, rows.tolist(), skipped.tolist(), first.tolist(), strict=True):
        late[row, later + start :] += one[start : points - later]


def _backwards(columns: Array, lasts: Indices) -> Array:
    """Columns `last`, `last` - 1, ... 0 and nothing behind, shape (columns, counts, m)."""
    turned = np.zeros_like(columns)
    # Row by row: slices are copied far faster than single counts are picked.
    for ours, theirs, last in zip(turned, columns, lasts.tolist(), strict=True):
        ours[: last + 1] = theirs[last::-1]
    return turned


def _joint(first: Array, second: Array) -> Array:
    """Counts of two pieces, one after the other, both shape (waits, few, m, m)."""
    last = range(first.shape[3])
    return np.stack([_followed_by(first, np.ascontiguousarray(second[..., phase])) for phase in last], axis=3)


def _followed_by(short: Array, columns: Array) -> Array:
    """Counts in a short piece and then a long one: convolution over the count, shape (waits, B, m).

    Args:
        short: shape (waits, few, m, m).
        columns: shape (waits, B, m).
    """
    waits, few, phases, _ = short.shape
    padded = np.zeros((waits, few - 1 + columns.shape[1], phases))
    padded[:, few - 1 :] = columns
    # Each row holds the columns that a count is made of; one product then sums over the short count and the phase.
    windows = sliding_window_view(padded.reshape(waits, -1), few * phases, axis=1)[:, ::phases]
    # Overlapping rows are copied: with them the product would not go to BLAS.
    return np.asarray(
        np.ascontiguousarray(windows) @ short[:, ::-1].transpose(0, 1, 3, 2).reshape(waits, few * phases, phases)
    )


def _counted(short: Array) -> Array:
    return np.asarray(short * np.arange(short.shape[1])[:, None, None])


def _ranked(columns: Array, lasts: Indices) -> Array:
    """Columns by count k of those who come later, times the last - k + 1 who came before: (sizes, counts, m)."""
    before = lasts[:, None] + 1 - np.arange(columns.shape[1])
    return np.asarray(columns * before[..., None])

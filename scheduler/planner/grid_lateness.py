"""Who is late, in buffers of every cap and timeout of a grid at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.chebyshev import Interpolated, chebyshev_points
from scheduler.planner.counting import Counts, PhaseCounts
from scheduler.planner.matrices import Array, times

_SAME = 1e-9
"""Parts of a step within which a wait is on the grid."""
_NEVER = 1e-13
"""Probability below which no batch of a size is looked at: nobody can be late in it."""
_TOGETHER = 32
"""Sizes treated at once: small ones need few counts."""


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where waits lie on the grid.

    Parameters:
        steps: waits rounded up, in steps, shape (waits,).
        on_grid: where nothing was rounded, shape (waits,).
        added_s: what rounding added, shape (waits,).
    """

    steps: npt.NDArray[np.intp]
    on_grid: npt.NDArray[np.bool_]
    added_s: Array


@dataclass(frozen=True, slots=True, eq=False)
class GridLateness:
    """Requests a batch that wait longer than a given time, by the phase in which the batch opens.

    A wait w lies between two points of the grid. With e what is missing to the next, P(T - w) = P(T - w - e) P(e) lets
    the short piece be counted with the columns on its right, which are the same for every timeout. So no wait is moved
    to the grid; see `BufferLaw` for the formulas.

    Parameters:
        step_s: distance of the points.
        short: count matrices up to one step.
        added: requests in what rounding added to a wait, by all requests in the step.
        to_full: counts weighed by the arrivals a second in the last phase, any time.
        timed_out: P_k at the points, shape (points, m, B, m).
        filled: integrals of P_k up to the points, in the same shape.
        closing: P_k 1 at the points, shape (points, B, m).
        filling: integrals of P_k up to the points, weighed by the arrivals, shape (points, B, m).
    """

    step_s: float
    short: Counts
    added: Interpolated
    to_full: PhaseCounts
    timed_out: Array
    filled: Array
    closing: Array
    filling: Array

    def by_time(self, waits_s: Array) -> Array:
        """Returns who is late in batches of 1, 2, ... that time closes, shape (points, sizes, m).

        Parameters:
            waits_s: longest wait in time, by size, shape (sizes,).
        """
        late = np.zeros((len(self.closing), len(waits_s), self.closing.shape[-1]))
        hopeless = np.flatnonzero(waits_s < 0)
        late[:, hopeless] = (hopeless + 1)[:, None] * self.closing[:, hopeless]
        asked = self._inside(waits_s)
        asked = asked[self.closing[:, asked].max(axis=(0, 2)) > _NEVER]
        for start in range(0, len(asked), _TOGETHER):
            self._fill_by_time(late, asked[start : start + _TOGETHER], waits_s)
        return late

    def _fill_by_time(self, late: Array, asked: npt.NDArray[np.intp], waits_s: Array) -> None:
        """Fills in the sizes 1 + `asked`, ascending."""
        places, counts = self._places(waits_s[asked]), int(asked[-1]) + 1
        added = self.added.at(places.added_s / self.step_s)
        beside = _followed_by(added, self.closing[places.steps - 1, :counts])
        beside[places.on_grid] = 0.0
        columns = _ranked(self.closing[places.steps, :counts], asked) + beside
        for index, last in enumerate(asked.tolist()):
            # At T = w nobody is late: the first request waits exactly T.
            skipped, first = int(places.steps[index]), int(places.on_grid[index])
            late[skipped + first :, last] = _applied(self.timed_out, skipped, columns[index, last::-1])[first:]

    def by_size(self, caps: npt.NDArray[np.intp], waits_s: Array) -> Array:
        """Returns who is late in full batches, shape (points, caps, m).

        Parameters:
            caps: sizes of full batches, at least 2, shape (caps,).
            waits_s: longest wait in time of each, shape (caps,).
        """
        late = np.zeros((len(self.filling), len(caps), self.filling.shape[-1]))
        hopeless = np.flatnonzero(waits_s < 0)
        late[:, hopeless] = caps[hopeless][:, None] * self.filling[:, caps[hopeless] - 2]
        asked = self._inside(waits_s)
        places = self._places(waits_s[asked])
        columns = self.to_full.at(waits_s[asked])
        added = self.short.integrated(places.added_s)
        lasts = caps[asked] - 2
        rounded = _ranked(_followed_by(added, columns), lasts) + _followed_by(_counted(added), columns)
        columns = _ranked(columns, lasts)
        for index, (place, last) in enumerate(zip(asked.tolist(), lasts.tolist(), strict=True)):
            skipped = int(places.steps[index])
            filled = _applied(self.filled, skipped, columns[index, last::-1])
            late[skipped:, place] = filled + _applied(self.timed_out, skipped, rounded[index, last::-1])
        return late

    def _inside(self, waits_s: Array) -> npt.NDArray[np.intp]:
        """Indices of waits that some timeout of the grid exceeds."""
        return np.flatnonzero((waits_s >= 0) & (waits_s < (len(self.closing) - 1 - _SAME) * self.step_s))

    def _places(self, waits_s: Array) -> _Places:
        steps = np.ceil(waits_s / self.step_s - _SAME).astype(np.intp)
        added_s = np.clip(steps * self.step_s - waits_s, 0.0, self.step_s)
        on_grid = added_s < _SAME * self.step_s
        return _Places(steps, on_grid, np.where(on_grid, 0.0, added_s))


def grid_lateness(counts: Counts, *, step_s: float, timed_out: Array, filled: Array) -> GridLateness:
    """Returns the lateness of buffers on a grid.

    Parameters:
        counts: count matrices at any time.
        step_s: distance of the points.
        timed_out: P_k at the points, shape (points, B, m, m).
        filled: integrals of P_k up to the points, shape (points, B, m, m).
    """
    arrive, short = counts.arrivals_rps, counts.up_to(step_s)
    return GridLateness(
        step_s=step_s,
        short=short,
        added=_added(short, step_s),
        to_full=counts.before(arrive),
        timed_out=np.ascontiguousarray(timed_out.transpose(0, 2, 1, 3)),
        filled=np.ascontiguousarray(filled.transpose(0, 2, 1, 3)),
        closing=times(timed_out, np.ones((len(arrive), 1)))[..., 0],
        filling=times(filled, arrive[:, None])[..., 0],
    )


def _added(short: Counts, step_s: float) -> Interpolated:
    """Requests in the first part of a step, by all in the step, as a function of that part, 0 to 1."""
    points = chebyshev_points(short.clock_per_s * step_s)
    return Interpolated(points, _joint(_counted(short.at(points * step_s)), short.at((1 - points) * step_s)))


def _applied(tables: Array, skipped: int, columns: Array) -> Array:
    """Count matrices at all points but the last `skipped`, times columns of the first counts: (points, m)."""
    points, phases = len(tables) - skipped, tables.shape[1]
    columns = columns.ravel()
    flat = tables.reshape(len(tables) * phases, -1)[: points * phases, : columns.size]
    return np.asarray((flat @ columns).reshape(points, phases))


def _joint(first: Array, second: Array) -> Array:
    """Counts of two pieces, one after the other, both shape (waits, few, m, m)."""
    few = first.shape[1]
    result = np.zeros_like(first)
    for k in range(few):
        result[:, k:] += first[:, k : k + 1] @ second[:, : few - k]
    return result


def _followed_by(short: Array, columns: Array) -> Array:
    """Counts in a short piece and then a long one: convolution over the count, shape (waits, B, m).

    Parameters:
        short: shape (waits, few, m, m).
        columns: shape (waits, B, m).
    """
    result = np.zeros_like(columns)
    for k in range(min(short.shape[1], columns.shape[1])):
        result[:, k:] += columns[:, : columns.shape[1] - k] @ short[:, k].transpose(0, 2, 1)
    return result


def _counted(short: Array) -> Array:
    return np.asarray(short * np.arange(short.shape[1])[:, None, None])


def _ranked(columns: Array, lasts: npt.NDArray[np.intp]) -> Array:
    """Columns by count k of those who come later, times the last - k + 1 who came before: (sizes, counts, m)."""
    before = lasts[:, None] + 1 - np.arange(columns.shape[1])
    return np.asarray(columns * before[..., None])

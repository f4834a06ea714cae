"""All pairs of a function configuration and a cap, and lower bounds on what a request costs with them.

A function at a price of 1 a second takes 1 s for one request and 1.2 s for two. A mean batch of 1.5 costs at least the
value of the line between both, 1.1 s, for 1.5 requests; the exact cost of such a mean batch is the same, since it can
only be a mixture of one and two:

>>> from scheduler.planner.catalogue.configurations import Family
>>> from scheduler.planner.catalogue.latency_models import TableLatency
>>> from scheduler.planner.catalogue.prices import PriceSheet
>>> one = np.ones(1)
>>> sheet = PriceSheet("s", "CNY", "", "", "", grain_s=1e-9, per_vcpu_s=1.0)
>>> family = Family("cpu", TableLatency(((1.0, 1.2),)), one, np.zeros(1), np.ones((1, 2)), np.array([2.0]))
>>> space = space_of([family.tabulated(sheet)])
>>> space.cap.tolist(), space.worst_s.tolist(), space.floor.round(9).tolist()
([1, 2], [1.0, 1.2], [1.0, 0.6])
>>> round(float(space.cost_bounds(np.array([1.5]), np.array([1]))[0]), 4), round(1.1 / 1.5, 4)
(0.7333, 0.7333)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.queueing.matrices import Array, Indices


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """All pairs of a configuration and a cap, as flat arrays, with the terms of a bound on their cost; see `space_of`.

    Attributes:
        families: configurations by kind.
        family: number of the kind of each pair, shape (M,).
        index: number of the configuration within its kind.
        row: number of the configuration over all kinds.
        cap: largest batch.
        worst_s: longest service of a batch of up to `cap`.
        min_reserve_s: least latency reserve that `percentile` may try, see `space_of`.
        reserve_full_batch: whether that is the shortest service of a full batch.
        per_s: money a second.
        per_call: money a call.
        billed_s: expected billed seconds by batch size, one row for each configuration, shape (N, B).
        hull_s: lower convex hull of `billed_s`, shape (N, B).
        least: cost of the cheapest request of any batch size up to 1 ... B on that hull, shape (M, B).
        floor: cost of the cheapest request of any size up to the cap, shape (M,).
    """

    families: tuple[Configurations, ...]
    family: Indices
    index: Indices
    row: Indices
    cap: Indices
    worst_s: Array
    min_reserve_s: Array
    reserve_full_batch: bool
    per_s: Array
    per_call: Array
    billed_s: Array
    hull_s: Array
    least: Array
    floor: Array

    @property
    def max_batch(self) -> int:
        """The largest cap."""
        return int(self.hull_s.shape[1])

    def cost_bounds(self, mean_sizes: Array, which: Indices) -> Array:
        """Returns lower bounds on the cost per request, given upper bounds on the mean batch size.

        E[C(b)] / E[b] is at least h(m) / m for some m up to the mean size, where h is the lower convex hull of C
        (Jensen).

        Args:
            mean_sizes: upper bounds on E[b], shape (..., len(which)).
            which: pairs, shape (K,).
        """
        sizes = np.minimum(np.maximum(mean_sizes, 1.0), self.cap[which])
        whole = sizes.astype(np.int64)
        part = sizes - whole
        width = self.max_batch
        at = self.row[which] * width - 1 + whole
        low_s, high_s = self.hull_s.take(at), self.hull_s.take(at + (whole < width))
        there = (self.per_s[which] * (low_s + (high_s - low_s) * part) + self.per_call[which]) / sizes
        return np.asarray(np.minimum(there, self.least.take(which * width - 1 + whole)))


def space_of(families: Sequence[Configurations], *, reserve_full_batch: bool = False) -> Space:
    """Returns the pairs of all kinds.

    Args:
        families: configurations by kind.
        reserve_full_batch: whether a latency reserve must be at least the shortest service of a full batch, not only of
            a single request. That makes a smaller grid with far better bounds, for many applications.
    """
    max_batch = max(family.max_batch for family in families)
    offsets = np.cumsum([0, *(len(family.vcpu) for family in families)])
    billed_s = np.concatenate([_padded(family.services.billed_s, max_batch) for family in families])
    hull_s = _lower_hull(billed_s)
    parts = []
    for number, family in enumerate(families):
        index, cap = np.nonzero(family.allowed)
        worst_s = np.maximum.accumulate(family.services.worst_s, axis=1)[index, cap]
        kind = np.full(len(index), number)
        fee = np.full(len(index), family.per_call)
        min_reserve_s = family.services.atoms_s[index, cap if reserve_full_batch else 0, 0]
        parts.append(
            (kind, index, index + offsets[number], cap + 1, worst_s, min_reserve_s, family.per_s[index, cap], fee)
        )
    kind, index, row, cap, worst_s, min_reserve_s, per_s, fee = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    by_size = (per_s[:, None] * hull_s[row] + fee[:, None]) / np.arange(1, max_batch + 1)
    least = np.minimum.accumulate(by_size, axis=1)
    floor = least[np.arange(len(cap)), cap - 1]
    return Space(
        tuple(families),
        kind,
        index,
        row,
        cap,
        worst_s,
        min_reserve_s,
        reserve_full_batch,
        per_s,
        fee,
        billed_s,
        hull_s,
        least,
        floor,
    )


def _padded(values: Array, width: int) -> Array:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), mode="edge")


def _lower_hull(values: Array) -> Array:
    """Returns the lower convex hull of each row at 1 ... B, by following the smallest slope to any later point."""
    hull: Array = values.copy()
    width = values.shape[1]
    for at in range(width - 1):
        slopes: Array = (values[:, at + 1 :] - hull[:, at : at + 1]) / np.arange(1, width - at)
        hull[:, at + 1] = hull[:, at] + slopes.min(axis=1)
    return hull

"""Shared buffers under many latency reserves: costs of configurations, and which are late too often."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.queueing.matrices import Array, Indices
from scheduler.planner.queueing.multi_slo_batching import BatchSizeDistribution, SharedBuffer, size_distributions
from scheduler.planner.queueing.multi_slo_lateness import StrictestLateness

TOLERANCE = 1e-12
"""Rounding must not fail a plan in which nobody is late."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Configurations of one kind, each for one buffer.

    Attributes:
        family: the kind.
        owners: number of the buffer, ascending, shape (n,).
        indices: configuration within the kind, shape (n,).
    """

    family: Configurations
    owners: Indices
    indices: Indices


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pairs of a latency reserve and a configuration that may be worth it.

    Attributes:
        family: the kind of the configurations.
        reserve_rows: row of the distribution of each pair, ascending, shape (K,).
        indices: configuration within the kind, shape (K,).
        costs: money a request by cap; infinite where it is too much, or where too many are late, shape (K, B).
    """

    family: Configurations
    reserve_rows: Indices
    indices: Indices
    costs: Array


@dataclass(frozen=True, slots=True, eq=False)
class SharedBufferCosts:
    """S buffers, each with R latency reserves.

    Attributes:
        buffers: the buffers.
        distribution: their sizes, the latency reserves of one buffer after the other's.
        owner: number of the buffer of each latency reserve, shape (S R,).
        reserve_full_batch: see `space_of`.
    """

    buffers: Sequence[SharedBuffer]
    distribution: BatchSizeDistribution
    owner: Indices
    reserve_full_batch: bool

    @staticmethod
    def of(
        buffers: Sequence[SharedBuffer], latency_reserves_s: Array, *, max_batch: int, reserve_full_batch: bool
    ) -> "SharedBufferCosts":
        """Works out the sizes.

        Args:
            buffers: S of them.
            latency_reserves_s: of each, shape (S, R).
            max_batch: the largest cap.
            reserve_full_batch: see `space_of`.
        """
        owner = np.arange(len(buffers)).repeat(latency_reserves_s.shape[1])
        distribution = size_distributions(buffers, latency_reserves_s, max_batch=max_batch)
        return SharedBufferCosts(buffers, distribution, owner, reserve_full_batch)

    def candidates(self, rows: Rows, below: Array, percentiles: Array) -> Candidates:
        """Returns what costs less, and keeps the percentile of the application with the strictest SLO.

        Args:
            rows: the configurations.
            below: a cost per request for each buffer, shape (S,).
            percentiles: of the application with the strictest SLO of each buffer, shape (S,).
        """
        if len(rows.owners) == 0:
            return Candidates(rows.family, rows.owners, rows.indices, np.empty((0, 1)))
        parts = [self._cheap(rows, owner, float(below[owner])) for owner in _distinct(rows.owners)]
        reserve_rows, which, costs = (np.concatenate(column) for column in zip(*parts, strict=True))
        if len(reserve_rows):
            late = self._late(rows, reserve_rows, which, costs.shape[1])
            costs[late > 1 - percentiles[rows.owners[which], None] + TOLERANCE] = np.inf
        return Candidates(rows.family, reserve_rows, rows.indices[which], costs)

    def _cheap(self, rows: Rows, owner: int, below: float) -> tuple[Indices, Indices, Array]:
        """Reserves and rows of one buffer with caps that cost less, and their costs; infinite for the other caps."""
        start, end = (int(x) for x in self.owner.searchsorted([owner, owner + 1]))
        first, last = (int(x) for x in rows.owners.searchsorted([owner, owner + 1]))
        costs = self._costs(rows.family, rows.indices[first:last], slice(start, end))
        reserve_rows, which = np.nonzero((costs < below).any(axis=0).T)
        found = costs[:, which, reserve_rows].T
        found[found >= below] = np.inf
        return reserve_rows + start, which + first, found

    def _costs(self, family: Configurations, indices: Indices, reserve_rows: slice) -> Array:
        """Cost per request of every cap, configuration and latency reserve, shape (B, n, R); infinite where not
        allowed.

        Reserves last: of them there are always some, so that the inner loops are long for any kind of function.
        """
        caps = min(family.max_batch, self.distribution.waiting.shape[1])
        services, distribution = family.services, self.distribution.up_to(caps)
        billed_s = services.billed_s[indices, :caps].T[:, :, None]
        reached, below, means = (
            np.ascontiguousarray(x[reserve_rows].T)[:, None]
            for x in (distribution.reached(), distribution.below, distribution.mean_sizes())
        )
        costs = reached * billed_s
        costs[1:] += (below * billed_s[:-1]).cumsum(axis=0)
        costs *= np.where(family.allowed, family.per_s, np.inf)[indices, :caps].T[:, :, None]
        costs += family.per_call
        costs /= means
        # A single request needs its shortest service at least, and where there are many a full batch does.
        min_reserve_s = services.atoms_s[indices, : caps if self.reserve_full_batch else 1, 0].T
        np.copyto(costs, np.inf, where=distribution.latency_reserves_s[reserve_rows] < min_reserve_s[:, :, None])
        return np.asarray(costs)

    def _late(self, rows: Rows, reserve_rows: Indices, which: Indices, caps: int) -> Array:
        """Fraction of the requests with the strictest SLO that is late, by cap, shape (K, B)."""
        used = np.bincount(which, minlength=len(rows.indices)) > 0
        indices, owners = rows.indices[used], rows.owners[used]
        rates, slos_s = (np.array([getattr(b, key) for b in self.buffers]) for key in ("rate_rps", "strictest_s"))
        strictest = StrictestLateness.of_each(
            self.distribution,
            rates[self.owner] * (slos_s[self.owner] - self.distribution.latency_reserves_s),
            rows.family.services.atoms_s[indices, :caps],
            rows.family.services.weights[indices, :caps],
            rates_rps=rates[owners],
            slos_s=slos_s[owners],
        )
        return strictest.paired(reserve_rows, (used.cumsum() - 1)[which])


def _distinct(owners: Indices) -> list[int]:
    return [int(owner) for owner in np.flatnonzero(np.bincount(owners))]

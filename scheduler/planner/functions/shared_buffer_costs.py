"""Costs of configurations in shared buffers under many latency reserves, and which of them are late too often.

One application with an SLO of 2 s sends one request a second; at a latency reserve of 1 s its timeout is 1 s. A
function at a price of 1 a second takes 0.5 s for one request and 1.5 s for two. At the cap of one a request costs 0.5.
At the cap of two it costs (0.5 / e + 1.5 (1 - 1/e)) / 1.6321 = 0.6937:

>>> from scheduler.planner.catalogue.configurations import Family
>>> from scheduler.planner.catalogue.latency_models import TableLatency
>>> from scheduler.planner.catalogue.prices import PriceSheet
>>> one = np.ones(1)
>>> sheet = PriceSheet("s", "CNY", "", "", "", grain_s=1e-9, per_vcpu_s=1.0)
>>> family = Family("cpu", TableLatency(((0.5, 1.5),)), one, np.zeros(1), np.ones((1, 2)), np.array([2.0]))
>>> kind = family.tabulated(sheet)
>>> buffer = SharedBuffer(np.array([2.0]), one)
>>> costs = SharedBufferCosts.of((buffer,), np.array([[1.0]]), max_batch=2, reserve_full_batch=False)
>>> rows = Rows(kind, np.array([0]), np.array([0]))
>>> costs.candidates(rows, np.array([9.0]), np.array([0.8])).costs.round(4).tolist()
[[0.5, 0.6937]]

Of the requests 14.62 % are late at the cap of two (see `multi_slo_lateness`), too many for a percentile of 0.9:

>>> costs.candidates(rows, np.array([9.0]), np.array([0.9])).costs.round(4).tolist()
[[0.5, inf]]
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.queueing.matrices import Array, Indices
from scheduler.planner.queueing.multi_slo_batching import BatchSizeDistribution, SharedBuffer, size_distributions
from scheduler.planner.queueing.multi_slo_lateness import StrictestLateness

TOLERANCE = 1e-12
"""Tolerance on the fraction of late requests: rounding must not reject a plan in which no request is late."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Configurations of one kind, each for one buffer.

    Attributes:
        family: the kind.
        owners: number of the buffer, ascending, shape (n,).
        indices: number of the configuration within the kind, shape (n,).
    """

    family: Configurations
    owners: Indices
    indices: Indices


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Pairs of a latency reserve and a configuration that may become the choice.

    Attributes:
        family: the kind of the configurations.
        reserve_rows: row of the latency reserve in the distribution, ascending, shape (K,).
        indices: number of the configuration within the kind, shape (K,).
        costs: money a request by cap, shape (K, B); infinite where it is too much or too many requests are late.
    """

    family: Configurations
    reserve_rows: Indices
    indices: Indices
    costs: Array


@dataclass(frozen=True, slots=True, eq=False)
class SharedBufferCosts:
    """Costs of S buffers with R latency reserves each.

    Attributes:
        buffers: the buffers.
        distribution: batch sizes, for the latency reserves of one buffer after another.
        owner: number of the buffer of each latency reserve, shape (S R,).
        reserve_full_batch: see `cost_bounds.space_of`.
    """

    buffers: Sequence[SharedBuffer]
    distribution: BatchSizeDistribution
    owner: Indices
    reserve_full_batch: bool

    @staticmethod
    def of(
        buffers: Sequence[SharedBuffer], latency_reserves_s: Array, *, max_batch: int, reserve_full_batch: bool
    ) -> "SharedBufferCosts":
        """Computes the batch sizes.

        Args:
            buffers: S buffers.
            latency_reserves_s: latency reserves of each, shape (S, R).
            max_batch: the largest cap.
            reserve_full_batch: see `cost_bounds.space_of`.
        """
        owner = np.arange(len(buffers)).repeat(latency_reserves_s.shape[1])
        distribution = size_distributions(buffers, latency_reserves_s, max_batch=max_batch)
        return SharedBufferCosts(buffers, distribution, owner, reserve_full_batch)

    def candidates(self, rows: Rows, below: Array, percentiles: Array) -> Candidates:
        """Returns pairs that cost less than a bound and keep the percentile of the application with the strictest SLO.

        Args:
            rows: the configurations.
            below: cost per request of each buffer that a candidate must stay below, shape (S,).
            percentiles: percentile of the application with the strictest SLO in each buffer, shape (S,).
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
        """Returns latency reserves, rows and costs of one buffer where some cap costs less; infinite at other caps."""
        start, end = (int(x) for x in self.owner.searchsorted([owner, owner + 1]))
        first, last = (int(x) for x in rows.owners.searchsorted([owner, owner + 1]))
        costs = self._costs(rows.family, rows.indices[first:last], slice(start, end))
        reserve_rows, which = np.nonzero((costs < below).any(axis=0).T)
        found = costs[:, which, reserve_rows].T
        found[found >= below] = np.inf
        return reserve_rows + start, which + first, found

    def _costs(self, family: Configurations, indices: Indices, reserve_rows: slice) -> Array:
        """Returns the cost per request of every cap, configuration and latency reserve, shape (B, n, R).

        It is infinite where a cap or a latency reserve is not allowed. Latency reserves come last: there are always
        many of them, so that the inner loops are long for any kind of function.
        """
        caps = min(family.max_batch, self.distribution.waiting.shape[1])
        services, distribution = family.services, self.distribution.up_to(caps)
        billed_s = services.billed_s[indices, :caps].T[:, :, None]
        reached, below, means = (
            np.ascontiguousarray(x[reserve_rows].T)[:, None]
            for x in (distribution.reached(), distribution.below, distribution.mean_sizes())
        )
        costs = reached * billed_s
        # Cap by cap instead of a cumulative sum along the first axis, which is read in far strides.
        closed = below * billed_s[:-1]
        for before, row in zip(closed, closed[1:], strict=False):
            row += before
        costs[1:] += closed
        costs *= np.where(family.allowed, family.per_s, np.inf)[indices, :caps].T[:, :, None]
        costs += family.per_call
        costs /= means
        # A single request needs at least its shortest service; with `reserve_full_batch`, a full batch does.
        min_reserve_s = services.atoms_s[indices, : caps if self.reserve_full_batch else 1, 0].T
        np.copyto(costs, np.inf, where=distribution.latency_reserves_s[reserve_rows] < min_reserve_s[:, :, None])
        return np.asarray(costs)

    def _late(self, rows: Rows, reserve_rows: Indices, which: Indices, caps: int) -> Array:
        """Returns the fraction of late requests of the application with the strictest SLO, by cap, shape (K, B)."""
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

"""Exact fraction of late requests of each application in a shared buffer, with service times.

C_s(y) is the expected number of requests of one application, divided by its part of the rate, that leave in a batch of
s and wait longer than y. With Phi of `multi_slo_batching`, C_s(y) = Phi_(s-1)(y) - rate * integral of (Phi_(s-1) -
Phi_(s-2)) from y to the timeout of the application for s below the cap, and rate * integral of Phi_(cap-2) for a full
batch. Late are the sum over s and services v of P(v) C_s(slo - v), divided by E[b].

One application has an SLO of 2 s and one request a second. At a latency reserve of 1 s the timeout is 1 s. A batch of
one takes 0.5 s and is in time. A batch of two takes 1.5 s, so its first request may wait 0.5 s; it waits longer with
the probability e^-0.5 - e^-1 = 0.2387. Of E[b] = 2 - 1/e = 1.6321 requests that are 0.1462:

>>> buffer = SharedBuffer(np.array([2.0]), np.array([1.0]))
>>> distribution = buffer.size_distribution(np.array([1.0]), max_batch=2)
>>> services_s, certain = np.array([[0.5], [1.5]]), np.ones((2, 1))
>>> waits = SharedWaits.of(buffer, distribution, 0)
>>> waits.late(buffer.slos_s, services_s, certain).round(4).tolist()
[0.1462]

The closed form for the strictest SLO gives the same at the cap of two, and none is late at the cap of one:

>>> one, two = np.array([1.0]), np.array([2.0])
>>> strictest = StrictestLateness.of_each(
...     distribution, one, services_s[None], certain[None], rates_rps=one, slos_s=two
... )
>>> strictest.paired(np.array([0]), np.array([0])).round(4).tolist()
[[0.0, 0.1462]]
"""

from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.matrices import Array, Indices
from scheduler.planner.queueing.multi_slo_batching import BatchSizeDistribution, SharedBuffer, distinct
from scheduler.planner.queueing.poisson_tails import neighbouring_tails, saturated_mean

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
"""Gauss-Legendre nodes in a panel: exact for polynomials of degree five, more than the cubic interpolation uses."""
_PANEL = 0.25
"""Expected arrivals in a panel of the waits. Cubic interpolation over a panel has an error of at most 1e-5, which grows
with the fourth power of its width."""


@dataclass(frozen=True, slots=True, eq=False)
class StrictestLateness:
    """Fraction of late requests of the application with the strictest SLO, in closed form.

    It is evaluated for many configurations and latency reserves at once. Before the shortest timeout Phi_(s-1) is a
    constant a_s less P(at least s arrivals), so C_s is linear in a_s and a_(s-1). The coefficients are sums over the
    services that are too long; since services ascend, these are the last ones.

    Attributes:
        distribution: batch sizes of the shared buffers.
        limits: expected arrivals before the shortest timeout, by latency reserve, shape (R,).
        atoms_s: services of n configurations for batches of 1 ... B, ascending along the last axis, shape (n, B, A).
        sums: sums over each service and all longer ones, shape (4, n, B, A + 1): of the probability; of the probability
            times the expected arrivals before the request is late; and of the terms of C_s and of a full batch without
            a_s and a_(s-1).
        always_late: probability of a service longer than the SLO, shape (n, B).
    """

    distribution: BatchSizeDistribution
    limits: Array
    atoms_s: Array
    sums: Array
    always_late: Array

    @staticmethod
    def of_each(
        distribution: BatchSizeDistribution,
        limits: Array,
        atoms_s: Array,
        weights: Array,
        *,
        rates_rps: Array,
        slos_s: Array,
    ) -> "StrictestLateness":
        """Prepares the sums for n configurations, each with a buffer of its own.

        Args:
            distribution: batch sizes of the shared buffers.
            limits: expected arrivals before the shortest timeout, by latency reserve, shape (R,).
            atoms_s: services for batches of 1 ... B, ascending along the last axis, shape (n, B, A).
            weights: probability of each service, shape (n, B, A).
            rates_rps: requests a second of each buffer, shape (n,).
            slos_s: strictest SLO of each buffer, shape (n,).
        """
        sizes = np.arange(1, atoms_s.shape[1] + 1)[:, None]
        left_s = slos_s[:, None, None] - atoms_s
        arrivals = rates_rps[:, None, None] * np.maximum(left_s, 0.0)
        before, tail, after = neighbouring_tails(arrivals, sizes, largest=distribution.waiting.shape[1])
        # Integrals from 0 to `arrivals` of P(at least s) and P(at least s - 1).
        ours, smaller = arrivals * tail - sizes * after, arrivals * before - (sizes - 1) * tail
        sums = np.zeros((4, *weights.shape[:-1], weights.shape[-1] + 1))
        sums[0, ..., :-1], sums[1, ..., :-1] = weights, weights * arrivals
        sums[2, ..., :-1], sums[3, ..., :-1] = weights * (smaller - ours - tail), weights * smaller
        sums = sums[..., ::-1].cumsum(axis=-1)[..., ::-1]
        return StrictestLateness(distribution, limits, atoms_s, sums, np.where(left_s < 0, weights, 0.0).sum(axis=2))

    def paired(self, reserve_rows: Indices, which: Indices) -> Array:
        """Returns the fraction of late requests for pairs of a latency reserve and a configuration, shape (K, B).

        Args:
            reserve_rows: row of the latency reserve in the distribution, shape (K,).
            which: number of the configuration, shape (K,).
        """
        caps = self.atoms_s.shape[1]
        sizes = np.arange(1, caps + 1)
        limits, early = self.limits[reserve_rows, None], self.distribution.early[reserve_rows]
        # Integrals of P(at least s) and P(at least s - 1) up to the shortest timeout.
        at_limit = limits * early[:, 1 : caps + 1] - sizes * early[:, 2 : caps + 2]
        before_limit = limits * early[:, :caps] - (sizes - 1) * early[:, 1 : caps + 1]
        waiting = self.distribution.waiting[reserve_rows, :caps]
        smaller = np.ones_like(waiting)
        smaller[:, 1:] = waiting[:, :-1]
        mass, weighted, rest, rest_full = self._too_long(self.distribution.latency_reserves_s[reserve_rows], which)
        step = smaller - waiting
        by_size = (waiting + at_limit - before_limit + limits * step) * mass - step * weighted + rest
        late = (limits * smaller - before_limit) * mass - smaller * weighted + rest_full
        late += self.always_late[which] * self.distribution.reached()[reserve_rows, :caps]
        late[:, 1:] += by_size[:, :-1].cumsum(axis=1)
        late /= self.distribution.mean_sizes()[reserve_rows, :caps]
        return np.asarray(late)

    def _too_long(self, latency_reserves_s: Array, which: Indices) -> Array:
        """Returns the sums over services longer than the latency reserve of each pair, shape (4, K, B)."""
        place = (np.arange(self.always_late.size) * self.sums.shape[-1]).reshape(self.always_late.shape)[which]
        # One service after the other: all at once would need a far larger array.
        for atom in np.ascontiguousarray(np.moveaxis(self.atoms_s, 2, 0)):
            place += atom.take(which, axis=0) <= latency_reserves_s[:, None]
        return np.asarray(self.sums.reshape(len(self.sums), -1).take(place, axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class SharedWaits:
    """Waits of every application under one latency reserve, tabulated over the time that a batch can stay open.

    Attributes:
        timeouts_s: timeouts of the applications, ascending, shape (n,).
        ends_s: ends of the panels, shape (P + 1,).
        phi: Phi_(s-1) there for s = 0 (zero), 1 ... B, shape (B + 1, P + 1).
        slopes: derivative of `phi`.
        sums: rate times the integral of Phi_(s-1) from 0, shape (B + 1, P + 1).
        rate_rps: requests a second of all applications.
        mean_sizes: E[b] for caps 1 ... B.
        reached: P(full) for caps 1 ... B.
    """

    timeouts_s: Array
    ends_s: Array
    phi: Array
    slopes: Array
    sums: Array
    rate_rps: float
    mean_sizes: Array
    reached: Array

    @staticmethod
    def of(buffer: SharedBuffer, distribution: BatchSizeDistribution, reserve_row: int) -> "SharedWaits":
        """Tabulates the waits under one latency reserve of a distribution.

        Args:
            buffer: the buffer.
            distribution: its batch sizes.
            reserve_row: row of the latency reserve in the distribution.
        """
        rate, sizes = buffer.rate_rps, distribution.waiting.shape[1]
        timeouts_s = buffer.slos_s - distribution.latency_reserves_s[reserve_row]
        ends_s = _panel_ends(timeouts_s, rate, sizes)
        widths_s = np.diff(ends_s)
        nodes_s = (ends_s[:-1, None] + widths_s[:, None] * (_NODES + 1) / 2).ravel()
        at_ends = _open_terms(ends_s, timeouts_s, buffer.rates_rps, sizes)
        at_nodes = _open_terms(nodes_s, timeouts_s, buffer.rates_rps, sizes).reshape(sizes, -1, len(_NODES))
        pieces = rate * (at_nodes @ (_WEIGHTS / 2)) * widths_s
        moments = rate * (at_nodes @ (_WEIGHTS * (_NODES + 1) / 4)) * widths_s**2
        phi = np.zeros((sizes + 1, len(ends_s)))
        phi[1:, -1] = at_ends[:, -1]
        phi[1:, :-1] = at_ends[:, -1:] + np.cumsum(pieces[:, ::-1], axis=1)[:, ::-1]
        sums = np.zeros_like(phi)
        sums[1:, 1:] = np.cumsum(rate * (phi[1:, 1:] * widths_s + moments), axis=1)
        slopes = np.zeros_like(phi)
        slopes[1:] = -rate * at_ends
        return SharedWaits(
            timeouts_s,
            ends_s,
            phi,
            slopes,
            sums,
            rate,
            distribution.mean_sizes()[reserve_row],
            distribution.reached()[reserve_row],
        )

    def late(self, latencies_s: Array, atoms_s: Array, weights: Array, *, which: Indices | None = None) -> Array:
        """Returns the fraction of each application's requests that take longer than its bound, shape (K,).

        Args:
            latencies_s: bound of each application, shape (K,).
            atoms_s: services of batches of 1 ... cap, shape (cap, A).
            weights: probability of each, shape (cap, A).
            which: numbers of the applications, shape (K,); None: all.
        """
        return self._late(latencies_s, atoms_s, weights, self._until_timeout(len(atoms_s), which))

    def quantiles_s(self, percentiles: Array, atoms_s: Array, weights: Array) -> Array:
        """Returns the latency of each application at its percentile, shape (n,), from above within 0.1 ms.

        Args:
            percentiles: percentile of each application, shape (n,).
            atoms_s: services of batches of 1 ... cap, shape (cap, A).
            weights: probability of each, shape (cap, A).
        """
        low_s: Array = np.zeros(len(percentiles))
        high_s = self.timeouts_s + float(atoms_s.max())
        steps = int(np.ceil(np.log2(max(float(high_s.max()) / 1e-4, 2.0))))
        until = self._until_timeout(len(atoms_s), None)
        for _ in range(steps):
            middle_s = (low_s + high_s) / 2
            fits = self._late(middle_s, atoms_s, weights, until) <= 1 - percentiles
            low_s, high_s = np.where(fits, low_s, middle_s), np.where(fits, middle_s, high_s)
        return np.asarray(high_s)

    def _until_timeout(self, cap: int, which: Indices | None) -> tuple[Array, Array, Array]:
        """Returns timeouts, and the integrals of Phi_(s-1) and Phi_(s-2) up to them, each of shape (K, cap or 1, 1)."""
        timeouts_s = (self.timeouts_s if which is None else self.timeouts_s[which])[:, None, None]
        _, sums, smaller = self._at(timeouts_s, np.arange(1, cap + 1)[None, :, None])
        return timeouts_s, sums, smaller

    def _late(self, latencies_s: Array, atoms_s: Array, weights: Array, until: tuple[Array, Array, Array]) -> Array:
        cap, (timeouts_s, to_timeout, smaller_to_timeout) = len(atoms_s), until
        waits_s = latencies_s[:, None, None] - atoms_s
        phi, sums, smaller = self._at(np.maximum(waits_s, 0.0), np.arange(1, cap + 1)[None, :, None])
        filling = smaller_to_timeout - smaller
        mass = phi - (to_timeout - sums) + filling
        mass[:, -1] = filling[:, -1] + (waits_s[:, -1] < 0) * self.reached[cap - 1]
        late = (np.where(waits_s < timeouts_s, weights, 0.0) * mass).sum(axis=(1, 2))
        return np.asarray(late / self.mean_sizes[cap - 1])

    def _at(self, waits_s: Array, sizes: Indices) -> tuple[Array, Array, Array]:
        """Returns Phi_(s-1), its integral and that of Phi_(s-2) at any waits, by cubic Hermite interpolation."""
        inside_s = np.minimum(waits_s, self.ends_s[-1])
        panel = np.clip(np.searchsorted(self.ends_s, inside_s, side="right") - 1, 0, len(self.ends_s) - 2)
        width_s = self.ends_s[panel + 1] - self.ends_s[panel]
        part = (inside_s - self.ends_s[panel]) / width_s
        h01 = part * part * (3 - 2 * part)
        h10, h11 = part * (1 - part) ** 2 * width_s, part * part * (part - 1) * width_s
        places = sizes * len(self.ends_s) + panel
        low, high = self._neighbours(self.phi, places)
        starting, ending = self._neighbours(self.slopes, places)
        phi = low + (high - low) * h01 + starting * h10 + ending * h11
        sums = self._summed(places, low * h10 + high * h11, h01)
        places = places - len(self.ends_s)
        low, high = self._neighbours(self.phi, places)
        return phi, sums, self._summed(places, low * h10 + high * h11, h01)

    def _summed(self, places: Indices, bent: Array, h01: Array) -> Array:
        start, end = self._neighbours(self.sums, places)
        return start + (end - start) * h01 + self.rate_rps * bent

    @staticmethod
    def _neighbours(table: Array, places: Indices) -> tuple[Array, Array]:
        """Returns the values at places counted along the rows, and at the following places."""
        flat = table.ravel()
        return flat.take(places), flat.take(places + 1)


def _panel_ends(timeouts_s: Array, rate_rps: float, sizes: int) -> Array:
    """Returns 0, every timeout, and ends of panels with few expected arrivals; cut where every batch is full."""
    marks_s = distinct(np.minimum(np.concatenate([[0.0], timeouts_s]), saturated_mean(sizes) / rate_rps))
    if len(marks_s) == 1:
        return np.array([0.0, 1e-9])
    pieces = np.maximum(1, np.ceil(np.diff(marks_s) * rate_rps / _PANEL)).astype(np.int64)
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(marks_s, marks_s[1:], pieces, strict=False)]
    return np.concatenate([*parts, marks_s[-1:]])


def _open_terms(times_s: Array, timeouts_s: Array, rates_rps: Array, sizes: int) -> Array:
    """Returns O_k(z) for k = 0 ... sizes - 1, shape (sizes, len(times_s))."""
    seen = (rates_rps * np.minimum(times_s[:, None], timeouts_s)).sum(axis=1)
    terms = np.empty((sizes, len(times_s)))
    terms[0] = np.exp(-float(rates_rps.sum()) * times_s)
    for k in range(1, sizes):
        terms[k] = terms[k - 1] * seen / k
    return terms

"""Which fraction of an application's requests is late in a shared buffer, exactly, service times included.

A request that closes with a batch of s after a wait of more than y has mass C_s(y); with Phi of shared_buffers,
C_s(y) = Phi_{s-1}(y) - rate * integral of (Phi_{s-1} - Phi_{s-2}) from y to its own timeout for s below the cap, and
rate * integral of Phi_{cap-2} for a full one. Late are sum over s and services v of P(v) C_s(slo - v), over E[b].
"""

from dataclasses import dataclass

import numpy as np

from scheduler.planner.queueing.matrices import Array, Indices
from scheduler.planner.queueing.multi_slo_batching import BatchSizeDistribution, SharedBuffer, distinct
from scheduler.planner.queueing.poisson_tails import certain_above, neighbouring_tails

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(3)
_PANEL = 0.25
"""Expected arrivals in a panel of the waits: cubic interpolation over it is off by at most 1e-5."""


@dataclass(frozen=True, slots=True, eq=False)
class StrictestLateness:
    """Lateness of the application with the strictest SLO: closed forms, for many configurations and latency reserves at
    once.

    Before the shortest timeout Phi_{s-1} is a constant a_s less P(at least s arrivals), so C_s is linear in a_s and
    a_{s-1}: its coefficients are sums over the services that are too long, which are the last ones.

    Attributes:
        distribution: sizes of the shared buffers.
        limits: arrivals expected before the shortest timeout, by latency reserve, shape (R,).
        atoms_s: services of n configurations for batches of 1 ... B, ascending along the last axis, shape (n, B, A).
        sums: over the services from each one on, of their probability; that times the arrivals expected before it is
            too late; that times what C_s and a full batch's C_s have besides a_s and a_{s-1}; shape (4, n, B, A + 1).
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
        """Prepares the same where each configuration has a buffer of its own; rates and strictest SLOs have (n,)."""
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
        """Returns the same for pairs of a latency reserve and a configuration, shape (K, B)."""
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
        """The sums over the services that are longer than the latency reserve of each pair, shape (4, K, B)."""
        place = (np.arange(self.always_late.size) * self.sums.shape[-1]).reshape(self.always_late.shape)[which]
        # One service after the other: all at once would be a far larger array to walk through.
        for atom in np.ascontiguousarray(np.moveaxis(self.atoms_s, 2, 0)):
            place += atom.take(which, axis=0) <= latency_reserves_s[:, None]
        return np.asarray(self.sums.reshape(len(self.sums), -1).take(place, axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class SharedWaits:
    """Waits of every application under one latency reserve, tabulated over the time that a batch can stay open.

    Attributes:
        timeouts_s: of the applications, ascending, shape (n,).
        ends_s: panel ends, shape (P + 1,).
        phi: Phi_{s-1} there for s = 0 (zero), 1 ... B, shape (B + 1, P + 1).
        slopes: its derivative.
        sums: rate times the integral of Phi_{s-1} from 0, shape (B + 1, P + 1).
        rate_rps: of all applications.
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
        """Tabulates the waits under one of the latency reserves of a distribution."""
        rate, sizes = buffer.rate_rps, distribution.waiting.shape[1]
        timeouts_s = buffer.slos_s - distribution.latency_reserves_s[reserve_row]
        ends_s = _panel_ends(timeouts_s, rate, sizes)
        widths_s = np.diff(ends_s)
        nodes_s = (ends_s[:-1, None] + widths_s[:, None] * (_NODES + 1) / 2).ravel()
        at_ends = _more_arrivals(ends_s, timeouts_s, buffer.rates_rps, sizes)
        at_nodes = _more_arrivals(nodes_s, timeouts_s, buffer.rates_rps, sizes).reshape(sizes, -1, len(_NODES))
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
            latencies_s: a bound for each application, shape (K,).
            atoms_s: services of batches of 1 ... cap, shape (cap, A).
            weights: probability of each, shape (cap, A).
            which: applications to work it out for, shape (K,); None: all.
        """
        return self._late(latencies_s, atoms_s, weights, self._until_timeout(len(atoms_s), which))

    def quantiles_s(self, percentiles: Array, atoms_s: Array, weights: Array) -> Array:
        """Returns the latency of each application at its percentile, shape (n,), from above within 0.1 ms.

        Parameters are those of `late`; `percentiles` has the shape (n,).
        """
        low_s = np.zeros(len(percentiles))
        high_s = self.timeouts_s + float(atoms_s.max())
        steps = int(np.ceil(np.log2(max(float(high_s.max()) / 1e-4, 2.0))))
        until = self._until_timeout(len(atoms_s), None)
        for _ in range(steps):
            middle_s = (low_s + high_s) / 2
            fits = self._late(middle_s, atoms_s, weights, until) <= 1 - percentiles
            low_s, high_s = np.where(fits, low_s, middle_s), np.where(fits, middle_s, high_s)
        return np.asarray(high_s)

    def _until_timeout(self, cap: int, which: Indices | None) -> tuple[Array, Array, Array]:
        """Timeouts, and the integrals of Phi_{s-1} and Phi_{s-2} up to them, each of shape (K, cap or 1, 1)."""
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
        """Phi_{s-1}, its integral and that of Phi_{s-2} at any waits; cubic Hermite between the panel ends."""
        inside_s = np.minimum(waits_s, self.ends_s[-1])
        panel = np.clip(np.searchsorted(self.ends_s, inside_s, side="right") - 1, 0, len(self.ends_s) - 2)
        width_s = self.ends_s[panel + 1] - self.ends_s[panel]
        part = (inside_s - self.ends_s[panel]) / width_s
        h01 = part * part * (3 - 2 * part)
        h10, h11 = part * (1 - part) ** 2 * width_s, part * part * (part - 1) * width_s
        places = sizes * len(self.ends_s) + panel
        low, high = self._both(self.phi, places)
        starting, ending = self._both(self.slopes, places)
        phi = low + (high - low) * h01 + starting * h10 + ending * h11
        sums = self._summed(places, low * h10 + high * h11, h01)
        places = places - len(self.ends_s)
        low, high = self._both(self.phi, places)
        return phi, sums, self._summed(places, low * h10 + high * h11, h01)

    def _summed(self, places: Indices, bent: Array, h01: Array) -> Array:
        start, end = self._both(self.sums, places)
        return start + (end - start) * h01 + self.rate_rps * bent

    @staticmethod
    def _both(table: Array, places: Indices) -> tuple[Array, Array]:
        """Values at places counted along the rows, and at the next ones."""
        flat = table.ravel()
        return flat.take(places), flat.take(places + 1)


def _panel_ends(timeouts_s: Array, rate_rps: float, sizes: int) -> Array:
    """0, every timeout, and in between so many that a panel expects few arrivals; cut where all batches are full."""
    marks_s = distinct(np.minimum(np.concatenate([[0.0], timeouts_s]), certain_above(sizes) / rate_rps))
    if len(marks_s) == 1:
        return np.array([0.0, 1e-9])
    pieces = np.maximum(1, np.ceil(np.diff(marks_s) * rate_rps / _PANEL)).astype(np.int64)
    parts = [np.linspace(a, b, n, endpoint=False) for a, b, n in zip(marks_s, marks_s[1:], pieces, strict=False)]
    return np.concatenate([*parts, marks_s[-1:]])


def _more_arrivals(times_s: Array, timeouts_s: Array, rates_rps: Array, sizes: int) -> Array:
    """O_k(z) for k = 0 ... sizes - 1, shape (sizes, len(times_s))."""
    seen = (rates_rps * np.minimum(times_s[:, None], timeouts_s)).sum(axis=1)
    terms = np.empty((sizes, len(times_s)))
    terms[0] = np.exp(-float(rates_rps.sum()) * times_s)
    for k in range(1, sizes):
        terms[k] = terms[k - 1] * seen / k
    return terms

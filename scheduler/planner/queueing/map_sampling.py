"""Fast random draws from Markovian arrival processes: many stretches of a path side by side, then linked in order."""

import math

import numpy as np

from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, Indices

_MAX_CHANGES = 1 << 21
"""Transitions that are drawn at once. Their outcomes take 17 MB for each phase; more would not be faster."""


class ArrivalStream:
    """An endless stream of random gaps between arrivals, starting just after an arrival of the stationary process.

    The next phase is a function of the present phase and of one uniform random number. So the transitions of a stretch
    are drawn for each phase that it might start in, for all stretches side by side. Then the stretches are linked in
    order. The path is exactly one of the process, also where stretches meet.

    Args:
        process: the process.
        rng: the random generator; the same seed and the same calls give the same gaps.

    >>> from scheduler.planner.queueing.map_process import mmpp2
    >>> process = mmpp2(rates_rps=(10.0, 50.0), leave_per_s=(1.0, 3.0))
    >>> gaps_s = ArrivalStream(process, np.random.default_rng(1)).gaps_s(200_000)
    >>> bool(0.98 < gaps_s.mean() * process.rate_rps < 1.02), bool(1.9 < gaps_s.var() / gaps_s.mean() ** 2 < 2.2)
    (True, True)
    """

    def __init__(self, process: MarkovianArrivals, rng: np.random.Generator) -> None:
        """Stores the process and the generator."""
        self._process = process
        self._rng = rng
        self._phase: int | None = None
        self._since_s = 0.0
        self._spare: Array = np.empty(0)
        self._drawn_s = 0.0
        self._changes: list[tuple[Array, Indices]] = []

    def gaps_s(self, count: int) -> Array:
        """Returns the next gaps, seconds, shape (count,).

        Args:
            count: number of gaps.
        """
        chunks, missing = [self._spare], count - len(self._spare)
        changes_per_arrival = self._changes_per_arrival()
        while missing > 0:
            wanted = math.ceil(missing * changes_per_arrival * 1.01) + 64
            chunks.append(self._more(min(wanted, _MAX_CHANGES)))
            missing -= len(chunks[-1])
        gaps_s = np.concatenate(chunks)
        self._spare = gaps_s[count:]
        return gaps_s[:count]

    def rates(self) -> tuple[Array, Array]:
        """Returns the rate of the gaps drawn so far, as the phases change it.

        Returns:
            The start of each stretch of one phase, seconds from the start of the stream, and its arrivals a second.
        """
        starts_s, phases = (np.concatenate(parts) for parts in zip(*self._changes, strict=True))
        _, d1 = self._process.matrices()
        changed = np.flatnonzero(np.diff(phases, prepend=-1))
        return starts_s[changed], d1.sum(axis=1)[phases[changed]]

    def _changes_per_arrival(self) -> float:
        d0, _ = self._process.matrices()
        return float(self._process.phase_distribution() @ -d0.diagonal()) / self._process.rate_rps

    def _more(self, changes: int) -> Array:
        before, after = self._path(changes)
        d0, _ = self._process.matrices()
        leaves_per_s = -d0.diagonal()
        begins_s = self._since_s
        times_s = begins_s + np.cumsum(self._rng.standard_exponential(len(before)) / leaves_per_s[before])
        self._note_phases(np.concatenate([[begins_s], times_s[:-1]]), before)
        arrivals_s = times_s[after >= self._process.phases]
        if not len(arrivals_s):
            self._since_s = float(times_s[-1])
            return np.empty(0)
        self._since_s = float(times_s[-1] - arrivals_s[-1])
        self._drawn_s += float(arrivals_s[-1])
        return np.asarray(np.diff(arrivals_s, prepend=0.0), dtype=np.float64)

    def _note_phases(self, since_s: Array, phases: Indices) -> None:
        """Notes the starts of phases.

        Args:
            since_s: time before each transition, seconds since the last arrival before.
            phases: phase from then on.
        """
        changed = np.flatnonzero(np.diff(phases, prepend=-1))
        self._changes.append((self._drawn_s + since_s[changed], phases[changed]))

    def _path(self, changes: int) -> tuple[Indices, Indices]:
        """Returns the phase before each transition and its outcome: the phase after it, plus m if it is an arrival."""
        phases = self._process.phases
        stretches = math.isqrt(changes) + 1
        length = changes // stretches + 1
        outcomes = self._outcomes(self._rng.random((length, stretches)))
        starts = self._linked(outcomes[-1] % phases)
        chosen = outcomes[:, starts, np.arange(stretches)].T.ravel()
        before = np.empty_like(chosen)
        before[0], before[1:] = starts[0], chosen[:-1] % phases
        return before, chosen

    def _outcomes(self, uniforms: Array) -> Indices:
        """Returns the outcome of every transition in every stretch by first phase, shape (length, m, stretches)."""
        phases = self._process.phases
        length, stretches = uniforms.shape
        ladder = self._ladder()
        outcomes = np.empty((length, phases, stretches), dtype=np.intp)
        phase = np.repeat(np.arange(phases)[:, None], stretches, axis=1)
        for step in range(length):
            place = np.searchsorted(ladder, phase + uniforms[step], side="right")
            # Rounding of phase + uniform must not give an outcome of the next phase.
            outcomes[step] = np.minimum(place - 2 * phases * phase, 2 * phases - 1)
            phase = outcomes[step] % phases
        return outcomes

    def _ladder(self) -> Array:
        """Returns cumulative probabilities of the outcomes of phase i, plus i: one ascending sequence."""
        d0, d1 = self._process.matrices()
        rates = np.hstack([d0 - np.diag(d0.diagonal()), d1])
        ladder = np.cumsum(rates / rates.sum(axis=1, keepdims=True), axis=1)
        # Outcomes of probability 0 at the end of a row are excluded, whatever the sum rounds to.
        ladder[ladder >= ladder[:, -1:]] = 1.0
        return np.asarray((ladder + np.arange(len(d0))[:, None]).ravel(), dtype=np.float64)

    def _linked(self, ends: Indices) -> Indices:
        """Returns the first phase of every stretch, and remembers the phase after the last one.

        Args:
            ends: last phase of each stretch by its first phase, shape (m, stretches).
        """
        if self._phase is None:
            self._phase = int(self._rng.choice(self._process.phases, p=self._process.arrival_phase_distribution()))
        starts, phase = [], self._phase
        for ending in ends.T.tolist():
            starts.append(phase)
            phase = ending[phase]
        self._phase = phase
        return np.array(starts, dtype=np.intp)

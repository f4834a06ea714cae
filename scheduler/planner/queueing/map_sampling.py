"""Draws from Markovian arrival processes, fast: many short stretches of the path at once, then linked."""

import math

import numpy as np

from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.matrices import Array, Indices

_MAX_CHANGES = 1 << 21
"""Changes of phase drawn at once: they fit in memory, and more would not be faster."""


class ArrivalStream:
    """An endless draw of gaps between arrivals, which begins just after an arrival in the long run.

    A change of phase is a function of one uniform number and the phase before. So the changes of every stretch are
    drawn from each phase it might begin in, all stretches side by side; then the stretches are linked in order. The
    path is exactly the process's, with no seams.

    Args:
        process: what to draw from.
        rng: the generator; the same seed and the same calls give the same gaps.

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

    def gaps_s(self, count: int) -> Array:
        """Returns the next gaps, seconds, shape (count,).

        Args:
            count: how many.
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

    def _changes_per_arrival(self) -> float:
        d0, _ = self._process.matrices()
        return float(self._process.phase_distribution() @ -d0.diagonal()) / self._process.rate_rps

    def _more(self, changes: int) -> Array:
        before, after = self._path(changes)
        d0, _ = self._process.matrices()
        leaves_per_s = -d0.diagonal()
        times_s = self._since_s + np.cumsum(self._rng.standard_exponential(len(before)) / leaves_per_s[before])
        arrivals_s = times_s[after >= self._process.phases]
        if not len(arrivals_s):
            self._since_s = float(times_s[-1])
            return np.empty(0)
        self._since_s = float(times_s[-1] - arrivals_s[-1])
        return np.asarray(np.diff(arrivals_s, prepend=0.0), dtype=np.float64)

    def _path(self, changes: int) -> tuple[Indices, Indices]:
        """Phase before each change, and its outcome: the phase after it, plus m where it is an arrival."""
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
        """Outcome of every change in every stretch for each first phase, shape (length, m, stretches)."""
        phases = self._process.phases
        length, stretches = uniforms.shape
        ladder = self._ladder()
        outcomes = np.empty((length, phases, stretches), dtype=np.intp)
        phase = np.repeat(np.arange(phases)[:, None], stretches, axis=1)
        for step in range(length):
            place = np.searchsorted(ladder, phase + uniforms[step], side="right")
            # Rounding of phase + uniform must not reach into the next phase's part of the ladder.
            outcomes[step] = np.minimum(place - 2 * phases * phase, 2 * phases - 1)
            phase = outcomes[step] % phases
        return outcomes

    def _ladder(self) -> Array:
        """Cumulative probabilities of the outcomes of phase i, plus i; one ascending sequence for all phases."""
        d0, d1 = self._process.matrices()
        rates = np.hstack([d0 - np.diag(d0.diagonal()), d1])
        ladder = np.cumsum(rates / rates.sum(axis=1, keepdims=True), axis=1)
        # Outcomes of probability 0 at the end must stay out of reach, whatever the sum rounds to.
        ladder[ladder >= ladder[:, -1:]] = 1.0
        return np.asarray((ladder + np.arange(len(d0))[:, None]).ravel(), dtype=np.float64)

    def _linked(self, ends: Indices) -> Indices:
        """First phase of every stretch, given where each ends for each first phase; remembers where the last ends."""
        if self._phase is None:
            self._phase = int(self._rng.choice(self._process.phases, p=self._process.arrival_phase_distribution()))
        starts, phase = [], self._phase
        for ending in ends.T.tolist():
            starts.append(phase)
            phase = ending[phase]
        self._phase = phase
        return np.array(starts, dtype=np.intp)

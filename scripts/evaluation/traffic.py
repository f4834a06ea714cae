"""When requests arrive in the evaluation: drawn from this repository's own processes, or read from real traces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.map_process import mmpp2
from scheduler.workloads import Workload, markovian, read_gaps, steps

BURSTY = mmpp2(rates_rps=(44.0, 62.0), leave_per_s=(0.05, 0.3))
"""About 47 requests a second: 20 s of calm at 44, then 3.3 s at 62, both exponential. Index of dispersion 1.2 within
a second and 5.9 in the long run; the stream of short messages that it stands for has 1.0 and 2.2 (over a minute)."""


class Traffic(Protocol):
    """A recipe for arrivals; it travels to another process, the arrivals do not."""

    @property
    def scale(self) -> float:
        """Times the rate of the source; 1 where it has no natural rate."""

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""


@dataclass(frozen=True, slots=True)
class Bursty:
    """So many requests of the process above, gaps divided by `scale`."""

    scale: float
    requests: int

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return markovian(BURSTY, rng=rng, requests=self.requests).faster(self.scale)


@dataclass(frozen=True, slots=True)
class Trace:
    """So many consecutive gaps of a real trace from the `first` on, divided by `scale`."""

    path: Path
    scale: float
    requests: int
    first: int = 0

    def workload(self, rng: np.random.Generator) -> Workload:  # noqa: ARG002 (a trace draws nothing)
        """Returns the arrivals."""
        whole = read_gaps(self.path)
        start_s = float(whole.times_s[self.first - 1]) if self.first else 0.0
        rest = Workload(whole.times_s[self.first :] - start_s, whole.duration_s - start_s)
        return rest.first(self.requests).faster(self.scale)


@dataclass(frozen=True, slots=True)
class Phases:
    """Poisson arrivals whose rate changes in steps: (seconds, requests a second) one after the other."""

    parts: tuple[tuple[float, float], ...]
    scale: float = 1.0

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return steps(self.parts, rng=rng)

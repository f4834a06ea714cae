"""Traffic of the evaluation: drawn from arrival processes of this repository, or read from real traces."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from scheduler.planner.queueing.map_process import mmpp2
from scheduler.workloads import Workload, markovian, pattern, poisson, read_gaps, steps

BURSTY = mmpp2(rates_rps=(44.0, 62.0), leave_per_s=(0.05, 0.3))
"""About 47 requests a second: phases of 44 for 20 s and of 62 for 3.3 s on average, both exponential. The index of
dispersion is 1.2 over a second and 5.9 in the long run. The stream of short messages that it imitates has 1.0 over a
second and 2.2 over a minute."""


class Traffic(Protocol):
    """Description of arrivals, which is passed to other processes instead of the arrivals."""

    @property
    def scale(self) -> float:
        """Factor on the rate of the source; 1 without a natural rate."""

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""


@dataclass(frozen=True, slots=True)
class Bursty:
    """Requests of the process `BURSTY` with gaps divided by `scale`."""

    scale: float
    requests: int

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return markovian(BURSTY, rng=rng, requests=self.requests).faster(self.scale)


@dataclass(frozen=True, slots=True)
class Trace:
    """Consecutive gaps of a real trace from number `first` on, divided by `scale`."""

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
    """Poisson arrivals whose rate changes in steps: (seconds, requests a second) of consecutive steps."""

    parts: tuple[tuple[float, float], ...]
    scale: float = 1.0

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return steps(self.parts, rng=rng)


@dataclass(frozen=True, slots=True)
class Poisson:
    """So many Poisson arrivals at one rate."""

    rate_rps: float
    requests: int
    scale: float = 1.0

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return poisson(self.rate_rps, rng=rng, requests=self.requests)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Arrivals of a named pattern of `scheduler.workloads`, about `requests` of them."""

    pattern: str
    rate_rps: float
    requests: int
    scale: float = 1.0

    def workload(self, rng: np.random.Generator) -> Workload:
        """Returns the arrivals."""
        return pattern(self.pattern, rate_rps=self.rate_rps, duration_s=self.requests / self.rate_rps, rng=rng)

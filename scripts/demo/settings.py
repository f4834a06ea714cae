"""Settings of the demo, and values derived from them: phases, latency models and limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scheduler import workloads
from scheduler.workloads import Seconds

MODEL = "digits"
CLASSES = 10
FUNCTION = "digits"
TIER = "1gb"
MEMORY_GB = 1.0
VCPU = 1.0
DISK_GB = 0.5
EDGE_PROFILE = "orin-resnet50"
FUNCTION_PROFILE = "fc-resnet50-1gb"
PRICE_SHEET = "cny-gbs-2023"
CU_SHEET = "fc3-cu-usd"
PHASE_S = 40.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one demo.

    Attributes:
        out: folder for all output files.
        emulate: profile that the edge emulates; None runs edge and functions at the speed of this machine.
        seed: seed of the arrivals and of the picture of each request.
        time_scale: factor on the length of each phase.
        rates_rps: rate of each phase, requests a second.
        provisioned: number of provisioned instances during the measurement; 0: as many as the planner proposes.
        uplink_mbit_per_s: rate of the uplink that all connections to the functions share.
        slo_s: SLO of each request, seconds.
        quiet: whether to show no live table.
        opens: whether to open the daemon's page in a browser.
    """

    out: Path
    emulate: str | None = EDGE_PROFILE
    seed: int = 1
    time_scale: float = 1.0
    rates_rps: tuple[float, ...] = (30.0, 150.0, 60.0)
    provisioned: int = 0
    uplink_mbit_per_s: float = 8.0
    slo_s: float = 1.0
    quiet: bool = False
    opens: bool = False

    @property
    def phase_s(self) -> float:
        """Length of each phase, seconds."""
        return PHASE_S * self.time_scale

    @property
    def steps_s(self) -> tuple[float, ...]:
        """Times at which the rate changes, seconds from the start."""
        return tuple(self.phase_s * number for number in range(1, len(self.rates_rps)))

    @property
    def duration_s(self) -> float:
        """Length of all phases, seconds."""
        return self.phase_s * len(self.rates_rps)

    @property
    def function_emulate(self) -> str | None:
        """Profile that the functions emulate; None for the speed of this machine."""
        return FUNCTION_PROFILE if self.emulate else None

    @property
    def uplink_bytes_per_s(self) -> float:
        """Rate of the uplink, bytes a second."""
        return self.uplink_mbit_per_s * 1e6 / 8


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Arrival times and pictures of all requests.

    Attributes:
        times_s: arrival times, ascending seconds from the start.
        pictures: index of the picture of each request.
    """

    times_s: Seconds
    pictures: npt.NDArray[np.int64]


def draw_schedule(settings: Settings, *, pictures: int) -> Schedule:
    """Draws Poisson arrivals for each phase, and a picture for each arrival; equal seeds give equal schedules."""
    rng = np.random.default_rng(settings.seed)
    workload = workloads.steps([(settings.phase_s, rate_rps) for rate_rps in settings.rates_rps], rng=rng)
    return Schedule(workload.times_s, rng.integers(pictures, size=len(workload.times_s)))


def settled(times_s: Seconds, steps_s: Sequence[float], *, unsettled_s: float = 1.0) -> npt.NDArray[np.bool_]:
    """Returns whether each time is outside the second after a step of the rate."""
    outside = np.ones(len(times_s), dtype=np.bool_)
    for step_s in steps_s:
        outside &= (times_s < step_s) | (times_s >= step_s + unsettled_s)
    return outside

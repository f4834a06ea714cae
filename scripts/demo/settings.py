"""What the demo is told, and what follows from it: phases, latency models and limits."""

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
    """One demo.

    Attributes:
        out: folder for everything that is left behind.
        emulate: profile that the edge is slowed down to; None runs edge and functions at the machine's true speed.
        seed: of the arrivals and of who sends which picture.
        time_scale: factor on the length of each phase.
        rates_rps: rate of each phase.
        provisioned: function instances that are kept warm while it is measured.
        uplink_mbit_per_s: of all connections to the functions together.
        slo_s: latency objective.
        quiet: no live table.
    """

    out: Path
    emulate: str | None = EDGE_PROFILE
    seed: int = 1
    time_scale: float = 1.0
    rates_rps: tuple[float, ...] = (30.0, 150.0, 60.0)
    provisioned: int = 24
    uplink_mbit_per_s: float = 8.0
    slo_s: float = 1.0
    quiet: bool = False

    @property
    def phase_s(self) -> float:
        """Length of each phase."""
        return PHASE_S * self.time_scale

    @property
    def steps_s(self) -> tuple[float, ...]:
        """Moments at which the rate changes, seconds from the start."""
        return tuple(self.phase_s * number for number in range(1, len(self.rates_rps)))

    @property
    def duration_s(self) -> float:
        """How long requests arrive."""
        return self.phase_s * len(self.rates_rps)

    @property
    def function_emulate(self) -> str | None:
        """Profile that the functions are slowed down to; None for true speed."""
        return FUNCTION_PROFILE if self.emulate else None

    @property
    def uplink_bytes_per_s(self) -> float:
        """Bandwidth to the functions."""
        return self.uplink_mbit_per_s * 1e6 / 8


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """Which picture goes out when.

    Attributes:
        times_s: ascending seconds from the start.
        pictures: index of each request's picture.
    """

    times_s: Seconds
    pictures: npt.NDArray[np.int64]


def draw_schedule(settings: Settings, *, pictures: int) -> Schedule:
    """Draws Poisson arrivals phase by phase, and a picture for each; the same seed draws the same."""
    rng = np.random.default_rng(settings.seed)
    workload = workloads.steps([(settings.phase_s, rate_rps) for rate_rps in settings.rates_rps], rng=rng)
    return Schedule(workload.times_s, rng.integers(pictures, size=len(workload.times_s)))


def settled(times_s: Seconds, steps_s: Sequence[float], *, unsettled_s: float = 1.0) -> npt.NDArray[np.bool_]:
    """Returns which times are not in the second after a step of the rate."""
    outside = np.ones(len(times_s), dtype=np.bool_)
    for step_s in steps_s:
        outside &= (times_s < step_s) | (times_s >= step_s + unsettled_s)
    return outside

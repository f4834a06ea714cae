"""When requests go out: from what a person asks for to arrival times."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scheduler.workloads import Workload, WorkloadError, pattern, read_gaps, read_rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One of a trace of gaps, a rate file or a pattern, and how it is stretched, cut and repeated.

    Parameters:
        arrivals: a `.gaps` file.
        rates: a rate file, requests per time unit.
        unit_s: length of its time unit, seconds.
        pattern: name of a pattern.
        rate_rps: the pattern's mean rate, requests a second.
        rate_multiple: so many times the rate.
        duration_s: length of a lap, seconds; None takes the whole trace.
        laps: how often.
        gap_s: silence between two laps, seconds.
        seed: of what is random.
    """

    arrivals: Path | None = None
    rates: Path | None = None
    unit_s: float = 1.0
    pattern: str | None = None
    rate_rps: float | None = None
    rate_multiple: float = 1.0
    duration_s: float | None = None
    laps: int = 1
    gap_s: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """What is replayed, in a word."""
        return str(self.arrivals or self.rates or self.pattern)


def make_workload(schedule: Schedule) -> Workload:
    """Returns a schedule's arrivals.

    Raises:
        WorkloadError: the trace or pattern cannot be used, or nothing arrives.
    """
    lap = _lap(schedule)
    if schedule.duration_s is not None:
        lap = lap.until(schedule.duration_s)
    if len(lap.times_s) == 0:
        raise WorkloadError(f"{schedule.name} has no request in {lap.duration_s:g} s; replay it longer or faster")
    return lap.repeated(schedule.laps, gap_s=schedule.gap_s)


def _lap(schedule: Schedule) -> Workload:
    rng = np.random.default_rng(schedule.seed)
    if schedule.arrivals is not None:
        return read_gaps(schedule.arrivals).faster(schedule.rate_multiple)
    if schedule.rates is not None:
        return read_rates(schedule.rates, unit_s=schedule.unit_s, rng=rng, multiple=schedule.rate_multiple)
    if schedule.pattern is None:
        raise WorkloadError("nothing says when requests arrive; give --arrivals, --rates or --pattern")
    if schedule.rate_rps is None or schedule.duration_s is None:
        raise WorkloadError(f"the pattern {schedule.pattern} needs --rps and --duration-s; give both")
    rate_rps = schedule.rate_rps * schedule.rate_multiple
    return pattern(schedule.pattern, rate_rps=rate_rps, duration_s=schedule.duration_s, rng=rng)

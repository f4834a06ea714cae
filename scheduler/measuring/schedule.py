"""The send times of requests, from the options of a replay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scheduler.workloads import Workload, WorkloadError, pattern, read_gaps, read_rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A trace of gaps, a rate file or a pattern, and how it is scaled, cut and repeated.

    Attributes:
        arrivals: a `.gaps` file.
        rates: a rate file, requests per time unit.
        unit_s: length of its time unit, seconds.
        pattern: name of a pattern.
        rate_rps: mean rate of the pattern, requests per second.
        rate_multiple: factor on the rate.
        duration_s: length of a lap, seconds; None takes the whole trace.
        laps: number of laps.
        gap_s: pause between two laps, seconds.
        seed: random seed.
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
        """The name of the trace, the rate file or the pattern."""
        return str(self.arrivals or self.rates or self.pattern)


def make_workload(schedule: Schedule) -> Workload:
    """Returns the arrivals of a schedule.

    Raises:
        WorkloadError: the trace or pattern cannot be used, or there are no arrivals.
    """
    lap = _lap(schedule)
    if schedule.duration_s is not None:
        lap = lap.until(schedule.duration_s)
    if len(lap.times_s) == 0:
        raise WorkloadError(
            f"{schedule.name} has no request in {lap.duration_s:g} s; replay it for longer or at a higher rate"
        )
    return lap.repeated(schedule.laps, gap_s=schedule.gap_s)


def _lap(schedule: Schedule) -> Workload:
    rng = np.random.default_rng(schedule.seed)
    if schedule.arrivals is not None:
        return read_gaps(schedule.arrivals).faster(schedule.rate_multiple)
    if schedule.rates is not None:
        return read_rates(schedule.rates, unit_s=schedule.unit_s, rng=rng, multiple=schedule.rate_multiple)
    if schedule.pattern is None:
        raise WorkloadError("the source of arrivals is missing; give --arrivals, --rates or --pattern")
    if schedule.rate_rps is None or schedule.duration_s is None:
        raise WorkloadError(f"the pattern {schedule.pattern} needs --rps and --duration-s; give both")
    rate_rps = schedule.rate_rps * schedule.rate_multiple
    return pattern(schedule.pattern, rate_rps=rate_rps, duration_s=schedule.duration_s, rng=rng)


def draw_tenants(weights: Mapping[str, float], requests: int, *, seed: int) -> tuple[str, ...]:
    """Returns for which tenant each request is sent, drawn by weight; empty without tenants.

    >>> draw_tenants({"lab": 3.0, "ward": 1.0}, 6, seed=1)
    ('lab', 'ward', 'lab', 'ward', 'lab', 'lab')
    """
    if not weights:
        return ()
    chances = np.array(list(weights.values())) / sum(weights.values())
    drawn = np.random.default_rng(seed).choice(len(weights), size=requests, p=chances)
    names = tuple(weights)
    return tuple(names[index] for index in drawn)

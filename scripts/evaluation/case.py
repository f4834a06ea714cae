"""Cases and results of the evaluation; both are passed between processes."""

from dataclasses import dataclass, field

from scheduler.simulator.scenario import Scenario
from scripts.evaluation.traffic import Traffic

Row = dict[str, object]
"""One line of the CSV file, by column."""

BOUND = "bound"
"""Stands for a policy: the clairvoyant bound is computed instead of a simulation."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a policy.

    Attributes:
        suite: suite of the case.
        name: traffic, network and faults in words; the same for all policies.
        traffic: arrival times.
        scenario: all other values, the policy and the seed included.
        variant: change of the engine, for ablations.
        on_trace: whether real traces or logs are used.
        change_at_s: time of a change to which the policy must react; None without a change.
        settled_until_s: end of the steady state after the change.
        keeps_curves: whether the result includes latencies and the timeline, for plots.
    """

    suite: str
    name: str
    traffic: Traffic
    scenario: Scenario
    variant: str = ""
    on_trace: bool = False
    change_at_s: float | None = None
    settled_until_s: float = 0.0
    keeps_curves: bool = False


@dataclass(frozen=True, slots=True)
class Timeline:
    """Timeline of a run, in bins of the arrival time.

    Attributes:
        starts_s: start of each bin, shape (bins,).
        arrived_rps: arrivals a second.
        function_rps: arrivals a second that a function answered.
        outside_rps: arrivals a second that were late or refused.
        plans: (second, cause) of each adopted plan after the first.
    """

    starts_s: tuple[float, ...]
    arrived_rps: tuple[float, ...]
    function_rps: tuple[float, ...]
    outside_rps: tuple[float, ...]
    plans: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a case.

    Attributes:
        row: its figures.
        latencies_s: 201 quantiles of the latency of answered requests, ascending; empty if not kept.
        timeline: the timeline; None if not kept.
    """

    row: Row
    latencies_s: tuple[float, ...] = field(default=())
    timeline: Timeline | None = None


@dataclass(frozen=True, slots=True)
class Figure:
    """Required figure with its measurement.

    Attributes:
        asked: the requirement in words.
        measured: the measurement in words.
        ok: whether the requirement is met; None if it was not measured.
    """

    asked: str
    measured: str
    ok: bool | None

    def line(self) -> tuple[str, str, str]:
        """Returns the line of the table."""
        return self.asked, self.measured, "not measured" if self.ok is None else "ok" if self.ok else "**missed**"

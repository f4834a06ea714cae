"""One run of the evaluation: what is simulated, and what comes back. Both travel between processes."""

from dataclasses import dataclass, field

from scheduler.simulator.scenario import Scenario
from scripts.evaluation.traffic import Traffic

Row = dict[str, object]
"""One line of the CSV, by column."""

BOUND = "bound"
"""In place of a policy: the clairvoyant bound is computed, nothing is simulated."""


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        suite: that it belongs to.
        name: of traffic, network and faults, in words; the same for each policy that meets them.
        traffic: when requests arrive.
        scenario: everything else, the policy and the seed included.
        variant: what is changed in the engine, for ablations.
        on_trace: whether real traces or logs are in it.
        change_at_s: when something changes that the policy has to follow; None: nothing does.
        settled_until_s: until when what follows the change stays as it is.
        keeps_curves: whether latencies and the timeline are brought back for plots.
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
    """How a run went, in bins.

    Attributes:
        starts_s: of each bin, shape (bins,).
        arrived_rps: arrivals a second.
        function_rps: of those, how many a function answered.
        outside_rps: of those, how many were late or refused.
        plans: (second, cause) of each plan that was adopted after the first.
    """

    starts_s: tuple[float, ...]
    arrived_rps: tuple[float, ...]
    function_rps: tuple[float, ...]
    outside_rps: tuple[float, ...]
    plans: tuple[tuple[float, str], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to.

    Attributes:
        row: its figures.
        latencies_s: 201 quantiles of the latency of answered requests, the least first; empty where not kept.
        timeline: where it was kept.
    """

    row: Row
    latencies_s: tuple[float, ...] = field(default=())
    timeline: Timeline | None = None

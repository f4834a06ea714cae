"""Options of all suites, and what their cases have in common."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.scenario import POLICIES, SEPARATE, Scenario, SimulatedClass
from scripts.evaluation.case import Case
from scripts.evaluation.traffic import Bursty, Poisson, Trace, Traffic

TRACES = "arrivals/*.gaps"
OURS = "edgeburst"
FOR_SEVERAL = frozenset({*SEPARATE, "slots"})
"""Policies that are another one where the edge serves one batch at a time."""
NOISY = Scenario(edge_noise=0.1, function_noise=0.25)
SCALES = (1.8, 2.0, 2.2, 2.4, 2.7, 3.0, 3.5, 4.0)
RTT_S = 0.02
SOURCES = ("bursty", "poisson", "trace")
MEAN_RPS = 46.6
"""Mean rate of the bursty traffic, and nearly that of the traces, at a factor of 1."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all suites.

    Attributes:
        policies: policies to simulate; the bound is always computed.
        requests: number of requests in each run of fixed length.
        scales: factors on the rate of the traffic.
        seeds: seeds of each case with a change.
        repeats: seeds of all other cases.
        traces: folder of real traces; None without any.
        first: number of the first gap of a trace that is used.
        sources: traffic of cost over load, names of `SOURCES`.
    """

    policies: tuple[str, ...] = POLICIES
    requests: int = 20_000
    scales: tuple[float, ...] = SCALES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    repeats: tuple[int, ...] = (0, 1, 2)
    traces: Path | None = None
    first: int = 0
    sources: tuple[str, ...] = ("bursty", "trace")


QUICK = Options(requests=2_000, scales=(2.4, 4.0), seeds=(0,), repeats=(0,))


def with_slo(scenario: Scenario, slo_s: float) -> Scenario:
    """Returns the scenario with another SLO for all requests, and edge batches that only the SLO limits."""
    max_items = max(64, int((slo_s - scenario.edge_latency.alpha_s) / scenario.edge_latency.beta_s) + 1)
    return replace(
        scenario,
        classes=(SimulatedClass(ServiceClass(slo_s=slo_s)),),
        max_items=max_items,
        edge_latency=replace(scenario.edge_latency, max_batch=max_items),
    )


def real_traces(folder: Path | None) -> list[Path]:
    """Returns the arrival traces of a folder; none without a folder."""
    return [] if folder is None else sorted(folder.glob(TRACES))


def sources(options: Options, scale: float) -> Iterator[tuple[str, Traffic, bool]]:
    """Yields (name, traffic, whether it is real): the traffic of this repository, then the real traces if any."""
    if "bursty" in options.sources:
        yield "bursty", Bursty(scale, options.requests), False
    if "poisson" in options.sources:
        yield "poisson", Poisson(MEAN_RPS * scale, options.requests, scale), False
    for path in real_traces(options.traces) if "trace" in options.sources else ():
        name = f"{path.stem} from gap {options.first}" if options.first else path.stem
        yield name, Trace(path, scale, options.requests, options.first), True


def spending(case: Case) -> Case:
    """Returns the case with the engine whose classes spend their budget of lateness on purpose: the variant `spend`."""
    classes = tuple(
        replace(kind, service_class=replace(kind.service_class, spends=True)) for kind in case.scenario.classes
    )
    return replace(case, variant="spend", scenario=replace(case.scenario, policy=OURS, classes=classes))


def each_policy(case: Case, policies: Sequence[str]) -> Iterator[Case]:
    """Yields the case with each policy; those for several edge servers only where there are several."""
    several = not case.scenario.one_edge_slot
    chosen = (policy for policy in policies if several or policy not in FOR_SEVERAL)
    return (replace(case, scenario=replace(case.scenario, policy=policy)) for policy in chosen)

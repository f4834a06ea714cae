"""Suites of the evaluation: each is a function from options to cases, and an entry of `SUITES`.

A policy is a name in `scheduler.simulator.scenario.POLICIES`; a variant of the engine is an entry of `ABLATIONS`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import AMPLE, MEBIBYTE, Bandwidth, constant, read_log, steps
from scheduler.simulator.scenario import POLICIES, Scenario, SimulatedClass, SpendCaps
from scripts.evaluation.case import BOUND, Case
from scripts.evaluation.traffic import Bursty, Phases, Poisson, Trace, Traffic

TRACES = "arrivals/*.gaps"
LOGS = "bandwidth/lte-car-*.log"
OURS = "edgeburst"
NOISY = Scenario(edge_noise=0.1, function_noise=0.25)
SLOS_S = (0.6, 1.0)
SCALES = (1.8, 2.0, 2.2, 2.4, 2.7, 3.0, 3.5, 4.0)
CALM_S = 60.0
"""Seconds before a change, long enough for steady estimates and plans."""
RTT_S = 0.02
SPARSE_RPS = (0.002, 0.01, 0.03)
SPARSE_REQUESTS = 300
DENSE_RPS = 2.0
"""Whose simulation takes the time that is compared with that of sparse requests."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of all suites.

    Attributes:
        policies: policies to simulate; the bound is always computed.
        requests: number of requests in each run of fixed length.
        scales: factors on the rate of the traffic.
        seeds: seeds of each case with a change.
        traces: folder of real traces; None without any.
    """

    policies: tuple[str, ...] = POLICIES
    requests: int = 20_000
    scales: tuple[float, ...] = SCALES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    traces: Path | None = None


QUICK = Options(requests=2_000, scales=(2.4, 4.0), seeds=(0,))


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


def _sources(options: Options, scale: float) -> Iterator[tuple[str, Traffic, bool]]:
    """Yields (name, traffic, whether it is real): the traffic of this repository, then the real traces if any."""
    yield "bursty", Bursty(scale, options.requests), False
    for path in real_traces(options.traces):
        yield path.stem, Trace(path, scale, options.requests), True


def _each_policy(case: Case, policies: Sequence[str]) -> Iterator[Case]:
    return (replace(case, scenario=replace(case.scenario, policy=policy)) for policy in policies)


def load(options: Options) -> Iterator[Case]:
    """Returns the cases of cost over load without noise, with the bound."""
    return _over_load(options, "load", Scenario())


def noise(options: Options) -> Iterator[Case]:
    """Returns the cases of cost over load with noise, which the bound ignores."""
    return _over_load(options, "noise", NOISY)


def _over_load(options: Options, suite: str, base: Scenario) -> Iterator[Case]:
    for scale in options.scales:
        for source, traffic, on_trace in _sources(options, scale):
            for slo_s in SLOS_S:
                name = f"{source}, rate x {scale:g}, SLO {slo_s:g} s"
                case = Case(suite, name, traffic, with_slo(base, slo_s), on_trace=on_trace, keeps_curves=True)
                yield from _each_policy(case, (BOUND, *options.policies))


def lte(options: Options) -> Iterator[Case]:
    """Yields cases with a varying uplink, two request sizes and cold starts, and the same with an ample uplink."""
    scale = 3.0
    for source, traffic, traced in _sources(options, scale):
        for link, bandwidth, logged in _links(options):
            if traced != logged and link != "ample":
                continue
            for request_bytes in (24_000, 200_000):
                scenario = replace(
                    with_slo(NOISY, 1.0),
                    bandwidth=bandwidth,
                    request_bytes=request_bytes,
                    cold_starts=ColdStarts(start_s=2.0, idle_s=240.0),
                    rtt_s=RTT_S,
                )
                name = f"{source}, {link}, {request_bytes // 1000} KB"
                case = Case("lte", name, traffic, scenario, on_trace=traced or logged)
                yield from _each_policy(case, options.policies)


def _links(options: Options) -> Iterator[tuple[str, Bandwidth, bool]]:
    yield "ample", AMPLE, False
    yield "drawn link", drawn_link(np.random.default_rng(15)), False
    if options.traces is not None:
        for path in sorted(options.traces.glob(LOGS)):
            yield path.stem, read_log(path), True


def drawn_link(rng: np.random.Generator) -> Bandwidth:
    """Returns the uplink of a moving car for ten minutes in steps of a second; it repeats.

    The logarithm of the bandwidth is autoregressive (median 3.5 MB/s, sigma 0.6, correlation 0.6 from second to
    second). Outages of 2 to 6 s occur every hundred seconds on average. Measurements in cars are similar.
    """
    seconds, sigma, correlation = 600, 0.6, 0.6
    level, rates = 0.0, []
    for shock in rng.normal(0.0, sigma * math.sqrt(1 - correlation**2), seconds).tolist():
        level = correlation * level + shock
        rates.append(3.5 * MEBIBYTE * math.exp(level))
    for start in np.flatnonzero(rng.random(seconds) < 0.01).tolist():
        end = min(seconds, start + int(rng.integers(2, 7)))
        rates[start:end] = [0.0] * (end - start)
    return Bandwidth(tuple(float(second) for second in range(seconds)), tuple(rates), period_s=float(seconds))


def changes(options: Options) -> Iterator[Case]:
    """Yields cases with one change each (rate, bandwidth, edge, functions), after a minute without change."""
    base = replace(with_slo(NOISY, 1.0), bandwidth=constant(4.0), rtt_s=RTT_S)
    end_s = CALM_S + 60.0

    def case(
        name: str, *parts: tuple[float, float], at_s: float = CALM_S, until_s: float = end_s, **what: object
    ) -> Case:
        # The scenario declares the rates, so that policies with true values know them.
        scenario = replace(base, rate_steps=parts, **what)  # type: ignore[arg-type]
        return Case(
            "steps", name, Phases(parts), scenario, change_at_s=at_s, settled_until_s=until_s, keeps_curves=True
        )

    narrow, outage = steps([(0.0, 4.0), (CALM_S, 0.5)]), Fault("down", CALM_S, CALM_S + 20.0)
    slow, throttle = Fault("slow", CALM_S, end_s, 2.0), Fault("throttle", CALM_S, CALM_S + 30.0)
    kinds = (
        case("rate 40 to 120/s", (CALM_S, 40.0), (60.0, 120.0)),
        case("bandwidth 4 to 0.5 MB/s at 120/s", (end_s, 120.0), bandwidth=narrow),
        case("edge twice as slow at 40/s", (end_s, 40.0), edge_faults=(slow,)),
        case("edge out for 20 s at 40/s", (end_s, 40.0), until_s=outage.end_s, edge_faults=(outage,)),
        case("edge back after 20 s at 40/s", (end_s, 40.0), at_s=outage.end_s, edge_faults=(outage,)),
        case(
            "functions throttled for 30 s at 80/s", (end_s, 80.0), until_s=throttle.end_s, function_faults=(throttle,)
        ),
        case("functions back after 30 s at 80/s", (end_s, 80.0), at_s=throttle.end_s, function_faults=(throttle,)),
    )
    for kind in kinds:
        yield from _each_seed(kind, options)


def _each_seed(case: Case, options: Options) -> Iterator[Case]:
    for seed in options.seeds:
        yield from _each_policy(replace(case, scenario=replace(case.scenario, seed=seed)), options.policies)


def caps(options: Options) -> Iterator[Case]:
    """Yields cases whose traffic would exceed an hourly spend cap; only the engine has caps."""
    base = replace(with_slo(NOISY, 1.0), caps=SpendCaps(per_hour_cny=0.003), bandwidth=constant(4.0), rtt_s=RTT_S)
    case = Case("caps", "0.003 CNY an hour at 150/s", Phases(((120.0, 150.0),)), base)
    yield from _each_seed(case, replace(options, policies=(OURS,)))


def sparse(options: Options) -> Iterator[Case]:
    """Yields cases without an edge whose requests are so far apart that instances are often gone, and a dense one.

    The settings after the first grid are held out: no constant was looked at with them.
    """
    settings = [
        *product(SPARSE_RPS, (4.0, 8.0, 30.0), (1.5, 3.0), (240.0,)),
        *((0.004, 15.0, 10.0, 240.0), (0.02, 6.0, 4.5, 600.0), (0.05, 12.0, 2.0, 60.0), (DENSE_RPS, 8.0, 3.0, 240.0)),
    ]
    requests = min(options.requests, SPARSE_REQUESTS)
    for rate_rps, slo_s, start_s, idle_s in settings:
        classes = (SimulatedClass(ServiceClass(slo_s=slo_s, serve_late=True)),)
        [served] = Scenario().served()
        scenario = Scenario(
            classes=classes,
            models=(replace(served, classes=classes, edge_latency=None),),
            cold_starts=ColdStarts(start_s, idle_s),
            bandwidth=constant(1.0),
            rtt_s=0.03,
        )
        name = f"{rate_rps:g}/s, SLO {slo_s:g} s, start {start_s:g} s, gone after {idle_s:g} s"
        case = Case("sparse", name, Poisson(rate_rps, requests), scenario)
        yield from _each_seed(case, replace(options, policies=(OURS, "function-only"), seeds=options.seeds[:1]))


def _timer(scenario: Scenario) -> Scenario:
    return replace(scenario, changepoints=False, plan_expiry_s=5.0)


def _never(scenario: Scenario) -> Scenario:
    return replace(scenario, changepoints=False, plan_expiry_s=math.inf)


ABLATIONS: Mapping[str, Callable[[Scenario], Scenario]] = {
    "changepoints": lambda scenario: scenario,
    "5 s timer": _timer,
    "never re-planned": _never,
    "told": lambda scenario: replace(scenario, told_changes=True),
}
"""Ways in which the engine decides to make a new plan."""


def ablation(options: Options) -> Iterator[Case]:
    """Yields cases that measure the value of re-planning: with every change, and without a change."""
    steady = Case("steps", "steady 140/s for 600 s", Phases(((600.0, 140.0),)), with_slo(NOISY, 1.0))
    alone = replace(options, policies=(OURS,))
    seen: set[tuple[Traffic, Scenario]] = set()
    for case in (*_each_seed(steady, alone), *changes(alone)):
        # Start and end of one fault are two cases of `changes`, but one run.
        if (case.traffic, case.scenario) in seen:
            continue
        seen.add((case.traffic, case.scenario))
        for variant, change in ABLATIONS.items():
            yield replace(case, suite="ablation", variant=variant, scenario=change(case.scenario), keeps_curves=False)


SUITES: Mapping[str, Callable[[Options], Iterator[Case]]] = {
    "load": load,
    "noise": noise,
    "lte": lte,
    "steps": changes,
    "caps": caps,
    "sparse": sparse,
    "ablation": ablation,
}

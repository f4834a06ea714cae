"""Suites of the evaluation: each is a function from options to cases, and an entry of `SUITES`.

A policy is a name in `scheduler.simulator.scenario.POLICIES`; a variant of the engine is an entry of `ABLATIONS`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import product

import numpy as np

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import AMPLE, Bandwidth, constant, steps
from scheduler.simulator.scenario import Scenario, SimulatedClass, SpendCaps
from scripts.evaluation import edges, learning, varied
from scripts.evaluation.case import BOUND, Case
from scripts.evaluation.links import drawn_link, logged_links
from scripts.evaluation.options import NOISY, OURS, RTT_S, Options, each_policy, sources, spending, with_slo
from scripts.evaluation.traffic import Phases, Poisson, Traffic

SLOS_S = (0.6, 1.0)
CALM_S = 60.0
"""Seconds before a change, long enough for steady estimates and plans."""
SPARSE_RPS = (0.002, 0.01, 0.03)
SPARSE_REQUESTS = 300
DENSE_RPS = 2.0
"""Whose simulation takes the time that is compared with that of sparse requests."""


def load(options: Options) -> Iterator[Case]:
    """Returns the cases of cost over load without noise, with the bound."""
    return _over_load(options, "load", Scenario())


def noise(options: Options) -> Iterator[Case]:
    """Returns the cases of cost over load with noise, which the bound ignores."""
    return _over_load(options, "noise", NOISY)


def _over_load(options: Options, suite: str, base: Scenario) -> Iterator[Case]:
    noisy = base.edge_noise > 0 or base.function_noise > 0
    for scale in options.scales:
        for source, traffic, on_trace in sources(options, scale):
            for slo_s in SLOS_S:
                name = f"{source}, rate x {scale:g}, SLO {slo_s:g} s"
                case = Case(suite, name, traffic, with_slo(base, slo_s), on_trace=on_trace, keeps_curves=True)
                # A trace is the same for every seed, and so are its bound and, without noise, all of its runs.
                for number, seed in enumerate(options.repeats):
                    policies = options.policies if noisy or not on_trace or not number else ()
                    bound = () if on_trace and number else (BOUND,)
                    seeded = replace(case, scenario=replace(case.scenario, seed=seed))
                    yield from each_policy(seeded, (*bound, *policies))
                    if OURS in policies:
                        yield spending(seeded)


def lte(options: Options) -> Iterator[Case]:
    """Yields cases with a varying uplink, two request sizes and cold starts, and the same with an ample uplink."""
    scale = 3.0
    for source, traffic, traced in sources(options, scale):
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
                for seed in options.repeats:
                    yield from each_policy(replace(case, scenario=replace(scenario, seed=seed)), options.policies)


def _links(options: Options) -> Iterator[tuple[str, Bandwidth, bool]]:
    yield "ample", AMPLE, False
    yield "drawn link", drawn_link(np.random.default_rng(15)), False
    for name, bandwidth in logged_links(options.traces):
        yield name, bandwidth, True


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
        yield from each_policy(replace(case, scenario=replace(case.scenario, seed=seed)), options.policies)


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
    varied.SUITE: varied.cases,
    edges.SUITE: edges.cases,
    "lte": lte,
    "steps": changes,
    "caps": caps,
    "sparse": sparse,
    "ablation": ablation,
    learning.SUITE: learning.cases,
}

"""The suite `varied`: other traffic and other sites than cost over load, each with every policy that can serve it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.network import constant
from scheduler.simulator.policies.catalogue import NO_EDGE, NO_FUNCTION
from scheduler.simulator.scenario import ORACLES, Scenario, SimulatedClass
from scripts.evaluation.case import Case, Row
from scripts.evaluation.costs import label, mean_of, policy_of
from scripts.evaluation.links import drawn_link, logged_links
from scripts.evaluation.options import NOISY, OURS, RTT_S, Options, each_policy, with_slo
from scripts.evaluation.tables import Table, group, marked, number
from scripts.evaluation.traffic import Bursty, Drawn, Poisson

SUITE = "varied"
COLD = ColdStarts(start_s=2.0, idle_s=60.0)
TWO_CLASSES = (
    SimulatedClass(ServiceClass(name="quick", slo_s=0.6)),
    SimulatedClass(ServiceClass(name="patient", slo_s=2.0, percentile=0.95)),
)


def cases(options: Options) -> Iterator[Case]:
    """Yields the cases of the suite."""
    noisy, requests = with_slo(NOISY, 1.0), options.requests
    alone = without_edge(with_slo(NOISY, 2.0))
    sparse = min(requests, 2_000)
    rare = min(requests, 300)
    kinds = [
        Case(SUITE, "bursts of 6 x the mean of 60/s", Drawn("bursty", 60.0, requests), noisy),
        Case(SUITE, "two classes, 0.6 s and 2 s, 120/s", Poisson(120.0, requests), _two_classes()),
        Case(SUITE, "cold starts of 2 s, gone after 60 s", Bursty(2.4, requests), replace(noisy, cold_starts=COLD)),
        Case(SUITE, "no edge, 12/s, SLO 2 s", Poisson(12.0, min(requests, 6_000)), alone),
        Case(SUITE, "no edge, groups of five, 2/s, SLO 2 s", Drawn("sporadic", 2.0, sparse), alone),
        Case(SUITE, "no edge, 0.03/s, SLO 8 s, cold starts of 3 s", Poisson(0.03, rare), _rare()),
        *_on_links(noisy, requests, options),
    ]
    for case in kinds:
        for seed in options.repeats:
            seeded = replace(case, scenario=replace(case.scenario, seed=seed))
            yield from each_policy(seeded, _able(case.scenario, options.policies))


def _on_links(noisy: Scenario, requests: int, options: Options) -> Iterator[Case]:
    base = replace(noisy, rtt_s=RTT_S, cold_starts=ColdStarts(start_s=2.0, idle_s=240.0))
    drawn = drawn_link(np.random.default_rng(15))
    yield Case(SUITE, "LTE, drawn, rate x 3", Bursty(3.0, requests), replace(base, bandwidth=drawn))
    for name, bandwidth in logged_links(options.traces)[:1]:
        scenario = replace(base, bandwidth=bandwidth)
        yield Case(SUITE, f"LTE, {name}, rate x 3", Bursty(3.0, requests), scenario, on_trace=True)


def _two_classes() -> Scenario:
    return replace(with_slo(NOISY, 2.0), classes=TWO_CLASSES)


def _rare() -> Scenario:
    classes = (SimulatedClass(ServiceClass(slo_s=8.0, serve_late=True)),)
    return replace(
        without_edge(replace(Scenario(), classes=classes)),
        cold_starts=ColdStarts(start_s=3.0, idle_s=240.0),
        bandwidth=constant(1.0),
        rtt_s=0.03,
    )


def without_edge(scenario: Scenario) -> Scenario:
    """Returns the scenario with functions alone."""
    return replace(scenario, models=(replace(scenario.served()[0], edge_latency=None),))


def _able(scenario: Scenario, policies: Sequence[str]) -> list[str]:
    """Returns the policies that can serve a scenario's model."""
    [model] = scenario.served()
    if model.edge_latency is None:
        return [name for name in policies if name in (OURS, *ORACLES, *NO_EDGE)]
    return [name for name in policies if model.tiers or name in (OURS, *ORACLES, *NO_FUNCTION)]


def varied_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of the suite, a line a case."""
    policies = list(dict.fromkeys(policy_of(row) for row in rows))
    lines = []
    for (name,), of_case in group(rows, "case").items():
        named = group([{**row, "name": policy_of(row)} for row in of_case], "name")
        rate = f"{sum(number(row, 'rate_rps') for row in of_case) / len(of_case):.3g}"
        cells = (_cell(named[policy,]) if (policy,) in named else "" for policy in policies)
        lines.append((marked(name, of_case), rate, *cells))
    note = (
        "SLO 1 s, edge noise 0.1 and function noise 0.25 where the case does not say otherwise (no noise at 0.03/s). "
        "Cost as a fraction of serving everything by function, mean of the seeds ± half their range, @ the fraction of "
        "all requests within their SLOs; in brackets, with several classes, that of the class furthest below its "
        "percentile minus the percentile, in points."
    )
    yield Table("Other traffic and sites", note, ("case", "requests/s", *map(label, policies)), tuple(lines))


def _cell(rows: Sequence[Row]) -> str:
    margins = [number(row, "class_margin") for row in rows if "class_margin" in row]
    mark = f" ({100 * sum(margins) / len(margins):+.2f})" if margins else ""
    return f"{mean_of(rows).raw()}{mark}"

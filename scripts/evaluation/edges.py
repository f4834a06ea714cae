"""The suite `edges`: several batches at once on the edge, and several edge servers, alike, unlike and one failing."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from scheduler.domain.latency import LatencyModel
from scheduler.simulator.faults import Fault
from scheduler.simulator.scenario import ORIN_LATENCY, EdgeServer, Scenario
from scripts.evaluation.case import BOUND, Case, Figure, Row
from scripts.evaluation.costs import mean_of
from scripts.evaluation.options import NOISY, OURS, Options, each_policy, sources, with_slo
from scripts.evaluation.tables import Table, cost_fraction, group, marked, number

SUITE = "edges"
SLO_S = 0.6
LOADS = (2.4, 3.0, 4.0)
"""Factors on the rate for each edge server as fast as the Orin."""
POLICY_NAMES = (OURS, "separate", "slots", "separate-oracle")
HALF_AS_FAST = LatencyModel(2 * ORIN_LATENCY.alpha_s, 2 * ORIN_LATENCY.beta_s, ORIN_LATENCY.max_batch)
PAIR = (EdgeServer("fast", ORIN_LATENCY), EdgeServer("slow", HALF_AS_FAST))
AWAY = Fault("down", 30.0, 90.0)
FAILING = "slow one away from 30 to 90 s"


@dataclass(frozen=True, slots=True)
class Site:
    """Edge servers, and the load of all of them as a factor on the rate.

    Attributes:
        name: in words.
        scenario: the servers.
        scales: factors on the rate.
        policies: that are of interest.
    """

    name: str
    scenario: Scenario
    scales: tuple[float, ...]
    policies: tuple[str, ...] = POLICY_NAMES[:3]


def sites() -> Iterator[Site]:
    """Yields the sites of the suite."""
    calm = with_slo(Scenario(), SLO_S)
    for count in (2, 4):
        yield Site(f"{count} alike", replace(calm, edge_parallel=count), tuple(count * load for load in LOADS))
    noisy = replace(with_slo(NOISY, SLO_S), edge_parallel=2)
    yield Site("2 alike, noise", noisy, tuple(2 * load for load in LOADS))
    yield Site("x 1 and x 2", replace(calm, edges=PAIR), (3.6, 4.5, 6.0))
    failing = (PAIR[0], replace(PAIR[1], faults=(AWAY,)))
    yield Site(f"x 1 and x 2, {FAILING}", replace(calm, edges=failing), (3.6,), POLICY_NAMES)


def cases(options: Options) -> Iterator[Case]:
    """Yields the cases of the suite; one seed, and on traces nothing else but noise is drawn."""
    for site in sites():
        for scale in site.scales:
            for source, traffic, on_trace in sources(options, scale):
                name = f"{source}, {site.name}, rate x {scale:g}"
                case = Case(SUITE, name, traffic, site.scenario, on_trace=on_trace)
                policies = [name for name in site.policies if name in options.policies]
                yield from each_policy(case, (BOUND, *policies))


def edges_table(rows: Sequence[Row]) -> Iterator[Table]:
    """Yields the table of the suite, a line a site and load."""
    policies = list(dict.fromkeys(str(row["policy"]) for row in rows if row["policy"] != BOUND))
    lines = []
    for (name,), runs in group(rows, "case").items():
        named = group(runs, "policy")
        bound = f"{cost_fraction(named[BOUND,][0]):.4f}" if (BOUND,) in named else ""
        cells = (mean_of(named[policy,]).raw() if (policy,) in named else "" for policy in policies)
        rate = f"{number(runs[0], 'rate_rps'):.0f}"
        lines.append((marked(name, runs), rate, bound, *cells))
    note = (
        f"SLO {SLO_S:g} s. Edge servers as fast as the Orin (x 1) and half as fast (x 2); the rate is that of all "
        "together. Cost as a fraction of serving everything by function @ the fraction answered within the SLO. The "
        "bound knows every arrival, ignores noise and outages, and takes all servers for one: loose near saturation."
    )
    yield Table("Several edge servers", note, ("case", "requests/s", "bound", *policies), tuple(lines))


MOST: Mapping[tuple[str, float], float] = {
    ("2 alike", 4.8): 0.0645,
    ("2 alike", 6.0): 0.228,
    ("2 alike", 8.0): 0.410,
    ("4 alike", 9.6): 0.049,
    ("4 alike", 12.0): 0.222,
    ("4 alike", 16.0): 0.405,
}
"""By (site, factor on the rate of all): largest cost on a trace without noise."""
NEARLY_ALL = 0.9999
"""Required fraction within the SLO without noise."""
WITH_OUTAGE, ABOVE_ORACLE = 0.99, 0.03
"""Where one server fails: required fraction within, and what the cost may be above that of `separate-oracle`."""


def edge_figures(rows: Sequence[Row]) -> Iterator[Figure]:
    """Yields whether the costs of several edge servers on traces are reached, and that of an outage."""
    of_suite = [row for row in rows if row["suite"] == SUITE and row["on_trace"]]
    for (name,), runs in group(of_suite, "case").items():
        source, _, of_source = str(name).partition(", ")
        site, _, scale = of_source.rpartition(", rate x ")
        by_policy = {str(row["policy"]): row for row in runs}
        ours, oracle = by_policy.get(OURS), by_policy.get("separate-oracle")
        if ours is None or " from gap " in source:
            continue
        most, least = MOST.get((site, float(scale))), NEARLY_ALL
        if site.endswith(FAILING):
            most = None if oracle is None else cost_fraction(oracle) + ABOVE_ORACLE
            least = WITH_OUTAGE
        if most is not None:
            cost, within = cost_fraction(ours), number(ours, "within_slo")
            asked = f"{name}: cost at most {most:.4f}, within at least {least:g}"
            yield Figure(asked, f"{cost:.4f} @ {within:.5f}", cost <= most and within >= least)

"""Measures what daemons that share one edge server gain by what it reports of waits (`queue_s`).

    python -m scripts.shared_edge [--requests N] [--seeds N] [--json FILE]

One edge like an Orin with noise, Poisson arrivals dealt to two daemons at random, which know nothing of each other.
Each row is simulated with an edge server that reports nothing, with one that reports, and with one daemon for all
requests, the most that can be hoped for. Printed: the part within the SLO, the cost, and how unlike the daemons are:
the largest distance, over all seeds, between the shares of their requests that the edge answered.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.domain.plans import ServiceClass
from scheduler.simulator.report import by_daemon
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.support.script import run_script


def cases() -> Iterator[tuple[str, Scenario, float]]:
    """Yields (name, scenario, requests a second)."""
    for slo_s, rate_rps, functions, parts in (
        (1.0, 90.0, False, (1.0, 1.0)),
        (1.0, 95.0, False, (1.0, 1.0)),
        (0.6, 80.0, True, (1.0, 1.0)),
        (0.6, 120.0, True, (1.0, 1.0)),
        (1.0, 100.0, True, (1.0, 1.0)),
        (1.0, 120.0, True, (1.0, 1.0)),
        (1.0, 120.0, True, (3.0, 1.0)),
    ):
        scenario = Scenario(
            classes=(SimulatedClass(ServiceClass(slo_s=slo_s)),), edge_noise=0.1, function_noise=0.25, daemons=parts
        )
        scenario = scenario if functions else replace(scenario, tiers=())
        dealt = " : ".join(f"{part:g}" for part in parts)
        yield f"{slo_s:g} s, {rate_rps:g}/s, {dealt}{'' if functions else ', no functions'}", scenario, rate_rps


def simulated(scenario: Scenario, *, rate_rps: float, requests: int) -> tuple[float, float, float]:
    """Returns the part within the SLO, the cost in CNY, and the distance of the daemons' shares on the edge."""
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    rows = by_daemon(journal, scenario)
    shares = [row["edge"] / row["requests"] for row in rows]
    return sum(row["in_time"] for row in rows) / requests, journal.cost(), max(shares) - min(shares)


def measured(scenario: Scenario, *, rate_rps: float, requests: int, seeds: int) -> tuple[float, float, float]:
    """Returns the means over seeds, and the largest distance."""
    runs = [simulated(replace(scenario, seed=seed), rate_rps=rate_rps, requests=requests) for seed in range(seeds)]
    within, costs, distances = zip(*runs, strict=True)
    return math.fsum(within) / seeds, math.fsum(costs) / seeds, max(distances)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=6000, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=4, metavar="N", help="runs of each row (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes the figures too")
    args = parser.parse_args(arguments)
    if args.requests < 1 or args.seeds < 1:
        parser.error("--requests and --seeds must be at least 1")
    found = []
    print("| SLO, requests, parts | edge server reports nothing | it reports waits | one daemon |")
    print("|---|---|---|---|")
    for name, scenario, rate_rps in cases():
        worlds = replace(scenario, edge_silent=True), scenario, replace(scenario, daemons=(1.0,))
        figures = [measured(w, rate_rps=rate_rps, requests=args.requests, seeds=args.seeds) for w in worlds]
        texts = [
            f"{100 * within:.1f} %, {cost:.4f} CNY" + (f", {100 * apart:.0f} points" if number < 2 else "")
            for number, (within, cost, apart) in enumerate(figures)
        ]
        print(f"| {name} | {' | '.join(texts)} |", flush=True)
        found.append({"case": name, "silent": figures[0], "told": figures[1], "one": figures[2]})
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(run_script("shared_edge", main))

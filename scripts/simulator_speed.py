"""Measures how many requests a second the simulator takes with 1, 2, 4, ... edge servers.

    python -m scripts.simulator_speed                                     # the engine, 10,000 requests a row
    python -m scripts.simulator_speed --policy slots --requests 1000000   # few lines: mostly the world's time

Each edge server is as fast as the Orin; Poisson arrivals at `--load` times 46.6/s for each of them, SLO 1 s, functions
as in `edgeburst simulate`. The time is the processor's, of the run alone: drawing the arrivals before is not in it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

from scheduler.domain.errors import EdgeburstError
from scheduler.simulator.report import cheapest_per_item, within_slo
from scheduler.simulator.scenario import POLICIES, EdgeServer, Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.terminal import counted
from scheduler.workloads import poisson
from scripts.evaluation.options import MEAN_RPS, with_slo
from scripts.support.script import run_script

SLO_S = 1.0


def measure(policy: str, *, edges: int, requests: int, load: float) -> tuple[str, ...]:
    """Returns the line of the table for so many edge servers."""
    base = with_slo(Scenario(policy=policy), SLO_S)
    scenario = replace(base, edges=tuple(EdgeServer(f"edge-{number}") for number in range(1, edges + 1)))
    rate_rps = edges * load * MEAN_RPS
    arriving = make_requests(scenario, poisson(rate_rps, rng=generators(0)[0], requests=requests))
    simulation = make_simulation(scenario, arriving)
    started_s = time.process_time()
    journal = simulation.run()
    took_s = time.process_time() - started_s
    cost = journal.cost() / (requests * cheapest_per_item(scenario.tiers, slo_s=SLO_S))
    batches = len(journal.batches)
    return (
        *(f"{edges}", f"{rate_rps:.0f}", f"{requests / took_s:,.0f}", f"{1e6 * took_s / requests:.0f}"),
        *(f"{requests / batches:.1f}", f"{cost:.4f} @ {within_slo(journal):.4f}"),
    )


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit status, 2 after an error."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.simulator_speed",
        description=head,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--policy", choices=POLICIES, default="edgeburst", help="default: %(default)s")
    parser.add_argument("--requests", type=int, default=10_000, metavar="N", help="in each row (default: %(default)s)")
    parser.add_argument("--edges", default="1,2,4,16", metavar="K,...", help="default: %(default)s")
    parser.add_argument("--load", type=float, default=2.4, metavar="X", help="of each edge (default: %(default)s)")
    args = parser.parse_args(words)
    header = ("edge servers", "requests/s", "simulated a second", "us a request", "requests a batch", "cost @ within")
    print(f"### Speed of the simulator, {args.policy}, {args.requests:,} requests\n")
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    try:
        for count in counted(args.edges.split(","), "simulating", "numbers of edge servers"):
            line = measure(args.policy, edges=int(count), requests=args.requests, load=args.load)
            print(f"| {' | '.join(line)} |", flush=True)
    except (ValueError, EdgeburstError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(run_script("simulator_speed", main))

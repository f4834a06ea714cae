"""Measures how many requests a second the simulator takes with 1, 2, 4, ... edge servers.

    python -m scripts.simulator_speed                                     # the engine, 10,000 requests a row
    python -m scripts.simulator_speed --policy slots --requests 1000000   # few lines: mostly the world's time
    python -m scripts.simulator_speed --against COMMIT     # one edge server, in turns

Each edge server is as fast as the Orin; Poisson arrivals at `--load` times 46.6/s for each of them, SLO 1 s, functions
as in `edgeburst simulate`. The time is the processor's, of the run alone: drawing the arrivals before is not in it.

With --against or --compiled one edge server and 120 requests a second are simulated here, in the other checkout and by
the other interpreter (of what is installed there), in turns: the fastest of five runs of each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.domain.errors import EdgeburstError
from scheduler.simulator.report import cheapest_per_item, within_slo
from scheduler.simulator.scenario import POLICIES, EdgeServer, Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.terminal import counted
from scheduler.workloads import poisson
from scripts.daemon_bench.contenders import checkout_of
from scripts.evaluation.options import MEAN_RPS, with_slo
from scripts.support.script import run_script

SLO_S = 1.0
ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "scripts" / "support" / "one_simulation.py"
TURNS = 5


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


def in_turns(against: str | None, compiled: Path | None, *, requests: int) -> int:
    """Prints how fast each simulator is and its ratio to the other checkout's, or to this one's without another."""
    with tempfile.TemporaryDirectory() as folder:
        there = None if against is None else checkout_of(against, Path(folder))
        return _in_turns(against or "", there, compiled, requests=requests)


def _in_turns(named: str, there: Path | None, compiled: Path | None, *, requests: int) -> int:
    simulators: dict[str, tuple[str, Path | None]] = {"here, pure": (sys.executable, ROOT)}
    if compiled is not None:
        simulators["compiled"] = (str(compiled), None)
    if there is not None:
        simulators[named] = (sys.executable, there)
    fastest_rps = dict.fromkeys(simulators, 0.0)
    for _ in counted(range(TURNS), "simulating", "turns"):
        for name, (python, checkout) in simulators.items():
            try:
                fastest_rps[name] = max(fastest_rps[name], _speed_rps(python, checkout, requests))
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                print(f"error: {name}: {said.strip().splitlines()[-1]}", file=sys.stderr)
                return 2
    base_rps = fastest_rps["here, pure" if there is None else named]
    print("| simulator | simulated a second | ratio |\n|---|---|---|")
    for name, speed_rps in fastest_rps.items():
        print(f"| {name} | {speed_rps:,.0f} | {speed_rps / base_rps:.2f} |")
    return 0


def _speed_rps(python: str, checkout: Path | None, requests: int) -> float:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if checkout is not None:
        environ["PYTHONPATH"] = str(checkout)
    command = [python, str(DRIVER), str(requests)]
    return float(subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout)


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
    parser.add_argument("--against", metavar="CHECKOUT", help="compare with the simulator of this checkout or commit")
    parser.add_argument("--compiled", type=Path, metavar="PYTHON", help="and with what this interpreter has installed")
    args = parser.parse_args(words)
    if args.against is not None or args.compiled is not None:
        return in_turns(args.against, args.compiled, requests=args.requests)
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

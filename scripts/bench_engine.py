"""Measures what the engine costs a request with 64, 1,000 and 4,000 requests waiting, here and in another checkout.

    python -m scripts.bench_engine [--case NAME]... [--against CHECKOUT] [--json FILE]
    python -m scripts.bench_engine --slots 16

Microseconds of processor time (the lowest of five parts, and of three alternating runs of two checkouts), and calls
of functions written in Python, which depend on neither the machine nor its load. The last two columns are the ratios
of the largest queue to the smallest. The time under the load of whole scenarios, without a queue of a fixed length, is
measured by `python -m scripts.evaluate --suite engine --against CHECKOUT`.

With --slots the engine simulates an edge that serves so many batches at once, and one of one batch, at the same load of
each, in turns: the medians of five runs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.domain.messages import Command, Message
from scheduler.engine import Engine
from scheduler.simulator.shell import Simulation
from scheduler.simulator.world import make_backends, make_requests
from scheduler.terminal import counted
from scripts.command_hash import scenarios, workload
from scripts.support.script import run_script
from scripts.support.steady_queue import CASES, SIZES

ROOT = Path(__file__).parents[1]
DRIVER = ROOT / "scripts" / "support" / "steady_queue.py"
ALTERNATIONS = 3
ASKED = 3.0
"""Ratio of the largest queue to the smallest that is allowed."""
SLOTS_AT = ("near saturation", "overload")
"""Scenarios of `scripts.command_hash` in which slots are measured."""
TURNS = 5
REQUESTS = 3_200
"""Of each run with slots."""

Costs = Mapping[int, tuple[float, float]]
"""By number of waiting requests: microseconds and calls a request."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; returns 1 if a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=tuple(CASES), metavar="NAME", help="one of several; all")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="measure this checkout too, alternately")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    parser.add_argument("--slots", type=int, metavar="K", help="an edge of K batches at once beside one of one batch")
    options = parser.parse_args(arguments)
    if options.slots is not None:
        if not 2 <= options.slots <= 64:
            parser.error("--slots must be from 2 to 64")
        return by_slots(options.slots)
    checkouts = {"here": ROOT} if options.against is None else {"here": ROOT, "there": options.against.resolve()}
    found: dict[str, dict[str, Costs]] = {}
    print(f"{'case':34} {'':5} " + " ".join(f"{f'{n:,} waiting':>20}" for n in SIZES) + "   ratio: us  calls")
    for case in counted(options.case or list(CASES), "measuring", "cases"):
        runs: dict[str, list[Costs]] = {name: [] for name in checkouts}
        for _ in range(1 if options.against is None else ALTERNATIONS):
            for name, checkout in checkouts.items():
                try:
                    runs[name].append(measured(case, checkout))
                except subprocess.CalledProcessError as error:
                    print(f"bench_engine: {checkout}: {error.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                    return 1
        found[case] = {name: lowest(of_checkout) for name, of_checkout in runs.items()}
        for name, costs in found[case].items():
            print(line(case, name, costs), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))
    return 0


class TimedEngine:
    """An engine of which the processor time is measured."""

    def __init__(self, engine: Engine) -> None:
        """Stores the engine."""
        self._engine, self.seconds = engine, 0.0

    def handle(self, messages: Sequence[Message], now_s: float) -> list[Command]:
        """Takes the messages of one moment and returns the commands to perform."""
        began_s = time.process_time()
        commands = self._engine.handle(messages, now_s)
        self.seconds += time.process_time() - began_s
        return commands

    def next_wakeup_s(self) -> float | None:
        """Returns the time of the next call if no message arrives earlier; None for never."""
        began_s = time.process_time()
        wakeup_s = self._engine.next_wakeup_s()
        self.seconds += time.process_time() - began_s
        return wakeup_s


def by_slots(slots: int) -> int:
    """Prints microseconds a request with so many slots beside those with one."""
    print(f"{'load of each slot':20} {'1 slot':>10} {f'{slots} slots':>10}   ratio")
    for name in SLOTS_AT:
        runs: dict[int, list[float]] = {1: [], slots: []}
        for _ in range(TURNS):
            for count, found in runs.items():
                found.append(slots_us(name, count))
        one, several = (statistics.median(found) for found in runs.values())
        print(f"{name:20} {one:7.1f} us {several:7.1f} us {several / one:7.2f}", flush=True)
    return 0


def slots_us(wanted: str, slots: int) -> float:
    """Returns the engine's microseconds a request in a scenario whose edge serves so many batches at once."""
    name, scenario, rate_rps = next(each for each in scenarios() if each[0] == wanted)
    scenario = replace(scenario, edge_parallel=slots)
    settings = scenario.engine_settings()
    engine = TimedEngine(Engine(settings))
    edge, functions = make_backends(scenario, settings)
    requests = make_requests(scenario, workload(name, scenario, rate_rps * slots, requests=REQUESTS))
    Simulation(engine=engine, requests=requests, edge=edge, functions=functions).run()
    return 1e6 * engine.seconds / len(requests)


def measured(case: str, checkout: Path) -> Costs:
    """Returns the costs in a checkout, measured in a fresh process; CalledProcessError if it failed."""
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, str(DRIVER), case, *map(str, SIZES)]
    ended = subprocess.run(command, env=environ, cwd=checkout, capture_output=True, text=True, check=True)
    rows = [json.loads(row) for row in ended.stdout.splitlines()]
    return {waiting: (us, calls) for _, waiting, us, calls in rows}


def lowest(runs: Sequence[Costs]) -> Costs:
    """Returns the least of several runs: what disturbs a run only makes it longer."""
    return {n: (min(run[n][0] for run in runs), min(run[n][1] for run in runs)) for n in SIZES}


def line(case: str, name: str, costs: Costs) -> str:
    """Returns a line of the table."""
    least, most = costs[SIZES[0]], costs[SIZES[-1]]
    cells = " ".join(f"{us:8.1f} us {calls:6.0f} c" for us, calls in costs.values())
    return f"{case:34} {name:5} {cells}   {most[0] / least[0]:9.2f} {most[1] / least[1]:6.2f}"


if __name__ == "__main__":
    sys.exit(run_script("bench_engine", main))

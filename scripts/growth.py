"""Measures what grows: processor time of a request by rate, queue, classes, models, tiers, edge servers, connections.

    python -m scripts.growth [--axis NAME]... [--requests N] [--json FILE] [--plot FILE]

The engine, in virtual time: requests of 24 KB, an SLO of 1 s, 120 requests a second for each edge server like an Orin,
functions of the evaluation. `rate` has as many edge servers as it needs, `queue` is that of `scripts.bench_engine`,
`connections` are those of a daemon with one core (`scripts.bench_daemon`), whose whole processor time counts.
Figures are microseconds of processor time a request, the lowest of three runs; what grows with nothing is flat.

    python -m scripts.growth --memory 1000000 --edges 4

lets so many requests pass through the engine with four edge servers, and prints time and memory.
"""

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from scheduler.domain.plans import ServiceClass
from scheduler.plotting import new_figure
from scheduler.simulator.scenario import EdgeServer, Scenario, SimulatedClass
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.terminal import counted
from scheduler.workloads import poisson
from scripts.support.script import run_script
from scripts.support.steady_queue import CASES, SteadyQueue, measured

SLO_S = 1.0
EDGE_RPS = 120.0
"""Requests a second for each edge server; the rate of the README's simulations."""
RUNS = 3
CONNECTION_SECONDS = 4.0
SAMPLES = 10
"""Lines that are printed while memory is measured."""

Axis = tuple[Sequence[int], Callable[[int, int], float]]
"""Values, and what measures microseconds a request at a value, in so many requests."""


def base(*, edges: int = 1) -> Scenario:
    """Returns the world of most axes."""
    scenario = Scenario(classes=(SimulatedClass(ServiceClass(slo_s=SLO_S)),))
    return scenario if edges == 1 else replace(scenario, edges=_servers(edges))


def of_classes(count: int) -> Scenario:
    """Returns a world of so many classes, whose objectives are between one and two seconds."""
    classes = [ServiceClass(f"class-{n}", slo_s=SLO_S * (1.0 + n / count)) for n in range(count)]
    return Scenario(classes=tuple(SimulatedClass(each) for each in classes))


def of_models(count: int) -> Scenario:
    """Returns a world of so many models with equal parts of the traffic."""
    (one,) = base().served()
    models = [replace(one, name=f"model-{n}", share=1.0) for n in range(count)]
    return replace(base(), models=tuple(models))


def of_tiers(count: int) -> Scenario:
    """Returns a world of so many function configurations, each a little slower and cheaper than the one before."""
    scenario = base()
    (tier,) = scenario.tiers
    tiers = []
    for number in range(count):
        law, price = tier.latency, tier.price
        slower = replace(law, alpha_s=law.alpha_s * (1.0 + 0.1 * number), beta_s=law.beta_s * (1.0 + 0.1 * number))
        cheaper = replace(price, per_s=price.per_s * (1.0 - 0.05 * number))
        tiers.append(replace(tier, name=f"tier-{number}", latency=slower, price=cheaper))
    return replace(scenario, tiers=tuple(tiers))


def simulated_us(scenario: Scenario, rate_rps: float, requests: int) -> float:
    """Returns microseconds of a simulated request, the backends' included."""
    least = float("inf")
    for _ in range(RUNS):
        arriving = make_requests(scenario, poisson(rate_rps, rng=generators(0)[0], requests=requests))
        simulation = make_simulation(scenario, arriving)
        started_s = time.process_time()
        simulation.run()
        least = min(least, 1e6 * (time.process_time() - started_s) / requests)
    return least


def queue_us(waiting: int, requests: int) -> float:
    """Returns microseconds of the engine with so many waiting."""
    return min(measured("edge and functions", waiting, requests=min(requests, 1500))[0] for _ in range(RUNS))


def connections_us(connections: int, _requests: int) -> float:
    """Returns microseconds of a daemon that answers requests over so many connections that are always busy."""
    from scripts.daemon_bench import cases, comparison

    case = cases.Case.of(f"24kb-binary-{connections}-edge")
    return comparison.compared(case, None, duration_s=CONNECTION_SECONDS, bare_too=False)["here"].cpu_us


AXES: Mapping[str, Axis] = {
    "rate": (
        (100, 300, 1_000, 3_000, 10_000),
        lambda rate, n: simulated_us(base(edges=max(1, round(rate / EDGE_RPS))), float(rate), n),
    ),
    "queue": ((10, 64, 256, 1_000, 4_000), queue_us),
    "classes": ((1, 2, 8, 32), lambda count, n: simulated_us(of_classes(count), EDGE_RPS, n)),
    "models": ((1, 2, 5, 20), lambda count, n: simulated_us(of_models(count), EDGE_RPS, n)),
    "tiers": ((1, 2, 4, 8), lambda count, n: simulated_us(of_tiers(count), EDGE_RPS, n)),
    "edges": ((1, 2, 4, 16), lambda count, n: simulated_us(base(edges=count), count * EDGE_RPS, n)),
    "connections": ((1, 8, 64, 500, 2_000), connections_us),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axis", action="append", choices=tuple(AXES), metavar="NAME", help="one of several; all")
    parser.add_argument("--requests", type=int, default=4_000, metavar="N", help="of each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw them")
    parser.add_argument("--memory", type=int, metavar="N", help="let N requests pass instead, and print memory")
    parser.add_argument("--edges", type=int, default=4, metavar="K", help="with --memory (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.memory is not None:
        memory(options.memory, options.edges)
        return 0
    found: dict[str, dict[int, float]] = {}
    print("| grows | from … to | us a request | ratio |\n|---|---|---|---|")
    for name in counted(options.axis or list(AXES), "growing", "axes"):
        values, measure = AXES[name]
        found[name] = {value: measure(value, options.requests) for value in values}
        costs = list(found[name].values())
        figures = " · ".join(f"{value:,}: {us:.0f}" for value, us in found[name].items())
        print(f"| {name} | {values[0]:,} … {values[-1]:,} | {figures} | {costs[-1] / costs[0]:.2f} |", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2))
    if options.plot is not None:
        plot(found, options.plot)
    return 0


def memory(requests: int, edges: int) -> None:
    """Prints time of the engine, and memory of the process, while so many requests pass through it."""
    queue = SteadyQueue(replace(CASES["edge and functions"], edges=edges), 64)
    print("| requests | us a request | memory, MB |\n|---|---|---|")
    for part in counted(range(1, SAMPLES + 1), "growing", "samples"):
        spent_ns, ended = queue.spent_ns, queue.ended
        queue.serve(requests // SAMPLES, timing=True)
        us = (queue.spent_ns - spent_ns) / (queue.ended - ended) / 1000
        print(f"| {part * requests // SAMPLES:,} | {us:.0f} | {_resident_mb():.1f} |", flush=True)


def _resident_mb() -> float:
    """Returns the memory that this process has now; where that is not told, the most that it had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return pages * resource.getpagesize() / 1e6


def plot(found: Mapping[str, Mapping[int, float]], path: Path) -> None:
    """Draws time over size, each in parts of the smallest, on logarithmic scales."""
    figure = new_figure("--plot", width_in=8, height_in=4.5)
    axes = figure.subplots()
    for name, costs in found.items():
        first, least = min(costs), costs[min(costs)]
        axes.plot([value / first for value in costs], [us / least for us in costs.values()], marker="o", label=name)
    axes.set(xscale="log", yscale="log", xlabel="size, in parts of the smallest", ylabel="time a request, likewise")
    axes.grid(alpha=0.3, which="both")
    axes.legend(ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def _servers(count: int) -> tuple[EdgeServer, ...]:
    return tuple(EdgeServer(f"edge-{number}") for number in range(1, count + 1))


if __name__ == "__main__":
    sys.exit(run_script("growth", main))

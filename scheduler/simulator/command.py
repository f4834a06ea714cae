"""`edgeburst simulate`: simulates the engine or another policy with a workload, a network and faults."""

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.latency import FunctionTier, Price
from scheduler.domain.plans import ServiceClass
from scheduler.simulator import network, scenario_file
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.bound_note import noted_bound, noted_limit
from scheduler.simulator.clients import ClosedLoop
from scheduler.simulator.edge_flags import AHEAD, add_edge_flags, described_edges
from scheduler.simulator.explanations import check_explainable, whole_ring, write_explanations
from scheduler.simulator.faults import parse_fault
from scheduler.simulator.flag_values import numbers, tail_law
from scheduler.simulator.report import answered_rps, summarise, write_rows
from scheduler.simulator.scenario import (
    CONCURRENCY,
    FUNCTION_LATENCY,
    FUNCTION_PRICE,
    POLICIES,
    Scenario,
    ScenarioError,
    SimulatedClass,
    latency_model,
)
from scheduler.simulator.scenario_file import read_scenario
from scheduler.simulator.shell import Simulation
from scheduler.simulator.watching import run_watched
from scheduler.simulator.world import generators, make_clients, make_requests, make_simulation
from scheduler.terminal import progress
from scheduler.workloads import (
    Workload,
    WorkloadError,
    markovian,
    poisson,
    read_gaps,
    read_map,
    read_rates,
    steps,
    with_bursts,
)

_MAX_NOISE = 10.0
"""Larger values give lognormal factors beyond the range of floating-point numbers."""
_ABOVE_0 = ("--poisson", "--unit-s", "--duration-s", "--rate-scale", "--slo-s")
_AT_LEAST_0 = (
    *("--edge-noise", "--function-law", "--function-price", "--function-noise", "--cold-start-s"),
    *("--bandwidth-mbytes-per-s", "--rtt-s"),
)

_EXAMPLES = """examples:
  edgeburst simulate --policy edgeburst --poisson 120 --requests 20000 --slo-s 1.0
  edgeburst simulate --policy static --arrivals trace.gaps --rate-scale 2.4 --edge-noise 0.1 --bound --json
  edgeburst simulate --policy edgeburst --poisson 80 --duration-s 300 --bandwidth-log lte.log --edge-fault down:60,80
  edgeburst simulate --clients 8 --duration-s 60
  edgeburst simulate --poisson 260 --edge orin:0.04234,0.008165 --edge nano:0.085,0.0163 --edge-fault nano:down:30,90

A fault is written slow:START,END,FACTOR or down:START,END, in seconds; of functions also throttle:START,END and
slow-start:START,END,FACTOR. MB are 2**20 bytes.
Noise is lognormal with median 1. The parameters of static and batch are chosen for the simulated workload itself.

"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Adds the subcommand `simulate` with its arguments, those of recorded traffic apart; returns its parser."""
    parser = subparsers.add_parser(
        "simulate",
        help="run the daemon's engine under virtual time against simulated backends",
        description="Runs the daemon's engine, or a policy to compare it with, under virtual time against simulated "
        "backends, and prints the cost and how many requests were answered in time.",
        # The docstring of scenario_file is the documentation of scenario files, so the help text shows it.
        epilog=_EXAMPLES + (scenario_file.__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--policy", choices=POLICIES, default="edgeburst", help="makes the decisions (default: %(default)s)"
    )
    _add_workload(parser)
    _add_backends(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of every random number (default: %(default)s)")
    parser.add_argument("--bound", action="store_true", help="also print the clairvoyant bound on the cost")
    parser.add_argument(
        "--limit", action="store_true", help="also print the least expected cost under noise, at the percentile"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="write one CSV row for each request")
    parser.add_argument(
        "--explain",
        type=Path,
        metavar="FILE",
        help="write all decisions about each request as a line of JSON, for `edgeburst explain REQUEST --file FILE`",
    )
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    source = group.add_mutually_exclusive_group()
    source.add_argument("--arrivals", type=Path, metavar="FILE.gaps", help="gaps between requests, seconds")
    source.add_argument("--rates", type=Path, metavar="FILE", help="requests in each time unit")
    source.add_argument("--map", type=Path, metavar="FILE.json", help="Markovian arrival process")
    source.add_argument("--poisson", type=float, metavar="RPS", help="Poisson arrivals")
    source.add_argument(
        "--clients",
        type=int,
        metavar="N",
        help="a closed loop: N clients that each wait for their answer; only with the policy edgeburst",
    )
    group.add_argument(
        "--think-s",
        type=float,
        default=0.001,
        metavar="S",
        help="mean time from an answer to the same client's next request (default: %(default)s)",
    )
    group.add_argument("--unit-s", type=float, default=1.0, help="time unit of --rates, s (default: %(default)s)")
    group.add_argument("--requests", type=int, metavar="N", help="stop after N requests")
    group.add_argument("--duration-s", type=float, metavar="S", help="stop after S seconds")
    group.add_argument(
        "--rate-scale", type=float, default=1.0, metavar="K", help="factor on the rate (default: %(default)s)"
    )
    group.add_argument(
        "--slo-s", type=float, default=1.0, metavar="S", help="SLO of each request (default: %(default)s)"
    )
    group.add_argument(
        "--budget",
        choices=("keep", "spend"),
        default="keep",
        help="whether the misses that the percentile allows happen only by chance, or are spent where being in time "
        "costs most (default: %(default)s)",
    )
    group.add_argument(
        "--request-bytes", type=int, default=24_000, metavar="N", help="size of each request (default: %(default)s)"
    )


def _add_backends(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("backends and uplink")
    function, price = FUNCTION_LATENCY, FUNCTION_PRICE
    add_edge_flags(group)
    group.add_argument(
        "--function-law",
        type=numbers(2),
        default=(function.alpha_s, function.beta_s),
        metavar="A,B",
        help="seconds a call, seconds an item",
    )
    group.add_argument(
        "--function-max-batch", type=int, default=function.max_batch, metavar="N", help="items in a call"
    )
    group.add_argument(
        "--function-price",
        type=numbers(2),
        default=(price.per_s, price.per_call),
        metavar="CNY_PER_S,CNY_PER_CALL",
        help="price of a second, rounded up to 1 ms, and of a call",
    )
    group.add_argument(
        "--function-noise", type=float, default=0.0, metavar="SIGMA", help="sigma of function service times"
    )
    group.add_argument(
        "--function-noise-law",
        type=tail_law,
        default=0.0,
        metavar="LAW",
        help="lognormal (default), or pareto:ALPHA: of the services x^-ALPHA / 2 take longer than x medians",
    )
    group.add_argument(
        "--cold-start-s", type=numbers(2), metavar="S,IDLE_S", help="start-up time, idle time before a stop"
    )
    group.add_argument("--function-fault", action="append", default=[], metavar="FAULT", help="throttle: or down:")
    uplink = group.add_mutually_exclusive_group()
    uplink.add_argument("--bandwidth-mbytes-per-s", type=float, metavar="X", help="bandwidth of the shared uplink")
    uplink.add_argument("--bandwidth-log", type=Path, metavar="FILE", help="bandwidth from an LTE log, repeated")
    group.add_argument("--rtt-s", type=float, default=0.0, metavar="S", help="round trip to the functions")
    group.add_argument("--scenario", type=Path, metavar="FILE.toml", help="further values: see below")


def run(args: argparse.Namespace) -> int:
    """Runs `simulate` and prints its report."""
    check_flags(args)
    scenario = scenario_of(args)
    if args.explain is not None:
        check_explainable(scenario.policy)
    if args.clients is not None:
        return _run_clients(args, scenario)
    workload = _workload(args, scenario)
    requests = make_requests(scenario, workload)
    ring = None if args.explain is None else whole_ring(len(requests))
    simulation = make_simulation(scenario, requests, ring=ring, rate=workload.rate)
    return _run(args, scenario, simulation, ring)


def _run_clients(args: argparse.Namespace, scenario: Scenario) -> int:
    """Runs a closed loop.

    Raises:
        ScenarioError: something was asked for that needs arrivals known beforehand.
    """
    for flag, given in (("--bound", args.bound), ("--limit", args.limit), ("--rate-scale", args.rate_scale != 1.0)):
        if given:
            raise ScenarioError(f"{flag} needs arrivals that are known beforehand; leave it out with --clients")
    if args.explain is not None and args.requests is None:
        raise ScenarioError("--explain with --clients needs --requests, the number of requests to keep")
    loop = ClosedLoop(args.clients, args.think_s, _requests(args), args.duration_s)
    ring = None if args.explain is None else whole_ring(args.requests)
    simulation = make_simulation(scenario, (), ring=ring, clients=make_clients(scenario, loop))
    return _run(args, scenario, simulation, ring)


def _run(args: argparse.Namespace, scenario: Scenario, simulation: Simulation, ring: DecisionRing | None) -> int:
    started_s, expected = time.perf_counter(), len(simulation.journal.requests) or args.requests
    journal, partial = run_watched(simulation, requests=expected, duration_s=args.duration_s)
    wall_s, requests = time.perf_counter() - started_s, journal.requests
    bound, limit = None, None
    try:
        with progress("computing the bound"):
            bound = noted_bound(scenario, requests) if args.bound and not partial else None
            limit = noted_limit(scenario, requests) if args.limit and not partial else None
    except KeyboardInterrupt:
        partial = "interrupted while the bound was computed; the run itself is whole"
    summary = summarise(journal, scenario, wall_s=wall_s, bound=bound, limit=limit)
    if partial:
        summary = {"partial": partial, **summary}
    if args.clients is not None:
        summary["answered_rps"] = answered_rps(journal)
    if args.json:
        json.dump(summary, sys.stdout)
        print()
    else:
        print_table(summary)
    # After the summary: a file that cannot be written takes nothing from it.
    sys.stdout.flush()
    if args.rows is not None:
        write_rows(journal, args.rows)
    if ring is not None:
        write_explanations(ring, requests, args.explain)
    return 130 if partial else 0


def check_flags(args: argparse.Namespace) -> None:
    """Checks the numbers of the flags before a file is read.

    Raises:
        ScenarioError: a number is out of range; the message names the flag.
    """
    for flag in (*_ABOVE_0, *_AT_LEAST_0):
        given = getattr(args, flag[2:].replace("-", "_"))
        for value in given if isinstance(given, tuple) else [] if given is None else [given]:
            if not (math.isfinite(value) and (value > 0 if flag in _ABOVE_0 else value >= 0)):
                least = "above 0" if flag in _ABOVE_0 else "of at least 0"
                raise ScenarioError(f"{flag} must be a finite number {least}, not {value:g}")
    for flag, sigma in (("--edge-noise", args.edge_noise), ("--function-noise", args.function_noise)):
        if sigma > _MAX_NOISE:
            raise ScenarioError(f"{flag} must be at most {_MAX_NOISE:g}, not {sigma:g}")
    if len(args.daemons) > 1:
        other = {"--clients": args.clients, "--explain": args.explain, "--limit": args.limit or None}
        for flag in [flag for flag, given in other.items() if given is not None]:
            raise ScenarioError(f"{flag} is for one daemon; leave it out with --daemons")
    if args.function_noise_law and args.function_noise:
        raise ScenarioError("--function-noise is sigma of lognormal factors; leave it out with another law")
    if args.function_noise_law and args.policy in ("oracle-laws", "log-oracle"):
        raise ScenarioError(f"{args.policy} is told lognormal laws; simulate another policy with Pareto's")
    for flag, whole in (("--seed", args.seed), ("--request-bytes", args.request_bytes)):
        if whole < 0:
            raise ScenarioError(f"{flag} must be at least 0, not {whole}")


def scenario_of(args: argparse.Namespace) -> Scenario:
    """Returns the scenario that the flags and the scenario file give."""
    slo_s, (per_s, per_call), edges = args.slo_s, args.function_price, described_edges(args)
    first, max_items = edges.laws[0], edges.max_items
    latency = latency_model(*args.function_law, max_batch=args.function_max_batch)
    price = Price(per_s=per_s, per_call=per_call, sheet=FUNCTION_PRICE.sheet)
    base = Scenario(
        policy=args.policy,
        classes=(SimulatedClass(ServiceClass(slo_s=slo_s, spends=args.budget == "spend")),),
        request_bytes=args.request_bytes,
        edge_latency=latency_model(first.alpha_s, first.beta_s, max_batch=max_items),
        edges=edges.servers,
        tiers=(FunctionTier("function", "function", latency, price, max_in_flight=CONCURRENCY),),
        edge_parallel=args.edge_parallel,
        edge_noise=args.edge_noise,
        edge_decode_s=args.edge_decode_s,
        edge_lan_s=args.edge_lan_s,
        edge_ahead=AHEAD[args.edge_ahead],
        edge_told=not args.edge_parallel_learned,
        edge_silent=args.edge_silent,
        daemons=args.daemons,
        function_noise=args.function_noise,
        function_tail=args.function_noise_law,
        edge_faults=edges.faults,
        function_faults=tuple(
            parse_fault(text, ("slow", "slow-start", "throttle", "down")) for text in args.function_fault
        ),
        cold_starts=cold_starts_of(args.cold_start_s),
        bandwidth=bandwidth_of(args),
        rtt_s=args.rtt_s,
        max_items=max_items,
        seed=args.seed,
    )
    return base if args.scenario is None else read_scenario(args.scenario, base)


def cold_starts_of(values: tuple[float, float] | None) -> ColdStarts:
    """Returns the start-up behaviour that a flag gives."""
    if values is None:
        return ColdStarts()
    return ColdStarts(start_s=values[0], idle_s=values[1])


def bandwidth_of(args: argparse.Namespace) -> network.Bandwidth:
    """Returns the bandwidth that the flags give."""
    if args.bandwidth_log is not None:
        return network.read_log(args.bandwidth_log)
    if args.bandwidth_mbytes_per_s is not None:
        return network.constant(args.bandwidth_mbytes_per_s)
    return network.AMPLE


def _workload(args: argparse.Namespace, scenario: Scenario) -> Workload:
    rng = generators(scenario.seed)[0]
    factor = args.rate_scale
    if args.arrivals is not None:
        workload = read_gaps(args.arrivals).faster(factor)
    elif args.rates is not None:
        workload = read_rates(args.rates, unit_s=args.unit_s, rng=rng, multiple=factor)
    elif args.map is not None:
        duration_s = None if args.duration_s is None else args.duration_s * factor
        drawn = markovian(read_map(args.map), rng=rng, requests=_requests(args), duration_s=duration_s)
        workload = drawn.faster(factor)
    elif args.poisson is not None:
        rate_rps = args.poisson * factor
        workload = poisson(rate_rps, rng=rng, requests=_requests(args), duration_s=args.duration_s)
    elif scenario.rate_steps:
        workload = steps([(seconds, rate * factor) for seconds, rate in scenario.rate_steps], rng=rng)
    else:
        raise WorkloadError(
            "there is no workload; give --arrivals, --rates, --map, --poisson, --clients or a scenario with rate_steps"
        )
    if scenario.bursts:
        parts = [(burst.start_s, burst.duration_s, burst.rate_rps * factor) for burst in scenario.bursts]
        workload = with_bursts(workload, parts, rng=generators(scenario.seed)[4])
    if args.duration_s is not None:
        workload = workload.until(args.duration_s)
    if args.requests is not None:
        workload = workload.first(args.requests)
    if not len(workload.times_s):
        raise WorkloadError("the workload has no request; choose a longer duration or a higher rate")
    return workload


def _requests(args: argparse.Namespace) -> int | None:
    """Returns the number of requests to draw; a drawn workload without any limit ends after 20,000 requests."""
    if args.requests is None and args.duration_s is None:
        return 20_000
    requests: int | None = args.requests
    return requests


def print_table(summary: Mapping[str, object]) -> None:
    """Prints a summary, a line for each figure."""
    for key, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {_text(part)}" for name, part in value.items()) or "none"
        print(f"{key:<18} {_text(value)}")


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)

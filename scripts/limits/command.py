"""Prints the references of the evaluation: the least cost where more, or less, of the future is known.

    EDGEBURST_TRACES=DIR python -m scripts.limits       # the trace's first 20,000 requests
    python -m scripts.limits                            # this repository's own traffic
    python -m scripts.limits --lookahead                # the value of knowing the next second, without noise

Columns: the bound knows every arrival and ignores noise; "knows arrivals" is that with noise at the percentile
(`edgeburst simulate --limit`); "causal" knows laws and local rates only, and is what a policy can be measured by. w and
w* are their multipliers: what one late request more would save, in units of the price of one request by function. A
policy's cost at equal lateness is its cost + w* x (its share late or refused - the share allowed).
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from scheduler.simulator.bound import clairvoyant_bound
from scheduler.simulator.bound_note import bound_problem
from scheduler.simulator.limit import STEPS
from scheduler.simulator.report import cheapest_per_item
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.world import generators
from scripts.evaluation.options import NOISY, real_traces, with_slo
from scripts.evaluation.traffic import Bursty, Trace
from scripts.limits import causal, lookahead
from scripts.limits.references import causal_reference, clairvoyant_reference, local_rates

ROWS = ((0.6, 2.0), (0.6, 2.4), (0.6, 3.0), (0.6, 4.0), (1.0, 2.4), (1.0, 3.0), (1.0, 4.0))
"""(SLO in s, factor on the rate) of the table."""
HEAD = "| SLO, s | rate x | requests/s | bound | knows arrivals | w | causal | w* | processor, s |\n|" + "---|" * 9


def row(base: Scenario, trace: Path | None, *, slo_s: float, scale: float, requests: int, coarser: int = 1) -> str:
    """Returns one line of the table.

    Args:
        base: the scenario without its SLO.
        trace: the trace; None for this repository's bursty traffic.
        slo_s: SLO of every request, seconds.
        scale: factor on the rate.
        requests: number of requests.
        coarser: divisor of the steps of time; 1 but for tests.
    """
    started_s = time.process_time()
    scenario = with_slo(base, slo_s)
    traffic = Bursty(scale, requests) if trace is None else Trace(trace, scale, requests)
    times_s = traffic.workload(generators(scenario.seed)[0]).times_s
    [model] = scenario.served()
    bound = clairvoyant_bound(bound_problem(model, times_s)) / (
        cheapest_per_item(scenario.tiers, slo_s=slo_s) * len(times_s)
    )
    known = clairvoyant_reference(scenario, times_s, steps=STEPS // coarser)
    judged = causal_reference(scenario, local_rates(times_s), steps=causal.STEPS // coarser)
    return (
        f"| {slo_s:g} | {scale:g} | {len(times_s) / times_s[-1]:.0f} | {bound:.4f} | {known.cost:.4f} "
        f"| {known.multiplier:.1f} | {judged.cost:.4f} | {judged.multiplier:.1f} "
        f"| {time.process_time() - started_s:.0f} |"
    )


def table(base: Scenario, trace: Path | None, rows: Sequence[tuple[float, float]], requests: int) -> Iterator[str]:
    """Yields the lines of the Markdown table of references."""
    [kind] = base.classes
    source = "this repository's bursty traffic" if trace is None else trace.stem
    yield (
        f"Fractions of serving everything by function, {source}, {requests} requests, noise {base.edge_noise:g} and "
        f"{base.function_noise:g}, {100 * kind.service_class.percentile:g} % within the SLO:\n\n{HEAD}"
    )
    for slo_s, scale in rows:
        yield row(base, trace, slo_s=slo_s, scale=scale, requests=requests)


def _rows(text: str) -> tuple[tuple[float, float], ...]:
    try:
        rows = tuple((float(slo_s), float(scale)) for slo_s, scale in (word.split("x") for word in text.split(",")))
    except ValueError:
        rows = ()
    if not rows or min(map(min, rows)) <= 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of rows; give the SLO in seconds and the factor on the rate, as in 0.6x2.4,1x3"
        )
    return rows


def main(words: Sequence[str] | None = None) -> None:
    """Prints the table of references, or that of lookahead."""
    head, _, rest = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m scripts.limits",
        description=head,
        epilog=f"{rest}\n\n{lookahead.__doc__}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folder = os.environ.get("EDGEBURST_TRACES")
    parser.add_argument("--traces", type=Path, metavar="DIR", default=folder and Path(folder), help="with real traces")
    parser.add_argument("--requests", type=int, default=20_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rows", type=_rows, default=ROWS, metavar="SLOxSCALE,...", help="default: seven rows")
    parser.add_argument("--no-noise", action="store_true", help="services take exactly their median")
    parser.add_argument("--lookahead", action="store_true", help="the value of one second of lookahead instead")
    args = parser.parse_args(words)
    traces: list[Path | None] = [*real_traces(args.traces)]
    for trace in traces or [None]:
        lines = (
            lookahead.table(trace, args.requests)
            if args.lookahead
            else table(Scenario() if args.no_noise else NOISY, trace, args.rows, args.requests)
        )
        for line in lines:
            print(line, flush=True)

"""Prints, for several seeds, what the daemon books against what the local platform's meter bills.

    python -m scripts.money [--seeds 3] [--invocations 200] [--start-s 2] [--misfortunes 0.2] [--provisioned 2] [--real]

Each seed is one run of real processes: the local Function Compute endpoint, whose instances start cold, and a daemon
without an edge, which gets bursts of requests. The columns are money in CNY: what the meter bills, what the daemon has
booked, their ratio, and the daemon's purposes (calls, starts, estimated starts, warming, provisioning, idle). A run of
200 calls takes about two minutes. Exit status: 1 if a ratio is more than 3 % off.

The meter sees each call from the endpoint, a few milliseconds longer than the container; where more processes run than
there are cores, it is tens of milliseconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from scheduler.terminal import counted
from scripts.money.run import Case, Outcome, run
from scripts.support.script import run_script

WITHIN = 0.03
PURPOSES = ("call", "start", "start-estimate", "warming", "hedge", "provisioning")


def main() -> int:
    """Runs every seed and prints a row for each; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m scripts.money", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="number of runs (default %(default)s)")
    parser.add_argument("--invocations", type=int, default=200, metavar="N", help="calls in a run (%(default)s)")
    parser.add_argument("--misfortunes", type=float, default=0.0, metavar="P", help="part of bursts that crash or hang")
    parser.add_argument("--provisioned", type=int, default=0, metavar="N", help="instances that are always kept")
    parser.add_argument("--start-s", type=float, default=2.0, metavar="S", help="of an initializer (%(default)s)")
    parser.add_argument("--real", action="store_true", help="containers with torch, whose start takes a core seconds")
    parser.add_argument("--json", action="store_true", help="print one JSON object a run instead of the table")
    args = parser.parse_args()
    within = True
    if not args.json:
        print(f"{'seed':>4} {'calls':>6} {'starts':>6} {'metered':>10} {'booked':>10} {'ratio':>7}  booked for")
    for seed in counted(range(args.seeds), "playing", "seeds"):
        case = Case(
            seed,
            invocations=args.invocations,
            misfortunes=args.misfortunes,
            start_s=args.start_s,
            provisioned=args.provisioned,
            real=args.real,
        )
        with tempfile.TemporaryDirectory() as folder:
            outcome = run(case, Path(folder))
        print(json.dumps(row(seed, outcome)) if args.json else line(seed, outcome), flush=True)
        ratio = outcome.books.ratio
        within = within and ratio is not None and abs(ratio - 1.0) <= WITHIN
    return 0 if within else 1


def row(seed: int, outcome: Outcome) -> dict[str, object]:
    """Returns a run as JSON shows it."""
    books = outcome.books
    return {
        "seed": seed,
        "invocations": books.invocations,
        "initializers": books.initializers,
        "metered": books.metered,
        "metered_idle": books.metered_idle,
        "booked": dict(books.booked),
        "booked_idle": books.booked_idle,
        "ratio": books.ratio,
        "requests": outcome.requests,
        "answered": outcome.answered,
        "wall_s": outcome.wall_s,
    }


def line(seed: int, outcome: Outcome) -> str:
    """Returns a run as one line of the table."""
    books = outcome.books
    booked = {**books.booked, "idle": books.booked_idle}
    parts = [f"{what} {booked[what]:.3g}" for what in (*PURPOSES, "idle") if booked.get(what)]
    metered, total = books.metered + books.metered_idle, books.total + books.booked_idle
    ratio = "-" if books.ratio is None else f"{books.ratio:.4f}"
    figures = f"{seed:>4} {books.invocations:>6} {books.initializers:>6} {metered:>10.4e} {total:>10.4e} {ratio:>7}"
    return f"{figures}  {', '.join(parts)}"


if __name__ == "__main__":
    sys.exit(run_script("money", main))

"""Entry point of `make demo` and of `python -m scripts.demo --emulate orin-resnet50 --out out/demo`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console

from scheduler.domain.errors import EdgeburstError
from scheduler.program_options import positive
from scripts.demo.processes import Processes, child_environment, ignore_interrupts
from scripts.demo.settings import EDGE_PROFILE, Settings
from scripts.demo.stages import Demo

_HELP = """\
Runs the whole system on this machine, in real processes: an edge server, a local Function Compute endpoint with its
function instances, the daemon, and a client that sends pictures of handwritten digits at a rate that increases and
decreases in steps. Every answer is compared with the model's own answer. The demo writes summary.json, timeline.png,
report.html and terminal.svg.
"""
_EPILOG = """\
Exit status: 0 if every request was answered once, no answer differs from the model's own and the accuracy is at least
0.97; 1 otherwise; 2 if the demo could not run; 130 if it was interrupted (its processes are stopped).

examples:
  make demo                       edge and functions as slow as a Jetson Orin and Function Compute
  make demo EMULATE=none          at the speed of this machine
  make demo OPEN=1                with the daemon's page in a browser
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    settings = parse_arguments(argv)
    console = Console(highlight=False)
    # The SDK would use a proxy also for loopback.
    environ = child_environment(os.environ)
    for name in set(os.environ) - set(environ):
        del os.environ[name]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        with Processes(settings.out / "logs", environ) as processes:
            failures = Demo(settings, processes, console).run()
    except (EdgeburstError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        ignore_interrupts()  # a late one would end the process by the signal, not with this status
        print("demo: interrupted; its processes are stopped", file=sys.stderr)
        return 130
    for sentence in failures:
        console.print(f"[red]{sentence}[/red]")
    if not failures:
        console.print("[green]Every request was answered once, and every answer is the model's own.[/green]")
    console.print(f"See {settings.out / 'report.html'}.")
    return 1 if failures else 0


def parse_arguments(argv: Sequence[str] | None = None) -> Settings:
    """Reads the command line."""
    default = Settings(out=Path("out/demo"))
    parser = argparse.ArgumentParser(
        prog="python -m scripts.demo",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--emulate", choices=(EDGE_PROFILE, "none"), default=EDGE_PROFILE, help="(default %(default)s)")
    add("--out", type=Path, default=default.out, help="folder for all output files (default %(default)s)")
    add("--seed", type=int, default=default.seed, help="seed of arrivals and pictures (default %(default)s)")
    add("--time-scale", type=positive, default=1.0, metavar="X", help="factor on the 40 s of each phase")
    add("--rates", type=_rates, default=default.rates_rps, metavar="R,R,R", help="requests/s of each phase (30,150,60)")
    add(
        "--provisioned",
        type=_count,
        default=default.provisioned,
        metavar="N",
        help="provisioned instances (default: as many as the planner proposes for the rates)",
    )
    add("--quiet", action="store_true", help="no live table and no progress")
    add("--open", action="store_true", help="open the daemon's page in a browser, where there is one")
    given = parser.parse_args(argv)
    return Settings(
        out=given.out,
        emulate=None if given.emulate == "none" else given.emulate,
        seed=given.seed,
        time_scale=given.time_scale,
        rates_rps=given.rates,
        provisioned=given.provisioned,
        quiet=given.quiet,
        opens=given.open,
    )


def _rates(text: str) -> tuple[float, ...]:
    return tuple(positive(word) for word in text.split(","))


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number from 1 to 200")
    return int(text)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

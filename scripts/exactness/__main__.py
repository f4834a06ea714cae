"""Compares the planner's exact distributions with simulations, for all arrival processes of a folder.

    python -m scripts.exactness --maps DIR [--requests 1e7] [--jobs 2] [--csv FILE]

Each process is the input of buffers of 1 to 64 requests with timeouts of 0.01 to 1 s. Distributions of batch sizes,
waits, latencies, and latencies with lognormal noise on the service time are compared, in standard errors estimated by
batch means. At most 0.5 % of the points may differ by more than 3 standard errors and none by more than 5; otherwise
the exit status is 1.
"""

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from scheduler.domain.errors import EdgeburstError
from scheduler.workloads import read_map
from scripts.exactness.comparison import Point, Setting, compare
from scripts.support.script import run_script

BATCHES = (1, 2, 5, 20, 64)
TIMEOUTS_S = (0.01, 0.05, 0.2, 0.5, 1.0)
FAR, VERY_FAR = 3.0, 5.0
ALLOWED = 0.005


@dataclass(frozen=True, slots=True)
class Outcome:
    """Setting with its compared points."""

    setting: Setting
    points: Sequence[Point]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    args = _parse(arguments)
    console = Console()
    try:
        settings = settings_of(args.maps)
    except EdgeburstError as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 2
    outcomes = _run(settings, requests=int(args.requests), jobs=args.jobs, console=console)
    if args.csv is not None:
        _write(args.csv, outcomes)
    console.print(_table(outcomes))
    points = [point for outcome in outcomes for point in outcome.points]
    far, very_far = (sum(point.deviation > bound for point in points) for bound in (FAR, VERY_FAR))
    good = far <= ALLOWED * len(points) and very_far == 0
    console.print(
        f"{len(points)} points: {far} ({far / max(1, len(points)):.2%}) beyond {FAR:g} standard errors, at most "
        f"{ALLOWED:.1%} asked; {very_far} beyond {VERY_FAR:g}, none asked: {'reached' if good else 'missed'}",
        highlight=False,
    )
    return 0 if good else 1


def settings_of(folder: Path) -> list[Setting]:
    """Returns all settings of buffers with all processes of a folder.

    Args:
        folder: contains `*.json` files with D0 and D1.

    Raises:
        EdgeburstError: there is no file, or a file cannot be read.
    """
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise EdgeburstError(f"{folder} holds no arrival process; name a folder with *.json files of D0 and D1")
    return [
        Setting(path.stem, read_map(path), max_batch, timeout_s)
        for path in paths
        for max_batch in BATCHES
        for timeout_s in TIMEOUTS_S
    ]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.exactness", description=__doc__.split("\n")[0])
    parser.add_argument("--maps", type=Path, required=True, metavar="DIR", help="folder with arrival processes, *.json")
    parser.add_argument(
        "--requests", type=float, default=3e5, help="requests in each setting (default 3e5; required figure: 1e7)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="number of parallel processes (default 1)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="file for all points, one in each row")
    return parser.parse_args(arguments)


def _run(settings: Sequence[Setting], *, requests: int, jobs: int, console: Console) -> list[Outcome]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    found: dict[int, list[Point]] = {}
    with progress:
        task = progress.add_task("settings", total=len(settings))
        for index, points in _results(settings, requests=requests, jobs=jobs):
            found[index] = points
            progress.advance(task)
    return [Outcome(setting, found[index]) for index, setting in enumerate(settings)]


def _results(settings: Sequence[Setting], *, requests: int, jobs: int) -> Iterator[tuple[int, list[Point]]]:
    run = partial(compare, requests=requests)
    if jobs <= 1:
        for index, setting in enumerate(settings):
            yield index, run(setting, seed=index)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(run, setting, seed=index): index for index, setting in enumerate(settings)}
        for done in as_completed(waiting):
            yield waiting[done], done.result()


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("process", "points", f"beyond {FAR:g}", f"beyond {VERY_FAR:g}", "farthest, standard errors", "where")
    for name in dict.fromkeys(outcome.setting.name for outcome in outcomes):
        mine = [(o.setting, point) for o in outcomes if o.setting.name == name for point in o.points]
        setting, worst = max(mine, key=lambda pair: pair[1].deviation)
        table.add_row(
            name,
            str(len(mine)),
            str(sum(point.deviation > FAR for _, point in mine)),
            str(sum(point.deviation > VERY_FAR for _, point in mine)),
            f"{worst.deviation:.2f}",
            f"{worst.what} {worst.at:.4g}, B {setting.max_batch}, T {setting.timeout_s:g} s",
        )
    return table


def _write(path: Path, outcomes: Sequence[Outcome]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["process", "max_batch", "timeout_s", "what", "at", "exact", "seen", "standard_error"])
        for outcome in outcomes:
            setting = outcome.setting
            for point in outcome.points:
                place = [setting.name, setting.max_batch, setting.timeout_s, point.what, point.at]
                rows.writerow([*place, point.exact, point.seen, point.error])


if __name__ == "__main__":
    sys.exit(run_script("exactness", main, shown=False))

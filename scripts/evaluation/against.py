"""Compares the engine's own time a request in this checkout and in another one, measured alternately.

The speed of a machine varies by more than the effect of one change to the engine. Therefore the two checkouts are
measured in turn, each time in a fresh process that runs the checkout's own `python -m scripts.evaluate --suite engine`,
and the medians of these measurements are compared. The other checkout may be older and have other modules: only this
command and two columns of its CSV file must be the same. Explanations are recorded, as by default in the daemon.
"""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from scheduler.domain.errors import EdgeburstError
from scripts.evaluation.tables import Table

ALTERNATIONS = 5
"""An odd number, so that a median is a measurement."""

Measure = Callable[[Path], Mapping[str, float]]
"""From a checkout to microseconds a request by case."""


def measure_engine(checkout: Path, *, words: Sequence[str] = ()) -> dict[str, float]:
    """Returns microseconds a request by case, measured in a fresh process of a checkout.

    Args:
        checkout: the folder of a git worktree.
        words: further arguments of its evaluation.

    Raises:
        EdgeburstError: the process failed, or its CSV file has no engine rows.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "scripts.evaluate", "--suite", "engine", "--jobs", "1", "--out", folder]
        # A checkout's own modules come before installed ones, since `-m` puts the working directory first.
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        ended = subprocess.run(
            [*command, *words], cwd=checkout, env=environ, capture_output=True, text=True, check=False
        )
        if ended.returncode != 0:
            last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise EdgeburstError(f"the evaluation of {checkout} ended with status {ended.returncode}: {last}")
        with (Path(folder) / "evaluation.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    found = {row["case"]: float(row["engine_us_median"]) for row in rows if row.get("engine_us_median")}
    if not found:
        raise EdgeburstError(f"the evaluation of {checkout} wrote no column engine_us_median; choose a newer commit")
    return found


def alternate(
    here: Path,
    there: Path,
    *,
    measure: Measure,
    alternations: int = ALTERNATIONS,
    done: Callable[[], None] = lambda: None,
) -> Table:
    """Returns the medians of both checkouts by case, their ratio, and the geometric mean of the ratios.

    Args:
        here: this checkout.
        there: the other one.
        measure: measures one checkout once.
        alternations: how often each is measured. Which of the two is first changes from one to the next.
        done: is called after each measurement.

    Raises:
        EdgeburstError: the two have no case in common, or a measurement failed.
    """
    if not (there / "scripts" / "evaluate.py").is_file():
        raise EdgeburstError(f"{there} is no checkout of this project: it has no scripts/evaluate.py")
    measured: dict[Path, list[Mapping[str, float]]] = {here: [], there: []}
    for turn in range(alternations):
        for checkout in (here, there) if turn % 2 == 0 else (there, here):
            measured[checkout].append(measure(checkout))
            done()
    cases = [case for case in measured[here][0] if case in measured[there][0]]
    if not cases:
        raise EdgeburstError(f"this checkout and {there} measure no case under the same name")
    return _table(cases, measured[here], measured[there])


def _table(cases: Sequence[str], here: Sequence[Mapping[str, float]], there: Sequence[Mapping[str, float]]) -> Table:
    lines, ratios = [], []
    for case in cases:
        ours, theirs = ([run[case] for run in runs] for runs in (here, there))
        ours_us, theirs_us = statistics.median(ours), statistics.median(theirs)
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratios.append(ours_us / theirs_us)
        spread = f"{min(pairs):.3f} to {max(pairs):.3f}"
        lines.append((case, f"{ours_us:.2f}", f"{theirs_us:.2f}", f"{ratios[-1]:.3f}", spread))
    lines.append(("all (geometric mean)", "", "", f"{statistics.geometric_mean(ratios):.3f}", ""))
    header = ("case", "here, us a request", "there, us a request", "here / there", "in one alternation")
    note = f"Medians of {len(here)} alternations, processor time, explanations recorded. Below 1: faster here."
    return Table("The engine's own time in two checkouts", note, header, tuple(lines))

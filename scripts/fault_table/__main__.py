"""Prints the fault x load table: real processes, one fault after the other, every answer compared with the right one.

    python -m scripts.fault_table [ROW ...] [--quick] [--markdown FILE] [--list]

A row is named FAULT/SIDES/LOAD; a part of the name selects all that contain it. Without one, all rows are run: about
half an hour. The exit status is 1 where an answer is wrong, doubled or lost, where a request for which a place was
there ended with 400, 500 or 502, and where the daemon's counts do not add up.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from scheduler.terminal import counted
from scripts.demo.errors import DemoError
from scripts.demo.processes import Processes, child_environment
from scripts.fault_table.neighbours import ROOT, Neighbours
from scripts.fault_table.rows import QUICK, Row, all_rows
from scripts.fault_table.scene import can
from scripts.fault_table.table import Outcome, Stage, line, markdown
from scripts.fault_table.truth import Item, distinct_items
from scripts.support.script import run_script

ITEMS = 600


def chosen(names: list[str], *, quick: bool) -> list[Row]:
    """Returns the rows that names select; all where there are none."""
    rows = all_rows()
    if quick:
        return [row for row in rows if row.name in QUICK]
    return [row for row in rows if not names or any(name in row.name for name in names)]


def main() -> int:
    """Plays the rows; returns 1 where something was violated."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a part of a row's name")
    parser.add_argument("--quick", action="store_true", help="a handful of rows, a minute and a half")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("--markdown", type=Path, help="write the table into this file")
    parser.add_argument("--keep", type=Path, help="folder for logs; without it they are deleted")
    options = parser.parse_args()
    rows = chosen(options.rows, quick=options.quick)
    if options.list:
        print("\n".join(row.name for row in rows))
        return 0
    items = distinct_items(ITEMS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcomes = play(rows, folder, items)
    if options.markdown:
        options.markdown.write_text(markdown(outcomes) + "\n", encoding="utf-8")
    bad = [outcome for outcome in outcomes if not outcome.well]
    print(f"{len(outcomes)} rows, {sum(o.sent for o in outcomes)} requests, {len(bad)} rows violated")
    return int(bool(bad))


def play(rows: list[Row], folder: Path, items: list[Item]) -> list[Outcome]:
    """Plays rows and prints each as it ends."""
    outcomes = []
    environ = {**child_environment(os.environ), "PYTHONPATH": str(ROOT)}
    with Processes(folder / "logs", environ) as processes:
        stage = Stage(Neighbours(folder, processes), items, folder)
        for row in counted(rows, "playing", "rows"):
            if not can(row.needs):
                print(f"--  {row.name}: skipped, it needs {row.needs}", flush=True)
                continue
            try:
                outcome = stage.play(row)
            except (DemoError, RuntimeError, OSError) as error:
                outcome = Outcome(row, 0, 0, 0, 0, 0, 0, 0, 0, 0, [f"the row could not be played: {error}"])
            outcomes.append(outcome)
            print(line(outcome), flush=True)
            if not outcome.well:
                for sentence, count in outcome.said:
                    print(f"        {count} x {sentence}")
                for fault in outcome.faults:
                    print(f"        {fault}", flush=True)
    return outcomes


if __name__ == "__main__":
    sys.exit(run_script("fault_table", main))

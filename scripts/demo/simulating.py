"""Simulates other policies in a process of its own while the demo runs, and tells beside the bill what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from scripts.demo import alternatives, configuration, report
from scripts.demo.configuration import Places
from scripts.demo.instances import WarmInstances
from scripts.demo.processes import Processes, Running
from scripts.demo.settings import Schedule, Settings
from scripts.demo.summary import Run

_LIMIT_S = 300.0


def start_simulating(
    processes: Processes,
    settings: Settings,
    places: Places,
    instances: WarmInstances,
    schedule: Schedule,
    *,
    item_bytes: float,
) -> Running:
    """Begins to simulate with these arrivals, in a process that takes only what the others leave of the machine."""
    folder = settings.out / "alternatives"
    folder.mkdir(parents=True, exist_ok=True)
    arrivals = folder / "schedule.npz"
    np.savez(arrivals, times_s=schedule.times_s)
    described = alternatives.describe(settings, places, instances, schedule=arrivals, request_bytes=round(item_bytes))
    path = configuration.write(folder / "settings.json", described)
    return processes.start("alternatives", ["scripts.demo.alternatives", str(path)])


def with_simulated(run: Run, simulating: Running, settings: Settings, *, kept_s: float, item_bytes: float) -> Run:
    """Waits for the simulations; returns the run with them.

    Args:
        run: what was measured.
        simulating: the process that simulates.
        settings: settings of the demo.
        kept_s: seconds for which instances were kept warm.
        item_bytes: mean bytes of a request.

    Raises:
        DemoError: the process failed.
    """
    found = simulating.wait_for("simulated", limit_s=_LIMIT_S)["found"]
    rows = alternatives.alternatives([alternatives.Simulated(**values) for values in found], kept_s=kept_s)
    uplink_rps = settings.uplink_bytes_per_s / item_bytes
    notes = alternatives.sentences(rows, uplink_rps=uplink_rps, slo_s=settings.slo_s)
    return replace(run, alternatives=rows, alternatives_notes=notes)


def tell_alternatives(console: Console, summary: Mapping[str, Any]) -> None:
    """Prints what happened beside what other policies would have done."""
    table = Table(title="what it saves", title_justify="left", show_edge=False)
    for number, head in enumerate(alternatives.HEADS):
        table.add_column(head, justify="right" if number else "left", no_wrap=not number)
    for texts in report.alternative_rows(summary):
        table.add_row(*texts)
    console.print(table)
    for sentence in summary["alternatives_notes"]:
        console.print(sentence, style="dim", highlight=False)

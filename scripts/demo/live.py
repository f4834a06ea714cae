"""Live table: the state of the daemon on one screen."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from scripts.demo.settings import Settings
from scripts.demo.watch import Batch, PlanSeen, Sample, Watch

PICTURE_WIDTH = 92
_BAR_CELLS = 30


@dataclass(frozen=True, slots=True)
class View:
    """Content of the table.

    Attributes:
        at_s: seconds since the start of the first phase.
        settings: settings of the demo.
        sample: current state of the daemon.
        batches: all batches that have ended.
        last_plan: the newest plan; None before the first plan.
        plan_at_s: time of this plan, seconds since the start of the first phase.
        progress: counts of the client.
    """

    at_s: float
    settings: Settings
    sample: Sample
    batches: Sequence[Batch]
    last_plan: PlanSeen | None
    plan_at_s: float
    progress: Mapping[str, Any]


def view(settings: Settings, watch: Watch, progress: Mapping[str, Any], *, started_at_s: float) -> View:
    """Returns the current content of the table."""
    plans, sample = watch.plans, watch.samples[-1]
    plan = plans[-1] if plans else None
    return View(
        at_s=sample.at_s - started_at_s,
        settings=settings,
        sample=sample,
        batches=watch.batches,
        last_plan=plan,
        plan_at_s=plan.at_s - started_at_s if plan else 0.0,
        progress=progress,
    )


def render(shown: View) -> RenderableType:
    """Returns the table."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column()
    for name, text in _rows(shown):
        grid.add_row(name, text)
    title = Text(f"edgeburst demo: {_phase(shown)}", style="bold")
    return Group(title, Text(_bar(shown.at_s / shown.settings.duration_s), style="cyan"), grid)


def _rows(shown: View) -> list[tuple[str, str]]:
    sample = shown.sample
    return [
        ("rate", f"{sample.rate_rps:6.1f} requests/s estimated"),
        ("queue", f"{sample.queued_requests:4d} waiting, {sample.waiting_requests} unanswered"),
        ("edge", _batches(shown.batches, "edge")),
        ("functions", _batches(shown.batches, "function")),
        ("within SLO", _within(shown.progress, shown.settings.slo_s)),
        ("money", f"{sample.spent_cny:.5f} CNY for function calls"),
        ("last plan", _plan(shown)),
    ]


def _phase(shown: View) -> str:
    settings = shown.settings
    if shown.at_s < 0:
        return "about to start"
    number = int(shown.at_s / settings.phase_s)
    if number >= len(settings.rates_rps):
        return "waiting for the last answers"
    rate = f"{settings.rates_rps[number]:g} requests/s offered"
    return f"phase {number + 1} of {len(settings.rates_rps)}, {rate}, {shown.at_s:.0f} of {settings.duration_s:.0f} s"


def _bar(share: float) -> str:
    full = round(_BAR_CELLS * min(1.0, max(0.0, share)))
    return "━" * full + "╌" * (_BAR_CELLS - full)


def _batches(batches: Sequence[Batch], backend: str) -> str:
    theirs = [batch for batch in batches if batch.backend == backend]
    requests = sum(batch.requests for batch in theirs)
    mean = requests / len(theirs) if theirs else 0.0
    return f"{len(theirs):4d} batches, {requests} requests, {mean:.1f} a batch"


def _within(progress: Mapping[str, Any], slo_s: float) -> str:
    ended = progress.get("answered", 0) + progress.get("failed", 0)
    share = f"{progress['within_slo'] / ended:7.2%}" if ended else "      -"
    return f"{share} within {slo_s:g} s, {progress.get('failed', 0)} failed"


def _plan(shown: View) -> str:
    plan = shown.last_plan
    if plan is None:
        return "none yet"
    return f"{plan.cause} at {max(0.0, shown.plan_at_s):.0f} s: {plan.detail}"


def as_svg(shown: View) -> str:
    """Returns the table as an SVG picture of a terminal, without references to the network."""
    console = Console(record=True, width=PICTURE_WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(render(shown))
    svg = console.export_svg(title="make demo")
    return re.sub(r"@font-face\s*\{[^}]*\}", "", svg)

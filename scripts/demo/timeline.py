"""timeline.png: arrivals and rate, answering backends, latencies with the SLO, the queue, and the times of plans."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scheduler.plotting import new_figure
from scripts.demo.summary import Outcome, PlanCause
from scripts.demo.watch import Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BIN_S = 1.0
_TALLEST = 2.5
"""Height of the latency panel, in multiples of the SLO."""
_EDGE, _FUNCTION, _GREY, _PLAN = "#2a78b5", "#e0762f", "#555555", "#7a3fa0"


@dataclass(frozen=True, slots=True)
class Timeline:
    """Data of the picture; all times are seconds from the start of the first phase.

    Attributes:
        outcomes: outcomes of the requests of the measured part.
        samples: states of the daemon.
        plans: times and causes of the plans.
        slo_s: SLO of each request, seconds.
        duration_s: length of all phases, seconds.
        emulated: whether to add a note on emulated parts.
    """

    outcomes: Sequence[Outcome]
    samples: Sequence[Sample]
    plans: Sequence[PlanCause]
    slo_s: float
    duration_s: float
    emulated: bool


def draw(timeline: Timeline, path: Path) -> None:
    """Draws the picture and writes it to a file."""
    figure = new_figure("the demo", width_in=11, height_in=9)
    axes = figure.subplots(4, 1, sharex=True, height_ratios=(1.1, 1.1, 1.6, 0.8))
    for draw_one, axis in zip((_draw_rate, _draw_share, _draw_latency, _draw_queue), axes, strict=True):
        draw_one(axis, timeline)
        axis.grid(alpha=0.25)
        axis.set_ylim(bottom=0)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    _mark_plans(list(axes), timeline)
    axes[-1].set_xlabel("seconds")
    axes[-1].set_xlim(0, _end_s(timeline))
    figure.suptitle("edgeburst demo" + (" (edge and functions emulated)" if timeline.emulated else ""))
    figure.savefig(path, dpi=110)


def _end_s(timeline: Timeline) -> float:
    return max([timeline.duration_s, *(outcome.arrival_s + outcome.latency_s for outcome in timeline.outcomes)])


def _edges(timeline: Timeline) -> list[float]:
    bin_s = min(_BIN_S, timeline.duration_s / 10)
    return [float(edge) for edge in np.arange(0.0, timeline.duration_s + bin_s / 2, bin_s)]


def _rates(times_s: Sequence[float], edges_s: Sequence[float]) -> list[float]:
    counts, _ = np.histogram(times_s, edges_s)
    return [float(rate) for rate in counts / (edges_s[1] - edges_s[0])]


def _draw_rate(axis: Axes, timeline: Timeline) -> None:
    edges_s = _edges(timeline)
    arrived = _rates([outcome.arrival_s for outcome in timeline.outcomes], edges_s)
    axis.stairs(arrived, edges_s, fill=True, color="#c9d6e2", label="arrivals")
    seen = [sample for sample in timeline.samples if sample.at_s >= 0]
    axis.plot([s.at_s for s in seen], [s.rate_rps for s in seen], color=_GREY, linewidth=1.2, label="estimated rate")
    axis.set_ylabel("requests/s")
    axis.legend(loc="upper right", fontsize=8)


def _draw_share(axis: Axes, timeline: Timeline) -> None:
    edges_s = _edges(timeline)
    by_backend = {
        backend: np.array(_rates([o.arrival_s for o in timeline.outcomes if o.backend == backend], edges_s))
        for backend in ("edge", "function")
    }
    both = by_backend["edge"] + by_backend["function"]
    axis.stairs(by_backend["edge"], edges_s, fill=True, color=_EDGE, alpha=0.8, label="edge")
    axis.stairs(both, edges_s, baseline=by_backend["edge"], fill=True, color=_FUNCTION, alpha=0.8, label="functions")
    axis.set_ylabel("answered by,\nrequests/s")
    axis.legend(loc="upper right", fontsize=8)


def _draw_latency(axis: Axes, timeline: Timeline) -> None:
    for backend, color in (("edge", _EDGE), ("function", _FUNCTION)):
        theirs = [outcome for outcome in timeline.outcomes if outcome.backend == backend]
        axis.plot(
            [o.arrival_s for o in theirs],
            [o.latency_s for o in theirs],
            ".",
            markersize=2.5,
            alpha=0.5,
            color=color,
            rasterized=True,
        )
    _cut(axis, timeline)
    axis.axhline(timeline.slo_s, color="#b02020", linewidth=1.2, linestyle="--")
    axis.annotate("SLO", (0, timeline.slo_s), xytext=(4, 3), textcoords="offset points", color="#b02020", fontsize=8)
    axis.set_ylabel("latency, s")


def _cut(axis: Axes, timeline: Timeline) -> None:
    """Limits the latency axis, so that few very late answers do not compress it; notes how many are not shown."""
    top_s = _TALLEST * timeline.slo_s
    above = sum(outcome.latency_s > top_s for outcome in timeline.outcomes)
    if above:
        axis.set_ylim(0, top_s)
        axis.annotate(f"{above} above", (1, 1), xycoords="axes fraction", ha="right", va="top", fontsize=8)


def _draw_queue(axis: Axes, timeline: Timeline) -> None:
    seen = [sample for sample in timeline.samples if sample.at_s >= 0]
    axis.plot([s.at_s for s in seen], [s.queued_requests for s in seen], color=_GREY, linewidth=1)
    axis.set_ylabel("queued\nrequests")


def _mark_plans(axes: Sequence[Axes], timeline: Timeline) -> None:
    for plan in timeline.plans:
        if plan.at_s < 0:
            continue
        for axis in axes:
            axis.axvline(plan.at_s, color=_PLAN, linewidth=0.8, linestyle=":")
        axes[0].annotate(
            plan.cause,
            (plan.at_s, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, -2),
            textcoords="offset points",
            color=_PLAN,
            fontsize=7,
            rotation=90,
            va="top",
        )

"""Plots: cost over load with the bound, distribution of latencies, timeline around a change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.domain.errors import EdgeburstError
from scheduler.plotting import new_figure
from scripts.evaluation.case import BOUND, Result, Row, Timeline
from scripts.evaluation.costs import means_by_load
from scripts.evaluation.tables import GOOD, arrivals_of, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_all(results: Sequence[Result], folder: Path) -> list[Path]:
    """Draws the plots of the results and returns their files.

    Raises:
        EdgeburstError: matplotlib is missing, or a file cannot be written.
    """
    drawn = []
    for suite in ("load", "noise"):
        of_suite = [result for result in results if result.row["suite"] == suite]
        for source in dict.fromkeys(arrivals_of(result.row) for result in of_suite):
            some = [result for result in of_suite if arrivals_of(result.row) == source]
            drawn.append(_saved(_costs([r.row for r in some]), folder / f"cost-{suite}-{source}.svg"))
            drawn.append(_saved(_latencies(some), folder / f"latency-{suite}-{source}.svg"))
    for result in _timelines(results):
        name = "".join(c if c.isalnum() else "-" for c in str(result.row["case"])).strip("-")
        drawn.append(_saved(_timeline(result), folder / f"step-{name}.svg"))
    return drawn


def _timelines(results: Sequence[Result]) -> Iterable[Result]:
    """Yields one run of the engine for each change."""
    seen = set()
    for result in results:
        row = result.row
        if row["suite"] == "steps" and row["policy"] == "edgeburst" and row["case"] not in seen:
            seen.add(row["case"])
            yield result


def _figure(width: float, height: float) -> Figure:
    return new_figure("--plots of scripts.evaluate", width_in=width, height_in=height)


def _saved(figure: Figure, path: Path) -> Path:
    try:
        # Without a date, equal figures give equal files.
        figure.savefig(path, metadata={"Date": None})
    except OSError as error:
        raise EdgeburstError(f"cannot draw {path}: {error.strerror}") from error
    return path


def _costs(rows: Sequence[Row]) -> Figure:
    """Draws the costs over load: as paid above, at equal lateness below; the bars are the range of the seeds."""
    loads = list(means_by_load(rows))
    slos = list(dict.fromkeys(slo_s for (_, slo_s, _), _, _ in loads))
    figure = _figure(5.0 * len(slos) + 2.2, 7.6)
    panels = figure.subplots(2, len(slos), squeeze=False)
    for column, slo_s in enumerate(slos):
        of_slo = [(number(runs[0], "rate_rps"), means) for (_, slo, _), means, runs in loads if slo == slo_s]
        of_slo.sort(key=lambda load: load[0])
        for policy in dict.fromkeys(name for _, means in of_slo for name in means):
            drawn = [(rate, means[policy]) for rate, means in of_slo if policy in means]
            _curve(panels[0][column], policy, [(rate, mean.cost, mean.cost_spread) for rate, mean in drawn])
            late = [(rate, mean.cost) for rate, mean in drawn if mean.within < GOOD]
            if late:
                panels[0][column].plot(*zip(*late, strict=True), "x", color="red", markersize=9)
            equal = [(rate, mean.equal, mean.equal_spread) for rate, mean in drawn if mean.equal is not None]
            _curve(panels[1][column], policy, equal if policy != BOUND else [])
        for axes, what in zip((row[column] for row in panels), ("cost", "cost at equal lateness"), strict=True):
            axes.set(xlabel="requests/s", ylabel=f"{what}, fraction of all by function", title=f"SLO {slo_s:g} s")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    title = "red cross: under 99 % within SLO"
    figure.legend(handles, labels, loc="outside right upper", title=title, fontsize="small", title_fontsize="small")
    return figure


def _curve(axes: Axes, policy: str, points: Sequence[tuple[float, float, float]]) -> None:
    """Draws (requests a second, cost, half the range of the seeds); without a point it only uses up a colour."""
    rates, costs, halves = ([point[part] for point in points] for part in range(3))
    if policy == BOUND:
        axes.plot(rates, costs, label=BOUND, color="black", linestyle="--")
    else:
        axes.errorbar(rates, costs, yerr=halves, label=policy, marker=".", capsize=2)


def _latencies(results: Sequence[Result]) -> Figure:
    """Draws the latencies at the highest load, where the policies differ most."""
    highest = max(number(result.row, "scale") for result in results)
    shown = [r for r in results if number(r.row, "scale") == highest and r.latencies_s]
    slos = list(dict.fromkeys(number(r.row, "slo_s") for r in shown)) or [1.0]
    figure = _figure(5.0 * len(slos) + 2.2, 4.2)
    panels: Sequence[Axes] = figure.subplots(1, len(slos), squeeze=False)[0]
    for axes, slo_s in zip(panels, slos, strict=True):
        for result in (r for r in shown if number(r.row, "slo_s") == slo_s and r.row["seed"] == shown[0].row["seed"]):
            answered = number(result.row, "answered") / number(result.row, "requests")
            steps = len(result.latencies_s) - 1
            shares = [answered * i / steps for i in range(steps + 1)]
            axes.plot(result.latencies_s, shares, label=str(result.row["policy"]))
        axes.axvline(slo_s, color="black", linestyle=":")
        axes.set(xlabel="latency, s", ylabel="fraction of all requests", xlim=(0, 2 * slo_s), ylim=(0, 1.02))
        axes.set_title(f"SLO {slo_s:g} s, rate x {highest:g}")
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize="small")
    return figure


def _timeline(result: Result) -> Figure:
    assert result.timeline is not None
    line, change_s = result.timeline, number(result.row, "change_at_s")
    figure = _figure(9, 4)
    axes = figure.subplots()
    axes.step(line.starts_s, line.arrived_rps, where="post", color="lightgrey", label="arrivals")
    axes.step(line.starts_s, line.function_rps, where="post", color="tab:blue", label="answered by functions")
    axes.step(line.starts_s, line.outside_rps, where="post", color="tab:red", label="late or refused")
    axes.axvline(change_s, color="black", linestyle="--", label="change")
    _mark_plans(axes, line)
    axes.set(xlabel="arrival, s", ylabel="requests/s", title=str(result.row["case"]))
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _mark_plans(axes: Axes, line: Timeline) -> None:
    top = max(line.arrived_rps, default=1.0)
    for at_s, cause in line.plans:
        axes.axvline(at_s, color="tab:green", linewidth=1)
        axes.text(at_s, top, f" re-plan: {cause}", rotation=90, va="top", fontsize="x-small", color="tab:green")

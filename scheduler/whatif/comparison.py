"""Two outcomes of the same requests, side by side: what differs, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.domain.errors import EdgeburstError
from scheduler.plotting import new_figure
from scheduler.whatif.running import GROUPS, Outcome, figures

MOST_GROUPS = 16
"""Rows of a table for each kind of group: those with most requests."""
_WORDS = {"classes": "class", "models": "model", "tenants": "tenant"}


def compared(before: Outcome, after: Outcome) -> dict[str, Any]:
    """Returns figures of all requests and of each group, before and after."""
    whole = {"configured": _whole(before), "changed": _whole(after)}
    split = {
        name: {
            each: {"configured": before.summary[name].get(each), "changed": after.summary[name].get(each)}
            for each in _largest(before.summary[name], after.summary[name])
        }
        for name in GROUPS
    }
    return {"all": whole, **split}


def _whole(outcome: Outcome) -> dict[str, Any]:
    """Returns the figures of all requests, with what no request's answer paid: calls in vain, and those that warm."""
    return {**figures(outcome.rows), "cost_cny": outcome.summary["cost_cny"]}


def print_comparison(found: Mapping[str, Any], *, change: str, currency: str) -> None:
    """Prints what differs: a row for all requests, and one for each class, model and tenant where there are several."""
    table = Table(title=escape(f"as configured, and with {change}"), title_justify="left")
    table.add_column("", no_wrap=True)
    for heading in ("requests", f"money, {currency}", "within SLO", "p99, s", "refused", "by function"):
        table.add_column(heading, justify="right")
    for name, pair in _rows(found):
        table.add_row(escape(name), *_cells(pair))
    Console(highlight=False).print(table)


def _rows(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "all", found["all"]
    for name in GROUPS:
        groups = found[name]
        if len(groups) > 1:
            for each, pair in groups.items():
                yield f"{_WORDS[name]} {each or '(none)'}", pair


def _cells(pair: Mapping[str, Any]) -> Sequence[str]:
    before, after = pair["configured"] or {}, pair["changed"] or {}
    money = f"{_number(before, 'cost_cny', '.5g')} → {_number(after, 'cost_cny', '.5g')}{_relative(before, after)}"
    return (
        _number(before, "requests", "d"),
        money,
        f"{_number(before, 'within_slo', '.2%')} → {_number(after, 'within_slo', '.2%')}",
        f"{_number(before, 'p99_s', '.3f')} → {_number(after, 'p99_s', '.3f')}",
        f"{_number(before, 'refused', 'd')} → {_number(after, 'refused', 'd')}",
        f"{_number(before, 'function', 'd')} → {_number(after, 'function', 'd')}",
    )


def _number(values: Mapping[str, Any], name: str, form: str) -> str:
    value = values.get(name)
    return "–" if value is None else format(value, form)


def _relative(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    cost, other = before.get("cost_cny"), after.get("cost_cny")
    return "" if not cost or other is None else f" ({other / cost - 1:+.1%})"


def _largest(before: Mapping[str, Any], after: Mapping[str, Any]) -> Sequence[str]:
    """Returns the names of the groups with most requests, in order of their names."""
    requests = {name: (before.get(name) or after[name])["requests"] for name in {*before, *after}}
    return sorted(sorted(requests, key=lambda name: -requests[name])[:MOST_GROUPS])


def plot_comparison(found: Mapping[str, Any], path: Path, *, change: str, currency: str) -> None:
    """Draws money, share within the SLO, p99 and refusals, before and after, of all requests and of each group.

    Raises:
        EdgeburstError: matplotlib is missing, or the file cannot be written.
    """
    rows = list(_rows(found))
    figure = new_figure("--plot", width_in=12, height_in=2.5 + 0.35 * len(rows))
    figure.suptitle(f"as configured, and with {change}")
    panels = figure.subplots(1, 4, sharey=True)
    shown = (
        ("cost_cny", f"money, {currency}", 1.0),
        ("within_slo", "within SLO, %", 100.0),
        ("p99_s", "p99, s", 1.0),
        ("refused", "refused", 1.0),
    )
    for axes, (name, label, factor) in zip(panels, shown, strict=True):
        any_shown = False
        for offset, key in ((-0.2, "configured"), (0.2, "changed")):
            values = [((pair[key] or {}).get(name) or 0.0) * factor for _, pair in rows]
            any_shown = any_shown or any(values)
            axes.barh([at + offset for at in range(len(rows))], values, height=0.38, label=key)
        axes.set(xlabel=label)
        axes.grid(axis="x", alpha=0.3)
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlim(0.0, axes.get_xlim()[1] if any_shown else 1.0)
        if name == "within_slo":
            least = min([(pair[key] or {}).get(name) or 0.0 for _, pair in rows for key in ("configured", "changed")])
            axes.set_xlim(max(0.0, 100.0 * least - 3.0), 100.2)
    panels[0].set_yticks(range(len(rows)), [name for name, _ in rows])
    panels[0].invert_yaxis()
    figure.legend(*panels[0].get_legend_handles_labels(), loc="upper right", ncols=2)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise EdgeburstError(f"cannot draw the comparison to {path}: {error}; name another file") from error

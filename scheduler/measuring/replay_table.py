"""The figures of a replay as a printed table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(summary: Mapping[str, Any]) -> None:
    """Prints the figures, the errors with their counts, and the warnings."""
    title = f"{summary['arrivals']} against {summary['url']}, model {summary['model']}"
    if "partial" in summary:
        title = f"PARTIAL, {summary['partial']}: {title}"
    table = Table(title=escape(title), show_header=False, title_justify="left")
    for name, words in _lines(summary):
        table.add_row(name, escape(words))
    console = Console(highlight=False)
    console.print(table)
    for sentence, count in summary["error_kinds"].items():
        console.print(f"{count} × {escape(sentence)}")
    for warning in summary["warnings"]:
        console.print(f"note: {escape(warning)}")


def _lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "requests", f"{summary['requests']}, {summary['answered']} answered, {summary['errors']} not"
    if summary["offered_rps"] is not None:
        yield "offered", f"{summary['offered_rps']:.1f} requests/s; the last one ended after {summary['wall_s']:.1f} s"
    yield "within SLO", f"{summary['within_slo']:.2%} of all within {summary['slo_s']:g} s"
    yield "latency", _milliseconds(summary["latency_s"])
    yield "wait in queue", _milliseconds(summary["wait_s"])
    yield "client's own lag", _milliseconds(summary["client_lag_s"])
    for backend in ("edge", "function"):
        yield backend, _backend(summary, backend)
    if summary["cost"] is not None:
        yield "cost", f"{summary['cost']:.3g}, {summary['cold_start_requests']} requests had a cold start"
    for name, own in summary.get("tenants", {}).items():
        yield f"tenant {name}", f"{own['requests']} requests, {own['within_slo']:.2%} within SLO"
    if summary.get("failed_batches"):
        yield "failed batches", f"{summary['failed_batches']}; all batches cost {summary['batch_cost']:.3g}"


def _backend(summary: Mapping[str, Any], backend: str) -> str:
    words = f"{summary[f'{backend}_requests']} requests"
    if summary.get(f"mean_{backend}_batch") is None:
        return words
    return f"{words}, {summary[f'{backend}_batches']} batches of {summary[f'mean_{backend}_batch']:.1f} on average"


def _milliseconds(figures: Mapping[str, float | None]) -> str:
    known = [f"{name} {value * 1e3:.1f}" for name, value in figures.items() if value is not None]
    return ", ".join(known) + " ms" if known else "unknown"

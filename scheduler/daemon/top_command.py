"""`edgeburst top`: what a running daemon does, in the terminal: classes, places, money, the plan in force."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from scheduler.daemon.asking import Asking, add_source
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.failures import span

SPAN_S = 60

_DESCRIPTION = f"""\
Shows what a running daemon does, and again every few seconds: of each class the requests of the last {SPAN_S} s, the
share within the SLO, and latencies; of each place whether it is used and what it answered; money under the caps; the
plan in force and why. Ends with Ctrl-C. Not in a terminal, or with --once, it prints one table; --json one object.

Exit status: 0 shown, 2 no daemon answers, 130 ended by Ctrl-C."""

_EPILOG = """\
examples:
  edgeburst top --config edgeburst.toml
  edgeburst top --url http://127.0.0.1:8600 --once"""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "top",
        help="show what a daemon does, live",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_source(parser)
    parser.add_argument("--interval-s", type=_seconds, default=2.0, metavar="S", help="between looks (default 2)")
    parser.add_argument("--once", action="store_true", help="print one table and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object and end")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.2 <= value <= 3600:
        raise ValueError(text)
    return value


_seconds.__name__ = "number of seconds from 0.2 to 3600"


def run(args: argparse.Namespace) -> int:
    """Shows the daemon until it is interrupted; returns the exit status.

    Raises:
        EdgeburstError: no daemon answers at the start.
    """
    ask = Asking(args)
    seen = looked(ask)
    if args.json:
        print(json.dumps(seen))
        return 0
    console = Console(highlight=False)
    if args.once or not sys.stdout.isatty():
        console.print(shown(seen))
        return 0
    with Live(shown(seen), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(args.interval_s)
            try:
                live.update(shown(looked(ask)), refresh=True)
            except EdgeburstError as error:
                live.update(f"[bold red]{escape(str(error))}[/]", refresh=True)


def looked(ask: Asking) -> dict[str, Any]:
    """Returns what is shown of a daemon, as --json prints it."""
    status = ask("/v1/status", "engine", "uptime_s", "ready")
    now_s = int(time_of(ask))
    summary = ask(f"/v1/history?columns=0&from={now_s - SPAN_S}&to={now_s}", "summary")["summary"]
    engine = status["engine"]
    plan = engine["plan"] or {}
    return {
        "uptime_s": status["uptime_s"],
        "ready": status["ready"],
        "waiting_requests": status["waiting_requests"],
        "classes": summary["classes"],
        "places": [{**each, "up": _up(engine, each["names"][0])} for each in summary["places"]],
        "edges": engine["edges"],
        "function_up": engine["function_up"] if _has_functions(engine) else None,
        "function_batches_in_flight": engine["function_batches_in_flight"],
        "spent": engine["spent"],
        "currency": plan.get("currency", ""),
        "caps": engine["caps"],
        "closed_by": engine["closed_by"],
        "plan": {key: plan.get(key) for key in ("plan_id", "cause", "detail")},
        "infeasible": [f"{of['model']}: {of['reason']}" for of in plan.get("groups", ()) if not of["feasible"]],
    }


def _has_functions(engine: Mapping[str, Any]) -> bool:
    return any(model["function_up"] is not None for model in engine["models_up"])


def time_of(ask: Asking) -> float:
    """Returns the daemon's wall clock, by which its history is kept."""
    return float(ask("/v1/now", "at")["at"])


def _up(engine: Mapping[str, Any], place: str) -> bool:
    if not place.startswith("edge"):
        return bool(engine["function_up"])
    return any(each["up"] for each in engine["edges"] if place in (f"edge:{each['name']}", "edge"))


def shown(seen: Mapping[str, Any]) -> Group:
    """Returns what the terminal shows."""
    state = "ready" if seen["ready"] else "not ready"
    head = f"{state}, up for {span(seen['uptime_s'])}, {seen['waiting_requests']} waiting"
    caps = ", ".join(f"{cap['spent']:.4g} of {cap['cap']:.4g} in the {cap['window']}" for cap in seen["caps"])
    money = f"spent {seen['spent']:.4g} {seen['currency']} since the start" + (f"; {caps}" if caps else "")
    plan = seen["plan"]
    lines = [head, money, f"plan {plan['plan_id']}: {plan['cause']}, {plan['detail']}"]
    lines += [f"[bold red]no money may be spent: {seen['closed_by']}[/]"] if seen["closed_by"] else []
    lines += [f"[bold red]cannot be kept: {escape(each)}[/]" for each in seen["infeasible"]]
    return Group(*lines, _classes(seen["classes"]), _places(seen))


def _classes(rows: Any) -> Table:
    table = Table(title=f"last {SPAN_S} s", title_justify="left", show_edge=False)
    for column in ("model", "class"):
        table.add_column(column)
    for column in ("requests/s", "within", "late", "refused", "p50 ms", "p95 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for row in rows:
        ended = row["within"] + row["late"] + row["refused"]
        within = f"{row['within'] / ended:.2%}" if ended else "-"
        latencies = [f"{value:.0f}" for value in row["p_ms"] or ()] or ["-"] * 3
        rate = f"{row['arrived'] / SPAN_S:.1f}"
        table.add_row(*map(escape, row["names"]), rate, within, str(row["late"]), str(row["refused"]), *latencies)
    return table


def _places(seen: Mapping[str, Any]) -> Table:
    answered = {each["names"][0]: each for each in seen["places"]}
    in_flight = {f"edge:{each['name']}": (each["up"], each["batches_in_flight"]) for each in seen["edges"]}
    if seen["function_up"] is not None:
        tiers = [name for name in answered if not name.startswith("edge")] or ["function"]
        in_flight |= dict.fromkeys(tiers, (seen["function_up"], seen["function_batches_in_flight"]))
    table = Table(show_edge=False)
    table.add_column("place")
    for column in ("used", "in flight", "answers/s", "p50 ms", "p99 ms"):
        table.add_column(column, justify="right")
    for name, (up, batches) in in_flight.items():
        row = answered.get(name, {"within": 0, "late": 0, "p_ms": None})
        latencies = [f"{row['p_ms'][index]:.0f}" if row["p_ms"] else "-" for index in (0, 2)]
        rate = f"{(row['within'] + row['late']) / SPAN_S:.1f}"
        table.add_row(escape(name), "yes" if up else "[bold red]NO[/]", str(batches), rate, *latencies)
    return table

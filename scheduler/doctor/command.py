"""`edgeburst doctor`: one table over the three hosts, with a mend for each finding."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.config.credentials import edge_access, read_access_key
from scheduler.daemon.config_command import summary
from scheduler.doctor.edge_checks import edge_rows
from scheduler.doctor.edge_facts import edge_facts
from scheduler.doctor.expectations import wanted
from scheduler.doctor.facts import EdgeFacts, FunctionFacts
from scheduler.doctor.function_checks import function_rows
from scheduler.doctor.function_facts import function_facts
from scheduler.doctor.host_checks import host_rows
from scheduler.doctor.host_facts import UNIT, host_facts
from scheduler.doctor.model_checks import clock_rows
from scheduler.doctor.rows import CLIENT, FUNCTIONS, Level, Row, skipped
from scheduler.doctor.wanted import Wanted
from scheduler.domain.errors import ConfigError
from scheduler.fc_client import Account
from scheduler.terminal import Progress, progress

CALLS = 10
_PARTIAL = "interrupted before everything was looked at"
_MARKS = {Level.OK: "[green]ok[/]", Level.FINDING: "[bold red]MEND[/]", Level.SKIPPED: "[dim]-[/]"}

_DESCRIPTION = """\
Looks at the three hosts of a configuration from the client host, and prints one table: reachability, versions, clocks,
cards and files of the models, readiness, access key and permissions, price sheet, profiles against real calls, uplink,
numpy and torch on the edge, state folder, unit, limits. Each finding is one sentence: what is wrong; what to do.

It sends each model one item eleven times to each edge server and function. Calls of functions are billed; --no-calls
makes none. It changes nothing.

Exit status: 0 nothing to mend, 1 something to mend, 2 the configuration is not valid."""

_EPILOG = """\
examples:
  edgeburst doctor --config edgeburst.toml
  edgeburst doctor --config edgeburst.toml --no-calls --ignore prices --json"""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "doctor",
        help="look for what is wrong on the three hosts",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", required=True, help="the daemon's configuration")
    parser.add_argument("--no-calls", action="store_true", help="send no batches, neither to edges nor to functions")
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="CHECK", help="leave out a check by its word, repeatable"
    )
    parser.add_argument(
        "--unit", type=Path, default=UNIT, metavar="FILE", help="the daemon's unit of systemd (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    """Prints the table; returns the exit status.

    Raises:
        ConfigError: the configuration is not valid.
    """
    config = load_config(args.config, os.environ)
    rows: list[Row] = []
    interrupted = False
    try:
        with progress("looking at this host", _calls(config, args) or None, "calls") as work:
            rows.extend(row for row in _rows(config, args, work) if row.check not in args.ignore)
    except KeyboardInterrupt:
        # What was found until then is shown.
        interrupted = True
    findings = sum(row.level is Level.FINDING for row in rows)
    partial = {"partial": _PARTIAL} if interrupted else {}
    if args.json:
        print(json.dumps({**partial, "findings": findings, "rows": [_values(row) for row in rows]}, indent=2))
    else:
        _print(rows, findings, *partial.values())
    return 130 if interrupted else 1 if findings else 0


def _rows(config: Config, args: argparse.Namespace, work: Progress) -> Iterator[Row]:
    environ, calls = os.environ, 0 if args.no_calls else CALLS
    expected = wanted(config, tuple(summary(config, environ)["warnings"]))
    account = _account(config, environ)
    host = "" if account is None else account.host
    here = host_facts(config, environ, unit=args.unit, host=host)
    today = datetime.now(timezone.utc).date()
    yield from host_rows(here, expected, host=host, today=today)
    edges = [found for found in _edges(config, environ, expected, calls, work) if isinstance(found, EdgeFacts)]
    functions = _functions(config, account, expected, calls, work)
    yield from clock_rows(_ahead(edges, functions), authority=FUNCTIONS if functions is not None else "")
    for edge in edges:
        yield from edge_rows(edge, expected, version=here.version)
    if functions is not None:
        yield from function_rows(functions, expected)
    elif config.function is not None:
        yield skipped(FUNCTIONS, "credentials", "there is no access key to ask with: see the client host")


def _account(config: Config, environ: Mapping[str, str]) -> Account | None:
    """Returns the function account; None without functions, and without a key, of which other rows speak."""
    if config.function is None:
        return None
    try:
        key = read_access_key(config, environ)
    except ConfigError:
        return None
    return Account(config.function.region, key, config.function.endpoint, config.function.protocol)


def _edges(
    config: Config, environ: Mapping[str, str], expected: Wanted, calls: int, work: Progress
) -> Iterator[EdgeFacts | None]:
    """Yields the facts of each edge server; None for one whose secrets are missing, of which the rows above speak."""
    for edge in config.edges:
        where = "edge host" if len(config.edges) == 1 else f"edge {edge.name}"
        try:
            access = edge_access(config, edge, environ)
        except ConfigError:
            yield None
            continue
        table = config.edge_table(edge)
        yield edge_facts(edge, table, access, expected, where=where, calls=calls, work=work)


def _functions(
    config: Config, account: Account | None, expected: Wanted, calls: int, work: Progress
) -> FunctionFacts | None:
    if account is None or config.function is None:
        return None
    function = config.function
    key = (
        f"the file {config.access_key_file()}"
        if function.access_key_file
        else f"{function.access_key_id_env} and {function.access_key_secret_env}"
    )
    return function_facts(account, expected, key=key, deploys=config.deploy is not None, calls=calls, work=work)


def _ahead(edges: list[EdgeFacts], functions: FunctionFacts | None) -> dict[str, float]:
    """Returns by how much this host's clock is ahead of that of each place that says the time."""
    found = {edge.where: edge.ahead_s for edge in edges if edge.ahead_s is not None}
    tiers = () if functions is None else functions.tiers
    said = next((tier.ahead_s for tier in tiers if tier.ahead_s is not None), None)
    return found if said is None else {FUNCTIONS: said, **found}


def _calls(config: Config, args: argparse.Namespace) -> int:
    """Returns how many calls will be made of edges and functions that answer."""
    places = sum(edge.serves(model.name) for edge in config.edges for model in config.models)
    tiers = sum(len(model.tiers) for model in config.models)
    return 0 if args.no_calls else (places + tiers) * (CALLS + 1)


def _values(row: Row) -> dict[str, str]:
    return {"where": row.where, "check": row.check, "level": row.level.value, "sentence": row.sentence}


def _print(rows: list[Row], findings: int, partial: str = "") -> None:
    table = Table(show_edge=False, pad_edge=False)
    for column in ("where", "check", ""):
        table.add_column(column, no_wrap=True)
    table.add_column("found", overflow="fold")
    before = ""
    for row in sorted(
        rows, key=lambda row: (row.where != CLIENT, row.where == FUNCTIONS or row.where.startswith("tier"))
    ):
        table.add_row("" if row.where == before else row.where, row.check, _MARKS[row.level], escape(row.sentence))
        before = row.where
    console = Console(highlight=False)
    console.print(table)
    words = "nothing to mend" if not findings else f"{findings} to mend"
    console.print(f"{words}; partial: {partial}" if partial else words)

"""The changes and the state of a deployment, as tables and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from scheduler.deploying.desired import Deployment, Tier
from scheduler.deploying.difference import Action, Change, is_current
from scheduler.deploying.observed import Function
from scheduler.planning.instance_sizes import size_in

_STYLES = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.UNCHANGED: "dim",
    Action.DELETE: "red",
}
_STATUS_COLUMNS = ("function:alias", "version", "condition", "size", "warm", "limit", "as configured")


def changes_json(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Returns the changes as JSON shows them."""
    return [
        {
            "action": change.action.value,
            "kind": change.kind.value,
            "name": change.what,
            "only_pruned": change.only_pruned,
            "fields": [{"field": each.field, "old": each.old, "new": each.new} for each in change.fields],
        }
        for change in changes
    ]


def print_changes(console: Console, changes: Sequence[Change], *, title: str) -> None:
    """Prints the changes as a table, with a line for each field."""
    table = _table(title, ("", "", "observed -> desired"))
    for change in changes:
        word = "left over" if change.only_pruned else change.action.value
        fields = "\n".join(f"{each.field}: {each.old} -> {each.new}" for each in change.fields)
        action = f"[{_STYLES[change.action]}]{word}[/]"
        # Aliases and versions are indented below their function.
        name = f"{change.kind.value} {change.name or change.function}"
        table.add_row(action, escape(name if not change.name else f"  {name}"), escape(fields))
    console.print(table)


def summary(changes: Sequence[Change]) -> str:
    """Returns the changes in one line.

    >>> summary([])
    'nothing'
    """
    due = [change for change in changes if not change.only_pruned]
    counts = [(sum(change.action is action for change in due), action.value) for action in Action]
    left = sum(change.only_pruned for change in changes)
    words = [f"{count} to {name}" if name != "unchanged" else f"{count} unchanged" for count, name in counts if count]
    return ", ".join(words + ([f"{left} left over (deleted with --prune)"] if left else [])) or "nothing"


def status_rows(deployment: Deployment, functions: Mapping[str, Function]) -> list[dict[str, Any]]:
    """Returns the state of each tier as JSON shows it; `ok` tells whether it exists, as configured and complete."""
    return [_status(deployment, tier, functions.get(tier.function)) for tier in deployment.tiers]


def print_status(console: Console, rows: Sequence[Mapping[str, Any]], *, title: str) -> None:
    """Prints the state of each tier, and the problems below the table."""
    table = _table(title, _STATUS_COLUMNS)
    for row in rows:
        kept = f"{row['provisioned']} of {row['provisioned_target']}" if row["provisioned_target"] else "-"
        limit = "-" if row["reserved_concurrency"] is None else str(row["reserved_concurrency"])
        asked = "[green]yes[/]" if row["as_asked"] else "[red]no[/]"
        words = (row["function"], row["version"] or "-", row["condition"], row["size"] or "-", kept, limit)
        table.add_row(*map(escape, words), asked)
    console.print(table)
    for row in rows:
        if row["problem"]:
            console.print(escape(f"{row['function']}: {row['problem']}"))


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _status(deployment: Deployment, tier: Tier, function: Function | None) -> dict[str, Any]:
    alias = function.aliases.get(tier.alias) if function else None
    kept = alias.provisioned if alias else None
    target, current = (kept.target, kept.current) if kept else (0, 0)
    as_asked = is_current(deployment, tier, alias) and target == tier.provisioned
    condition = "absent" if function is None else function.condition if alias else "no alias"
    return {
        "tier": tier.name,
        "function": tier.address,
        "version": alias.version_id if alias else "",
        "condition": condition,
        "size": size_in(alias.configuration) if alias else "",
        "provisioned": current,
        "provisioned_target": target,
        "reserved_concurrency": function.reserved if function else None,
        "as_asked": as_asked,
        "problem": _problem(function, kept.problem if kept else ""),
        "ok": as_asked and function is not None and function.is_active and current >= target,
    }


def _problem(function: Function | None, provisioning: str) -> str:
    latest: Mapping[str, Any] = function.latest if function else {}
    return provisioning or str(latest.get("stateReason") or latest.get("lastUpdateStatusReason") or "")

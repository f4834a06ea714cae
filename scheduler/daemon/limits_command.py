"""`edgeburst limits`: shows and sets an operator's limits of a running daemon."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from scheduler.daemon.asking import Asking, add_source
from scheduler.domain.errors import EdgeburstError

KEYS = ("window_s", "edge_batch_cap", "function_batch_cap")
PLAN = "plan"
"""The word for a limit that is left to the plan."""

_DESCRIPTION = """\
Shows or sets the limits that an operator lays on a running daemon's plans: the longest wait of a function batch, and
the largest batches. What is not named stays as it is; the word plan leaves a limit to the plan again.

Setting needs the daemon's own socket (with --config, as its user or root), or a token with the scope admin.

Exit status: 0 done, 2 not."""

_EPILOG = """\
examples:
  edgeburst limits get
  edgeburst limits set digits --function-batch-cap 4 --config edgeburst.toml
  edgeburst limits set digits --function-batch-cap plan --config edgeburst.toml"""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = subparsers.add_parser(
        "limits", help="show or set operators' limits", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=plain
    )
    actions = parser.add_subparsers(dest="action", metavar="get|set", required=True)
    get = actions.add_parser("get", help="show them", description=_DESCRIPTION, formatter_class=plain)
    get.add_argument("model", nargs="?", metavar="MODEL", help="of this model (default: of all)")
    change = actions.add_parser("set", help="set them", description=_DESCRIPTION, formatter_class=plain)
    change.add_argument("model", metavar="MODEL", help="the model")
    change.add_argument("--window-s", type=_seconds, metavar="S", help="longest wait of a function batch, or plan")
    for place in ("edge", "function"):
        name = f"--{place}-batch-cap"
        change.add_argument(name, type=_count, metavar="N", help=f"largest batch of the {place}, or plan")
    for one in (get, change):
        add_source(one)
        one.add_argument("--json", action="store_true", help="print one JSON object")


def _seconds(text: str) -> float | str:
    return PLAN if text == PLAN else float(text)


def _count(text: str) -> int | str:
    return PLAN if text == PLAN else int(text)


_seconds.__name__ = "number of seconds"
_count.__name__ = "whole number"


def run(args: argparse.Namespace) -> int:
    """Shows or sets limits; returns the exit status.

    Raises:
        EdgeburstError: the daemon is not there, or refuses.
    """
    ask = Asking(args)
    if args.action == "set":
        path = _path(args.model)
        before = ask(path)
        named = {key: getattr(args, key) for key in KEYS if getattr(args, key) is not None}
        if not named:
            raise EdgeburstError("no limit is named; give --window-s, --edge-batch-cap or --function-batch-cap")
        wanted = {**{key: before.get(key) for key in KEYS}, **named}
        rows = [ask(path, put={key: None if value == PLAN else value for key, value in wanted.items()})]
    else:
        names = [args.model] if args.model else ask("/v2/models", "models")["models"]
        rows = [ask(_path(name), *KEYS) for name in names]
    print(json.dumps({"limits": rows}) if args.json else "\n".join(map(_line, rows)))
    return 0


def _path(model: str) -> str:
    return f"/v1/models/{quote(str(model), safe='')}/limits"


def _line(row: Mapping[str, Any]) -> str:
    said = ", ".join(f"{key} {PLAN if row.get(key) is None else format(row[key], 'g')}" for key in KEYS)
    return f"{row.get('model')}: {said}"

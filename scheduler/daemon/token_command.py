"""`edgeburst token new`: a client's token, and the table by which the daemon knows it."""

from __future__ import annotations

import argparse
import json
import re
import secrets
from hashlib import sha256
from typing import Any

from scheduler.domain.errors import EdgeburstError

_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCOPES = ("infer", "read", "spend", "admin")

_DESCRIPTION = """\
Makes a token for a client, and prints it with the table [[token]] for the daemon's configuration. The token is shown
this once: the table has its hash only. A running daemon takes the table up with a reload (SIGHUP)."""

_EPILOG = """\
examples:
  edgeburst token new camera-3
  edgeburst token new lab --tenant lab --rate-rps 50 --concurrency 16
  edgeburst token new monitoring --scopes read

The client sends the token as the header `Authorization: Bearer TOKEN`, over gRPC as the metadata `authorization`."""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "token",
        help="make a client's token",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make a token", description=_DESCRIPTION)
    new.add_argument("name", metavar="NAME", help="name of the client, for logs and messages")
    new.add_argument(
        "--scopes",
        default="infer",
        metavar="SCOPE,...",
        help="what it may do: infer, read, admin (default %(default)s)",
    )
    new.add_argument("--tenant", default="", help="tenant of its requests, whatever they name")
    new.add_argument("--rate-rps", type=float, metavar="N", help="maximum of requests a second")
    new.add_argument("--concurrency", type=int, metavar="N", help="maximum of unanswered requests")
    new.add_argument("--json", action="store_true", help="print one JSON object: token and table")


def run(args: argparse.Namespace) -> int:
    """Prints a new token and its table; returns the exit status.

    Raises:
        EdgeburstError: a name, a scope or a number is not valid.
    """
    table = table_of(args)
    token = secrets.token_urlsafe(_BYTES)
    hashed = table.replace("HASH", sha256(token.encode()).hexdigest())
    if args.json:
        print(json.dumps({"token": token, "table": hashed}))
        return 0
    print(f"token, shown this once: {token}\n")
    print(hashed)
    return 0


def table_of(args: argparse.Namespace) -> str:
    """Returns the table with HASH for the hash; arguments and errors are those of `run`."""
    for name, what in ((args.name, "name"), (args.tenant, "tenant")):
        if not _NAME.fullmatch(name) and (name or what == "name"):
            raise EdgeburstError(
                f"the {what} {name[:64]!r} must be made of letters, digits, '.', '_' and '-', and begin with one of the"
                " first two"
            )
    scopes = [scope.strip() for scope in args.scopes.split(",")]
    unknown = [scope for scope in scopes if scope not in _SCOPES]
    if unknown:
        raise EdgeburstError(f"scope {unknown[0][:32]!r} is unknown; choose of {', '.join(_SCOPES)}")
    for key, value in (("rate-rps", args.rate_rps), ("concurrency", args.concurrency)):
        if value is not None and not 0 < value <= 1e6:
            raise EdgeburstError(f"--{key} must be above 0 and at most 1000000, not {value:g}")
    lines = ["[[token]]", f'name = "{args.name}"', 'sha256 = "HASH"', f"scopes = {json.dumps(scopes)}"]
    lines += [f'tenant = "{args.tenant}"'] if args.tenant else []
    lines += [f"rate_rps = {args.rate_rps!r}"] if args.rate_rps is not None else []
    lines += [f"concurrency = {args.concurrency}"] if args.concurrency is not None else []
    return "\n".join(lines)

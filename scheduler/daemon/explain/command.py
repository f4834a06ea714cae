"""`edgeburst explain`: why a request was sent to its backend, and how it ended."""

from __future__ import annotations

import argparse
import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scheduler.daemon.asking import Asking, add_source
from scheduler.daemon.explain.requests import CLIENT_ID_LENGTH, MAX_FOUND
from scheduler.dispatch.decision_ring import ANSWERED, CANCELLED
from scheduler.domain.errors import EdgeburstError
from scheduler.explain.json_lines import from_values
from scheduler.explain.text import describe

Found = Sequence[Mapping[str, Any]]


_DESCRIPTION = """\
Shows what was decided about a request, when and why: the offers of the places side by side, with the total by which
they were compared or why one was impossible, the reason that decided, and the outcome beside the prediction. A request
is named by the daemon's number (response header X-Edgeburst-Request-Id) or by the id that its client gave it; the
number counts first, and of several requests with one id the newest is shown. --last shows the newest request,
--last-miss the newest that was refused or late.

The command asks the running daemon, which knows the latest requests ([explain] ring): with --config over the daemon's
own socket, if this user may use it. A token sees the requests that were sent with it, one for everything all. With
--file the command reads the file that the daemon has written, with its older parts (FILE.1, FILE.2, ...), or that of
`edgeburst simulate --explain`; then no daemon needs to run."""

_EPILOG = """\
examples:
  edgeburst explain 4711
  edgeburst explain --last-miss --config edgeburst.toml
  edgeburst explain my-request-7 --url http://127.0.0.1:8600
  edgeburst explain 4711 --file decisions.jsonl --json

Exit status: 0 explained, 2 the request is unknown, or no daemon and no file could be read."""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="show why a request was sent to its backend",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "request", nargs="?", metavar="REQUEST", help="the daemon's number of the request, or the client's id"
    )
    which.add_argument("--client-id", metavar="ID", help="the id that its client gave it, also where it is a number")
    which.add_argument("--last", action="store_true", help="the newest request")
    which.add_argument("--last-miss", action="store_true", help="the newest that was refused, or answered too late")
    source = add_source(parser)
    source.add_argument("--file", type=Path, metavar="FILE", help="read the daemon's file ([explain] file) instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all requests of that id")


def run(args: argparse.Namespace) -> int:
    """Prints the explanation of a request; returns the exit status.

    Raises:
        EdgeburstError: the request is unknown, or neither a daemon nor a file could be read.
    """
    wanted = Wanted(args.request or args.client_id or "", args.client_id is not None, args.last, args.last_miss)
    found = _in_files(args.file, wanted) if args.file else Asking(args)(wanted.path, "explanations")["explanations"]
    if args.json:
        print(json.dumps({"explanations": found}, indent=2))
        return 0
    print(_described(found[0]))
    if len(found) > 1:
        others = ", ".join(str(other.get("request_id")) for other in found[1:])
        print(f"older requests with the same id (explain them by number): {others}")
    return 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which request is to be explained."""

    name: str
    by_client: bool = False
    last: bool = False
    last_miss: bool = False

    @property
    def path(self) -> str:
        """Where a daemon explains it."""
        if self.last or self.last_miss:
            return f"/v1/explain?last={'miss' if self.last_miss else 'request'}"
        return f"/v1/explain/{quote(self.name, safe='')}{'?by=client' if self.by_client else ''}"

    def is_in(self, values: Mapping[str, Any]) -> bool:
        """Whether an explanation in a file is of it."""
        if self.last:
            return True
        if self.last_miss:
            return _missed(values)
        has_id = values.get("client_id") == self.name[:CLIENT_ID_LENGTH]
        return has_id or (not self.by_client and self.is_number(values))

    def is_number(self, values: Mapping[str, Any]) -> bool:
        """Whether its number was named."""
        return str(values.get("request_id")) == self.name

    @property
    def words(self) -> str:
        """What it is, for a sentence."""
        if self.last or self.last_miss:
            return "a request that was refused or late" if self.last_miss else "a request"
        return f"request {self.name[:64]!r}"


def _missed(values: Mapping[str, Any]) -> bool:
    outcome, ended_at_s, deadline_s = (values.get(key) for key in ("outcome", "ended_at_s", "deadline_s"))
    if not outcome or outcome == CANCELLED:
        return False
    late = isinstance(ended_at_s, float) and isinstance(deadline_s, float) and ended_at_s > deadline_s
    return outcome != ANSWERED or late


def _in_files(file: Path, wanted: Wanted) -> Sequence[Mapping[str, Any]]:
    """Returns the written explanations of a request, newest first, the one with that number before others."""
    found: list[Mapping[str, Any]] = []
    for path in _newest_first(file):
        in_this = [values for values in _lines(path) if wanted.is_in(values)]
        found += in_this[::-1]
        if len(found) >= MAX_FOUND:
            break
    if not found:
        raise EdgeburstError(f"{wanted.words} is neither in {file} nor in its older parts; check number or id")
    if not wanted.by_client:
        found.sort(key=lambda values: not wanted.is_number(values))
    return found[: 1 if wanted.last or wanted.last_miss else MAX_FOUND]


def _newest_first(file: Path) -> Iterator[Path]:
    older = {path.name.removeprefix(f"{file.name}."): path for path in file.parent.glob(f"{glob.escape(file.name)}.*")}
    paths = [file, *(older[number] for number in sorted(filter(str.isdigit, older), key=int))]
    if not any(path.is_file() for path in paths):
        raise EdgeburstError(f"there is no file {file}; give the file of [explain] in the daemon's configuration")
    return iter([path for path in paths if path.is_file()])


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yields the lines of a file; skips a line that a full disk or a crash has cut off."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    values = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(values, dict):
                    yield values
    except OSError as error:
        raise EdgeburstError(f"cannot read {path}: {error.strerror or error}") from None


def _described(values: Mapping[str, Any]) -> str:
    try:
        return describe(*from_values(values))
    except (ValueError, TypeError) as error:
        raise EdgeburstError(f"the explanation cannot be read: {str(error)[:300]}") from None

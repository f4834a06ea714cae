"""`edgeburst explain`: why a request was sent to its backend, and how it ended."""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from scheduler.client_access import ClientAccess, add_arguments, of_arguments, set_up
from scheduler.daemon.admin_socket import NoSocket, ask, places
from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.explain.requests import CLIENT_ID_LENGTH, MAX_FOUND
from scheduler.dispatch.decision_ring import ANSWERED, CANCELLED
from scheduler.domain.errors import EdgeburstError
from scheduler.explain.json_lines import from_values
from scheduler.explain.text import describe

Found = Sequence[Mapping[str, Any]]

DEFAULT_URL = "http://127.0.0.1:8600"
_TIMEOUT_S = 10.0

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
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", help=f"the daemon (default {DEFAULT_URL}, or that of --config)")
    source.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration, for its address")
    source.add_argument("--file", type=Path, metavar="FILE", help="read the daemon's file ([explain] file) instead")
    source.add_argument("--socket", type=Path, metavar="FILE", help="ask over the daemon's own Unix socket instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all requests of that id")
    add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Prints the explanation of a request; returns the exit status.

    Raises:
        EdgeburstError: the request is unknown, or neither a daemon nor a file could be read.
    """
    wanted = _Wanted(args.request or args.client_id or "", args.client_id is not None, args.last, args.last_miss)
    found = _in_files(args.file, wanted) if args.file else _asked_of(args, wanted)
    if args.json:
        print(json.dumps({"explanations": found}, indent=2))
        return 0
    print(_described(found[0]))
    if len(found) > 1:
        others = ", ".join(str(other.get("request_id")) for other in found[1:])
        print(f"older requests with the same id (explain them by number): {others}")
    return 0


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which request is to be explained."""

    name: str
    by_client: bool
    last: bool
    last_miss: bool

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


def _asked_of(args: argparse.Namespace, wanted: _Wanted) -> Found:
    """Returns a daemon's explanations of a request: over its socket, where there is one, else at its address."""
    access = of_arguments(args, os.environ)
    if args.socket is not None:
        return _explained(ask(args.socket, wanted.path), f"the socket {args.socket}")
    if args.config is None:
        return _asked(_url(args), wanted, access)
    config = load_config(args.config, os.environ)
    if not access.token:
        for path in places(config, os.environ):
            try:
                return _explained(ask(path, wanted.path), f"the socket {path}")
            except NoSocket:
                continue
    return _asked(daemon_url(config), wanted, access)


def _url(args: argparse.Namespace) -> str:
    url: str = args.url or DEFAULT_URL
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise EdgeburstError(f"{url!r} is not a URL; write it like {DEFAULT_URL}")
    return url.rstrip("/")


def daemon_url(config: Config) -> str:
    """Returns the URL of a daemon with this configuration, as seen from its own host."""
    host, port = config.daemon.host, config.daemon.port
    if port == 0:
        raise EdgeburstError(f"{config.path} lets the daemon take any free port; give its address with --url")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if config.daemon.certificate_file else "http"
    return f"{scheme}://[{reached}]:{port}" if ":" in reached else f"{scheme}://{reached}:{port}"


def _asked(url: str, wanted: _Wanted, access: ClientAccess) -> Found:
    """Returns a daemon's explanations of a request, newest first, at least one."""
    try:
        with requests.Session() as session:
            set_up(session, access)
            response = session.get(url + wanted.path, timeout=_TIMEOUT_S, verify=access.verify)
    except requests.exceptions.SSLError:
        raise EdgeburstError(
            f"TLS to {url} fails; check that the daemon speaks it, its certificate, --ca-file and --client-certificate"
        ) from None
    except requests.Timeout:
        raise EdgeburstError(
            f"{url} did not answer within {_TIMEOUT_S:g} s; check that it is an edgeburst daemon"
        ) from None
    except requests.RequestException:
        raise EdgeburstError(f"cannot reach a daemon at {url}; start it, or give its address with --url") from None
    return _explained((response.status_code, response.content), url)


def _explained(answered: tuple[int, bytes], where: str) -> Found:
    """Returns the explanations in an answer's status and body."""
    status, body = answered
    try:
        answer = json.loads(body)
        if status == 200:
            found: Found = answer["explanations"]
            return found
        sentence = str(answer["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EdgeburstError(f"{where} does not answer as an edgeburst daemon does; correct --url") from None
    raise EdgeburstError(sentence)


def _in_files(file: Path, wanted: _Wanted) -> Sequence[Mapping[str, Any]]:
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

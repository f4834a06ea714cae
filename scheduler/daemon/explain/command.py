"""`edgeburst explain`: why was this request sent where it was, and what came of it?"""

from __future__ import annotations

import argparse
import glob
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import requests

from scheduler.daemon.config.config import Config, load_config
from scheduler.daemon.explain.requests import CLIENT_ID_LENGTH, MAX_FOUND
from scheduler.domain.errors import EdgeburstError
from scheduler.explain.json_lines import from_values
from scheduler.explain.text import describe

DEFAULT_URL = "http://127.0.0.1:8600"
_TIMEOUT_S = 10.0

_DESCRIPTION = """\
Says what was decided about a request, when and why: the terms of both places as they looked then, the alternative not
taken and its cost, and what came of it beside what was predicted. A request goes by the daemon's own number (response
header X-Edgeburst-Request-Id) or by the id that its client gave it; where several have that id, by the newest.

The running daemon is asked, which knows the last requests ([explain] ring). With --file what it has written is read,
older files (FILE.1, FILE.2, ...) included; no daemon need run."""

_EPILOG = """\
examples:
  edgeburst explain 4711
  edgeburst explain my-request-7 --url http://127.0.0.1:8600
  edgeburst explain 4711 --file decisions.jsonl --json

Exit status: 0 explained, 2 the request is not known, or nobody could be asked."""


def add_parser(subparsers: Any) -> None:
    """Adds the sub-command to the command line."""
    parser = subparsers.add_parser(
        "explain",
        help="say why a request was sent where it was",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("request", metavar="REQUEST", help="the daemon's number of the request, or its client's id")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", help=f"the daemon (default {DEFAULT_URL}, or as --config says)")
    source.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration, for its address")
    source.add_argument("--file", type=Path, metavar="FILE", help="read what the daemon wrote ([explain] file) instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object with all requests of that id")


def run(args: argparse.Namespace) -> int:
    """Explains; returns the exit status.

    Raises:
        EdgeburstError: the request is not known, or there is nobody to ask.
    """
    found = _in_files(args.file, args.request) if args.file else _asked(_url(args), args.request)
    if args.json:
        print(json.dumps({"explanations": found}, indent=2))
        return 0
    print(_described(found[0]))
    if len(found) > 1:
        others = ", ".join(str(other.get("request_id")) for other in found[1:])
        print(f"older requests of the same id, to be asked for by number: {others}")
    return 0


def _url(args: argparse.Namespace) -> str:
    if args.config is not None:
        return daemon_url(load_config(args.config, os.environ))
    url: str = args.url or DEFAULT_URL
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise EdgeburstError(f"{url!r} is no URL; write it like {DEFAULT_URL}")
    return url.rstrip("/")


def daemon_url(config: Config) -> str:
    """Returns where a daemon of this configuration is reached from its own host."""
    host, port = config.daemon.host, config.daemon.port
    if port == 0:
        raise EdgeburstError(f"{config.path} lets the daemon take any free port; name it with --url")
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reached}]:{port}" if ":" in reached else f"http://{reached}:{port}"


def _asked(url: str, name: str) -> Sequence[Mapping[str, Any]]:
    """Returns what a daemon knows, newest first, at least one."""
    try:
        with requests.Session() as session:
            # A daemon is a neighbour: a proxy for the world outside would not find it.
            session.trust_env = False
            response = session.get(f"{url}/v1/explain/{quote(name, safe='')}", timeout=_TIMEOUT_S)
        answer = response.json()
        if response.status_code == 200:
            found: list[Mapping[str, Any]] = answer["explanations"]
            return found
        sentence = str(answer["error"])[:300]
    except requests.JSONDecodeError:
        raise EdgeburstError(f"{url} does not answer as an edgeburst daemon does; correct --url") from None
    except requests.Timeout:
        raise EdgeburstError(f"{url} did not answer within {_TIMEOUT_S:g} s; is it an edgeburst daemon?") from None
    except requests.RequestException:
        raise EdgeburstError(f"cannot reach a daemon at {url}; start it, or name its address with --url") from None
    except (KeyError, TypeError):
        raise EdgeburstError(f"{url} does not answer as an edgeburst daemon does; correct --url") from None
    raise EdgeburstError(sentence)


def _in_files(file: Path, name: str) -> Sequence[Mapping[str, Any]]:
    """Returns what was written about a request, newest first, at least one."""
    found: list[Mapping[str, Any]] = []
    for path in _newest_first(file):
        in_this = [values for values in _lines(path) if _is(values, name)]
        found += in_this[::-1]
        if len(found) >= MAX_FOUND:
            break
    if not found:
        raise EdgeburstError(f"request {name[:64]!r} is not in {file} nor in older files beside it")
    return found[:MAX_FOUND]


def _newest_first(file: Path) -> Iterator[Path]:
    older = {path.name.removeprefix(f"{file.name}."): path for path in file.parent.glob(f"{glob.escape(file.name)}.*")}
    paths = [file, *(older[number] for number in sorted(filter(str.isdigit, older), key=int))]
    if not any(path.is_file() for path in paths):
        raise EdgeburstError(f"there is no file {file}; name the one of [explain] in the daemon's configuration")
    return iter([path for path in paths if path.is_file()])


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yields what is written in a file; a line that a full disk or a crash has torn is passed over."""
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    values = json.loads(line)
                except ValueError:
                    continue
                if isinstance(values, dict):
                    yield values
    except OSError as error:
        raise EdgeburstError(f"cannot read {path}: {error.strerror or error}") from None


def _is(values: Mapping[str, Any], name: str) -> bool:
    return str(values.get("request_id")) == name or values.get("client_id") == name[:CLIENT_ID_LENGTH]


def _described(values: Mapping[str, Any]) -> str:
    try:
        return describe(*from_values(values))
    except (ValueError, TypeError) as error:
        raise EdgeburstError(f"what is known of the request cannot be read: {error}") from None

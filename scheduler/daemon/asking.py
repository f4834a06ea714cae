"""Commands that ask a running daemon: over its own socket, where this user may, else at its address."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from scheduler.client_access import ClientAccess, add_arguments, of_arguments, set_up
from scheduler.daemon.admin_socket import NoSocket, ask, places
from scheduler.daemon.config.config import Config, load_config
from scheduler.domain.errors import EdgeburstError

DEFAULT_URL = "http://127.0.0.1:8600"
_TIMEOUT_S = 10.0


def add_source(parser: argparse.ArgumentParser) -> Any:
    """Adds the options that say which daemon is asked; returns their group, of which one may be given."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--url", help=f"the daemon (default {DEFAULT_URL}, or that of --config)")
    source.add_argument("--config", type=Path, metavar="FILE", help="the daemon's configuration, for its address")
    source.add_argument("--socket", type=Path, metavar="FILE", help="ask over the daemon's own Unix socket instead")
    add_arguments(parser)
    return source


class Asking:
    """Asks the daemon that a command's options name."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Reads the options.

        Raises:
            EdgeburstError: they name no daemon, or its configuration or the token cannot be used.
        """
        self._access = of_arguments(args, os.environ)
        self._sockets: tuple[Path, ...] = () if args.socket is None else (args.socket,)
        self._url = "" if args.socket is not None else _url(args)
        if args.config is not None:
            config = load_config(args.config, os.environ)
            # A token has its scopes; the socket would answer anything.
            self._sockets = () if self._access.token else tuple(places(config, os.environ))
            self._config: Config | None = config
        else:
            self._config = None

    def __call__(self, target: str, *having: str, put: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Returns the JSON object that the daemon answers.

        Args:
            target: path and query.
            having: keys that the answer of a daemon has.
            put: what is put there; None: it is read.

        Raises:
            EdgeburstError: it is not there, or it refuses; the message is its own sentence.
        """
        body = None if put is None else json.dumps(put).encode()
        for path in self._sockets:
            try:
                return _object(ask(path, target, put=body), f"the socket {path}", having)
            except NoSocket:
                if not self._url and self._config is None:
                    raise
        url = daemon_url(self._config) if self._config is not None else self._url
        return _object(_asked(url, target, body, self._access), url, having)


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


def _asked(url: str, target: str, body: bytes | None, access: ClientAccess) -> tuple[int, bytes]:
    """Returns status and body of a daemon's answer."""
    try:
        with requests.Session() as session:
            set_up(session, access)
            method = "GET" if body is None else "PUT"
            response = session.request(method, url + target, data=body, timeout=_TIMEOUT_S, verify=access.verify)
            return response.status_code, response.content
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


def _object(answered: tuple[int, bytes], where: str, having: Sequence[str]) -> dict[str, Any]:
    """Returns the object in an answer's status and body."""
    status, body = answered
    try:
        answer = json.loads(body)
        if status == 200 and isinstance(answer, dict) and all(key in answer for key in having):
            return answer
        sentence = str(answer["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EdgeburstError(f"{where} does not answer as an edgeburst daemon does; correct --url") from None
    raise EdgeburstError(sentence)

"""Access to this server: for clients with the token or a certificate, or for all that reach it, where it is open."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import logging
import re
import socket
from collections.abc import Callable, Iterable, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from edge_server.errors import StartupError
from scheduler.systemd import credential
from scheduler.wsgi.connection import KNOWN_PEER

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("edge_server")
OPEN_PATH = "/v2/health/live"
"""Answered without a token: it says nothing but that the process runs."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_BEARER = re.compile(r"bearer +([\x21-\x7e]+)", re.IGNORECASE)
_SHORT = 16
_NONE = "this server needs a token: send it as Authorization: Bearer TOKEN"
_OTHER = "the token is not the one of this server: compare it with the variable that --token-env names there"


def take_token(name: str, environ: MutableMapping[str, str]) -> bytes:
    """Takes the token out of the environment, so that no child process gets it; else it is systemd's credential.

    Args:
        name: the variable or credential that holds it.
        environ: the environment of this process.

    Returns:
        Its SHA-256.

    Raises:
        StartupError: there is none, or a header cannot carry it.
    """
    token = environ.pop(name, "") or credential(name, environ)
    if not token:
        raise StartupError(f"--token-env names {name}, which is not set: put the token into that variable")
    if _TOKEN.fullmatch(token) is None:
        raise StartupError(f"the token in {name} has a character that no header can carry: use letters and digits")
    if len(token) < _SHORT:
        _log.warning("The token in %s is short: make one with `openssl rand -hex 32`.", name)
    return _digest(token)


def check_reach(listeners: Iterable[socket.socket], *, is_guarded: bool) -> None:
    """Refuses to listen beyond this machine for all of them, unless that was asked for.

    Args:
        listeners: the listening sockets.
        is_guarded: whether a token or a certificate is needed, or the server is meant to be open.

    Raises:
        StartupError: other machines reach a socket, and nothing says which clients may send batches.
    """
    for listener in () if is_guarded else listeners:
        address = str(listener.getsockname()[0])
        if listener.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address):
            raise StartupError(
                f"other machines reach {address}, and nothing says which of them may send batches: add"
                " --token-env NAME, --client-ca FILE, or --open for all of them"
            )


def warn_of_readable(key: Path) -> None:
    """Says so if other users can read the private key."""
    if key.stat().st_mode & 0o077:
        _log.warning("Other users can read the key %s: chmod 600 it.", key)


class Guard:
    """WSGI application that lets only requests with the token through to another one."""

    def __init__(self, app: WSGIApplication, token_sha256: bytes, refused: Callable[[int], object]) -> None:
        """Stores its parts.

        Args:
            app: gets the other requests.
            token_sha256: the SHA-256 of the token.
            refused: is told the status of each refusal.
        """
        self._app = app
        self._token_sha256 = token_sha256
        self._refused = refused

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        sentence = self._problem(environ.get("HTTP_AUTHORIZATION"))
        if sentence is None:
            if KNOWN_PEER in environ:
                environ[KNOWN_PEER]()
            return self._app(environ, start_response)
        if environ.get("PATH_INFO") == OPEN_PATH and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            return self._app(environ, start_response)
        self._refused(401)
        body = json.dumps({"error": sentence}).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("401 Unauthorized", [*headers, ("WWW-Authenticate", "Bearer")])
        return [body]

    def _problem(self, authorization: str | None) -> str | None:
        """Returns why a header does not do, as a sentence; None if it does."""
        found = _BEARER.fullmatch(authorization or "")
        if found is None:
            return _NONE
        # Of the hashes: how long it takes says nothing of the token, nor of its length.
        return None if hmac.compare_digest(_digest(found[1]), self._token_sha256) else _OTHER


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("ascii")).digest()


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback

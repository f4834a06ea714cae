"""The WSGI servers of edge and function, with an application of the test, and bytes on a socket to them."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any

from edge_server.wsgi import limits_of
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.server import WebServer, listen
from scheduler.wsgi.tls import TlsFiles
from serverless_fn.process import LIMITS

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

HOSTS = ("edge", "function")
LIMIT_S = 30
BODY_LIMIT_BYTES = 100_000


def limits_for(host: str) -> Limits:
    """Returns the limits of a host, with a body limit that tests reach."""
    return limits_of(BODY_LIMIT_BYTES) if host == "edge" else replace(LIMITS, body_bytes=BODY_LIMIT_BYTES)


@dataclass
class Served:
    """A running server, its port, and the statuses of what the application never saw."""

    server: WebServer
    port: int
    refused: list[int] = field(default_factory=list)


@contextmanager
def serving(
    app: WSGIApplication, limits: Limits, *, tls: TlsFiles | None = None, address: str = "127.0.0.1"
) -> Iterator[Served]:
    """Serves an application until the end."""
    refused: list[int] = []
    listeners = listen(address, 0)
    server = WebServer(app, listeners=listeners, limits=limits, tls=tls, refused=refused.append)
    server.start()
    try:
        yield Served(server, listeners[0].getsockname()[1], refused)
    finally:
        server.close()


def connect(port: int) -> socket.socket:
    """Connects."""
    return socket.create_connection(("127.0.0.1", port), LIMIT_S)


def answer_on(connection: socket.socket, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """Reads one answer; returns status, headers in lower case and body."""
    response = HTTPResponse(connection, method=method)
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()


def refused(port: int, sent: bytes) -> tuple[int, str]:
    """Sends bytes that must be refused; returns the status and the sentence, after which the connection must end."""
    with connect(port) as connection:
        connection.sendall(sent)
        status, headers, body = answer_on(connection)
        assert headers["content-type"] == "application/json"
        assert headers["connection"] == "close"
        found: dict[str, Any] = json.loads(body)
        assert list(found) == ["error"]
        assert "\n" not in found["error"]
        assert not found["error"].endswith(".")
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
        return status, found["error"]

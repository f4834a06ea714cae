"""The HTTP server of this host: few clients with large bodies, and a graceful stop."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edge_server.errors import StartupError
from scheduler.wsgi import server
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.server import WebServer
from scheduler.wsgi.tls import TlsError, TlsFiles

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

# Longer than the keep-alive of clients (aiohttp: 15 s), so that a client closes an idle connection first. If the
# server closed it, this could happen while the client sends.
_IDLE_CONNECTION_S = 600.0


def listen(host: str, port: int) -> list[socket.socket]:
    """Opens the listening sockets, one for each address of the host.

    Args:
        host: address or name.
        port: TCP port; 0 for a free port.

    Raises:
        StartupError: the port is in use, or the address does not belong to this machine.
    """
    try:
        return server.listen(host, port)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port, 0 for a free one"
        ) from error


def limits_of(body_limit_bytes: int) -> Limits:
    """Returns what clients may do, with the largest body of a request."""
    return Limits(body_bytes=body_limit_bytes, idle_s=_IDLE_CONNECTION_S)


def make_server(
    app: WSGIApplication,
    *,
    listeners: Sequence[socket.socket],
    body_limit_bytes: int,
    tls: TlsFiles | None = None,
    refused: Callable[[int], object] = lambda _: None,
) -> WebServer:
    """Returns the server of an application; `start` begins to serve.

    Args:
        app: the application.
        listeners: listening sockets.
        body_limit_bytes: the largest body of a request.
        tls: certificate and key; None: without TLS.
        refused: is told the status of each request that the application never saw.

    Raises:
        StartupError: the files of TLS cannot be used.
    """
    try:
        return WebServer(app, listeners=listeners, limits=limits_of(body_limit_bytes), tls=tls, refused=refused)
    except TlsError as error:
        raise StartupError(f"{error}; see --certificate, --key and --client-ca") from None

"""The HTTP server: waitress with threads, configured for few clients with large bodies and for a graceful stop."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Mapping
from typing import cast

from flask import Flask
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer, create_server

from edge_server.errors import StartupError
from scheduler.strict_wsgi import StrictChannel

# At most three requests wait for the device or are served by it; all other requests end at once.
_THREADS = 8
# Of a few clients, and room for connections that idle; with more the longest idle ones are closed (`StrictChannel`).
_CONNECTIONS = 256
# Longer than the keep-alive of clients (aiohttp: 15 s), so that a client closes an idle connection first. If the
# server closed it, this could happen while the client sends.
_IDLE_CONNECTION_S = 600
_RECEIVE_BYTES = 256 * 1024
_SPOOL_TO_DISK_BYTES = 8 * 2**20
# A body slightly over the limit is read to its end, so that the client receives the answer; closing the connection
# earlier would reset it. For bodies far over the limit this would cost too much.
_READ_TO_END_FACTOR = 4
_POLL_S = 0.005


def listen(host: str, port: int) -> socket.socket:
    """Opens the listening socket.

    Args:
        host: address or name.
        port: TCP port; 0 for a free port.

    Raises:
        StartupError: the port is in use, or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise StartupError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose another --port, 0 for a free one"
        ) from error


class WebServer:
    """Server of a WSGI application, on its own threads.

    Args:
        app: the application.
        listener: a listening socket.
        body_limit_bytes: the largest body that the application accepts.
    """

    def __init__(self, app: Flask, *, listener: socket.socket, body_limit_bytes: int) -> None:
        """Configures waitress; `start` begins to serve."""
        # Its warnings about waiting requests do not matter: the queue of the device refuses batches in time.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        server = create_server(
            app,
            sockets=[listener],
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=_IDLE_CONNECTION_S,
            recv_bytes=_RECEIVE_BYTES,
            inbuf_overflow=_SPOOL_TO_DISK_BYTES,
            max_request_body_size=body_limit_bytes * _READ_TO_END_FACTOR,
            asyncore_use_poll=True,
            ident=None,
        )
        self._server = cast(BaseWSGIServer, server)
        self._server.channel_class = StrictChannel

    def start(self) -> None:
        """Starts to serve, until the process ends."""
        threading.Thread(target=self._server.run, name="http", daemon=True).start()

    def wait_until_answered(self, *, limit_s: float) -> bool:
        """Waits until every request that has arrived is answered completely.

        Args:
            limit_s: seconds after which to stop waiting.

        Returns:
            Whether all requests are answered.
        """
        end_s = time.monotonic() + limit_s
        while self._answering():
            if time.monotonic() > end_s:
                return False
            time.sleep(_POLL_S)
        return True

    def _answering(self) -> bool:
        # In the stubs this mapping from descriptors to channels has the type of a channel.
        channels = cast("Mapping[int, HTTPChannel]", self._server.active_channels)
        return any(channel.requests or channel.total_outbufs_len for channel in list(channels.values()))

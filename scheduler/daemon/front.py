"""Where the daemon listens: opened, left to a successor while accepted requests are answered, and closed."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

from aiohttp import web

from scheduler.daemon.http.malformed import JsonRunner
from scheduler.daemon.listeners import BACKLOG, GRPC, HTTP, Listeners
from scheduler.daemon.state.handover import Bequest
from scheduler.domain.errors import EdgeburstError

if TYPE_CHECKING:
    from scheduler.daemon.grpc.server import GrpcServer

LINGER_S = 0.5
"""How long requests on kept connections are still accepted after the listening sockets are left to the successor. Each
answer ends its connection then; a connection that is closed while its client sends would be a lost request."""


class Front:
    """The HTTP and gRPC servers with their sockets, and the daemon that may have these next."""

    def __init__(
        self, http: JsonRunner, grpc: GrpcServer | None, listeners: Listeners, bequest: Bequest | None
    ) -> None:
        """Stores its parts.

        Args:
            http: the HTTP server.
            grpc: the gRPC server; None: there is none.
            listeners: the sockets that were passed, and later all of them.
            bequest: waits for a successor; None: there can be none.
        """
        self._http = http
        self._grpc = grpc
        self._listeners = listeners
        self._bequest = bequest
        self._leaving = False
        self._left = False

    async def set_up(self) -> None:
        """Prepares the HTTP server."""
        await self._http.setup()

    async def listen(self, host: str, port: int) -> int:
        """Listens for HTTP; returns the port.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        try:
            sockets = self._listeners.take(HTTP, host, port)
        except OSError as error:
            raise EdgeburstError(_cannot_listen(host, port, error)) from None
        for each in sockets:
            await web.SockSite(self._http, each, backlog=BACKLOG).start()
        return int(sockets[0].getsockname()[1])

    async def listen_grpc(self) -> int | None:
        """Listens for gRPC; returns the port, None where there is no such server.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        if self._grpc is None:
            return None
        return await self._grpc.start(self._listeners.take(GRPC, "", 0))

    async def wait_for_successor(self) -> None:
        """Notices a daemon that waits for the sockets; one that comes while this one stops gets them too."""
        if self._bequest is None:
            return
        waiting = asyncio.get_running_loop().create_task(self._bequest.run(), name="bequest")
        try:
            while True:
                await self._bequest.claimed.wait()
                if self._leaving:
                    await self._leave()
                await asyncio.sleep(0.05)
        finally:
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    async def leave(self, limit_s: float) -> None:
        """Stops accepting where the sockets stay open without this process, and answers what kept connections send.

        Args:
            limit_s: of the whole stop.
        """
        self._leaving = True
        if self._listeners.systemd or (self._bequest is not None and self._bequest.claimed.is_set()):
            await self._leave()
            await asyncio.sleep(min(LINGER_S, limit_s / 4))
            if self._http.server is not None:
                self._http.server.pre_shutdown()

    async def _leave(self) -> None:
        if self._left:
            return
        self._left = self._http.leaving = True
        # Connections that clients open from now on wait in the socket for the process that accepts next.
        for site in list(self._http.sites):
            await site.stop()
        if self._grpc is not None:
            self._grpc.leave()

    async def end(self, limit_s: float) -> None:
        """Closes the connections, within a limit for what is being written."""
        await asyncio.gather(self._http.cleanup(), *([] if self._grpc is None else [self._grpc.stop(limit_s)]))

    def pass_on(self, lock: int) -> None:
        """Gives the sockets and the state folder's lock to the successor that waits for them."""
        if self._bequest is not None:
            self._bequest.give(lock, self._listeners.all)

    def close(self) -> None:
        """Closes this process's sockets."""
        self._listeners.close()
        if self._bequest is not None:
            self._bequest.close()


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; stop the program on it, or set another daemon.port (0: a free one)"
    return f"cannot listen on {host}:{port} ({error.strerror or error}); correct daemon.host and daemon.port"

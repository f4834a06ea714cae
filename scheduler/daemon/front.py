"""Where the daemon listens: opened, left to a successor while accepted requests are answered, and closed."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from scheduler.daemon.admin_socket import MOST_BYTES, AdminSocket
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.contradictions import unasked
from scheduler.daemon.config.sections import GrpcSection
from scheduler.daemon.http.malformed import JsonRunner
from scheduler.daemon.ingress.service import InferenceService
from scheduler.daemon.listeners import BACKLOG, GRPC, HTTP, READ, Listeners
from scheduler.daemon.logs import log
from scheduler.daemon.server_tls import HANDSHAKE_LIMIT_S, ServerTls
from scheduler.daemon.state.handover import Bequest
from scheduler.domain.errors import EdgeburstError

if TYPE_CHECKING:
    from scheduler.daemon.grpc.server import GrpcServer

LINGER_S = 0.5
"""How long requests on kept connections are still accepted after the listening sockets are left to the successor. Each
answer ends its connection then; a connection that is closed while its client sends would be a lost request."""


def grpc_server(config: Config, service: InferenceService) -> GrpcServer | None:
    """Returns the gRPC server; None without `[grpc]`, whose packages belong to an extra that is not needed then."""
    if config.grpc is None:
        return None
    from scheduler.daemon.grpc.server import GrpcServer

    return GrpcServer(service, config.grpc)


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
        self._admin: AdminSocket | None = None
        self._sites: list[TlsSite] = []
        self._leaving = False
        self._left = False

    async def set_up(self) -> None:
        """Prepares the HTTP server."""
        await self._http.setup()

    async def listen(self, host: str, port: int, tls: ServerTls | None = None) -> int:
        """Listens for HTTP, with TLS where there are certificates; returns the port.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        sockets = self._taken(HTTP, host, port)
        await self._accept(sockets, tls)
        return int(sockets[0].getsockname()[1])

    async def listen_read(self, at: tuple[str, int] | None, tls: ServerTls | None = None) -> int | None:
        """Listens for read-outs; returns the port, None where they have no listener of their own.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        if at is None:
            return None
        sockets = self._taken(READ, *at)
        await self._accept(sockets, tls)
        return int(sockets[0].getsockname()[1])

    async def listen_grpc(self, section: GrpcSection | None = None, tls: ServerTls | None = None) -> int | None:
        """Listens for gRPC; returns the port, None where there is no such server.

        Raises:
            EdgeburstError: the address cannot be listened on.
        """
        if self._grpc is None or section is None:
            return None
        # Without TLS the server opens its address by itself, which saves a copy of each byte.
        sockets = self._taken(GRPC, section.host, section.port, opens=tls is not None)
        return await self._grpc.start(sockets, None if tls is None else tls.grpc)

    async def listen_admin(self, path: Path | None, *, needed: bool) -> Path | None:
        """Listens on the daemon's own Unix socket; returns its path, None where there is none.

        Args:
            path: where it is; None: nowhere.
            needed: whether it was asked for, so that the daemon does not start without it.

        Raises:
            EdgeburstError: it is needed, and cannot be made.
        """
        if path is None:
            return None
        admin = AdminSocket(path)
        try:
            if len(os.fsencode(path)) > MOST_BYTES:
                raise OSError(errno.ENAMETOOLONG, f"its path has more than {MOST_BYTES} bytes")
            await web.UnixSite(self._http, str(path), backlog=BACKLOG).start()
            admin.opened()
        except OSError as error:
            sentence = (
                f"cannot listen on the Unix socket {path} ({error.strerror or error}); set `admin_socket` in [daemon]"
            )
            if needed:
                raise EdgeburstError(sentence) from None
            log(logging.WARNING, "admin_socket_failed", message=f"{sentence}; limits can be set with a token only")
            return None
        self._admin = admin
        return path

    async def renew(self, tls: ServerTls | None) -> None:
        """Uses other certificates for connections from now on; those that are open end as they are."""
        if self._left or tls is None:
            return
        before, self._sites = self._sites, []
        # The listening socket itself stays open meanwhile, so that no connection is refused.
        for site in before:
            await site.stop()
        await self._accept([*self._listeners.copies(HTTP), *self._listeners.copies(READ)], tls)
        if self._grpc is not None:
            await self._grpc.renew(self._listeners.copies(GRPC), tls.grpc)

    def check_reach(self, config: Config) -> None:
        """Checks where passed sockets are: their addresses count, not the configured ones.

        Raises:
            ConfigError: other hosts reach one, callers need no token, and the configuration does not say so.
        """
        beyond = self._listeners.beyond_loopback()
        if beyond and not config.tokens and not config.daemon.open:
            raise config.error(
                ("daemon", "host"), unasked(f"the socket at {beyond[0]}, which was passed to the daemon,")
            )

    def _taken(self, name: str, host: str, port: int, *, opens: bool = True) -> Sequence[socket.socket]:
        try:
            return self._listeners.take(name, host, port, opens=opens)
        except OSError as error:
            keys = {HTTP: ("daemon.host", "daemon.port"), READ: ("daemon.read_listen", "daemon.read_listen")}
            raise EdgeburstError(
                _cannot_listen(keys.get(name, (f"{name}.host", f"{name}.port")), host, port, error)
            ) from None

    async def _accept(self, sockets: Sequence[socket.socket], tls: ServerTls | None) -> None:
        for each in sockets:
            site = TlsSite(self._http, each, backlog=BACKLOG, ssl_context=None if tls is None else tls.http)
            await site.start()
            self._sites.append(site)

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
        if self._admin is not None:
            self._admin.close()
        if self._bequest is not None:
            self._bequest.close()


class TlsSite(web.SockSite):
    """A listening socket, whose clients must agree on keys within a limit where there are certificates."""

    async def start(self) -> None:
        """Listens."""
        if self._ssl_context is None:
            await super().start()
            return
        await web.BaseSite.start(self)
        server = self._runner.server
        assert server is not None
        self._server = await asyncio.get_running_loop().create_server(
            server,
            sock=self._sock,
            ssl=self._ssl_context,
            backlog=self._backlog,
            ssl_handshake_timeout=HANDSHAKE_LIMIT_S,
        )


def _cannot_listen(keys: tuple[str, str], host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use; stop the program on it, or set another {keys[1]} (0: a free one)"
    wrong = " and ".join(dict.fromkeys(keys))
    return f"cannot listen on {host}:{port} ({error.strerror or error}); correct {wrong}"

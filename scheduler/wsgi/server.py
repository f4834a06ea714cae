"""The server: accepts connections, gives each a thread, and ends in order."""

from __future__ import annotations

import errno
import logging
import os
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from scheduler.wsgi.answer import error_answer
from scheduler.wsgi.buffers import Buffers
from scheduler.wsgi.connection import Connection, Host
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.places import Places
from scheduler.wsgi.tls import TlsFiles

if TYPE_CHECKING:
    import ssl

    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger("wsgi")
_BACKLOG = 1024
_POLL_S = 0.005
_PAUSE_S = 0.05
# Descriptors for everything else: files of models, devices, libraries.
_SPARE_DESCRIPTORS = 48
_LEAST_CONNECTIONS = 4
_SCARCE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FULL = "this server has as many connections as it takes, each with a request in hand: try again later"


def _count_nothing(_: int) -> None:
    pass


def listen(host: str, port: int) -> list[socket.socket]:
    """Opens a listening socket for each address of a host.

    Args:
        host: address or name.
        port: TCP port; 0 for a free port, with a name of several addresses the same on each.

    Raises:
        OSError: the port is in use, or the address does not belong to this machine.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    opened: list[socket.socket] = []
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            where = (address[0], opened[0].getsockname()[1] if opened else port)
            opened.append(socket.create_server(where, family=family, backlog=_BACKLOG))
    except OSError:
        for each in opened:
            each.close()
        raise
    return opened


class WebServer:
    """Server of a WSGI application, on its own threads.

    Args:
        app: the application.
        listeners: listening sockets; they are the server's from now on.
        limits: what clients may do.
        tls: certificate and key; None: without TLS.
        refused: is told the status of each request that the application never saw.

    Raises:
        TlsError: the files of TLS cannot be used.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        listeners: Sequence[socket.socket],
        limits: Limits,
        tls: TlsFiles | None = None,
        refused: Callable[[int], object] = _count_nothing,
    ) -> None:
        """Stores the arguments; `start` begins to serve."""
        limits = replace(limits, connections=_most_connections(limits.connections))
        self._listeners = list(listeners)
        self._tls = tls
        self._context: ssl.SSLContext | None = None if tls is None else tls.context()
        self._places: Places[Connection] = Places(limits.connections)
        self._leaving = False
        self._closed = False
        self._host = Host(
            app,
            limits,
            Buffers(),
            context=lambda: self._context,
            known=self._places.know,
            refused=refused,
            is_leaving=lambda: self._leaving,
        )
        self._wake = socket.socketpair()
        self._ready = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._accept, name="http", daemon=True)
        self._threads: set[threading.Thread] = set()

    def start(self) -> None:
        """Starts to serve, until `close` or the process ends."""
        self._thread.start()

    def reload_tls(self) -> None:
        """Reads certificate, key and client CA again, for connections from now on.

        Raises:
            TlsError: they cannot be used; those that were read before stay.
        """
        if self._tls is not None:
            self._context = self._tls.context()

    def wait_until_answered(self, *, limit_s: float) -> bool:
        """Waits until every request that has arrived as a whole is answered completely; answers end connections.

        Args:
            limit_s: seconds after which to stop waiting.

        Returns:
            Whether all requests are answered.
        """
        self._leaving = True
        end_s = time.monotonic() + limit_s
        while any(each.waits_since_s is None for each in self._places.held()):
            if time.monotonic() > end_s:
                return False
            time.sleep(_POLL_S)
        return True

    def stop_accepting(self) -> None:
        """Takes no more connections; the sockets stay open, for those that wait in them."""
        if not self._closed:
            self._closed = True
            self._wake[1].close()
            if self._thread.ident is not None:
                self._thread.join()

    def close(self) -> None:
        """Ends everything: the listening sockets, the connections and their threads."""
        self.stop_accepting()
        for listener in self._listeners:
            listener.close()
        self._wake[0].close()
        self._ready.close()
        for each in self._places.held():
            each.end()
        for thread in list(self._threads):
            thread.join()

    def _accept(self) -> None:
        with self._ready as ready:
            ready.register(self._wake[0], selectors.EVENT_READ)
            for listener in self._listeners:
                listener.setblocking(False)
                ready.register(listener, selectors.EVENT_READ)
            while not self._closed:
                for key, _ in ready.select():
                    if key.fileobj is not self._wake[0]:
                        self._accept_one(key.fileobj)  # type: ignore[arg-type]

    def _accept_one(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except OSError as error:
            if error.errno in _SCARCE:
                for each in self._places.shed():
                    each.end()
                time.sleep(_PAUSE_S)
            return
        connection = Connection(self._host, accepted, str(address[0]))
        has_place, ending = self._places.enter(connection)
        for each in ending:
            each.end()
        thread = threading.Thread(target=self._serve, args=(connection,), name="connection", daemon=True)
        if has_place:
            self._threads.add(thread)
            try:
                thread.start()
                return
            except RuntimeError:  # the system gives no more threads
                self._threads.discard(thread)
                self._places.leave(connection)
        self._turn_away(accepted)

    def _serve(self, connection: Connection) -> None:
        try:
            connection.run()
        finally:
            self._places.leave(connection)
            self._threads.discard(threading.current_thread())

    def _turn_away(self, accepted: socket.socket) -> None:
        self._host.refused(503)
        with accepted:
            accepted.setblocking(False)
            if self._context is None:
                try:
                    accepted.send(error_answer(503, _FULL, (("Retry-After", "1"),)))
                    accepted.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the client was faster


def _most_connections(wanted: int) -> int:
    """Returns how many of the wanted connections the limit of open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    open_now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    return max(_LEAST_CONNECTIONS, min(wanted, soft - max(_SPARE_DESCRIPTORS, open_now)))

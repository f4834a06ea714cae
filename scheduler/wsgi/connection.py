"""One connection: its requests one after the other, on a thread of its own."""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scheduler.wsgi.answer import Answer, error_answer, refusal
from scheduler.wsgi.arriving import Arriving
from scheduler.wsgi.body import Body
from scheduler.wsgi.buffers import Buffers
from scheduler.wsgi.environment import environment
from scheduler.wsgi.errors import Gone, Refused
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.request_head import parse_head

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger("wsgi")
KNOWN_PEER = "edgeburst.known_peer"
"""Key of the environment: a function that an application calls when it has served a peer as it wants to be used."""
FAULT = "the server failed on this request; its log says why"
_ENCRYPTED_ONLY = "this port speaks HTTP with TLS; use https:// in the address"
# Of a body that the application left, at most.
_READ_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Host:
    """What all connections of a server share.

    Attributes:
        app: the application.
        limits: what clients may do.
        context: of TLS, as it is now; returns None without TLS.
        buffers: memory for bodies.
        known: is told the address of a peer that was served.
        refused: is told the status of each request that the application never saw.
        is_leaving: returns whether each answer ends its connection.
    """

    app: WSGIApplication
    limits: Limits
    buffers: Buffers
    context: Callable[[], ssl.SSLContext | None]
    known: Callable[[str], None]
    refused: Callable[[int], object]
    is_leaving: Callable[[], bool]


class Connection:
    """A client's connection."""

    def __init__(self, host: Host, accepted: socket.socket, peer: str) -> None:
        """Takes an accepted socket; `run` serves it."""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.peer = peer
        self.waits_since_s: float | None = time.monotonic()
        self.served_at_s = 0.0
        self._host = host
        self._socket: socket.socket | ssl.SSLSocket = accepted
        self._ending = threading.Lock()
        self._expects_continue = False
        self._environ: Mapping[str, Any] = {}

    def run(self) -> None:
        """Serves requests until the connection ends, and closes it."""
        try:
            context = self._host.context()
            if context is not None:
                self._encrypt(context)
            self._environ = self._of_connection(encrypted=context is not None)
            arriving = Arriving(self._socket, self._host.limits)
            while self._serve_one(arriving):
                pass
        except (Gone, OSError):
            pass
        except Exception:  # noqa: BLE001 - the outermost line of its thread
            _log.exception("A connection failed")
        finally:
            with self._ending:
                self._socket.close()

    def end(self) -> None:
        """Ends it from another thread, whatever it waits for."""
        # The client may be faster. Not the method of an SSLSocket, which is not for two threads.
        with self._ending, contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _encrypt(self, context: ssl.SSLContext) -> None:
        self._socket.settimeout(self._host.limits.header_s)
        first = self._socket.recv(1, socket.MSG_PEEK)
        if first.isalpha():
            self._host.refused(400)
            self._socket.sendall(error_answer(400, _ENCRYPTED_ONLY))
            self._linger(Arriving(self._socket, self._host.limits))
            raise Gone
        self._socket = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        self._socket.do_handshake()

    def _serve_one(self, arriving: Arriving) -> bool:
        """Serves a request; returns whether the connection goes on."""
        host = self._host
        self.waits_since_s = time.monotonic()
        try:
            head = parse_head(arriving.next_head(), most_headers=host.limits.headers)
            self._expects_continue = head.expects_continue
            arriving.begin_body()
            body = Body(head, arriving, host.limits, host.buffers, self._waits)
        except Refused as refused:
            return self._refuse(refused, arriving)
        self.waits_since_s = None
        answer = Answer()
        try:
            parts = host.app(environment(self._environ, head, body), answer.start)
            content = answer.body(parts)
        except Refused as refused:
            return self._refuse(refused, arriving)
        except (Gone, OSError):
            raise
        except Exception:  # noqa: BLE001 - the application may raise anything
            _log.exception("The application failed on a request")
            self._send(error_answer(500, FAULT))
            return False
        # What the application left of a short body is read after the answer, so that the connection can go on.
        can_go_on = body.is_complete or not (body.begun or self._expects_continue or (head.length or 0) > _READ_BYTES)
        keeps = head.keeps_connection and can_go_on and not host.is_leaving()
        try:
            first = answer.head(content, method=head.method, minor=head.minor, close=not keeps)
        except ValueError:
            _log.exception("The application failed on a request")
            self._send(error_answer(500, FAULT))
            return False
        self._send(first, b"" if head.method == "HEAD" else content)
        self.served_at_s = time.monotonic()
        body.release()
        if not body.is_complete and not (keeps and self._reads_the_rest(body)):
            self._linger(arriving)
            return False
        return keeps

    def _reads_the_rest(self, body: Body) -> bool:
        try:
            body.forget(_READ_BYTES)
        except Refused:
            return False
        return True

    def _waits(self, waits: bool) -> None:
        """Notes whether the body is on its way; asks for it where the client waits for that."""
        self.waits_since_s = time.monotonic() if waits else None
        if waits and self._expects_continue:
            self._expects_continue = False
            self._send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, refused: Refused, arriving: Arriving) -> bool:
        self._host.refused(refused.status)
        self._send(refusal(refused))
        self._linger(arriving)
        return False

    def _linger(self, arriving: Arriving) -> None:
        """Lets the client read the answer, though it has sent what nothing reads."""
        self.waits_since_s = time.monotonic()
        socket.socket.shutdown(self._socket, socket.SHUT_WR)
        arriving.discard()

    def _send(self, *parts: bytes) -> None:
        """Sends all of it, unless the client takes it too slowly."""
        limits = self._host.limits
        size = sum(map(len, parts))
        end_s = time.monotonic() + limits.answer_s + size / limits.body_bytes_per_s
        self._socket.settimeout(limits.answer_s)
        if isinstance(self._socket, ssl.SSLSocket):
            self._socket.settimeout(end_s - time.monotonic())
            self._socket.sendall(b"".join(parts))
            return
        sent = self._socket.sendmsg(parts)
        if sent == size:
            return
        left = memoryview(b"".join(parts))[sent:]
        while left:
            if time.monotonic() > end_s:
                raise Gone
            left = left[self._socket.send(left) :]

    def _of_connection(self, *, encrypted: bool) -> Mapping[str, Any]:
        address = self._socket.getsockname()
        return {
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "https" if encrypted else "http",
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            # The body ends where it ends: no Content-Length is needed to read it.
            "wsgi.input_terminated": True,
            "SCRIPT_NAME": "",
            "SERVER_NAME": str(address[0]),
            "SERVER_PORT": str(address[1]),
            "REMOTE_ADDR": self.peer,
            KNOWN_PEER: self._known,
        }

    def _known(self) -> None:
        self._host.known(self.peer)

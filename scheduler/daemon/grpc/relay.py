"""Passes connections of a listening socket on to gRPC's server, which can take no socket from elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import ssl
from collections.abc import Sequence

from scheduler.daemon.ingress.errors import CHALLENGE_HEADER, Rejected
from scheduler.daemon.server_tls import HANDSHAKE_LIMIT_S

_CHUNK_BYTES = 256 * 1024
_HEADER_BYTES = 9
GO_AWAY = bytes.fromhex("000008070000000000" + "7fffffff" + "00000000")
"""A frame of HTTP/2 (RFC 9113, 6.8): open no more streams here; all that you have opened will be answered."""


class Frames:
    """Where the frames in a stream of HTTP/2 end."""

    def __init__(self) -> None:
        """Begins before the first frame."""
        self._header = b""
        self._left_bytes = 0

    @property
    def between(self) -> bool:
        """Whether the last frame is whole."""
        return not self._header and not self._left_bytes

    def first_end(self, chunk: bytes) -> int | None:
        """Takes further bytes; returns how many of them belong to the frame that has begun, if it ends among them.

        >>> Frames().first_end(bytes(9) + b"rest")
        9
        """
        at, first = 0, 0 if self.between else None
        while at < len(chunk):
            if self._left_bytes:
                taken = min(self._left_bytes, len(chunk) - at)
                self._left_bytes -= taken
            else:
                taken = min(_HEADER_BYTES - len(self._header), len(chunk) - at)
                self._header += chunk[at : at + taken]
                if len(self._header) == _HEADER_BYTES:
                    self._left_bytes, self._header = int.from_bytes(self._header[:3], "big"), b""
            at += taken
            if (first is None or first == 0) and self.between:
                first = at
        return first


class _Answers:
    """The server's side of one connection, into which one frame can be put."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._frames = Frames()
        self._go_away = b""
        self._begun = False

    def write(self, chunk: bytes) -> None:
        end = self._frames.first_end(chunk)
        if not self._begun and end == 0:
            end = None  # the server's settings come first
        self._begun = True
        if self._go_away and end is not None:
            chunk, self._go_away = chunk[:end] + self._go_away + chunk[end:], b""
        self._writer.write(chunk)

    def go_away(self) -> None:
        """Tells the client to open its next stream on another connection, as soon as the frame in hand is whole."""
        if self._begun and self._frames.between:
            self._writer.write(GO_AWAY)
        else:
            self._go_away = GO_AWAY


class Relay:
    """Accepts on passed sockets, and copies bytes to and from the server's own socket, which has no file."""

    def __init__(self) -> None:
        """Names the server's socket; opens nothing."""
        self._name = f"edgeburst-grpc-{os.getpid()}-{secrets.token_hex(8)}"
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: set[_Answers] = set()
        self._leaving = False
        self._peers: dict[str, str] = {}
        """By the name of a connection to the server's socket: the address that it is copied from."""

    def peer(self, name: str) -> str:
        """Returns the address of the peer of a call, by the name of the connection that it came on.

        Raises:
            Rejected: the connection was not made here: any program of this host can see the socket.
        """
        try:
            return self._peers[name]
        except KeyError:
            raise Rejected(
                401, "this socket is the daemon's own; call its port", {CHALLENGE_HEADER: "Bearer"}
            ) from None

    @property
    def target(self) -> str:
        """What gRPC's server listens on."""
        return f"unix-abstract:{self._name}"

    async def start(self, sockets: Sequence[socket.socket], backlog: int, tls: ssl.SSLContext | None = None) -> None:
        """Begins to accept on these sockets, and on no others any more."""
        before, self._servers = self._servers, []
        for server in before:
            server.close()
        limit_s = None if tls is None else HANDSHAKE_LIMIT_S
        for each in sockets:
            server = await asyncio.start_server(
                self._accepted, sock=each, backlog=backlog, ssl=tls, ssl_handshake_timeout=limit_s
            )
            self._servers.append(server)

    def leave(self) -> None:
        """Accepts no more, and sends the clients to the process that accepts next; their calls are still answered.

        The server's own way to do so, at its stop, cancels calls that arrive meanwhile.
        """
        self._leaving = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for answers in self._answers:
            answers.go_away()

    async def close(self) -> None:
        """Ends the connections too."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        name = f"{self._name}-{secrets.token_hex(8)}"
        try:
            # A connection that `close` cancels has ended as it should.
            with contextlib.suppress(OSError, asyncio.CancelledError):
                inner = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                inner.setblocking(False)
                # By this name the server tells where a call comes from.
                inner.bind(f"\0{name}")
                self._peers[f"unix-abstract:{name}"] = str(writer.get_extra_info("peername")[0])
                # Connected here, because uvloop does not know names that are no files.
                await asyncio.get_running_loop().sock_connect(inner, f"\0{self._name}")
                inner_reader, inner_writer = await asyncio.open_unix_connection(sock=inner)
                try:
                    await asyncio.gather(_asked(reader, inner_writer), self._answered(inner_reader, writer))
                finally:
                    inner_writer.close()
        finally:
            self._peers.pop(f"unix-abstract:{name}", None)
            writer.close()
            self._tasks.discard(task)

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = _Answers(writer)
        self._answers.add(answers)
        if self._leaving:
            answers.go_away()
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                answers.write(chunk)
                await writer.drain()
            _end(writer)
        finally:
            self._answers.discard(answers)


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies until the client ends; then the server hears no more either."""
    while chunk := await reader.read(_CHUNK_BYTES):
        writer.write(chunk)
        await writer.drain()
    _end(writer)


def _end(writer: asyncio.StreamWriter) -> None:
    """Says that no more will come; an encrypted connection has no half that can be closed."""
    with contextlib.suppress(OSError):
        if writer.can_write_eof():
            writer.write_eof()
        else:
            writer.close()

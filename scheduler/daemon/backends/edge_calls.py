"""Calls of an edge server over kept connections, one at a time on each: written without joining, answers read in place.

    IDLE ──post: head and body written──▶ ASKED ──last byte of the answer──▶ IDLE, or closed where it cannot be kept
      │ 30 s, or the server closes it       │ the server closes it, the answer is no HTTP or too large, the call is
      ▼                                     ▼ cancelled: the call fails, and the connection is closed
    closed                                closed

A call that fails on a kept connection before a byte of its answer has met a server that was closing it: `Disconnected`
says so, and its caller sends it again on a fresh one.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

from aiohappyeyeballs import start_connection
from aiohttp.http import SERVER_SOFTWARE
from yarl import URL

from scheduler.daemon.backends.answer_reading import AnswerReading
from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.backends.bounded_reading import TooLarge
from scheduler.daemon.backends.tcp_info import smoothed_rtt_s

KEEP_ALIVE_S = 30.0
"""Shorter than the idle limits of servers (120 s for ours), so that no batch uses a connection that is being closed."""
NEXT_ADDRESS_S = 0.25
"""How long one address of a server is tried alone where it has several."""


class Disconnected(ConnectionError):
    """The server has closed the connection before a byte of its answer."""

    def __init__(self, *, kept: bool) -> None:
        """Stores whether the connection had been used before."""
        super().__init__(errno.ECONNRESET, "the server closed the connection without an answer")
        self.kept = kept


class ConnectTimeoutError(asyncio.TimeoutError):
    """No connection was made in time."""


@dataclass(slots=True)
class EdgeAnswer:
    """An answer whose last byte has been read."""

    status: int
    by_name: Mapping[str, str]
    """Headers by name in small letters."""
    body: bytes | memoryview
    read_at_s: float
    rtt_s: float | None
    """The kernel's round trip of its connection; None: not known."""

    def get(self, key: str, /) -> str | None:
        """Returns a header; None where it is absent."""
        return self.by_name.get(key.lower())


class EdgeCalls:
    """The connections to one server."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | bool,
        connect_timeout_s: float,
        clock: Clock,
    ) -> None:
        """Stores its parts; opens no connection.

        Args:
            url: of the server.
            headers: of each call.
            tls: what its certificate is checked with, where it speaks https; True: the authorities of this host.
            connect_timeout_s: longest wait for a connection, TLS included.
            clock: monotonic seconds.
        """
        self._url = URL(url)
        self._connect_timeout_s = connect_timeout_s
        self._clock = clock
        self._tls = tls
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        said = {"Host": _host(self._url), "User-Agent": SERVER_SOFTWARE}
        if self._url.user is not None:
            pair = f"{self._url.user}:{self._url.password or ''}".encode()
            said["Authorization"] = f"Basic {b64encode(pair).decode()}"
        self._head = _lines({**said, **headers})

    async def post(
        self,
        path: str,
        parts: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
        *,
        limit_bytes: int,
        written: Callable[[], object],
        fresh: bool = False,
    ) -> EdgeAnswer:
        """Returns the answer to a call.

        Args:
            path: of the call, encoded.
            parts: of its body, which are written one after the other.
            headers: of the call, beside those of all.
            limit_bytes: most bytes that the body of an answer may have.
            written: is called when all is written.
            fresh: whether it gets a connection of its own, because kept ones may be closed.

        Raises:
            TooLarge: the answer is.
            Disconnected: the connection was closed before a byte of it.
            OSError, asyncio.TimeoutError: there is no connection, or it broke.
        """
        connection = None if fresh else self._kept()
        if connection is None:
            connection = await self._connect()
        length = sum(map(len, parts))
        head = f"POST {path} HTTP/1.1\r\n{self._head}{_lines(headers)}Content-Length: {length}\r\n\r\n"
        try:
            answer = connection.ask([head.encode(), *parts], limit_bytes)
            written()
            return await answer
        except BaseException:
            connection.close()
            raise
        finally:
            if connection.is_reusable:
                self._keep(connection)
            else:
                connection.close()

    async def close(self) -> None:
        """Closes the connections."""
        if self._timer is not None:
            self._timer.cancel()
        self._idle.clear()
        for connection in list(self._open):
            connection.close()

    def _kept(self) -> _Connection | None:
        """Returns the connection that was used last, if it has not waited too long."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and self._clock() - connection.idle_since_s < KEEP_ALIVE_S:
                return connection
            connection.close()
        return None

    def _keep(self, connection: _Connection) -> None:
        connection.idle_since_s = self._clock()
        self._idle.append(connection)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._close_idle)

    def _close_idle(self) -> None:
        now_s, kept = self._clock(), []
        for connection in self._idle:
            if connection.is_reusable and now_s - connection.idle_since_s < KEEP_ALIVE_S:
                kept.append(connection)
            else:
                connection.close()
        self._idle, self._timer = kept, None
        if kept:
            self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE_S / 2, self._close_idle)

    async def _connect(self) -> _Connection:
        connecting = asyncio.ensure_future(self._connected())
        try:
            done, _ = await asyncio.wait([connecting], timeout=self._connect_timeout_s)
        except asyncio.CancelledError:
            connecting.cancel()
            connecting.add_done_callback(_close_late)
            raise
        if not done:
            connecting.cancel()
            connecting.add_done_callback(_close_late)
            raise ConnectTimeoutError
        return connecting.result()

    async def _connected(self) -> _Connection:
        loop, url = asyncio.get_running_loop(), self._url
        found = await loop.getaddrinfo(url.host or "", url.port or 80, type=1)
        sock = await start_connection(list(found), happy_eyeballs_delay=NEXT_ADDRESS_S, loop=loop)
        secure = url.scheme == "https"
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._clock, self._open),
                sock=sock,
                ssl=(_default_tls() if self._tls is True else self._tls) if secure else None,
                server_hostname=(url.host or "").rstrip(".") if secure else None,
            )
        except BaseException:
            sock.close()
            raise
        return connection


class _Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, clock: Clock, among: set[_Connection]) -> None:
        self._clock = clock
        self._among = among
        self._transport: asyncio.Transport
        self._answer: asyncio.Future[EdgeAnswer] | None = None
        self._reading: AnswerReading | None = None
        self._calls = 0
        self._closed = False
        self._keeps = True
        self.idle_since_s = 0.0

    @property
    def is_reusable(self) -> bool:
        """Whether another call can follow the last one."""
        return self._keeps and self._answer is None and not self._closed and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._among.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._among.discard(self)
        if self._reading is None:
            self._fail(Disconnected(kept=self._calls > 1))
        else:
            self._fail(exc or ConnectionResetError(errno.ECONNRESET, "the server closed the connection in its answer"))

    def close(self) -> None:
        """Closes it; a call that is under way fails."""
        self._fail(ConnectionAbortedError(errno.ECONNABORTED, "the connection was closed here"))
        self._keeps = False
        if not self._closed:
            self._transport.abort() if self._transport.get_write_buffer_size() else self._transport.close()

    def ask(self, parts: Iterable[bytes | memoryview], limit_bytes: int) -> asyncio.Future[EdgeAnswer]:
        """Writes a call; returns what its answer will be."""
        self._calls += 1
        self._answer = asyncio.get_running_loop().create_future()
        self._reading, self._limit_bytes = None, limit_bytes
        self._transport.writelines(parts)
        return self._answer

    def data_received(self, data: bytes) -> None:
        """Takes in a part of an answer."""
        if self._answer is None:
            self.close()  # what was not asked for
            return
        if self._reading is None:
            self._reading = AnswerReading(self._limit_bytes)
        try:
            whole = self._reading.feed(data)
        except (TooLarge, ConnectionError) as error:
            self._fail(error)
            self.close()
            return
        if whole:
            self._done(self._reading)

    def eof_received(self) -> bool:
        """Ends an answer whose end is that of the connection."""
        if self._answer is not None and self._reading is not None and self._reading.ends_with_connection:
            self._done(self._reading)
        return False

    def _done(self, reading: AnswerReading) -> None:
        read_at_s = self._clock()
        # An answer that comes before its call is written leaves the rest of that in the way of the next one.
        self._keeps = reading.keeps and not self._transport.get_write_buffer_size()
        rtt_s = smoothed_rtt_s(self._transport.get_extra_info("socket"))
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_result(EdgeAnswer(reading.status, reading.by_name, reading.body(), read_at_s, rtt_s))

    def _fail(self, error: Exception) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(error)


def _lines(headers: Mapping[str, str]) -> str:
    lines = ""
    for name, value in headers.items():
        if "\r" in value or "\n" in value or "\0" in value:
            raise ValueError(f"the header {name} of a call has a line break")
        lines += f"{name}: {value}\r\n"
    return lines


def _host(url: URL) -> str:
    host = url.raw_host or ""
    name = f"[{host}]" if ":" in host else host.rstrip(".")
    return name if url.is_default_port() else f"{name}:{url.port}"


def _close_late(connecting: asyncio.Future[_Connection]) -> None:
    """Closes a connection that was made although its caller had gone."""
    if not connecting.cancelled() and connecting.exception() is None:
        connecting.result().close()


@cache
def _default_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context

"""Requests that are no HTTP, cannot be read or do not arrive: refused as JSON, with one quiet line in the log."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, cast

from aiohttp import HttpVersion11, http_exceptions, web
from aiohttp.web_protocol import RequestHandler

from scheduler.daemon.http.connection import SHARED_BYTES, Connection
from scheduler.daemon.http.connections import Connections, most_connections
from scheduler.daemon.http.errors import error_response
from scheduler.daemon.http.half_closed import HalfClosed
from scheduler.daemon.http.hot_path import HotPath
from scheduler.daemon.http.rendered import rendered_error
from scheduler.daemon.http.response_head import written
from scheduler.daemon.ingress.errors import FAULT
from scheduler.daemon.ingress.shares import shortened
from scheduler.daemon.logs import fields, log

_LARGE = "a header or the request line is too long, or there are too many headers; the limits are 8190 bytes and 128"
_ENCRYPTED = "this port speaks HTTP without TLS; use http:// in the address"
_HTTP2 = "this port speaks HTTP/1.1, not HTTP/2; let the client use HTTP/1.1, as with curl --http1.1"
_PATH = "the path holds bytes that must be percent-encoded, as in /v2/models/z%C3%A4hler"
_OTHER = "the request is not valid HTTP/1.1"
_LATE = "the header of the request did not arrive in time; send it at once"

HEADER_LIMIT_S = 15.0
"""Longest time from the first byte of a header to its last, where few of its client's have begun."""

HEADERS_AT_ONCE = 1000
"""Headers of one client that may take that long at the same time; where there are more, each has less time."""


def told(error: BaseException | None) -> tuple[int, str]:
    """Returns status and sentence for what the parser of HTTP says; nothing of the request is repeated.

    >>> told(http_exceptions.LineTooLong("aaa", 8190))[0]
    431
    >>> told(http_exceptions.BadHttpMessage("Missing 'Host' header in request."))
    (400, "the request is not valid HTTP/1.1: missing 'Host' header in request")
    """
    said = error.message if isinstance(error, http_exceptions.HttpProcessingError) else ""
    if isinstance(error, http_exceptions.LineTooLong) or said.startswith("Too many headers"):
        return 431, _LARGE
    if "HTTPS traffic" in said:
        return 400, _ENCRYPTED
    if "PRI/Upgrade" in said:
        return 400, _HTTP2
    if isinstance(error, http_exceptions.InvalidURLError):
        return 400, _PATH
    # What follows the first line repeats the bytes that were sent.
    reason = said.split("\n", 1)[0].split(":", 1)[0].strip(" .")
    return 400, f"{_OTHER}: {reason[:1].lower()}{reason[1:]}" if reason else _OTHER


class _Protocol(RequestHandler):
    """A connection whose own refusals are JSON, which is counted, and whose headers must arrive in time.

    A client that closes its side after a whole request gets its answer, over a connection without TLS.
    """

    __slots__ = ("_connections", "_half_closed", "_header_timer", "_headers", "_latest", "_refused", "peer")
    _is_counted = True

    def __init__(self, server: JsonServer, **options: Any) -> None:
        super().__init__(server, **options)
        self._refused = server.refused
        self._connections = server.counted
        self._headers = server.headers
        self._header_timer: asyncio.TimerHandle | None = None
        self._half_closed: HalfClosed | None = None
        self._latest: Any = None
        """Body of the latest request."""
        self.peer = ""

    @property
    def idle_since_s(self) -> float | None:
        """When it began to wait for a request; None: one is in hand."""
        idle = self._current_request is None and not self._messages
        # The library's own timer runs from the connection's beginning or from the last answer.
        return self._next_keepalive_close_time - self._keepalive_timeout if idle else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Counts the connection."""
        super().connection_made(transport)
        # A Unix socket has no name here.
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if isinstance(name, tuple) else ""
        if self._is_counted:
            self._connections.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Counts it no longer."""
        if self._is_counted:
            self._connections.closed(self, self.peer)
        self._stop_timer()
        if self._half_closed is not None:
            self._half_closed.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Takes bytes in; a header that has begun must be whole within `HEADER_LIMIT_S`."""
        super().data_received(data)
        if self._messages:
            self._latest = self._messages[-1][1]
        if not self._waits():
            self._stop_timer()
        elif self._header_timer is None and not self._force_close:
            self._headers[self.peer] += 1
            limit_s = shortened(HEADER_LIMIT_S, self._headers[self.peer], HEADERS_AT_ONCE)
            self._header_timer = self._loop.call_later(limit_s, self._header_late)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Returns whether the connection stays open for the answers of requests that have arrived whole."""
        transport = self.transport
        if transport is None or transport.get_extra_info("sslcontext") is not None:
            return False
        if self._latest is None or not self._latest.is_eof() or self._waits():
            return False
        self._half_closed = HalfClosed(
            transport, self._loop, may_ask=self._may_ask, all_answered=self._waits, end=self.force_close
        )
        return True

    def _may_ask(self) -> bool:
        request = self._current_request
        return request is not None and request.version >= HttpVersion11 and request.writer.output_size == 0

    @property
    def is_last(self) -> bool:
        """Whether no request can follow the one in hand."""
        return self._half_closed is not None and not self._messages

    def _waits(self) -> bool:
        if self._waiter is None:
            # Before its task has begun, it waits for its first request.
            return not self._request_count
        return not self._messages and not self._waiter.done()

    def _stop_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None
            self._headers[self.peer] -= 1
            if not self._headers[self.peer]:
                del self._headers[self.peer]

    def _header_late(self) -> None:
        self._stop_timer()
        if self._waits() and self.transport is not None:
            self._refused(408)
            log(logging.DEBUG, "malformed_http", peer=self.peer, status=408, message=_LATE)
            self.transport.write(written(rendered_error(408, _LATE), close=True))
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's own words, which repeat what was sent
    ) -> web.StreamResponse:
        """Returns the response for a request that no handler could be given, or whose answer could not be written."""
        if status == 400:
            status, sentence = told(exc)
            log(logging.DEBUG, "malformed_http", peer=request.remote or "", status=status, message=sentence)
        else:
            sentence = FAULT
            logging.getLogger("edgeburst").error(
                "request_bug", exc_info=exc, extra=fields(method=request.method, path=request.path)
            )
        if request.writer.output_size > 0:
            raise ConnectionError("a response has begun, so that no other can be sent")
        self._refused(status)
        response = error_response(status, sentence)
        response.force_close()
        return response


class LentProtocol(_Protocol):
    """aiohttp's part of a connection that is read by `connection`: one request at a time, or all that follow."""

    __slots__ = ()
    _is_counted = False

    @property
    def is_free(self) -> bool:
        """Whether it waits for a request and has no byte of it."""
        return self._waits() and self._header_timer is None and not self._close and not self._force_close

    def watch(self, half_closed: HalfClosed | None) -> None:
        """Takes over what looks after a client that has closed its side; None: it has not."""
        if half_closed is not None:
            self._half_closed = half_closed

    def rest(self) -> None:
        """Watches the connection no longer until it gets the next request."""
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
            self._keepalive_handle = None


class JsonServer(web.Server):
    """A server of such connections."""

    def __init__(
        self,
        made: web.Server,
        options: Mapping[str, Any],
        refused: Callable[[int], object],
        is_proxy: Callable[[str], bool],
        hot: HotPath | None,
        leaving: Callable[[], bool],
    ) -> None:
        """Takes the place of a server.

        Args:
            made: the server of an application.
            options: what its connections are made with.
            refused: is told the status of each refusal.
            is_proxy: returns whether many clients come from an address.
            hot: serves requests for inference on connections of our own; None: aiohttp reads all.
            leaving: returns whether each answer ends its connection.
        """
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            loop=made._loop,  # noqa: SLF001
        )
        self.refused = refused
        self.counted = Connections(most_connections(), self._loop.time, is_proxy)
        self.headers: Counter[str] = Counter()
        """Headers that have begun and are not whole, of each peer."""
        self.hot = hot
        self.leaving = leaving
        self.kept: set[Connection] = set()
        """Open connections of our own."""
        self.shared_bytes = bytearray(SHARED_BYTES if hot is not None else 0)
        self.shared = memoryview(self.shared_bytes)
        """Where bytes of all those connections arrive, to be copied before the next read."""
        # Bodies are unpacked where they are read: aiohttp takes a gzip stream that was cut off for a whole one.
        self._options = {**options, "auto_decompress": False}

    def __call__(self) -> RequestHandler:
        """Returns the protocol of a new connection."""
        if self.hot is None:
            return _Protocol(self, loop=self._loop, **self._options)
        # What asyncio needs of a protocol it is; the type is that of aiohttp's own.
        return cast(RequestHandler, Connection(self, self._lent))

    def _lent(self) -> LentProtocol:
        return LentProtocol(self, loop=self._loop, **self._options)

    def pre_shutdown(self) -> None:
        """Takes no further requests."""
        for each in list(self.kept):
            each.close_when_idle()
        super().pre_shutdown()

    async def shutdown(self, timeout: float | None = None) -> None:
        """Closes the connections, after so many seconds for what is being answered."""
        # First, because aiohttp's part of a connection that waits closes that at once.
        ends_s = None if timeout is None else self._loop.time() + timeout
        await self._end_work(timeout)
        await super().shutdown(None if ends_s is None else max(0.0, ends_s - self._loop.time()))
        for each in list(self.kept):
            each.force_close()

    async def _end_work(self, timeout: float | None) -> None:
        work = [each.work for each in self.kept if each.work is not None]
        if work:
            _, left = await asyncio.wait(work, timeout=timeout)
            for each in left:
                each.cancel()
            if left:
                await asyncio.wait(left, timeout=timeout)


class JsonRunner(web.AppRunner):
    """Runs an application behind such a server."""

    __slots__ = ("_hot", "_is_proxy", "_refused", "leaving")

    def __init__(
        self,
        app: web.Application,
        *,
        refused: Callable[[int], object],
        is_proxy: Callable[[str], bool] = lambda _: False,
        hot: HotPath | None = None,
        **options: Any,
    ) -> None:
        """Stores its parts.

        Args:
            app: answers what aiohttp reads.
            refused: is told the status of each refusal.
            is_proxy: returns whether many clients come from an address.
            hot: serves requests for inference; None: they are aiohttp's too.
            options: of aiohttp.
        """
        super().__init__(app, **options)
        self._hot = hot
        self._refused = refused
        self._is_proxy = is_proxy
        self.leaving = False
        """Whether each answer ends its connection, because another process has the listening sockets next."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return JsonServer(
            made,
            made._kwargs,  # noqa: SLF001
            self._refused,
            self._is_proxy,
            self._hot,
            lambda: self.leaving,
        )

"""A client's connection: requests for inference are read here, all others are lent to aiohttp.

             a whole plain head                 the last byte                  the answer is written
    IDLE ─────────────────────────▶ BODY ─────────────────────────▶ BUSY ─────────────────────────────▶ IDLE
     │ a plain head of another request, or one that is to be refused            ▲ aiohttp waits again
     ├──────────────────────────▶ LENT: aiohttp has this one request ───────────┘
     └──────────────────────────▶ GIVEN: aiohttp has the connection until it ends
       anything else: chunks, Expect, half a head, HTTP/1.0, what is no HTTP; requests that come before an answer

Bytes of a head arrive in a buffer that all connections share; a body that is not whole with its head gets its own
(`arriving_body`). What fails before the body is refused by aiohttp, which checks the request anew; what fails later
here: a body that is late, too large or given up for others (REST: more of it is read and dropped), and faults.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, cast

from aiohttp.tcp_helpers import tcp_keepalive

from scheduler.daemon.http.admission import asked_address
from scheduler.daemon.http.arriving_body import ArrivingBody
from scheduler.daemon.http.half_closed import HalfClosed
from scheduler.daemon.http.hot_path import Endpoint, Serving
from scheduler.daemon.http.refusals import counted, refusal
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.http.request_head import END, Head, HeadReader
from scheduler.daemon.http.response_head import written
from scheduler.daemon.ingress.errors import Rejected

if TYPE_CHECKING:
    from scheduler.daemon.http.malformed import JsonServer, LentProtocol

KEEP_ALIVE_S = 3630.0
"""Longest pause between requests; that of aiohttp."""
REST_LIMIT_S = 10.0
"""Longest time for the rest of a body that was refused; that of aiohttp."""
TAKEN_LIMIT_S = 60.0
"""Longest time in which a client takes the last part of an answer."""
SHARED_BYTES = 64 * 1024
"""Of the buffer for heads, and for bodies that come with them: what is longer is better received where it stays."""
NEXT_BYTES = 256 * 1024
"""Bytes behind a request in hand from which nothing more is read until it is answered."""


class State(Enum):
    """What a connection does; see the picture above."""

    IDLE = "idle"
    BODY = "body"
    BUSY = "busy"
    REST = "rest"
    LENT = "lent"
    GIVEN = "given"


class Connection(asyncio.BufferedProtocol):
    """One connection of a client."""

    def __init__(self, server: JsonServer, lender: Callable[[], LentProtocol]) -> None:
        """Stores its parts.

        Args:
            server: that accepts it; it has the hot path.
            lender: makes aiohttp's part of it.
        """
        assert server.hot is not None
        self._server = server
        self._hot = server.hot
        self._lender = lender
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._state = State.IDLE
        self._heads = HeadReader()
        self._end = Endpoint("")
        self._tls = False
        self._idle_since_s = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._serving: Serving | None = None
        self._body: ArrivingBody | None = None
        self._task: asyncio.Task[None] | None = None
        self._next = bytearray()
        """Bytes that came behind the request in hand."""
        self._missing = 0
        """Bytes of a request that is lent, or of a body that is dropped."""
        self._rest_timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._begun = False
        """Whether an answer to the request in hand is being written."""
        self._last = False
        """Whether the connection ends with the request in hand."""
        self._closed = False
        self._half_closed: HalfClosed | None = None
        self._lent: LentProtocol | None = None
        """aiohttp's part, once it was needed."""

    @property
    def peer(self) -> str:
        """The client's address; empty over a Unix socket."""
        return self._end.peer

    @property
    def idle_since_s(self) -> float | None:
        """When it began to wait for a request; None: one is in hand."""
        if self._state in (State.LENT, State.GIVEN):
            return None if self._lent is None else self._lent.idle_since_s
        return self._idle_since_s if self._state is State.IDLE else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins to wait for a request."""
        self._transport = cast(asyncio.Transport, transport)
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        connected = transport.get_extra_info("socket")
        self._end = Endpoint(
            peer=str(peer[0]) if isinstance(peer, tuple) else "",
            unix=connected is not None and connected.family == socket.AF_UNIX,
            asked_address=asked_address(own),
            port=own[1] if isinstance(own, tuple) else None,
        )
        self._tls = transport.get_extra_info("sslcontext") is not None
        tcp_keepalive(self._transport)
        self._idle_since_s = self._loop.time()
        self._idle_timer = self._loop.call_later(KEEP_ALIVE_S, self._look_idle)
        self._server.kept.add(self)
        self._server.counted.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Gives up what is in hand."""
        self._closed = True
        self._server.kept.discard(self)
        self._server.counted.closed(self, self._end.peer)
        for timer in (self._idle_timer, self._rest_timer, self._half_closed):
            if isinstance(timer, HalfClosed):
                timer.stop()
            elif timer is not None:
                timer.cancel()
        self._drop_body()
        if self._lent is not None:
            self._lent.connection_lost(exc)
        if self._drained is not None and not self._drained.done():
            self._drained.set_exception(ConnectionResetError("the client has gone"))
            self._drained.exception()  # where nothing waits for it
        if self._task is not None:
            self._task.cancel()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Returns where the next bytes go."""
        return self._server.shared if self._body is None else self._body.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Takes in bytes."""
        if self._body is not None:
            self._arrived(self._body, nbytes)
        elif self._state is State.IDLE:
            self._begin(self._server.shared_bytes, nbytes)
        else:
            self._take_in(bytes(self._server.shared[:nbytes]))

    def eof_received(self) -> bool:
        """Returns whether the connection stays open for the answer to a request that has arrived whole."""
        if self._tls:
            return False
        if self._state in (State.LENT, State.GIVEN) and self._lent is not None:
            return self._lent.eof_received()
        if self._state is not State.BUSY:
            return False
        self._half_closed = HalfClosed(
            self._transport,
            self._loop,
            may_ask=lambda: self._state is State.BUSY and not self._begun,
            all_answered=lambda: self.idle_since_s is not None,
            end=self.force_close,
        )
        return True

    def pause_writing(self) -> None:
        """Lets answers wait: the client takes none now."""
        self._drained = self._loop.create_future()
        if self._lent is not None:
            self._lent.pause_writing()

    def resume_writing(self) -> None:
        """Lets them go on."""
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)
        if self._lent is not None:
            self._lent.resume_writing()

    def force_close(self) -> None:
        """Closes it at once."""
        if self._lent is not None:
            self._lent.force_close()
        self._transport.close()

    def close_when_idle(self) -> None:
        """Takes no further request: the one in hand is the last."""
        self._last = True
        if self.idle_since_s is not None:
            self._transport.close()

    @property
    def work(self) -> asyncio.Task[None] | None:
        """What answers the request in hand; None: there is none."""
        return self._task

    def _begin(self, data: bytes | bytearray, size: int) -> None:
        """Looks at the first `size` bytes, which begin with a head."""
        at = data.find(END, 0, size)
        head, target = self._heads.read(bytes(data[: at + len(END)])) if at >= 0 else (None, None)
        if head is None:
            self._give(bytes(data[:size]))
            return
        surplus = size - head.size - head.length
        serving = None if target is None else self._hot.admitted(head, target, self._end)
        if serving is None or not self._read(serving, data, size, surplus):
            if surplus > 0:
                self._give(bytes(data[:size]))
            else:
                self._lend(bytes(data[:size]), -surplus)

    def _read(self, serving: Serving, data: bytes | bytearray, size: int, surplus: int) -> bool:
        """Begins with a body; returns whether there is room for it."""
        head, bodies = serving.head, self._hot.service.bodies
        end = head.size + head.length
        if surplus >= 0:
            if not bodies.fits_at_once(head.length):
                serving.take_back()
                return False
            with memoryview(data) as view:
                body = bytes(view[head.size : end])
                self._next += view[end:size]
            self._work(serving, body)
            return True
        try:
            with memoryview(data) as view:
                first = view[head.size : size]
                self._body = ArrivingBody(bodies, serving.caller.key, head.length, first, self._refuse_body)
        except Rejected:
            serving.take_back()
            return False
        self._state, self._serving = State.BODY, serving
        return True

    def _arrived(self, body: ArrivingBody, size: int) -> None:
        """Counts bytes of a body that are in its own buffer."""
        try:
            body.took(size)
        except Rejected as error:
            self._refuse_body(error)
            return
        if not body.missing:
            serving, self._serving, self._body = self._serving, None, None
            assert serving is not None
            self._work(serving, body.whole())

    def _work(self, serving: Serving, body: bytes | memoryview) -> None:
        self._state, self._begun = State.BUSY, False
        self._task = self._loop.create_task(self._serve(serving, body))

    async def _serve(self, serving: Serving, body: bytes | memoryview) -> None:
        """Answers a request."""
        try:
            try:
                await self._hot.serve(serving, body, self._write)
            except ConnectionError:
                self._last = True
            except Exception as error:  # noqa: BLE001 - a fault is logged
                await self._refuse(error, serving.head)
        except ConnectionError:
            self._last = True
        finally:
            if serving.use is not None:
                serving.end()
            self._task = None
        self._answered()

    async def _refuse(self, error: Exception, head: Head) -> None:
        rendered = refusal(error, method=head.method, path=head.path)
        if self._begun:
            self._last = True
            return
        counted(self._hot.service.telemetry, rendered.status, method=head.method, path=head.path)
        await self._write(rendered)

    async def _write(self, rendered: Rendered) -> None:
        """Writes an answer; ConnectionError if its client has gone."""
        if self._closed or self._transport.is_closing():
            raise ConnectionResetError("the client has gone")
        self._begun = True
        self._last = self._last or self._server.leaving() or (self._half_closed is not None and not self._next)
        hot = self._hot
        marks = hot.marks() if hot.service.config.daemon.cors_origins else ()
        self._transport.write(written(rendered, close=self._last, marks=marks))
        if self._drained is not None:
            limit = self._loop.call_later(TAKEN_LIMIT_S, self._transport.abort)
            try:
                await self._drained
            finally:
                limit.cancel()

    def _answered(self) -> None:
        """Waits for the next request, or leaves those that came before this one's answer to aiohttp."""
        if self._closed or self._last:
            self._transport.close()
            return
        self._state, self._idle_since_s = State.IDLE, self._loop.time()
        if self._next:
            data, self._next = bytes(self._next), bytearray()
            if len(data) >= NEXT_BYTES:
                self._transport.resume_reading()
            self._give(data)

    def _take_in(self, data: bytes) -> None:
        """Takes in bytes that are no beginning of a request that is read here."""
        if self._state is State.BUSY:
            paused = len(self._next) >= NEXT_BYTES
            self._next += data
            if not paused and len(self._next) >= NEXT_BYTES:
                self._transport.pause_reading()
        elif self._state is State.REST:
            self._missing -= len(data)
            if self._missing <= 0:
                self._next += data[len(data) + self._missing :]
                self._rest_over()
        elif self._lent is not None:
            self._lent_data(self._lent, data)

    def _refuse_body(self, error: Rejected) -> None:
        """Refuses a request whose body has not arrived whole, and drops the rest of that for a while."""
        body, serving = self._body, self._serving
        assert body is not None
        assert serving is not None
        self._drop_body()
        head = serving.head
        rendered = refusal(error, method=head.method, path=head.path)
        counted(self._hot.service.telemetry, rendered.status, method=head.method, path=head.path)
        self._last = self._last or self._server.leaving()
        self._transport.write(written(rendered, close=self._last, marks=self._hot.marks()))
        if self._last:
            self._transport.close()
            return
        self._state, self._missing = State.REST, body.missing
        self._rest_timer = self._loop.call_later(REST_LIMIT_S, self._transport.close)
        if not body.missing:
            self._rest_over()

    def _rest_over(self) -> None:
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        self._answered()

    def _drop_body(self) -> None:
        body, serving, self._body, self._serving = self._body, self._serving, None, None
        if body is not None:
            body.end()
        if serving is not None:
            serving.end()

    def _lend(self, data: bytes, missing: int) -> None:
        """Gives aiohttp one request, of which so many bytes are missing."""
        self._state, self._missing = State.LENT, missing
        self._aiohttp().data_received(data)

    def _give(self, data: bytes) -> None:
        """Gives aiohttp the connection."""
        self._state = State.GIVEN
        lent = self._aiohttp()
        lent.watch(self._half_closed)
        lent.data_received(data)

    def _lent_data(self, lent: LentProtocol, data: bytes) -> None:
        if self._state is State.LENT:
            if not self._missing and lent.is_free:
                lent.rest()
                self._state = State.IDLE
                self._begin(data, len(data))
                return
            self._missing -= len(data)
            if self._missing < 0:
                self._state = State.GIVEN
        lent.data_received(data)

    def _aiohttp(self) -> LentProtocol:
        if self._lent is None:
            self._lent = self._lender()
            self._lent.connection_made(self._transport)
        return self._lent

    def _look_idle(self) -> None:
        """Closes a connection that has waited too long; looks again later at any other one."""
        idle_s = self._loop.time() - self._idle_since_s if self._state is State.IDLE else 0.0
        if idle_s >= KEEP_ALIVE_S:
            self._transport.close()
        else:
            self._idle_timer = self._loop.call_later(KEEP_ALIVE_S - idle_s, self._look_idle)

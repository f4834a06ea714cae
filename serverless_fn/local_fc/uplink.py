"""The shared link between the sockets and the HTTP server.

A small chunk of a connection is read, and the next one only after the link has carried it. The small receive buffer
then makes the sender wait. The bytes of all connections count.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections import deque
from collections.abc import Callable
from typing import Any, cast

from serverless_fn.local_fc.shaping import SharedLink

# A chunk holds what the link carries in this time. It is short compared to a batch, so that connections alternate, and
# long compared to the cost of a wake-up of the event loop.
_CHUNK_S = 0.004
_CHUNK_BYTES_MIN, _CHUNK_BYTES_MAX = 1024, 64 * 1024
# Bytes that a sender may have in flight before the link: with more, its uploads would seem faster than the link.
_RECEIVE_BUFFER_BYTES = 32 * 1024
# A segment on loopback is 64 KB, more than the buffer, so that the sender would wait for its timer. This is Ethernet's.
_SEGMENT_BYTES = 1448
# Chunks of one connection on the link: with several, the link stays busy if a wake-up is late, by up to 20 ms.
_AHEAD = 6


class Uplink:
    """Link with a clock and a timer. All methods must be called on the event loop.

    Args:
        mbit_per_s: rate that all connections share, 10**6 bit/s; None is unlimited, 0 carries nothing.
        rtt_s: seconds added to everything that arrives, so that a request and its answer take longer by this time.
    """

    def __init__(self, *, mbit_per_s: float | None, rtt_s: float) -> None:
        self._link = SharedLink[Callable[[], None]](_bytes_per_s(mbit_per_s))
        self._timer: asyncio.TimerHandle | None = None
        self.mbit_per_s = mbit_per_s
        self.rtt_s = rtt_s

    @property
    def carried_bytes(self) -> int:
        """Bytes carried since the start."""
        return self._link.carried_bytes

    @property
    def chunk_bytes(self) -> int:
        """Maximum number of bytes that a connection may read at a time."""
        rate = self._link.bytes_per_s
        return _CHUNK_BYTES_MAX if rate is None else int(min(max(rate * _CHUNK_S, _CHUNK_BYTES_MIN), _CHUNK_BYTES_MAX))

    def carry(self, size_bytes: int, deliver: Callable[[], None]) -> None:
        """Calls `deliver` when the link has carried the bytes."""
        self._link.push(deliver, size_bytes, now_s=_now_s())
        self._advance()

    def set(self, *, mbit_per_s: float | None, rtt_s: float) -> None:
        """Changes rate and round-trip time from now on, for open connections too."""
        self._link.set_rate(_bytes_per_s(mbit_per_s), now_s=_now_s())
        self.mbit_per_s, self.rtt_s = mbit_per_s, rtt_s
        self._advance()

    def _advance(self) -> None:
        for deliver in self._link.pop_due(_now_s()):
            deliver()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        next_at_s = self._link.next_at_s()
        if next_at_s < math.inf:
            self._timer = asyncio.get_running_loop().call_at(next_at_s, self._advance)


class ShapedConnection(asyncio.BufferedProtocol):
    """Layer between the transport of a connection and its HTTP protocol.

    Args:
        uplink: the link that all connections share.
        inner: the HTTP protocol, which gets the bytes when the link has carried them.
        beside: first bytes of connections that do not use the link, so that a link of rate 0 can still be changed. The
            server closes such a connection after one answer.
    """

    def __init__(self, uplink: Uplink, inner: asyncio.Protocol, *, beside: tuple[bytes, ...]) -> None:
        self._uplink = uplink
        self._inner = inner
        self._beside = beside
        self._uses_link: bool | None = None
        self._buffer = bytearray(_CHUNK_BYTES_MAX)
        self._on_link: deque[bytes] = deque()
        self._arrived: deque[bytes] = deque()
        self._transport: asyncio.Transport | None = None
        self._ended = False
        self._lost = False
        self.held_by_inner = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Gives the HTTP protocol a transport; the link also controls when it reads."""
        self._transport = cast(asyncio.Transport, transport)
        self._inner.connection_made(cast(asyncio.BaseTransport, _InnerTransport(self._transport, self)))

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Returns a buffer for at most one chunk."""
        return memoryview(self._buffer)[: self._uplink.chunk_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Passes the bytes that were read to the link."""
        chunk = bytes(self._buffer[:nbytes])
        if self._uses_link is None:
            self._uses_link = not chunk.startswith(self._beside)
        if self._uses_link:
            self._put(chunk)
        else:
            self._inner.data_received(chunk)

    def eof_received(self) -> bool:
        """Passes on the end of the stream after the bytes before it; the connection stays open until then."""
        self._put(b"")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tells the HTTP protocol at once; bytes that are still on the link are dropped."""
        self._lost = True
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Passes the call on to the HTTP protocol."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Passes the call on to the HTTP protocol."""
        self._inner.resume_writing()

    def update_reading(self) -> None:
        """Starts or stops reading: it reads if neither the link nor the HTTP protocol has paused the connection."""
        transport = self._transport
        if transport is None or self._lost or transport.is_closing():
            return
        if self._ended or self.held_by_inner or len(self._on_link) >= _AHEAD:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _put(self, chunk: bytes) -> None:
        self._ended = not chunk
        self._on_link.append(chunk)
        self._uplink.carry(len(chunk), self._carried)
        self.update_reading()

    def _carried(self) -> None:
        self._arrived.append(self._on_link.popleft())
        self.update_reading()
        if self._uplink.rtt_s > 0 or len(self._arrived) > 1:
            asyncio.get_running_loop().call_later(self._uplink.rtt_s, self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        """Passes on the oldest chunk: timers of equal time fire in any order, but chunks must stay in order."""
        chunk = self._arrived.popleft()
        if self._lost:
            return
        if chunk:
            self._inner.data_received(chunk)
        elif not self._inner.eof_received() and self._transport is not None:
            self._transport.close()


def open_listener(host: str, port: int) -> socket.socket:
    """Returns a bound socket whose connections have a small receive buffer; port 0 for a free port.

    Raises:
        OSError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


class _InnerTransport:
    """Transport of the connection whose reading the link can pause."""

    def __init__(self, transport: asyncio.Transport, connection: ShapedConnection) -> None:
        self._transport = transport
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        self._connection.held_by_inner = True
        self._connection.update_reading()

    def resume_reading(self) -> None:
        self._connection.held_by_inner = False
        self._connection.update_reading()


def _bytes_per_s(mbit_per_s: float | None) -> float | None:
    return None if mbit_per_s is None else mbit_per_s * 1e6 / 8


def _now_s() -> float:
    return asyncio.get_running_loop().time()

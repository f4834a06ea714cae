"""Reads request bodies, each within its limits of size and time, all together within the memory that is theirs."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from scheduler.daemon.http.errors import Rejected

BODY_TIME_LIMIT_S = 60.0
"""Longest that one body may take to arrive: a client that stalls holds memory that others could use."""

_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""What aiohttp unpacks without further packages."""


class _TimeLimit:
    """Cancels the task when the time is over, and tells that from a client that went away.

    What asyncio has for this came with 3.11; its predecessor starts a task for every request.
    """

    def __init__(self, limit_s: float) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._expire)
        self._expired = False

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = self._task.cancel()

    def caught(self) -> bool:
        """Takes back a cancellation that was our own."""
        if self._expired and sys.version_info >= (3, 11):
            assert self._task is not None
            self._task.uncancel()
        return self._expired

    def end(self) -> None:
        self._timer.cancel()


class BodyReader:
    """Knows how many bytes of bodies are being read, on all connections."""

    def __init__(
        self, *, body_limit_bytes: int, total_limit_bytes: int, time_limit_s: float = BODY_TIME_LIMIT_S
    ) -> None:
        """Stores the limits, of one unpacked body and of all that are still arriving."""
        self.time_limit_s = time_limit_s
        self.body_limit_bytes = body_limit_bytes
        self.total_limit_bytes = total_limit_bytes
        self.arriving_bytes = 0

    async def read(self, request: web.Request) -> bytes:
        """Returns the unpacked body, as soon as its last byte is there.

        Raises:
            Rejected: it is missing, too large, too slow or packed in an unknown way, or too much arrives at once.
        """
        self._check_headers(request)
        arrived_bytes, chunks, content = 0, [], request.content
        time_limit = _TimeLimit(self.time_limit_s)
        try:
            while chunk := await content.readany():
                arrived_bytes += len(chunk)
                self.arriving_bytes += len(chunk)
                chunks.append(chunk)
                self._check_size(arrived_bytes)
        except asyncio.CancelledError:
            if not time_limit.caught():
                raise
            raise Rejected(408, f"the body did not arrive within {self.time_limit_s:g} s; send it again") from None
        finally:
            time_limit.end()
            self.arriving_bytes -= arrived_bytes
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check_headers(self, request: web.Request) -> None:
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise Rejected(415, f"Content-Encoding {encoding[:64]!r} is not understood; use gzip, deflate or none")
        length = request.content_length
        if length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise Rejected(411, "the request has no body; send one, with its Content-Length")
        if length == 0:
            raise Rejected(400, "the body is empty; send a request in it")
        if length is not None:
            self._check_size(length)

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.body_limit_bytes:
            raise Rejected(
                413,
                f"the body is over the limit of {self.body_limit_bytes} bytes;"
                " send fewer items at once, or raise daemon.body_limit_bytes",
            )
        if self.arriving_bytes > self.total_limit_bytes:
            raise Rejected(429, "too many bodies are arriving at once; send this one again", {"Retry-After": "1"})

"""Reads request bodies: each within limits of size and time, and all together within a limit of memory."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web

from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.daemon.ingress.errors import Rejected

_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""The encodings that aiohttp decodes without further packages."""


class _TimeLimit:
    """A timer that cancels the current task, and distinguishes its own cancellation from that of a lost client.

    asyncio.timeout exists since Python 3.11; asyncio.wait_for in Python 3.10 starts a task for every request.
    """

    def __init__(self, limit_s: float) -> None:
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._expire)
        self._expired = False

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = self._task.cancel()

    def caught(self) -> bool:
        """Returns whether the timer caused the cancellation; if so, revokes it."""
        if self._expired and sys.version_info >= (3, 11):
            assert self._task is not None
            self._task.uncancel()
        return self._expired

    def end(self) -> None:
        self._timer.cancel()


class BodyReader:
    """A reader of bodies that counts the bytes being read on all connections."""

    def __init__(self, limits: BodyLimits) -> None:
        """Stores the limits, which hold the count."""
        self._limits = limits

    async def read(self, request: web.Request) -> bytes:
        """Returns the decoded body when its last byte has arrived.

        Raises:
            Rejected: the body is missing, too large or too slow, its encoding is unknown, or too many arrive at once.
        """
        self._check_headers(request)
        arrived_bytes, chunks, content, limits = 0, [], request.content, self._limits
        time_limit = _TimeLimit(limits.time_limit_s)
        try:
            while chunk := await content.readany():
                arrived_bytes += len(chunk)
                limits.arriving_bytes += len(chunk)
                chunks.append(chunk)
                limits.check(arrived_bytes)
        except asyncio.CancelledError:
            if not time_limit.caught():
                raise
            raise limits.too_slow() from None
        finally:
            time_limit.end()
            limits.arriving_bytes -= arrived_bytes
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check_headers(self, request: web.Request) -> None:
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise Rejected(415, f"Content-Encoding {encoding[:64]!r} is not supported; use gzip, deflate or none")
        length = request.content_length
        if length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise Rejected(411, "the request has no body; send one, with its Content-Length")
        if length == 0:
            raise Rejected(400, "the body is empty; send a request as the body")
        if length is not None:
            self._limits.check(length)

"""Reads request bodies: each within limits of size and time, and all together within a limit of memory."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from scheduler.daemon.http.access import caller_of
from scheduler.daemon.ingress.body_limits import Arrival, BodyLimits, TimeLimit
from scheduler.daemon.ingress.errors import Rejected

_ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""The encodings that aiohttp decodes without further packages."""


def _read_no_more(request: web.Request) -> None:
    """Lets the connection end with the answer: the rest of a packed body would be unpacked only to be thrown away."""
    protocol: Any = request.protocol
    protocol._lingering_time = 0.0  # noqa: SLF001 - there is no other way to change it for one connection


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
        chunks, content, limits = [], request.content, self._limits
        arrival = limits.begin(caller_of(request).key)
        limit_s = limits.time_limit_of(arrival.peer)
        time_limit = TimeLimit(limit_s)
        try:
            self._check_headers(request, arrival)
            while chunk := await content.readany():
                chunks.append(chunk)
                arrival.add(len(chunk))
        except Rejected:
            if request.headers.get("Content-Encoding"):
                _read_no_more(request)
            raise
        except asyncio.CancelledError:
            if arrival.caught():
                raise limits.too_many() from None
            if not time_limit.caught():
                raise
            raise limits.too_slow(limit_s) from None
        finally:
            time_limit.end()
            arrival.end()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _check_headers(self, request: web.Request, arrival: Arrival) -> None:
        encoding = request.headers.get("Content-Encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            raise Rejected(415, f"Content-Encoding {encoding[:64]!r} is not supported; use gzip, deflate or none")
        length = request.content_length
        if length is None and request.headers.get("Transfer-Encoding", "").lower() != "chunked":
            raise Rejected(411, "the request has no body; send one, with its Content-Length")
        if length == 0:
            raise Rejected(400, "the body is empty; send a request as the body")
        if length is not None:
            arrival.announce(length)

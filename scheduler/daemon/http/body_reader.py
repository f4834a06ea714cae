"""Reads request bodies: each within limits of size and time, and all together within a limit of memory."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from scheduler.daemon.http.access import caller_of
from scheduler.daemon.http.unpacking import PIECE_BYTES, Unpacker
from scheduler.daemon.ingress.body_limits import Arrival, BodyLimits, TimeLimit
from scheduler.daemon.ingress.errors import Rejected

_PACKED = frozenset({"gzip", "deflate"})
_ENCODINGS = _PACKED | {"", "identity"}


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
            encoding = self._checked_encoding(request, arrival)
            unpacker = Unpacker(encoding) if encoding in _PACKED else None
            while chunk := await content.readany():
                for piece in (chunk,) if unpacker is None else unpacker.pieces(chunk):
                    chunks.append(piece)
                    arrival.add(len(piece))
                    if len(piece) >= PIECE_BYTES:
                        await asyncio.sleep(0)
            if unpacker is not None:
                unpacker.end()
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

    def _checked_encoding(self, request: web.Request, arrival: Arrival) -> str:
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
        return encoding

"""Connections of waitress, for the edge server and the function's container: HTTP/1 to the letter, errors as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.task import ErrorTask
from waitress.utilities import Error

LEAST_SPARE = 8
"""Connections that the limit of waitress, at which it accepts no more, is kept away by; at least."""
_SHARE_SPARE = 10


class StrictParser(HTTPRequestParser):
    """A parser that also refuses what two servers in a row could read differently, and what is not HTTP/1."""

    def parse_header(self, header_plus: bytes) -> None:
        """Reads request line and headers.

        Raises:
            ParsingError: they are not those of a request of HTTP/1.0 or 1.1, or name two lengths of the body.
        """
        try:
            super().parse_header(header_plus)
        except ValueError:
            # Of an address like http://[, or of a length with thousands of digits.
            raise ParsingError("The address or Content-Length is invalid") from None
        if self.version not in ("1.0", "1.1"):
            raise ParsingError("This port speaks HTTP/1.1; let the client use it, as with curl --http1.1")
        if "CONTENT_LENGTH" in self.headers and self.chunked:
            raise ParsingError("Content-Length and Transfer-Encoding exclude each other")
        if "TRANSFER_ENCODING" in self.headers:
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")


class JsonErrorTask(ErrorTask):
    """Answer to a request that waitress itself refuses (malformed HTTP, far too large body), as JSON."""

    def execute(self) -> None:
        """Writes the answer and closes the connection."""
        # The type of the request is wrong in the stubs; an error task is created only for a request with an error.
        error = cast(Error, cast(HTTPRequestParser, self.request).error)
        body = json.dumps({"error": f"{error.reason}: {error.body}"}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers = [("Content-Type", "application/json")]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class StrictChannel(HTTPChannel):
    """A connection with that parser, whose errors are JSON; where there are too many, it makes room for itself."""

    parser_class = StrictParser
    error_task_class = JsonErrorTask

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:  # noqa: A002
        """Begins with a connection that was just accepted; this thread is the only one that opens and closes any."""
        super().__init__(server, sock, addr, adj, map=map)
        spare = max(LEAST_SPARE, adj.connection_limit // _SHARE_SPARE)
        for each in most_dispensable(
            [channel for channel in server.active_channels.values() if channel is not self and not channel.will_close],
            most=adj.connection_limit - spare,
        ):
            # Its turn in the loop comes next: it is closed there.
            each.will_close = True


def most_dispensable(channels: Sequence[Any], *, most: int) -> Sequence[Any]:
    """Returns which connections to close so that fewer than `most` remain.

    Of the peer that has most connections without a whole request, those that have waited longest: neither the one that
    just came nor those of another peer. None, where all have a request in hand.
    """
    surplus = len(channels) - most + 1
    if surplus <= 0:
        return ()
    idle: dict[str, list[Any]] = {}
    for channel in channels:
        if not channel.requests:
            idle.setdefault(channel.addr[0], []).append(channel)
    greedy = max(idle.values(), key=len, default=[])
    return sorted(greedy, key=lambda channel: float(channel.last_activity))[:surplus]

"""The bytes of a connection: received with deadlines, kept until they are asked for."""

from __future__ import annotations

import socket
import ssl
import time

from scheduler.wsgi.errors import Gone, Refused
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.request_head import ENCRYPTED, HEAD_END

_RECEIVE_BYTES = 32 * 1024
_EMPTY_LINE = b"\r\n"
LATE_HEAD = "the header of the request did not arrive in time; send it at once"
LATE_BODY = "the body of the request did not arrive in time; send it at once"


class Arriving:
    """What arrives on a connection.

    Args:
        connection: the socket.
        limits: deadlines and sizes.
    """

    def __init__(self, connection: socket.socket | ssl.SSLSocket, limits: Limits) -> None:
        """Stores the arguments."""
        self._connection = connection
        self._limits = limits
        self._kept = b""
        self._at = 0
        self._body_began_s = 0.0
        self._body_bytes = 0

    def next_head(self) -> bytes:
        """Waits for a request; returns its line and headers, up to the line break of the last one.

        Raises:
            Gone: no request has come.
            Refused: the headers are too long, or came too slowly; or this is TLS.
        """
        kept = self._kept[self._at :]
        self._at = 0
        end_s: float | None = None
        looked = 0
        while True:
            if kept.startswith(_EMPTY_LINE):  # some clients send one after a body (RFC 9112, 2.2)
                kept, looked = kept[2:], 0
            if kept and not kept[:1].isalpha() and kept != b"\r":
                raise Refused(400, ENCRYPTED if kept[0] == 0x16 else "the request line does not begin with a method")
            found = HEAD_END.search(kept, looked)
            if found is not None:
                self._kept, self._at = kept, found.end()
                return self._head(kept[: found.start() + 1], found[0])
            if len(kept) > self._limits.header_bytes:
                raise self._too_long()
            looked = max(0, len(kept) - 2)
            now_s = time.monotonic()
            if kept and end_s is None:
                end_s = now_s + self._limits.header_s
            try:
                part = self._receive(self._limits.idle_s if end_s is None else end_s - now_s)
            except TimeoutError:
                if end_s is None:
                    raise Gone from None
                raise Refused(408, LATE_HEAD) from None
            if not part:
                raise Gone
            kept += part

    def begin_body(self) -> None:
        """Starts the clock of a body."""
        self._body_began_s = time.monotonic()
        self._body_bytes = 0

    def read_into(self, target: memoryview) -> None:
        """Fills the target."""
        size = len(target)
        have = min(size, len(self._kept) - self._at)
        target[:have] = self._kept[self._at : self._at + have]
        self._at += have
        self._body_bytes += have
        if have < size:
            self._kept, self._at = b"", 0
        while have < size:
            self._connection.settimeout(self._body_left_s())
            try:
                got = self._connection.recv_into(target[have:])
            except TimeoutError:
                raise Refused(408, LATE_BODY) from None
            if not got:
                raise Gone
            have += got
            self._body_bytes += got

    def read_line(self, most: int) -> bytes:
        """Returns the bytes up to a line feed and with it.

        Raises:
            Refused: it has not come by so many bytes, or in time.
        """
        while True:
            end = self._kept.find(b"\n", self._at, self._at + most)
            if end >= 0:
                line = self._kept[self._at : end + 1]
                self._at = end + 1
                self._body_bytes += len(line)
                return line
            if len(self._kept) - self._at >= most:
                raise Refused(400, "the chunks of the body are not valid HTTP/1.1")
            try:
                part = self._receive(self._body_left_s())
            except TimeoutError:
                raise Refused(408, LATE_BODY) from None
            if not part:
                raise Gone
            self._kept = self._kept[self._at :] + part
            self._at = 0

    def discard(self) -> None:
        """Reads and forgets what still comes, for a short time: unread bytes would take the answer with them."""
        end_s = time.monotonic() + self._limits.linger_s
        while (left_s := end_s - time.monotonic()) > 0:
            try:
                if not self._receive(left_s):
                    return
            except (OSError, Gone):
                return

    def _receive(self, limit_s: float) -> bytes:
        if limit_s <= 0:
            raise TimeoutError
        # Beyond some years the kernel's clock cannot count it.
        self._connection.settimeout(min(limit_s, 1e8))
        return self._connection.recv(_RECEIVE_BYTES)

    def _body_left_s(self) -> float:
        limits = self._limits
        end_s = self._body_began_s + limits.body_s + self._body_bytes / limits.body_bytes_per_s
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            raise Refused(408, LATE_BODY)
        return left_s

    def _head(self, head: bytes, end: bytes) -> bytes:
        if len(head) > self._limits.header_bytes:
            raise self._too_long()
        if end != b"\n\r\n" or not head.endswith(b"\r\n"):
            raise Refused(400, "a line of the request does not end with carriage return and line feed")
        return head

    def _too_long(self) -> Refused:
        return Refused(
            431, f"request line and headers are longer than max_header, {self._limits.header_bytes} bytes: shorten them"
        )

"""The body of a request, read when the application asks for it: of known length or in chunks, plain or gzip."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Protocol

from scheduler.wsgi.buffers import Buffers
from scheduler.wsgi.errors import Refused
from scheduler.wsgi.limits import Limits
from scheduler.wsgi.request_head import RequestHead

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_TRAILER = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_LINE_BYTES = 4096
_TRAILERS_BYTES = 16 * 1024
_STEP_BYTES = 64 * 1024
_GZIP_BITS = 31
_CODINGS = (b"", b"identity", b"gzip", b"x-gzip")
_BROKEN_CHUNKS = "the chunks of the body are not valid HTTP/1.1"


class Source(Protocol):
    """Where bytes come from: what has arrived already, then the connection. Raises Refused if they come too slowly."""

    def read_into(self, target: memoryview) -> None:
        """Fills the target."""
        ...

    def read_line(self, most: int) -> bytes:
        """Returns the bytes up to a line feed and with it; raises Refused where it has not come by so many bytes."""
        ...


class Body:
    """A request's body as `wsgi.input`. It is read once, as a whole, at the first call.

    Args:
        head: says how long it is, and how it is packed.
        source: where it comes from.
        limits: how long it may be, packed and unpacked.
        buffers: where memory for it comes from.
        waits: called with true before the first byte is read and with false after the last one; not at all where there
            is none.
    """

    def __init__(
        self, head: RequestHead, source: Source, limits: Limits, buffers: Buffers, waits: Callable[[bool], None]
    ) -> None:
        """Reads nothing yet.

        Raises:
            Refused: it is longer than allowed, or packed in a way that cannot be unpacked.
        """
        coding = head.headers.get(b"content-encoding", b"").lower()
        if coding not in _CODINGS:
            raise Refused(
                415,
                "Content-Encoding can only be gzip or identity: send the body in one of these",
                (("Accept-Encoding", "gzip, identity"),),
            )
        self._most = limits.body_bytes
        if head.length is not None and head.length > self._most:
            raise self._too_large()
        self._head = head
        self._source = source
        self._buffers = buffers
        self._buffer: bytearray | None = None
        self._waits = waits
        self.is_packed = coding.endswith(b"gzip")
        self._left = head.length or 0
        self._stream: BytesIO | None = None
        self.begun = not head.has_body
        """Whether reading it has begun."""
        self.is_complete = not head.has_body
        """Whether all of it is read; false: the connection still holds the rest."""

    def whole(self) -> bytes | memoryview:
        """Returns the whole body, without a copy; may be called once, instead of the other methods.

        Raises:
            Refused: it is too large, broken, or comes too slowly.
        """
        if self.begun:
            return b""
        self.begun = True
        self._waits(True)
        raw = self._chunks() if self._head.chunked else self._plain()
        self._waits(False)
        self.is_complete = True
        return _unpacked(raw, self._most, self._too_large) if self.is_packed else raw

    def forget(self, most: int) -> None:
        """Reads the body for nothing.

        Raises:
            Refused: it has more than so many bytes, or is what `whole` refuses.
        """
        self._most = min(self._most, most)
        self.whole()
        self.release()

    def read(self, size: int = -1, /) -> bytes:
        """Returns up to so many bytes; all that is left, if it is negative."""
        if self._stream is None and (size < 0 or size >= self._left > 0):
            # As nearly everything reads it: without the copies of a stream.
            self._stream = BytesIO()
            return bytes(self.whole())
        return self._whole_stream().read(size)

    def readline(self, size: int = -1, /) -> bytes:
        """Returns a line."""
        return self._whole_stream().readline(size)

    def readlines(self, hint: int = -1, /) -> list[bytes]:
        """Returns the lines that are left."""
        return self._whole_stream().readlines(hint)

    def __iter__(self) -> BytesIO:
        """Iterates over lines."""
        return self._whole_stream()

    def _whole_stream(self) -> BytesIO:
        if self._stream is None:
            self._stream = BytesIO(self.whole())
        return self._stream

    def release(self) -> None:
        """Gives its memory back; what still looks at the body may go on doing so."""
        if self._buffer is not None:
            self._buffers.give(self._buffer)
            self._buffer = None

    def _plain(self) -> memoryview:
        self._buffer = self._buffers.take(self._left)
        view = memoryview(self._buffer)[: self._left]
        self._source.read_into(view)
        return view.toreadonly()

    def _chunks(self) -> memoryview:
        raw = bytearray()
        while True:
            line = _CHUNK.fullmatch(self._source.read_line(_LINE_BYTES))
            if line is None:
                raise Refused(400, _BROKEN_CHUNKS)
            size = int(line[1], 16)
            if not size:
                self._trailers()
                return memoryview(raw).toreadonly()
            if len(raw) + size > self._most:
                raise self._too_large()
            begin, end = len(raw), len(raw) + size
            while begin < end:
                # Memory is taken for what arrives, not for what is announced.
                step = min(_STEP_BYTES, end - begin)
                raw += bytes(step)
                with memoryview(raw) as view:
                    self._source.read_into(view[begin:])
                begin += step
            if self._source.read_line(2) != b"\r\n":
                raise Refused(400, _BROKEN_CHUNKS)

    def _trailers(self) -> None:
        """Reads what follows the last chunk; the application does not get it."""
        left = _TRAILERS_BYTES
        while (line := self._source.read_line(left)) != b"\r\n":
            left -= len(line)
            if left <= 0 or _TRAILER.fullmatch(line) is None:
                raise Refused(400, _BROKEN_CHUNKS)

    def _too_large(self) -> Refused:
        return Refused(
            413,
            f"the body is over the limit of {self._most} bytes: send a smaller batch or smaller pictures",
        )


def _unpacked(raw: memoryview, most: int, too_large: Callable[[], Refused]) -> bytes:
    """Returns the content of a gzip stream of one member; never takes more memory than `most` bytes allow."""
    decoder = zlib.decompressobj(_GZIP_BITS)
    try:
        content = decoder.decompress(raw, most + 1)
    except zlib.error:
        raise Refused(400, "the body is not gzip, which its Content-Encoding says") from None
    if len(content) > most:
        raise too_large()
    if not decoder.eof or decoder.unused_data:
        raise Refused(400, "the body is not one whole gzip stream, which its Content-Encoding says")
    return content

"""An answer of HTTP as it arrives: its head read by httptools, a body of known length kept where it is."""

from __future__ import annotations

import errno

import httptools

from scheduler.daemon.backends.bounded_reading import TooLarge

LARGEST_HEAD = 64 * 1024
"""Of an answer and the interim ones before it, together."""
_CHUNKED = 8
"""In chunks of one byte an answer takes six times its bytes; the rest is for trailers, which nothing reads."""
_END = b"\r\n\r\n"


class AnswerReading:
    """One answer; `status`, `by_name` and `keeps` are known when it is whole."""

    def __init__(self, limit_bytes: int) -> None:
        """Stores how many bytes its body may have."""
        self._limit_bytes = limit_bytes
        self._left_of_heads = LARGEST_HEAD
        self._left_of_chunks = _CHUNKED * limit_bytes + LARGEST_HEAD
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._head = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes | memoryview] = []
        self._missing: int | None = None
        self._read_bytes = 0
        self._in_body = self._has_ended = False
        self.by_name: dict[str, str] = {}
        self.status = 0
        self.keeps = False
        self.ends_with_connection = False

    # The next four are called by httptools.
    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:
            self._fields.append((name, value))

    def on_headers_complete(self) -> None:
        # Here, because it is said otherwise once an answer without a body is whole.
        self.keeps = self._parser.should_keep_alive()

    def on_body(self, piece: bytes) -> None:
        self._take(piece)

    def on_message_complete(self) -> None:
        self._has_ended = True

    def feed(self, data: bytes) -> bool:
        """Takes in a part; returns whether the answer is whole.

        Raises:
            TooLarge: it has too many bytes.
            ConnectionError: it is no HTTP, or has too long a head.
        """
        rest = memoryview(data)
        if not self._in_body:
            found = self._rest_behind_head(data)
            if found is None:
                return False
            rest = found
        if self._missing is None:
            if self.ends_with_connection:
                self._take(rest)
            elif len(rest):
                self._left_of_chunks -= len(rest)
                if self._left_of_chunks < 0:
                    raise TooLarge(self._limit_bytes)
                self._parse(bytes(rest))
            return self._has_ended
        if len(rest) > self._missing:
            self.keeps = False  # bytes behind the answer
            rest = rest[: self._missing]
        self._missing -= len(rest)
        self._take(rest)
        return not self._missing

    def body(self) -> bytes | memoryview:
        """Returns the body."""
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _rest_behind_head(self, data: bytes) -> memoryview | None:
        """Reads the head, past interim answers; returns what follows it. None: more of it is to come."""
        data = self._head + data if self._head else data
        start = 0
        while (end := data.find(_END, start)) >= 0:
            end += len(_END)
            self._left_of_heads -= end - start
            if self._left_of_heads < 0:
                raise _not_http("the head of the answer is too long")
            self._read_head(data[start:end])
            if not 100 <= self.status < 200:
                return memoryview(data)[end:]
            self._begin()
            start = end
        if len(data) - start > self._left_of_heads:
            raise _not_http("the head of the answer is too long")
        self._head = data[start:]
        return None

    def _read_head(self, head: bytes) -> None:
        self._parse(head)
        self._in_body = True
        self.status = self._parser.get_status_code()
        for name, value in self._fields:
            self.by_name.setdefault(name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t"))
        if self.status == 101:
            raise _not_http("the answer changes the protocol")
        length = self.by_name.get("content-length")
        if self.status in (204, 304):
            self._missing = 0
        elif "transfer-encoding" in self.by_name:
            self.ends_with_connection = "chunked" not in self.by_name["transfer-encoding"].lower()
        elif length is not None:
            self._missing = int(length)
            if self._missing > self._limit_bytes:
                raise TooLarge(self._limit_bytes)
        else:
            self.ends_with_connection = True
        self.keeps = self.keeps and not self.ends_with_connection

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, TooLarge):
                raise error.__context__ from None
            raise
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise _not_http(f"the answer is no HTTP ({error})") from None

    def _take(self, piece: bytes | memoryview) -> None:
        self._read_bytes += len(piece)
        if self._read_bytes > self._limit_bytes:
            raise TooLarge(self._limit_bytes)
        if len(piece):
            self._pieces.append(piece)


def _not_http(why: str) -> ConnectionError:
    return ConnectionError(errno.EPROTO, why)

"""An answer: status, headers and body to bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

from scheduler.wsgi.errors import Refused, reason_of

_OWN = frozenset({"content-length", "connection", "date", "transfer-encoding", "keep-alive"})
_date: tuple[int, str] = (0, "")


class Answer:
    """What an application says in `start_response`."""

    def __init__(self) -> None:
        """Nothing is said yet."""
        self.status = ""
        self.headers: Sequence[tuple[str, str]] = ()
        self._written: list[bytes] = []

    def start(self, status: str, headers: Sequence[tuple[str, str]], _: Any = None) -> Callable[[bytes], object]:
        """Takes status and headers, again after an error: nothing is sent before all is there."""
        self.status, self.headers = status, headers
        return self._written.append

    def body(self, parts: Any) -> bytes:
        """Returns the whole body of what the application returned, which is closed then."""
        try:
            made = [*self._written, *parts]
        finally:
            close = getattr(parts, "close", None)
            if close is not None:
                close()
        return made[0] if len(made) == 1 else b"".join(made)

    def head(self, body: bytes, *, method: str, minor: int, close: bool) -> bytes:
        """Returns status line and headers.

        Args:
            body: which follows, unless the method is HEAD.
            method: of the request.
            minor: the request's version after "HTTP/1.".
            close: whether this is the last answer on its connection.

        Raises:
            ValueError: the application's status or a header holds a line break.
        """
        lines = [f"HTTP/1.1 {self.status}"]
        length: str | None = str(len(body))
        if self.status.startswith(("204", "304")):
            length = None
        for name, value in self.headers:
            lower = name.lower()
            if lower == "content-length" and method == "HEAD" and length is not None:
                length = value
            if lower not in _OWN:
                lines.append(f"{name}: {value}")
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines.append(f"Date: {_now()}")
        if close:
            lines.append("Connection: close")
        elif not minor:
            lines.append("Connection: keep-alive")
        text = "\r\n".join(lines)
        if text.count("\n") != len(lines) - 1 or text.count("\r") != len(lines) - 1:
            raise ValueError("a header of the application holds a line break")
        return f"{text}\r\n\r\n".encode("latin-1")


def refusal(refused: Refused, *, close: bool = True) -> bytes:
    """Returns the whole answer to a request that is refused, its sentence as JSON."""
    return error_answer(refused.status, str(refused), refused.headers, close=close)


def error_answer(status: int, sentence: str, headers: Sequence[tuple[str, str]] = (), *, close: bool = True) -> bytes:
    """Returns a whole answer with an error sentence as JSON."""
    fields, body = error_content(sentence, headers)
    answer = Answer()
    answer.start(f"{status} {reason_of(status)}", fields)
    return answer.head(body, method="GET", minor=1, close=close) + body


def error_content(sentence: str, headers: Sequence[tuple[str, str]] = ()) -> tuple[list[tuple[str, str]], bytes]:
    """Returns headers and body of an error sentence as JSON."""
    return [("Content-Type", "application/json"), *headers], json.dumps({"error": sentence}).encode()


def _now() -> str:
    """Returns the time as HTTP writes it, made once a second."""
    global _date  # noqa: PLW0603 - a cache, replaced as a whole
    now_s = int(time.time())  # noqa: TID251 - HTTP's Date is wall-clock time
    if _date[0] != now_s:
        _date = (now_s, formatdate(now_s, usegmt=True))
    return _date[1]

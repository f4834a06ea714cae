"""The last bytes that the process printed, for callers that ask for the log of their invocation."""

from __future__ import annotations

import sys
import threading
from typing import TextIO

KEPT_BYTES = 2048
"""Size of the tail; the platform's own header for it, which custom containers do not have, has up to 4 KB."""


class LogTail:
    """Ring of the last printed bytes. Thread-safe.

    >>> tail = LogTail(kept_bytes=8)
    >>> tail.add("loading\\nready\\n")
    >>> tail.text()
    'g\\nready\\n'
    """

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        """Keeps at most so many bytes."""
        self._kept_bytes = kept_bytes
        self._bytes = b""
        self._lock = threading.Lock()

    @staticmethod
    def of_this_process() -> LogTail:
        """Returns the tail of what this process prints to stdout and stderr from now on; both still get it."""
        tail = LogTail()
        sys.stdout, sys.stderr = _Copied(sys.stdout, tail), _Copied(sys.stderr, tail)
        return tail

    def add(self, text: str) -> None:
        """Appends printed text; the oldest bytes go."""
        with self._lock:
            self._bytes = (self._bytes + text[-self._kept_bytes :].encode(errors="replace"))[-self._kept_bytes :]

    def text(self) -> str:
        """Returns the tail; a character that was cut at its beginning is left out."""
        with self._lock:
            return self._bytes.decode(errors="ignore")


class _Copied:
    """A text stream whose output a tail gets too."""

    def __init__(self, stream: TextIO, tail: LogTail) -> None:
        self._stream = stream
        self._tail = tail

    def write(self, text: str) -> int:
        self._tail.add(text)
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)

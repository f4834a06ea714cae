"""Bounds the answers that the provider's SDK reads whole: its adapter for `requests` stops reading at a limit."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_PIECE_BYTES = 2**16
DATE_CHARACTERS = 64
_reading = threading.local()


class AnswerTooLarge(OSError):
    """An answer has more bytes than are read of it; the SDK takes it for an error of the connection."""


@contextmanager
def answers_up_to(limit_bytes: int | None) -> Iterator[None]:
    """Limits the answers that this thread reads meanwhile; None: any size is read."""
    _reading.limit_bytes = limit_bytes
    try:
        yield
    finally:
        _reading.limit_bytes = None


def forget_answer() -> None:
    """Forgets what this thread's last answer was headed with."""
    _reading.status, _reading.date = 0, ""


def answer_head() -> tuple[int, str]:
    """Returns the status and the Date of this thread's last answer; 0 and empty where there was none.

    The SDK keeps neither the Date nor, where it cannot read an error's body, the status.
    """
    return getattr(_reading, "status", 0), getattr(_reading, "date", "")


def bounded(get_adapter: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that makes the SDK's adapters, so that they read answers within the limit."""

    def get_bounded(*arguments: Any, **options: Any) -> Any:
        adapter = get_adapter(*arguments, **options)
        build_response = adapter.build_response

        def build(request: Any, answer: Any) -> Any:
            _reading.status, _reading.date = answer.status, str(answer.headers.get("Date", ""))[:DATE_CHARACTERS]
            return _read(build_response(request, answer))

        adapter.build_response = build
        return adapter

    return get_bounded


def _read(response: Any) -> Any:
    """Returns a response of `requests` with its body read, as if it had been read without a limit."""
    limit_bytes = getattr(_reading, "limit_bytes", None)
    if limit_bytes is None:
        return response
    length = response.headers.get("Content-Length", "")
    size, pieces = int(length) if length.isdecimal() else 0, []
    if size <= limit_bytes:
        size = 0
        for piece in response.iter_content(_PIECE_BYTES):
            size += len(piece)
            if size > limit_bytes:
                break
            pieces.append(piece)
        else:
            response._content = b"".join(pieces)
            return response
    response.raw.close()
    raise AnswerTooLarge(
        f"sent an answer of more than {limit_bytes} bytes, which is more than the model's outputs can take"
    )

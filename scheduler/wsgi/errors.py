"""Why a request is refused, and why a connection ends."""

from __future__ import annotations

from http import HTTPStatus


class Refused(Exception):
    """Error: the request gets this status and sentence, and its connection ends: what follows in it may be anything.

    Args:
        status: the HTTP status.
        sentence: what to do, for the client; nothing of the request is repeated in it.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """Stores the arguments."""
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Gone(Exception):
    """Error: the client has left, is too slow to take its answer, or its place was given to another one."""


def reason_of(status: int) -> str:
    """Returns the words of a status line.

    >>> reason_of(404), reason_of(299)
    ('Not Found', 'Status')
    """
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"

"""What goes wrong at the edge, each with the HTTP status a client sees."""

from __future__ import annotations


class EdgeError(Exception):
    """Base of the refusals: the message is one sentence for the client, `status` its HTTP status."""

    status = 500


class BadRequest(EdgeError):
    """The request cannot be served as it is; sending it again will not help."""

    status = 400


class NotServed(EdgeError):
    """No such model, or no such version of it, is served here."""

    status = 404


class Unavailable(EdgeError):
    """Not now.

    Attributes:
        message: one sentence for the client.
        retry_after_s: whole seconds after which another try makes sense.
    """

    status = 503

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        """Stores both."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StartupError(Exception):
    """The server cannot start; the message is one sentence that says what to change."""

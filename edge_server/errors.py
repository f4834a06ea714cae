"""Errors of the edge server, each with its HTTP status."""

from __future__ import annotations


class EdgeError(Exception):
    """Base class of refusals: the message is one sentence for the client, `status` the HTTP status."""

    status = 500


class BadRequest(EdgeError):
    """Error: the request cannot be served; sending it again does not help."""

    status = 400


class NotServed(EdgeError):
    """Error: the server has no such model, or no such version of it."""

    status = 404


class Unavailable(EdgeError):
    """Error: the server cannot serve the request now.

    Args:
        message: one sentence for the client.
        retry_after_s: whole seconds after which the client may try again.
    """

    status = 503

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        """Stores the arguments."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Failed(EdgeError):
    """Error: the model failed on this batch; the message says why."""


class TooLarge(EdgeError):
    """Error: a batch does not fit in the device's memory; smaller ones may."""

    status = 413


class Overdue(EdgeError):
    """Error: a batch has taken longer than the limit and was given up."""


class StartupError(Exception):
    """Error: the server cannot start; the message says what to change."""

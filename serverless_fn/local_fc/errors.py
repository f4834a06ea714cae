"""Errors of the endpoint, with the provider's statuses and codes."""

from __future__ import annotations


class FcError(Exception):
    """Error to be answered to the caller.

    Args:
        status: the HTTP status.
        code: the provider's name of the error, which its SDK passes on.
        message: one sentence.
        retry_after_ms: value of the header `x-acs-retry-after`, with which the SDK raises its throttling error.
    """

    def __init__(self, status: int, code: str, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms


def invalid_argument(message: str) -> FcError:
    """Returns the error for a field that is missing, of the wrong type or out of range."""
    return FcError(400, "InvalidArgument", message)


def not_found(what: str, name: str, function: str = "") -> FcError:
    """Returns the error for an object (Function, Alias, Version, Trigger, ...) that does not exist."""
    of = f" of function {function!r}" if function else ""
    return FcError(404, f"{what}NotFound", f"{what.lower()} {name!r}{of} does not exist")


def exists(what: str, name: str) -> FcError:
    """Returns the error for an object that exists already."""
    return FcError(409, f"{what}AlreadyExists", f"{what.lower()} {name!r} already exists")


def exhausted(message: str) -> FcError:
    """Returns the error for a reached limit of concurrency or instances, or for scaling out too fast."""
    return FcError(429, "ResourceExhausted", message)

"""Errors as every protocol gives them to clients: an HTTP status, one sentence without a final period, and headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.daemon.calls import Refused
from scheduler.domain.errors import EdgeburstError, Refusal, RefusalKind
from scheduler.wire import WireError

REQUEST_HEADER = "X-Edgeburst-Request-Id"
"""Header with the daemon's number of a request, on its answer or its refusal."""

RETRY_HEADER = "Retry-After"

CHALLENGE_HEADER = "WWW-Authenticate"
"""Header that says how to send a token."""

FAULT = "the daemon failed on this request; see its log"
"""What the client is told of a fault of the program."""

NO_MEMORY = "the daemon has no memory for this request; send it again later, or give the daemon more memory"


class Rejected(EdgeburstError):
    """A request that is not valid, so that it does not become a call; the client must change it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores the status, the sentence and the headers of the response."""
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True, slots=True)
class ClientError:
    """What a client is told instead of an answer."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)
    kind: RefusalKind | None = None
    """The kind of a refusal; None: the request did not become a call."""


def client_error(error: EdgeburstError | WireError) -> ClientError:
    """Returns what the client is told of an error."""
    if isinstance(error, Refused):
        number = {} if error.request_id is None else {REQUEST_HEADER: str(error.request_id)}
        refusal = error.refusal
        return ClientError(refusal.status, refusal.message, {**_retry_after(refusal), **number}, refusal.kind)
    if isinstance(error, Rejected):
        return ClientError(error.status, str(error), error.headers)
    return ClientError(400, str(error))


def _retry_after(refusal: Refusal) -> Mapping[str, str]:
    """Returns the Retry-After header in whole seconds, at least 1: an immediate retry would find the same state."""
    if refusal.retry_after_s is None or not math.isfinite(refusal.retry_after_s):
        return {}
    return {RETRY_HEADER: str(max(1, math.ceil(refusal.retry_after_s)))}

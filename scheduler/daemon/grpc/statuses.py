"""What the client of a gRPC call is told of an error: a status code, the sentence, and trailing metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from scheduler.daemon.ingress.errors import CHALLENGE_HEADER, REQUEST_HEADER, RETRY_HEADER, ClientError
from scheduler.domain.errors import RefusalKind

CODES: Mapping[int, Any] = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""By HTTP status."""

_LATE = frozenset({RefusalKind.DEADLINE, RefusalKind.NO_ANSWER})
_TOLD = (RETRY_HEADER, REQUEST_HEADER, CHALLENGE_HEADER)


def code_of(error: ClientError) -> Any:
    """Returns the status code.

    A request that no place can answer in time gets DEADLINE_EXCEEDED. Where it is known when that changes (a spend cap
    opens, a backend is tried again) it gets UNAVAILABLE, which clients send again.
    """
    if error.kind in _LATE and (error.kind is RefusalKind.NO_ANSWER or RETRY_HEADER not in error.headers):
        return grpc.StatusCode.DEADLINE_EXCEEDED
    return CODES.get(error.status, grpc.StatusCode.UNKNOWN)


def metadata_of(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Returns trailing metadata: the headers that have a meaning beyond HTTP, by their names in small letters."""
    return tuple((name.lower(), headers[name]) for name in _TOLD if name in headers)

"""What a client is told of an exception: a status and `{"error": "one sentence"}`, without a final period; counted."""

from __future__ import annotations

import logging

from scheduler.daemon.http.rendered import Rendered, rendered_error
from scheduler.daemon.ingress.errors import FAULT, NO_MEMORY, RETRY_HEADER, client_error
from scheduler.daemon.logs import fields, log
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.errors import EdgeburstError
from scheduler.wire import WireError

_logger = logging.getLogger("edgeburst")


def refusal(error: Exception, *, method: str, path: str) -> Rendered:
    """Returns the answer to a request whose handling ended with an exception; a fault of the program is logged."""
    if isinstance(error, (EdgeburstError, WireError)):
        told = client_error(error)
        return rendered_error(told.status, told.message, told.headers)
    if isinstance(error, MemoryError):
        log(logging.WARNING, "no_memory", method=method, path=path, message=NO_MEMORY)
        return rendered_error(503, NO_MEMORY, {RETRY_HEADER: "1"})
    # The client gets a sentence, the log the traceback.
    _logger.error("request_bug", exc_info=error, extra=fields(method=method, path=path))
    return rendered_error(500, FAULT)


def counted(telemetry: Telemetry, status: int, *, method: str, path: str) -> None:
    """Counts a refusal, with one quiet line in the log."""
    telemetry.http_error(status)
    log(logging.DEBUG, "refused", method=method, path=path, status=status)

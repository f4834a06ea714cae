"""Errors as clients get them: an HTTP status and `{"error": "one sentence"}`, without a final period."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.calls import Refused
from scheduler.daemon.logs import fields, log
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.errors import EdgeburstError, Refusal
from scheduler.wire import WireError

REQUEST_HEADER = "X-Edgeburst-Request-Id"
"""Header with the daemon's number of a request, on its answer or its refusal."""

_logger = logging.getLogger("edgeburst")


class Rejected(EdgeburstError):
    """A request that is not valid, so that it does not become a call; the client must change it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores the status, the sentence and the headers of the response."""
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns an error as a JSON response."""
    body = orjson.dumps({"error": message})
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def errors_as_json(telemetry: Telemetry) -> Middleware:
    """Returns the middleware that turns a handler's exceptions into such responses, and counts them."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionError:
            raise  # the client is gone, so there is nothing to answer
        except (EdgeburstError, WireError, web.RequestPayloadError) as error:
            response = _refusal_response(error)
        except web.HTTPException as error:
            response = _router_response(request, error)
        except Exception:  # noqa: BLE001 - the client gets a sentence, the log the traceback
            _logger.exception("request_bug", extra=fields(method=request.method, path=request.path))
            response = error_response(500, "the daemon failed on this request; see its log")
        telemetry.http_error(response.status)
        log(logging.DEBUG, "refused", method=request.method, path=request.path, status=response.status)
        return response

    return middleware


def _refusal_response(error: Exception) -> web.Response:
    if isinstance(error, Refused):
        number = {} if error.request_id is None else {REQUEST_HEADER: str(error.request_id)}
        return error_response(error.refusal.status, error.refusal.message, {**_retry_after(error.refusal), **number})
    if isinstance(error, Rejected):
        return error_response(error.status, str(error), error.headers)
    if isinstance(error, WireError):
        return error_response(400, str(error))
    return error_response(400, "the body does not match its Content-Encoding or Transfer-Encoding; send it again")


def _retry_after(refusal: Refusal) -> Mapping[str, str]:
    """Returns the Retry-After header in whole seconds, at least 1: an immediate retry would find the same state."""
    if refusal.retry_after_s is None or not math.isfinite(refusal.retry_after_s):
        return {}
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}


def _router_response(request: web.Request, error: web.HTTPException) -> web.Response:
    """Returns the response for an error of aiohttp itself, mostly an unknown path or method."""
    if error.status == 404:
        message = f"the path {request.path[:200]} is unknown; inference is at POST /v2/models/MODEL/infer"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return error_response(
            405, f"the method {request.method} is not allowed here; use {allowed}", {"Allow": allowed}
        )
    else:
        message = error.reason
    return error_response(error.status, message)

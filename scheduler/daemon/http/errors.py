"""What a client is told when it gets no answer: an HTTP status and `{"error": "one sentence"}`."""

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
"""The daemon's own number of a request, on its answer or refusal."""

_logger = logging.getLogger("edgeburst")


class Rejected(EdgeburstError):
    """A request that never became a call: the client must change it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        """Stores what the client is told."""
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns the one form that errors have."""
    body = orjson.dumps({"error": message})
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def errors_as_json(telemetry: Telemetry) -> Middleware:
    """Returns the middleware that turns whatever a handler raises into a response of that form, and counts it."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ConnectionError:
            raise  # nobody is there to be told
        except (EdgeburstError, WireError, web.RequestPayloadError) as error:
            response = _refusal_response(error)
        except web.HTTPException as error:
            response = _router_response(request, error)
        except Exception:  # noqa: BLE001 - the outermost line of a request: the client is told, the log has the rest
            _logger.exception("request_bug", extra=fields(method=request.method, path=request.path))
            response = error_response(500, "the daemon failed on this request; its log says why")
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
    return error_response(400, "the body is not what its Content-Encoding or Transfer-Encoding says; send it again")


def _retry_after(refusal: Refusal) -> Mapping[str, str]:
    """Whole seconds, never 0: who comes back at once finds what it left."""
    if refusal.retry_after_s is None or not math.isfinite(refusal.retry_after_s):
        return {}
    return {"Retry-After": str(max(1, math.ceil(refusal.retry_after_s)))}


def _router_response(request: web.Request, error: web.HTTPException) -> web.Response:
    """What aiohttp itself answers, mostly paths and methods that do not exist."""
    if error.status == 404:
        message = f"there is nothing at {request.path[:200]}; inference is at POST /v2/models/MODEL/infer"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return error_response(405, f"{request.method} is not possible there, but {allowed} is", {"Allow": allowed})
    else:
        message = error.reason
    return error_response(error.status, message)

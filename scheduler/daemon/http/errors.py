"""Errors as clients get them: an HTTP status and `{"error": "one sentence"}`, without a final period."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import orjson
from aiohttp import HttpVersion10, web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.ingress.errors import FAULT, NO_MEMORY, RETRY_HEADER, Rejected, client_error
from scheduler.daemon.logs import fields, log
from scheduler.daemon.telemetry import Telemetry
from scheduler.domain.errors import EdgeburstError
from scheduler.wire import WireError

_logger = logging.getLogger("edgeburst")


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns an error as a JSON response."""
    body = orjson.dumps({"error": message})
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


def errors_as_json(telemetry: Telemetry) -> Middleware:
    """Returns the middleware that turns a handler's exceptions into such responses, and counts them."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_readable(request)
            return await handler(request)
        except ConnectionError:
            raise  # the client is gone, so there is nothing to answer
        except (EdgeburstError, WireError) as error:
            told = client_error(error)
            response = error_response(told.status, told.message, told.headers)
        except web.RequestPayloadError:
            broken = "the body does not match its Content-Encoding or Transfer-Encoding; send it again"
            response = error_response(400, broken)
        except web.HTTPException as error:
            response = _router_response(request, error)
        except MemoryError:
            log(logging.WARNING, "no_memory", method=request.method, path=request.path, message=NO_MEMORY)
            response = error_response(503, NO_MEMORY, {RETRY_HEADER: "1"})
        except Exception:  # noqa: BLE001 - the client gets a sentence, the log the traceback
            _logger.exception("request_bug", extra=fields(method=request.method, path=request.path))
            response = error_response(500, FAULT)
        telemetry.http_error(response.status)
        log(logging.DEBUG, "refused", method=request.method, path=request.path, status=response.status)
        return response

    return middleware


def _check_readable(request: web.Request) -> None:
    """Refuses header values that are not UTF-8, of which no text could be made in answers or logs; and HTTP/0.9."""
    if request.version < HttpVersion10:
        raise Rejected(400, "the request names no version of HTTP; send HTTP/1.1")
    for name, value in request.headers.items():
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            raise Rejected(400, f"the header {name} is not UTF-8 text; send ASCII or UTF-8")


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

"""Errors as clients get them over aiohttp: those of `refusals`, and what aiohttp itself raises."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import HttpVersion10, web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.http.refusals import counted, refusal
from scheduler.daemon.http.rendered import Rendered, rendered_error
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.telemetry import Telemetry


def as_response(rendered: Rendered) -> web.Response:
    """Returns an answer as aiohttp writes it."""
    return web.Response(body=rendered.body, status=rendered.status, headers=rendered.headers)


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """Returns an error as a JSON response."""
    return as_response(rendered_error(status, message, headers))


def errors_as_json(telemetry: Telemetry) -> Middleware:
    """Returns the middleware that turns a handler's exceptions into such responses, and counts them."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _check_readable(request)
            return await handler(request)
        except ConnectionError:
            raise  # the client is gone, so there is nothing to answer
        except web.RequestPayloadError:
            broken = "the body does not match its Content-Encoding or Transfer-Encoding; send it again"
            response = error_response(400, broken)
        except web.HTTPException as error:
            response = _router_response(request, error)
        except Exception as error:  # noqa: BLE001 - a fault is logged
            response = as_response(refusal(error, method=request.method, path=request.path))
        counted(telemetry, response.status, method=request.method, path=request.path)
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

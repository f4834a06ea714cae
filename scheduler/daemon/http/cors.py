"""Lets scripts of pages from other origins ask the daemon and read its answers, if `cors_origins` allows it.

Reference: https://fetch.spec.whatwg.org/#http-cors-protocol. Only GET and POST are let through: what PUT changes is for
operators.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

METHODS = "GET, POST"
MAX_AGE_S = 600
"""How long a browser may remember the answer to its question; some allow no more."""

_EXPOSED = "Inference-Header-Content-Length, X-Edgeburst-Request-Id, Retry-After"

Origins = Callable[[], Collection[str]]
"""Returns the origins that are allowed now; "*" stands for any."""


def preflights(origins: Origins) -> Middleware:
    """Returns the middleware that answers browsers that ask first, with OPTIONS, whether a script may ask."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        headers = request.headers
        asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in headers
        if not asks or allowed(headers.get("Origin", ""), origins()) is None:
            return await handler(request)
        granted = {"Access-Control-Allow-Methods": METHODS, "Access-Control-Max-Age": str(MAX_AGE_S)}
        wanted = headers.get("Access-Control-Request-Headers", "")
        if wanted:
            granted |= {"Access-Control-Allow-Headers": wanted}
        return web.Response(status=204, headers=granted)

    return middleware


def mark_responses(app: web.Application, origins: Origins) -> None:
    """Makes every response say which origin may read it, errors included."""

    async def mark(request: web.Request, response: web.StreamResponse) -> None:
        for name, value in marks(request.headers.get("Origin", ""), origins()):
            response.headers.add(name, value)

    app.on_response_prepare.append(mark)


def marks(origin: str, configured: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yields the headers that say whether an origin may read an answer; none where no origin is configured."""
    if not configured:
        return
    if "*" not in configured:
        yield "Vary", "Origin"
    shown = allowed(origin, configured)
    if shown is not None:
        yield "Access-Control-Allow-Origin", shown
        yield "Access-Control-Expose-Headers", _EXPOSED


def allowed(origin: str, configured: Collection[str]) -> str | None:
    """Returns what Access-Control-Allow-Origin says to an origin; None: it is not allowed.

    >>> allowed("https://a.example", ["https://a.example"]), allowed("https://b.example", ["*"])
    ('https://a.example', '*')
    >>> allowed("https://b.example", ["https://a.example"])
    """
    if not origin:
        return None
    if "*" in configured:
        return "*"
    return origin if origin in configured else None

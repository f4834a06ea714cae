"""The page at `/`: its files, and the stream of events that it follows."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Any

import orjson
from aiohttp import web

from scheduler.daemon.history.feed import Feed
from scheduler.daemon.http.access import caller_of
from scheduler.daemon.http.admin import query_number
from scheduler.daemon.http.admission import EVENTS_PATH, PAGE_PATH
from scheduler.daemon.http.compression import pack
from scheduler.daemon.http.errors import as_response
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected
from scheduler.explain.words import CAUSES, GATES, LEFT, OUTCOMES, QUEUES, REASONS

STREAMS = 32
"""Open streams."""
STREAMS_OF_CLIENT = 8
"""Of one client: each is an open page."""
WRITE_LIMIT_S = 10.0
"""A reader that does not take an event within this is dropped."""

_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".txt": "text/plain"}
_SAFE = {
    # The page loads from nowhere but the daemon that serves it, and runs nothing that is not a file of its own.
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
_STREAM = {"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class PageCalls:
    """The handlers of the page and its stream; what it shows is read out elsewhere."""

    def __init__(self, feed: Feed) -> None:
        """Stores what makes the events."""
        self._feed = feed
        self._open: Counter[str] = Counter()

    def routes(self) -> list[web.RouteDef]:
        """Returns the paths."""
        return [
            web.get("/", self.page),
            web.get(PAGE_PATH + "{file}", self.file),
            web.get(EVENTS_PATH, self.events),
        ]

    async def page(self, request: web.Request) -> web.Response:
        """GET /: the page."""
        return await _file_response(request, "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """GET /page/{file}: one of its files."""
        return await _file_response(request, request.match_info["file"])

    async def events(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/events?after=ID: server-sent events, one a second, after that which GET /v1/now named."""
        after, key = query_number(request, "after", 0), caller_of(request).key
        if self._open[key] >= STREAMS_OF_CLIENT or self._open.total() >= STREAMS:
            most = f"{STREAMS_OF_CLIENT} pages of one client, {STREAMS} in all"
            raise Rejected(429, f"as many pages are open as may be ({most}); close one", {RETRY_HEADER: "10"})
        self._open[key] += 1
        try:
            return await self._stream(request, after)
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]

    async def _stream(self, request: web.Request, after: int) -> web.StreamResponse:
        response = web.StreamResponse(headers=_STREAM)
        await response.prepare(request)
        events = self._feed.events(after)
        try:
            await _write(request, response, b"retry: 1000\n\n")
            async for event in events:
                await _write(request, response, event)
            # The daemon stops, or the page has missed events: it begins anew.
            await _write(request, response, b"event: over\ndata: {}\n\n")
            response.force_close()
            await response.write_eof()
        except ConnectionError:
            pass  # the page was closed, or takes nothing
        finally:
            await events.aclose()
        return response


async def _write(request: web.Request, response: web.StreamResponse, data: bytes) -> None:
    try:
        await asyncio.wait_for(response.write(data), WRITE_LIMIT_S)
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the page does not take its events") from None


@cache
def page_files() -> Mapping[str, bytes]:
    """Returns the page's files by name: those of the folder, and the words of explanations."""
    folder = resources.files("scheduler.daemon").joinpath("page")
    names = [each.name for each in folder.iterdir() if _kind(each.name)]
    return {**{name: folder.joinpath(name).read_bytes() for name in names}, "words.js": _words()}


def _kind(name: str) -> str:
    return _TYPES.get(name[name.rfind(".") :], "")


def _words() -> bytes:
    """Returns the words of causes, queues, reasons and ends as a module: the page says what the command says."""
    tables: Mapping[str, Mapping[Any, str]] = {
        "CAUSES": CAUSES,
        "QUEUES": QUEUES,
        "GATES": GATES,
        "REASONS": REASONS,
        "LEFT": LEFT,
        "OUTCOMES": OUTCOMES,
    }
    lines = ["// What `edgeburst explain` says, from scheduler/explain/words.py.\n"]
    for name, words in tables.items():
        values = orjson.dumps({str(getattr(key, "value", key)): text for key, text in words.items()}).decode()
        lines.append(f"export const {name} = {values};\n")
    lines.append("export const worded = (table, key) => Object.hasOwn(table, key) ? table[key] : String(key);\n")
    return "".join(lines).encode()


async def _file_response(request: web.Request, name: str) -> web.Response:
    body = page_files().get(name)
    if body is None:
        raise web.HTTPNotFound
    kind, mark = _kind(name), f'"{sha256(body).hexdigest()[:16]}"'
    headers = {**_SAFE, "ETag": mark, "Content-Type": f"{kind}; charset=utf-8"}
    if request.headers.get("If-None-Match") == mark:
        return web.Response(status=304, headers=headers)
    rendered = Rendered(body, headers)
    await pack(rendered, request.headers.get("Accept-Encoding", ""))
    return as_response(rendered)

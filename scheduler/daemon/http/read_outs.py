"""Read-outs for operators (status, batches, explanations, metrics): in pieces, in turns, in a part of the loop's time.

A read-out is made piece by piece, each of about a millisecond, and inference has the loop in between. It is written as
a whole, so that it has a length; a client whose turn it is keeps it until it has taken its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.explain.requests import MAX_FOUND
from scheduler.daemon.history.columns import Columns, Wanted
from scheduler.daemon.http import admin
from scheduler.daemon.http.access import caller_of
from scheduler.daemon.http.admission import EVENTS_PATH, PAGE_PATH
from scheduler.daemon.http.compression import pack
from scheduler.daemon.http.errors import as_response
from scheduler.daemon.http.rendered import Rendered
from scheduler.daemon.ingress.body_limits import TimeLimit
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.parts import DaemonParts
from scheduler.daemon.ingress.service import InferenceService
from scheduler.daemon.ingress.turns import Turns

T = TypeVar("T")

SHARE = 0.2
"""Most of the loop's time that read-outs take while requests for them queue up; the rest is for inference."""
AT_ONCE = 4
"""Read-outs that are made or written at a time, of each client one."""
WAITING_OF_CLIENT = 16
ROWS_A_PIECE = 64
"""Batches in a piece. Measured: 0.5 ms."""
WRITE_LIMIT_S = 10.0
"""Longest time for a client to take a read-out: one that does not keeps others waiting."""

SPAN_S = 900
"""Of the history, where the query names no span."""
LONGEST_S = 8 * 86_400
"""Of one answer: more than is kept."""

_PACKED = ("/v1/now", "/v1/history")
_JSON = {"Content-Type": "application/json", "Cache-Control": "no-store"}
_PROMETHEUS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


_PATHS = ("/v1/status", "/v1/batches", "/v1/explain", "/v1/now", "/v1/history", EVENTS_PATH, PAGE_PATH, "/metrics")
_ALSO = ("/v2/health/live", "/v2/health/ready")
"""What the listener for read-outs answers beside them, for what watches it."""


def on_their_listener(port: Callable[[], int | None]) -> Middleware:
    """Returns the middleware that answers read-outs where they have a listener of their own, and nothing else there.

    The daemon's own Unix socket answers all.

    Args:
        port: returns the port of that listener; None: there is none.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted, path = port(), request.path
        name = request.transport.get_extra_info("sockname") if wanted is not None and request.transport else None
        if isinstance(name, tuple):
            is_read = path == "/" or path.startswith(_PATHS)
            if name[1] != wanted and is_read:
                raise Rejected(404, f"status, batches, explanations and metrics are at port {wanted} (`read_listen`)")
            if name[1] == wanted and not is_read and path not in _ALSO:
                raise Rejected(404, "this port (`read_listen`) has status, batches, explanations and metrics only")
        return await handler(request)

    return middleware


class ReadOuts:
    """Makes pieces of read-outs, one after the other: after one, the next waits until inference has had its part."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Stores the clock, in seconds."""
        self.turns = Turns(
            at_once=AT_ONCE, of_client=1, waiting_of_client=WAITING_OF_CLIENT, what="what the daemon has to tell"
        )
        self._clock = clock
        self._turn = asyncio.Lock()
        self._free_at_s = float("-inf")

    async def make(self, work: Callable[[], T]) -> T:
        """Returns what `work` makes, when its turn has come."""
        async with self._turn:
            wait_s = self._free_at_s - self._clock()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            begun_s = self._clock()
            try:
                return work()
            finally:
                ended_s = self._clock()
                self._free_at_s = ended_s + (ended_s - begun_s) * (1 / SHARE - 1)

    async def made(self, pieces: Iterable[bytes]) -> bytes:
        """Returns all pieces, joined."""
        left, found = iter(pieces), list[bytes]()
        while (piece := await self.make(lambda: next(left, None))) is not None:
            found.append(piece)
        return b"".join(found)


class ReadOutCalls:
    """The handlers of read-outs."""

    def __init__(self, parts: DaemonParts, service: InferenceService, clock: Callable[[], float]) -> None:
        """Stores what is read out, and a clock in seconds."""
        self._parts = parts
        self._service = service
        self._read_outs = ReadOuts(clock)

    def routes(self) -> list[web.RouteDef]:
        """Returns the paths."""
        return [
            web.get("/v1/status", self.status),
            web.get("/v1/batches", self.batches),
            web.get("/v1/explain", self.explain_last),
            web.get("/v1/explain/{request}", self.explain),
            web.get("/v1/now", self.now),
            web.get("/v1/history", self.history),
            web.get("/metrics", self.metrics),
        ]

    async def status(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/status: the daemon's state, and the counts of requests."""
        return await self._told(request, self._status(), _JSON)

    def _status(self) -> Iterator[bytes]:
        service = self._service
        state = self._parts.status()
        yield b""
        state |= {
            "ready": service.ready and not service.draining,
            "grpc": service.grpc_address or None,
            "backends": service.backends(),
            "requests": service.telemetry.summary(service.now()),
            "tenants": service.telemetry.tenants.rows(),
        }
        yield orjson.dumps(state)

    async def batches(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/batches?after=ID&limit=N: a page; `next` is the `after` of the following one, null of the last."""
        after, limit = admin.batch_range(request)
        return await self._told(request, self._batches(after, limit), _JSON)

    def _batches(self, after: int, limit: int) -> Iterator[bytes]:
        yield b'{"batches":['
        left, cursor = limit, after
        while left > 0:
            rows = self._parts.batches(cursor, min(left, ROWS_A_PIECE))
            if not rows:
                break
            yield (b"" if left == limit else b",") + orjson.dumps(rows)[1:-1]
            cursor, left = _record(rows[-1]), left - len(rows)
        yield b'],"next":%s}' % (b"%d" % cursor if left <= 0 else b"null")

    async def explain(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/explain/{request}?before=N: the decisions about a request, by the daemon's number or the client's id.

        With `by=client` the id alone counts; else the request with that number is first. A caller without the scope
        admin is shown its own requests; others are unknown to it. Of requests with one id there are the newest, before
        a number if one is given; `next` is the `before` of the following page.
        """
        name, sees = request.match_info["request"], caller_of(request).sees
        before = admin.before_number(request)
        explain = self._parts.explain
        find = explain.find_client if admin.by_client(request) else explain.find
        found = await self._read_outs.make(lambda: find(name, sees, before))
        if not found:
            raise admin.unknown_request(name, ring=self._service.config.explain.ring)
        following = found[-1]["request_id"] if len(found) == MAX_FOUND else None
        return await self._told(request, [orjson.dumps({"explanations": found, "next": following})], _JSON)

    async def explain_last(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/explain?last=request|miss: the decisions about the newest request, or the newest refused or late."""
        missed, sees = admin.wants_miss(request), caller_of(request).sees
        found = await self._read_outs.make(lambda: self._parts.explain.last(sees, missed=missed))
        if not found:
            raise admin.none_yet(missed=missed, ring=self._service.config.explain.ring)
        return await self._told(request, [orjson.dumps({"explanations": found, "next": None})], _JSON)

    async def now(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/now: what the page begins with; GET /v1/events goes on after its `id`."""
        return await self._told(request, self._snapshot(), _JSON)

    def _snapshot(self) -> Iterator[bytes]:
        yield b""
        yield orjson.dumps(self._parts.feed.snapshot())

    async def history(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/history?from=S&to=S&model=&class=&tenant=&place=&columns=1: a span as columns, with a summary."""
        to_s = int(self._parts.feed.wall_s())
        to_s = min(to_s, admin.query_number(request, "to", to_s))
        from_s = min(to_s, max(to_s - LONGEST_S, admin.query_number(request, "from", to_s - SPAN_S)))
        names = [request.query.get(name, "")[:128] for name in ("model", "class", "tenant", "place")]
        with_columns = admin.query_number(request, "columns", 1) > 0
        return await self._told(request, self._history(from_s, to_s, Wanted(*names), with_columns), _JSON)

    def _history(self, from_s: int, to_s: int, wanted: Wanted, with_columns: bool) -> Iterator[bytes]:
        history = self._parts.feed.history
        columns = Columns(history, history.select(from_s, to_s), wanted)
        for _ in columns.read():
            yield b""
        yield orjson.dumps(columns.values(with_columns=with_columns))

    async def metrics(self, request: web.Request) -> web.StreamResponse:
        """GET /metrics, in Prometheus' text format."""
        return await self._told(request, self._service.telemetry.exposition_pieces(), _PROMETHEUS)

    async def _told(
        self, request: web.Request, pieces: Iterable[bytes], headers: Mapping[str, str]
    ) -> web.StreamResponse:
        """Makes and writes a read-out in its client's turn."""
        async with self._read_outs.turns.turn(caller_of(request).key):
            rendered = Rendered(await self._read_outs.made(pieces), dict(headers))
            if request.path in _PACKED:
                await pack(rendered, request.headers.get("Accept-Encoding", ""))
            response = as_response(rendered)
            limit = TimeLimit(WRITE_LIMIT_S)
            try:
                await response.prepare(request)
                await response.write_eof()
            except asyncio.CancelledError:
                if not limit.caught():
                    raise
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the client does not take its answer") from None
            finally:
                limit.end()
        return response


def _record(row: Mapping[str, object]) -> int:
    number = row["record"]
    assert isinstance(number, int)
    return number

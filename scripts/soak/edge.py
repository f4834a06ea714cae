"""The edge server of a world, in the place of aiohttp's connections, so that all of the daemon's own code runs."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from types import SimpleNamespace, TracebackType
from typing import TYPE_CHECKING, Any

import aiohttp
import orjson
from multidict import CIMultiDict

from scheduler import wire
from scheduler.daemon.backends.bounded_reading import TooLarge
from scheduler.daemon.backends.edge_calls import Disconnected, EdgeAnswer
from scheduler.wire import InferRequest
from scripts.soak import answers, sites, truth

if TYPE_CHECKING:
    from scripts.soak.world import World

ROUND_TRIP_S = 0.001
DECODE_S = 0.005
"""Seconds of each batch beside the device: enough of a small one for the next to be sent ahead."""
FOR_EVER_S = 1e7
_STATUS = {
    "500": (500, b'{"error": "CUDA is gone"}'),
    "401": (401, b'{"error": "no token"}'),
    "html": (400, b"<html>no</html>"),
    "503": (503, b'{"error": "starting"}'),
    "429": (429, b'{"error": "busy"}'),
}
_WAITS = ("", "0", "0.2", "1", "nan", "-3", "1e300", "soon")
"""What a server that is busy may say of when to come again."""


class Edge:
    """The device behind the connections, which works on one batch after the other."""

    def __init__(self, world: World) -> None:
        """Starts idle."""
        self.world = world
        self.free_at_s = 0.0
        self.latest: dict[str, InferRequest] = {}
        """By model: the batch before."""

    def identity(self, model: str, what: str) -> str:
        """Returns what it says of the card and files of a model."""
        other = what == "identity" and self.world.expects(model)
        return sites.OTHER_IDENTITY if other else sites.IDENTITY

    async def compute(self, items: int, *, slow: bool) -> dict[str, float]:
        """Decodes a batch, waits for its turn and serves it; returns what it says of that."""
        await asyncio.sleep(DECODE_S)
        alpha_s, beta_s, _ = sites.EDGE_LAW
        service_s = (alpha_s + beta_s * items) * self.world.noise.lognormvariate(0.0, 0.05) * (20.0 if slow else 1.0)
        now_s = self.world.machine.now()
        began_s = max(now_s, self.free_at_s)
        self.free_at_s = began_s + service_s
        await asyncio.sleep(self.free_at_s - now_s)
        return {"service_s": DECODE_S + service_s, "queue_s": began_s - now_s, "decode_s": DECODE_S}


class Session:
    """What the daemon takes for an aiohttp.ClientSession."""

    def __init__(self, edge: Edge) -> None:
        """Has no connection."""
        self._edge = edge

    def get(self, url: object, **options: Any) -> Exchange:
        """Asks for a status or a description."""
        limit = options.get("timeout")
        return Exchange(self._asked(str(url), None if limit is None else limit.total))

    async def close(self) -> None:
        """Does nothing."""

    async def _asked(self, url: str, limit_s: float | None) -> Response:
        world = self._edge.world
        world.machine.refuse_the_dead()
        what = world.fault("edge")
        if what in ("hang", "unwritten"):
            await asyncio.sleep(FOR_EVER_S if limit_s is None else limit_s)
            raise asyncio.TimeoutError
        if what == "refused":
            await asyncio.sleep(ROUND_TRIP_S)
            raise aiohttp.ClientOSError(errno.ECONNREFUSED, "Connection refused")
        await asyncio.sleep(ROUND_TRIP_S)
        if what in _STATUS:
            return Response(*_STATUS[what])
        if url.endswith("/v2/health/ready"):
            return Response(200, b'{"ready": true}')
        if url.endswith("/v2"):
            return _json({"name": "edgeburst-edge", "version": "1", "extensions": ["binary_tensor_data"]})
        if url.endswith("/config"):
            return Response(404, b'{"error": "no"}')
        identity = self._edge.identity(url.rpartition("/")[2], what)
        return _json({"parameters": {"max_batch": sites.EDGE_LAW[2], "identity": identity}})


class Calls:
    """What the daemon takes for the connections that batches go over."""

    def __init__(self, edge: Edge) -> None:
        """Has no connection yet."""
        self._edge = edge
        self._kept = False

    async def post(
        self,
        path: str,
        parts: Sequence[bytes | memoryview],
        headers: Mapping[str, str],
        *,
        limit_bytes: int,
        written: Callable[[], object],
        fresh: bool = False,
    ) -> EdgeAnswer:
        """Sends a batch."""
        model = path.split("/models/")[1].removesuffix("/infer")
        world, edge = self._edge.world, self._edge
        world.machine.refuse_the_dead()
        what = world.fault("edge")
        if what == "refused":
            await self._gone("refused")
        if what == "unwritten":
            await asyncio.sleep(FOR_EVER_S)
        reused, self._kept = self._kept and not fresh, True
        written()
        request = wire.parse_request(b"".join(parts), wire.json_length_of(CIMultiDict(headers)))
        world.note("edge gets", f"{model} batch {request.id}, {what or 'well'}")
        if what == "hang":
            await asyncio.sleep(FOR_EVER_S)
        await asyncio.sleep(ROUND_TRIP_S)
        if what in _STATUS:
            status, sentence = _STATUS[what]
            waits = world.noise.choice(_WAITS) if what in ("503", "429") else ""
            return self._said(status, sentence, {"Retry-After": waits} if waits else {})
        if truth.refused(model, request.inputs):
            return self._said(400, b'{"error": "the value -1 has no meaning"}', {})
        seconds = await edge.compute(request.inputs[0].items, slow=what == "slow")
        if what == "cut" or world.fault("edge") == "refused":
            await self._gone("cut", reused=reused)
        if what == "huge":
            raise TooLarge(limit_bytes)
        return self._answer(model, request, what, seconds)

    def _answer(self, model: str, request: InferRequest, what: str, seconds: Mapping[str, float]) -> EdgeAnswer:
        world, edge = self._edge.world, self._edge
        if what == "garbage":
            return self._said(200, world.noise.randbytes(40), {})
        other = what == "identity" and not world.expects(model)
        found = answers.response(model, request, what="" if other else what, stale=edge.latest.get(model))
        said = {**found.parameters, **seconds, "identity": edge.identity(model, what)}
        if what == "lies":
            said |= answers.lies(world.noise, ("service_s", "queue_s", "decode_s"))
        edge.latest[model] = request
        found = wire.InferResponse(found.model_name, found.outputs, found.id, "1", said)
        encoded = wire.encode_response(found, binary_by_default=True)
        whole = encoded.body[: len(encoded.body) // 2] if what == "half" else encoded.body
        return self._said(200, whole, encoded.headers)

    def _said(self, status: int, body: bytes, headers: Mapping[str, str]) -> EdgeAnswer:
        by_name = {name.lower(): value for name, value in headers.items()}
        return EdgeAnswer(status, by_name, body, self._edge.world.machine.now(), None)

    async def _gone(self, how: str, *, reused: bool = False) -> None:
        self._kept = False
        if how == "refused":
            await asyncio.sleep(ROUND_TRIP_S)
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        raise Disconnected(kept=reused)

    async def close(self) -> None:
        """Does nothing."""


class Exchange:
    """A call that is made when it is entered."""

    def __init__(self, made: Coroutine[Any, Any, Response]) -> None:
        """Stores it."""
        self._made = made

    async def __aenter__(self) -> Response:
        """Returns the answer."""
        return await self._made

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Does nothing."""


class Response:
    """An answer, as far as the daemon looks at one."""

    def __init__(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, endless: bool = False
    ) -> None:
        """Stores it."""
        self.status = status
        self.headers: CIMultiDict[str] = CIMultiDict(headers or {})
        self.content_length = None if endless else len(body)
        self.content = SimpleNamespace(iter_any=self._pieces)
        self._body = body

    async def read(self) -> bytes:
        """Returns the body."""
        return self._body

    def close(self) -> None:
        """Does nothing."""

    async def _pieces(self) -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b" " * 2**16


def _json(value: object) -> Response:
    return Response(200, orjson.dumps(value))

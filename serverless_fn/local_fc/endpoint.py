"""The endpoint: sockets, signatures, and the dispatch of requests to operations."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from random import Random
from typing import cast
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from aiohttp import web

from serverless_fn.local_fc import routes
from serverless_fn.local_fc.admin import ADMIN_PREFIX, Admin
from serverless_fn.local_fc.capacity_plane import CapacityPlane
from serverless_fn.local_fc.config import Config
from serverless_fn.local_fc.control_plane import ControlPlane
from serverless_fn.local_fc.delivery import deliver
from serverless_fn.local_fc.errors import FcError
from serverless_fn.local_fc.faults import Faults
from serverless_fn.local_fc.fleet import Fleet
from serverless_fn.local_fc.ids import Ids, utc_now
from serverless_fn.local_fc.instance import Surroundings
from serverless_fn.local_fc.invocation import SYNC_BYTES_MAX, Invoker
from serverless_fn.local_fc.ledger import Ledger
from serverless_fn.local_fc.messages import Call, Reply, error_reply
from serverless_fn.local_fc.mishaps import serve_through
from serverless_fn.local_fc.registry import LATEST, Registry
from serverless_fn.local_fc.routes import Plane
from serverless_fn.local_fc.signature import SignedRequest, verify
from serverless_fn.local_fc.uplink import ShapedConnection, Uplink

_LOG = logging.getLogger("edgeburst.local_fc")
# Bytes kept of a body: enough to see that it is too large. Bytes read of it: enough to answer before the connection is
# closed.
_KEPT_BYTES = SYNC_BYTES_MAX + 1
_READ_BYTES_MAX = 4 * SYNC_BYTES_MAX
_DRAIN_S = 0.5
_BESIDE_LINK = tuple(f"{method} {ADMIN_PREFIX}".encode() for method in ("GET", "POST", "DELETE"))


@dataclass(frozen=True, slots=True)
class _Body:
    kept: bytes
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Services:
    """Objects that serve the operations.

    Attributes:
        session: the HTTP client towards the containers.
        fleet: the instances.
        invoker: InvokeFunction.
        control: operations on functions, versions, aliases and triggers.
        capacity: operations on instances and how many there may be.
        faults: faults that act on operations.
        admin: the paths under /admin.
    """

    session: aiohttp.ClientSession
    fleet: Fleet
    invoker: Invoker
    control: ControlPlane
    capacity: CapacityPlane
    faults: Faults
    admin: Admin


def build_services(config: Config, *, seed: int, uplink: Uplink) -> Services:
    """Creates the services and the predefined functions; must be called on the event loop.

    Args:
        config: images, limits, functions.
        seed: seed of faults and of the draws between the versions of an alias.
        uplink: the uplink, for /admin/uplink.

    Raises:
        FcError: a predefined function is refused.
    """
    account, faults, ledger = config.account, Faults(seed=seed, clock_s=time.monotonic), Ledger()
    registry = Registry(config.images, update_s=account.update_s)
    # With the connector's default limit, requests would queue for connections.
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None))
    fleet = Fleet(Surroundings(account, config.images, session, Ids(Random())), registry, faults, ledger)
    capacity = CapacityPlane(registry, fleet, account)
    for function in config.functions:
        record = registry.create(function.content, utc_now())
        record.reserved = function.reserved_concurrency
        if function.provision:
            capacity.provision(record.latest.spec.name, LATEST, function.provision)
    invoker = Invoker(registry, fleet, faults, Random(seed))
    control = ControlPlane(registry, fleet, account)
    return Services(session, fleet, invoker, control, capacity, faults, Admin(fleet, ledger, faults, uplink))


class Endpoint:
    """HTTP interface of the services.

    Args:
        services: serve the requests.
        access_keys: secrets by access key id.
        uplink: the link that all connections share.
        ids: creates request ids.
    """

    def __init__(self, services: Services, *, access_keys: Mapping[str, str], uplink: Uplink, ids: Ids) -> None:
        self._services = services
        self._access_keys = access_keys
        self._uplink = uplink
        self._ids = ids
        self._http: web.Server | None = None
        self._server: asyncio.AbstractServer | None = None

    async def start(self, listener: socket.socket) -> None:
        """Accepts connections from a bound socket."""
        http = self._http = web.Server(self._handle, access_log=None, auto_decompress=False)

        def connect() -> ShapedConnection:
            return ShapedConnection(self._uplink, http(), beside=_BESIDE_LINK)

        self._server = await asyncio.get_running_loop().create_server(connect, sock=listener, backlog=1024)

    async def stop(self) -> None:
        """Stops accepting, waits half a second for running requests, ends all instances and their processes."""
        assert self._server is not None
        assert self._http is not None
        self._server.close()
        await self._services.invoker.stop()
        self._http.pre_shutdown()
        await self._http.shutdown(_DRAIN_S)
        await self._services.fleet.stop()
        await self._services.session.close()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        request_id = self._ids.request()
        beside = request.raw_path.startswith(ADMIN_PREFIX)
        try:
            reply = await self._answer(request, request_id, admin=beside)
        except FcError as error:
            _LOG.info("%s %s: %s %s", request.method, request.path, error.code, error.message)
            reply = error_reply(error, request_id)
        except Exception:  # noqa: BLE001 - the outermost line: the caller gets an error in the provider's form
            _LOG.exception("%s %s failed", request.method, request.path)
            reply = error_reply(FcError(500, "InternalServerError", "the endpoint failed; see its log"), request_id)
        return await deliver(request, reply, request_id, close=beside)

    async def _answer(self, request: web.BaseRequest, request_id: str, *, admin: bool) -> Reply:
        body = await _read(request)
        url = urlsplit(request.raw_path)
        if admin:
            self._refuse_strangers(request)
            return self._services.admin.answer(
                request.method, url.path, _call(request, request_id, body, function="", item="")
            )
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        signed = SignedRequest(request.method, request.raw_path, headers, body.digest, has_body=body.size > 0)
        verify(signed, self._access_keys, utc_now())
        match = routes.match(request.method, url.path)
        call = _call(request, request_id, body, function=match.function, item=match.item)
        if match.plane is Plane.INVOKER:
            return await self._services.invoker.invoke(call)
        return await self._operate(match, call)

    async def _operate(self, match: routes.Match, call: Call) -> Reply:
        """Serves an operation other than an invocation, with the faults that act on it."""
        plane = self._services.control if match.plane is Plane.CONTROL else self._services.capacity
        operation = cast(Callable[[Call], Reply], getattr(plane, match.operation))

        async def serve() -> Reply:
            return operation(call)

        # The creation of a function has the name in its body; a list of all functions has none.
        named = match.function or str(call.json().get("functionName", ""))
        return await serve_through(self._services.faults, call, function=named, operation=match.operation, serve=serve)

    def _refuse_strangers(self, request: web.BaseRequest) -> None:
        """Refuses other machines: requests under /admin carry no signature.

        Raises:
            FcError: 403.
        """
        remote = request.remote
        if remote is None or not ipaddress.ip_address(remote).is_loopback:
            raise FcError(403, "AccessDenied", "/admin answers this machine only")


async def _read(request: web.BaseRequest) -> _Body:
    """Reads a body to its end, so that no reset loses the answer; returns what is kept of it, and its length."""
    digest, parts, size = sha256(), [], 0
    async for part in request.content.iter_any():
        digest.update(part)
        size += len(part)
        if size <= _KEPT_BYTES:
            parts.append(part)
        if size > _READ_BYTES_MAX:
            raise FcError(400, "EntityTooLarge", f"payload size exceeds maximum allowed size ({SYNC_BYTES_MAX} bytes)")
    return _Body(b"".join(parts), size, digest.hexdigest())


def _call(request: web.BaseRequest, request_id: str, body: _Body, *, function: str, item: str) -> Call:
    return Call(
        request_id=request_id,
        function=function,
        item=item,
        query=dict(parse_qsl(urlsplit(request.raw_path).query, keep_blank_values=True)),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=body.kept,
        body_bytes=body.size,
        now=utc_now(),
    )

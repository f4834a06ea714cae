"""Which caller an HTTP request comes from, and whether it may ask what it asks: host, origin, token, scope.

A browser on the daemon's host, or in its network, carries out what any page says. So a request is refused whose `Host`
is none of the daemon's (a page whose name was made to point here), and one whose `Origin` is another page's.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.http.cors import allowed
from scheduler.daemon.ingress.access import Access, Caller, Scope
from scheduler.daemon.ingress.errors import Rejected
from scheduler.daemon.ingress.peers import FORWARDED_HEADER

# A key of that kind is what newer releases of aiohttp want, and older ones do not have.
_CALLER: Any = web.RequestKey("caller", Caller) if hasattr(web, "RequestKey") else "caller"
_OPEN_PATHS = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that show nothing of requests: the dashboard's page, without its data, and what balancers ask."""
_INFER_ENDINGS = ("/infer",)
_CLASSIFY = "/v1/classify/"
_READ_PATHS = ("/v1/status", "/v1/batches", "/metrics", "/v1/models/")
_NONE: frozenset[Scope] = frozenset()
_INFER, _READ, _ADMIN = frozenset({Scope.INFER}), frozenset({Scope.READ}), frozenset({Scope.ADMIN})
_SPEND, _SPEND_PATHS = frozenset({Scope.SPEND}), "/v1/spend/"


def wanted_scopes(method: str, path: str) -> frozenset[Scope]:
    """Returns the scopes of which a caller needs one for a request; empty: none is needed.

    >>> sorted(wanted_scopes("GET", "/v2/models/digits")), sorted(wanted_scopes("PUT", "/v1/models/digits/limits"))
    ([<Scope.INFER: 'infer'>, <Scope.READ: 'read'>], [<Scope.ADMIN: 'admin'>])
    """
    if method in ("PUT", "PATCH", "DELETE"):
        return _ADMIN
    if path in _OPEN_PATHS:
        return _NONE
    if path.startswith(_SPEND_PATHS):
        return _SPEND
    if path.endswith(_INFER_ENDINGS) or path.startswith(_CLASSIFY):
        return _INFER
    return _READ if path.startswith(_READ_PATHS) else _INFER | _READ


def checks_callers(
    access: Access, hosts: Callable[[], Collection[str]], origins: Callable[[], Collection[str]]
) -> Middleware:
    """Returns the middleware that lets a request through, counted as its caller's, or raises Rejected.

    Args:
        access: knows the tokens.
        hosts: returns the names that `Host` may have, beside loopback's and the address that was asked; "*": any.
        origins: returns the origins of other pages that may ask; "*": any.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = wanted_scopes(request.method, request.path)
        if over_unix_socket(request):
            request[_CALLER] = caller = access.operator()
        else:
            check_host(request, hosts())
            check_origin(request, origins())
            if not wanted:
                return await handler(request)
            peer = access.peers.key(request.remote or "", request.headers.getall(FORWARDED_HEADER, ()))
            request[_CALLER] = caller = access.caller(request.headers.getall("Authorization", []), peer=peer)
        caller.check(wanted)
        with access.turn(caller):
            return await handler(request)

    return middleware


def caller_of(request: web.Request) -> Caller:
    """Returns the caller of a request; one that may do nothing where it was not checked."""
    found = request.get(_CALLER)
    return found if isinstance(found, Caller) else Caller(peer=request.remote or "")


def over_unix_socket(request: web.Request) -> bool:
    """Returns whether a request came over the daemon's own Unix socket."""
    connected = request.transport.get_extra_info("socket") if request.transport else None
    return connected is not None and connected.family == socket.AF_UNIX


def check_host(request: web.Request, hosts: Collection[str]) -> None:
    """Checks that a request is for this daemon by the name that it uses.

    Raises:
        Rejected: its `Host` is another one. HTTP/1.0 has none, and no browser speaks it.
    """
    given = request.headers.get("Host")
    if given is None or "*" in hosts:
        return
    name = host_name(given)
    if name is not None and (_is_loopback(name) or name in hosts or name == _asked_address(request)):
        return
    raise Rejected(
        421, "this daemon is not known by the name in the header Host; ask it by another one, or add it to daemon.hosts"
    )


def check_origin(request: web.Request, origins: Collection[str]) -> None:
    """Checks that a request is from no page of another origin, unless that is allowed.

    Raises:
        Rejected: it is.
    """
    origin = request.headers.get("Origin")
    if origin is None or allowed(origin, origins) is not None:
        return
    if origin.partition("://")[2].lower() != request.headers.get("Host", "").lower():
        raise Rejected(403, "scripts of other pages may not ask this daemon; add their origin to daemon.cors_origins")


def host_name(given: str) -> str | None:
    """Returns the name or address in a `Host`, in small letters and without port; None where it is none.

    >>> host_name("Edge.local:8600"), host_name("[::1]:80"), host_name("a b")
    ('edge.local', '::1', None)
    """
    text = given.strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        fine = bool(bracket) and (port == "" or (port[0] == ":" and port[1:].isdecimal()))
    else:
        name, colon, port = text.partition(":")
        fine = not colon or port.isdecimal()
    name = name.removesuffix(".")
    return name if fine and name and name.isprintable() and not set(name) & set(" /@\\") else None


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _asked_address(request: web.Request) -> str:
    """Returns the address of this host that a connection was made to."""
    name = request.transport.get_extra_info("sockname") if request.transport else None
    address = str(name[0]).partition("%")[0] if isinstance(name, tuple) else ""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address

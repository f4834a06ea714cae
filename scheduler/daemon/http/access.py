"""Which caller a request of aiohttp comes from, and the check whether it may ask what it asks: see `admission`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from scheduler.daemon.http.admission import EVENTS_PATH, asked_address, check_host, check_origin, wanted_scopes
from scheduler.daemon.ingress.access import Access, Caller
from scheduler.daemon.ingress.peers import FORWARDED_HEADER

# A key of that kind is what newer releases of aiohttp want, and older ones do not have.
_CALLER: Any = web.RequestKey("caller", Caller) if hasattr(web, "RequestKey") else "caller"


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
            headers = request.headers
            check_host(headers.get("Host"), hosts(), asked_address=_asked_address(request))
            check_origin(headers.get("Origin"), headers.get("Host", ""), origins())
            if not wanted:
                return await handler(request)
            peer = access.peers.key(request.remote or "", headers.getall(FORWARDED_HEADER, ()))
            request[_CALLER] = caller = access.caller(headers.getall("Authorization", []), peer=peer)
        caller.check(wanted)
        with access.turn(caller):
            if request.path != EVENTS_PATH:
                return await handler(request)
        # A stream lasts as long as its page is open: it is none of the token's unanswered requests.
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


def _asked_address(request: web.Request) -> str:
    return asked_address(request.transport.get_extra_info("sockname") if request.transport else None)

"""Which caller a gRPC call comes from, and whether it may make that call: metadata `authorization`, as over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from urllib.parse import unquote

from scheduler.daemon.grpc.calls import Admit, Context
from scheduler.daemon.grpc.open_calls import OpenCalls
from scheduler.daemon.ingress.access import Access, Caller, Scope
from scheduler.daemon.ingress.peers import FORWARDED_HEADER

_NONE: frozenset[Scope] = frozenset()
_INFER, _INFER_OR_READ = frozenset({Scope.INFER}), frozenset({Scope.INFER, Scope.READ})
_WANTED = {
    "ModelInfer": _INFER,
    "ModelStreamInfer": _INFER,
    **dict.fromkeys(("ServerLive", "ServerReady", "Check", "Watch"), _NONE),
}
"""By call: the scopes of which one is needed; for the others, infer or read. What balancers ask needs none."""
_LONG = frozenset({"ModelStreamInfer", "Watch"})
"""Calls that are no requests themselves: each request of a stream counts."""

Peer = Callable[[Context], str]
"""Returns the address of a call's peer, without port."""


def admission(method: str, access: Access, peer: Peer, calls: OpenCalls) -> Admit:
    """Returns what looks at the callers of a method.

    Args:
        method: its name.
        access: knows the tokens.
        peer: tells where a call comes from.
        calls: counts the open calls of each client, of all methods.
    """
    wanted = _WANTED.get(method, _INFER_OR_READ)
    counted = bool(wanted) and method not in _LONG

    @contextmanager
    def admitted(context: Context) -> Iterator[Caller]:
        address = access.peers.key(peer(context), _texts(context, FORWARDED_HEADER.lower()))
        if not wanted:
            caller = Caller(address)
        else:
            caller = access.caller(_texts(context, "authorization"), peer=address)
            caller.check(wanted)
        with calls.opened(caller.key, context), access.turn(caller) if counted else nullcontext():
            yield caller

    def admit(context: Context) -> AbstractContextManager[Caller]:
        return admitted(context)

    return admit


def _texts(context: Context, name: str) -> list[str]:
    """Returns the values of a call's metadata of that name, those that are texts."""
    return [value for key, value in context.invocation_metadata() or () if key == name and isinstance(value, str)]


def address_of(peer: str) -> str:
    """Returns the address in a peer as gRPC names it; empty where there is none.

    >>> address_of("ipv4:192.0.2.7:50000"), address_of("ipv6:%5B::1%5D:80"), address_of("unix:")
    ('192.0.2.7', '::1', '')
    """
    kind, _, rest = unquote(peer).partition(":")
    if kind == "ipv6":
        address = rest.removeprefix("[").partition("]")[0].partition("%")[0]
        mapped = address.removeprefix("::ffff:")
        return mapped if "." in mapped else address
    return rest.rpartition(":")[0] if kind == "ipv4" else ""

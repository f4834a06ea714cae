"""Which caller a request may be from: by its host, its origin and the scope that it needs; of no library's type.

A browser on the daemon's host, or in its network, carries out what any page says. So a request is refused whose `Host`
is none of the daemon's (a page whose name was made to point here), and one whose `Origin` is another page's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from scheduler.daemon.http.cors import allowed
from scheduler.daemon.ingress.access import Scope
from scheduler.daemon.ingress.errors import Rejected

_OPEN_PATHS = frozenset({"/", "/v2/health/live", "/v2/health/ready"})
"""Paths that show nothing of requests: the dashboard's page, without its data, and what balancers ask."""
PAGE_PATH = "/page/"
"""Of the dashboard's files, which show nothing either."""
EVENTS_PATH = "/v1/events"
_INFER_ENDINGS = ("/infer",)
_CLASSIFY = "/v1/classify/"
_READ_PATHS = ("/v1/status", "/v1/batches", "/v1/now", "/v1/history", EVENTS_PATH, "/metrics", "/v1/models/")
_NONE: frozenset[Scope] = frozenset()
INFER, _READ, _ADMIN = frozenset({Scope.INFER}), frozenset({Scope.READ}), frozenset({Scope.ADMIN})
_SPEND, _SPEND_PATHS = frozenset({Scope.SPEND}), "/v1/spend/"


def wanted_scopes(method: str, path: str) -> frozenset[Scope]:
    """Returns the scopes of which a caller needs one for a request; empty: none is needed.

    >>> sorted(wanted_scopes("GET", "/v2/models/digits")), sorted(wanted_scopes("PUT", "/v1/models/digits/limits"))
    ([<Scope.INFER: 'infer'>, <Scope.READ: 'read'>], [<Scope.ADMIN: 'admin'>])
    """
    if method in ("PUT", "PATCH", "DELETE"):
        return _ADMIN
    if path in _OPEN_PATHS or path.startswith(PAGE_PATH):
        return _NONE
    if path.startswith(_SPEND_PATHS):
        return _SPEND
    if path.endswith(_INFER_ENDINGS) or path.startswith(_CLASSIFY):
        return INFER
    return _READ if path.startswith(_READ_PATHS) else INFER | _READ


def check_host(given: str | None, hosts: Collection[str], *, asked_address: str) -> None:
    """Checks that a request is for this daemon by the name that it uses.

    Args:
        given: its `Host`; None: HTTP/1.0 has none, and no browser speaks it.
        hosts: names that it may have, beside loopback's; "*": any.
        asked_address: the address of this host that its connection was made to.

    Raises:
        Rejected: its `Host` is another one.
    """
    if given is None or "*" in hosts:
        return
    name = host_name(given)
    if name is not None and (_is_loopback(name) or name in hosts or name == asked_address):
        return
    raise Rejected(
        421, "this daemon is not known by the name in the header Host; ask it by another one, or add it to daemon.hosts"
    )


def check_origin(origin: str | None, host: str, origins: Collection[str]) -> None:
    """Checks that a request is from no page of another origin, unless that is allowed.

    Raises:
        Rejected: it is.
    """
    if origin is None or allowed(origin, origins) is not None:
        return
    if origin.partition("://")[2].lower() != host.lower():
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


def asked_address(sockname: object) -> str:
    """Returns the address of this host that a connection was made to, as a socket names it; empty where it has none."""
    address = str(sockname[0]).partition("%")[0] if isinstance(sockname, tuple) else ""
    mapped = address.removeprefix("::ffff:")
    return mapped if "." in mapped else address


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

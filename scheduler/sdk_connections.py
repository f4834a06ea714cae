"""The connections of the provider's SDK: noted, given time to send, aborted when closed; no proxy to loopback."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

SEND_LIMIT_S = 60.0
"""Longest time that a body may take, which else were the time to connect; batches are given up long before."""
_ABORT = struct.pack("ii", 1, 0)
_lock = threading.Lock()
_noted: dict[int, weakref.ref[Any]] = {}


def open_sockets() -> list[Any]:
    """Returns the sockets of the SDK's open connections, the oldest first."""
    with _lock:
        found = {key: noted() for key, noted in _noted.items()}
        for key, sock in found.items():
            if sock is None or sock.fileno() < 0:
                del _noted[key]
    return [sock for sock in found.values() if sock is not None and sock.fileno() >= 0]


def prepare(sock: Any) -> None:
    """Notes a socket that was just connected, for as long as it lives.

    When it is closed with bytes that were not sent yet, as after a timeout, these are dropped: nothing waits for their
    answer, and other batches need the uplink.
    """
    sock.settimeout(SEND_LIMIT_S)  # as `request` does for one that was open before
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    with _lock:
        _noted[id(sock)] = weakref.ref(sock)


def preparing(get_adapter: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that makes the SDK's adapters, so that their connections are prepared.

    Connections through a proxy are not: what its next hop carries is not seen from here.
    """

    def get_preparing(*arguments: Any, **options: Any) -> Any:
        adapter = get_adapter(*arguments, **options)
        manager = adapter.poolmanager
        manager.pool_classes_by_scheme = {
            scheme: _preparing(pool) for scheme, pool in manager.pool_classes_by_scheme.items()
        }
        return adapter

    return get_preparing


def bypasses_proxies(host: str) -> bool:
    """Returns whether calls of a host (HOST or HOST:PORT) use no proxy: it is the loopback, or NO_PROXY names it.

    >>> bypasses_proxies("127.0.0.1:8900"), bypasses_proxies("localhost")
    (True, True)
    """
    name = (urlsplit(f"//{host}").hostname or "").lower()
    try:
        is_loopback = ipaddress.ip_address(name).is_loopback
    except ValueError:
        is_loopback = name == "localhost" or name.endswith(".localhost")
    return is_loopback or bool(proxy_bypass(name))


def beside_proxies(get_adapter: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function that makes the SDK's adapters, so that a proxy never swallows loopback.

    The SDK hands the environment's proxies to each call, whatever NO_PROXY says.
    """

    def get_beside(*arguments: Any, **options: Any) -> Any:
        adapter = get_adapter(*arguments, **options)
        send = adapter.send

        def send_beside(request: Any, *given: Any, **further: Any) -> Any:
            if further.get("proxies") and bypasses_proxies(urlsplit(request.url).netloc):
                further["proxies"] = {}
            return send(request, *given, **further)

        adapter.send = send_beside
        return adapter

    return get_beside


def _preparing(pool: Any) -> Any:
    """Returns a class of connection pools like this one."""

    class Connection(pool.ConnectionCls):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            prepare(self.sock)

        def request(self, *arguments: Any, **options: Any) -> None:
            if self.sock is not None:
                self.timeout = SEND_LIMIT_S  # it was the time to connect
            super().request(*arguments, **options)

    return type(pool.__name__, (pool,), {"ConnectionCls": Connection})

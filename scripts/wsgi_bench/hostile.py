"""What a server does with clients that are hostile or broken: each case is bytes, and what must come of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

LIMIT_S = 4.0
NEWCOMER_LIMIT_S = 2.0
_IDLE = 100


def _request(*lines: bytes, first: bytes = b"POST / HTTP/1.1", body: bytes = b"") -> bytes:
    return b"\r\n".join([first, b"Host: x", *lines, b"", body])


_CHUNKED = b"Transfer-Encoding: chunked"
REFUSED: Mapping[str, bytes] = {
    "Content-Length and Transfer-Encoding": _request(b"Content-Length: 3", _CHUNKED, body=b"0\r\n\r\n"),
    "two lengths": _request(b"Content-Length: 1", b"Content-Length: 2", body=b"ab"),
    "two lengths in one header": _request(b"Content-Length: 1, 2", body=b"ab"),
    "a signed length": _request(b"Content-Length: +1", body=b"a"),
    "a length with an underscore": _request(b"Content-Length: 1_0", body=b"0123456789"),
    "an unknown coding": _request(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "two codings": _request(_CHUNKED, _CHUNKED, body=b"0\r\n\r\n"),
    "a coding in HTTP/1.0": _request(_CHUNKED, first=b"POST / HTTP/1.0", body=b"0\r\n\r\n"),
    "a chunk's length with a sign": _request(_CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"),
    "a chunk longer than its length": _request(_CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"),
    "a folded header": _request(b"X-A: b\r\n c", first=b"GET / HTTP/1.1"),
    "a space before the colon": _request(b"Content-Length : 0"),
    "a header without colon": _request(b"X", first=b"GET / HTTP/1.1"),
    "a carriage return in a header": _request(b"X-A: b\rX-B: c", first=b"GET / HTTP/1.1"),
    "lines without carriage return": b"GET / HTTP/1.1\nHost: x\n\n",
    "a NUL in a header": _request(b"X-A: b\0", first=b"GET / HTTP/1.1"),
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "two Hosts": _request(b"Host: y", first=b"GET / HTTP/1.1"),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "another version": _request(first=b"GET / HTTP/1.2"),
}
"""Requests that servers in a row could read differently, or that are no HTTP/1: none may reach the application."""


def status_of(port: int, request: bytes) -> int | None:
    """Sends bytes; returns the status of the answer, None where the connection ends or stays without one."""
    try:
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
            connection.settimeout(LIMIT_S)
            connection.sendall(request)
            first = connection.recv(64)
    except OSError:
        return None
    return int(first[9:12]) if first.startswith(b"HTTP/1.") and first[9:12].isdigit() else None


def served(port: int) -> Sequence[str]:
    """Returns which of the requests that must be refused the application was given."""
    found = ((name, status_of(port, request)) for name, request in REFUSED.items())
    return [name for name, status in found if status is not None and status < 400]


def newcomer_s(port: int, sent_before: bytes, connections: int = _IDLE) -> float | None:
    """Returns the seconds in which a newcomer is answered beside connections that sent so much; None: not in time."""
    with ExitStack() as stack:
        for _ in range(connections):
            try:
                other = stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S))
                other.sendall(sent_before)
            except OSError:
                break
        time.sleep(0.3)
        began_s = time.perf_counter()
        try:
            with socket.create_connection(("127.0.0.1", port), NEWCOMER_LIMIT_S) as newcomer:
                newcomer.settimeout(NEWCOMER_LIMIT_S)
                newcomer.sendall(_request(first=b"GET / HTTP/1.1"))
                if not newcomer.recv(1).startswith(b"H"):
                    return None
        except OSError:
            return None
        return time.perf_counter() - began_s


def cut_off_s(port: int, limit_s: float) -> float | None:
    """Returns the seconds after which a header that grows by a byte each half second is given up; None: later."""
    began_s = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as slow:
        slow.settimeout(0.5)
        try:
            slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
            while time.perf_counter() - began_s < limit_s:
                slow.sendall(b"a")
                try:
                    slow.recv(1024)
                    return time.perf_counter() - began_s
                except TimeoutError:
                    continue
        except OSError:
            return time.perf_counter() - began_s
    return None

"""Connections that idle or never end their request keep no other client out of daemon, edge server and function."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
import requests
from flask import Flask
from support.wsgi_servers import LIMIT_S, limits_for, serving

HALF = b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\nxx"


@contextmanager
def connected(port: int, count: int, begin: bytes) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        opened = []
        for _ in range(count):
            opened.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S)))
            opened[-1].sendall(begin)
        yield opened


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nX-A: ", HALF], ids=["idle", "header", "body"])
def test_a_server_answers_beside_more_connections_than_it_takes(begin: bytes) -> None:
    app = Flask("any")
    app.add_url_rule("/x", view_func=lambda: {"served": True})
    limits = limits_for("edge")
    with serving(app, replace(limits, body_bytes=10**8)) as served, requests.Session() as kept:
        url = f"http://127.0.0.1:{served.port}/x"
        assert kept.get(url, timeout=LIMIT_S).json() == {"served": True}
        with connected(served.port, 2 * limits.connections, begin):
            for _ in range(3):
                assert requests.get(url, timeout=LIMIT_S).json() == {"served": True}
                assert kept.get(url, timeout=LIMIT_S).json() == {"served": True}

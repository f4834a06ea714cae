"""Connections that idle or never end their request keep no other client out of daemon, edge server and function."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import requests
from flask import Flask

from edge_server import wsgi
from edge_server.wsgi import WebServer, listen

LIMIT_S = 30
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
def test_the_edge_server_answers_beside_more_connections_than_it_takes(begin: bytes) -> None:
    app = Flask("any")
    app.add_url_rule("/x", view_func=lambda: {"served": True})
    listener = listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = WebServer(app, listener=listener, body_limit_bytes=10**8)
    server.start()
    with requests.Session() as kept:
        url = f"http://127.0.0.1:{port}/x"
        assert kept.get(url, timeout=LIMIT_S).json() == {"served": True}
        with connected(port, 2 * wsgi._CONNECTIONS, begin):
            for _ in range(3):
                assert requests.get(url, timeout=LIMIT_S).json() == {"served": True}
                assert kept.get(url, timeout=LIMIT_S).json() == {"served": True}

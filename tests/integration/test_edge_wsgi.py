"""The HTTP server's end: each client that has asked gets the answer's last byte."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import requests
from flask import Flask

from edge_server.wsgi import listen, make_server

LIMIT_S = 30
ANSWER_BYTES = 8_000_000


def test_waiting_lasts_until_the_answer_is_computed_and_read() -> None:
    app = Flask("slow")
    begun, may_answer, may_read = threading.Event(), threading.Event(), threading.Event()

    @app.get("/")
    def slow() -> bytes:
        begun.set()
        assert may_answer.wait(LIMIT_S)
        return b"x" * ANSWER_BYTES

    def read() -> int:
        with requests.get(f"http://127.0.0.1:{port}/", stream=True, timeout=LIMIT_S) as answer:
            assert may_read.wait(LIMIT_S)
            return len(answer.content)

    listeners = listen("127.0.0.1", 0)
    port = listeners[0].getsockname()[1]
    server = make_server(app, listeners=listeners, body_limit_bytes=1000)
    server.start()
    assert server.wait_until_answered(limit_s=0)
    with ThreadPoolExecutor(1) as client:
        length = client.submit(read)
        assert begun.wait(LIMIT_S)
        assert not server.wait_until_answered(limit_s=0)
        may_answer.set()
        # More than the sockets' buffers hold: it cannot be sent before it is read.
        assert not server.wait_until_answered(limit_s=0.1)
        may_read.set()

        assert server.wait_until_answered(limit_s=LIMIT_S)
        assert length.result(LIMIT_S) == ANSWER_BYTES
    server.close()

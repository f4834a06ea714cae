"""One WSGI application under the server that is named: `python serve.py SERVER PORT`. Needs that server's package."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ANSWER_BYTES = 2048
_THREADS = 8
_MOST_BYTES = 64 * 2**20
_FOLDER = Path(__file__).resolve().parent


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Reads the body and answers as the edge server does: with a small body of known length."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    answer = (b"%d" % len(body)).ljust(ANSWER_BYTES)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]


def _waitress(port: int) -> None:
    import waitress

    waitress.serve(
        app,
        host="127.0.0.1",
        port=port,
        threads=_THREADS,
        recv_bytes=256 * 1024,
        inbuf_overflow=8 * 2**20,
        channel_timeout=600,
        asyncore_use_poll=True,
        max_request_body_size=_MOST_BYTES,
    )


def _cheroot(port: int) -> None:
    from cheroot.wsgi import Server

    server = Server(("127.0.0.1", port), app, numthreads=_THREADS, timeout=15)
    server.max_request_body_size = _MOST_BYTES
    server.start()


def _gunicorn(port: int) -> None:
    options = ["--worker-class", "gthread", "--workers", "1", "--threads", str(_THREADS), "--keep-alive", "600"]
    _module("gunicorn", "--bind", f"127.0.0.1:{port}", *options, "--log-level", "critical", "serve:app")


def _granian(port: int) -> None:
    options = ["--interface", "wsgi", "--workers", "1", "--blocking-threads", str(_THREADS), "--log-level", "critical"]
    _module("granian", "--host", "127.0.0.1", "--port", str(port), *options, "serve:app")


def _hypercorn(port: int) -> None:
    _module("hypercorn", "--bind", f"127.0.0.1:{port}", "--workers", "0", "--log-level", "critical", "wsgi:serve:app")


def _uvicorn(port: int) -> None:
    import uvicorn
    from a2wsgi import WSGIMiddleware

    asgi: Any = WSGIMiddleware(app, workers=_THREADS)
    uvicorn.run(asgi, host="127.0.0.1", port=port, log_level="critical")


def _aiohttp(port: int) -> None:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from io import BytesIO

    from aiohttp import web

    pool = ThreadPoolExecutor(_THREADS)

    async def answer(request: web.Request) -> web.Response:
        body = await request.read()
        environ = {"CONTENT_LENGTH": str(len(body)), "wsgi.input": BytesIO(body)}
        parts = await asyncio.get_running_loop().run_in_executor(pool, app, environ, lambda *_: None)
        return web.Response(body=b"".join(parts))

    own = web.Application(client_max_size=_MOST_BYTES)
    own.router.add_route("*", "/{path:.*}", answer)
    web.run_app(own, host="127.0.0.1", port=port, print=None, access_log=None)


def _edgeburst(port: int) -> None:
    import socket
    import time

    from scheduler.wsgi.limits import Limits
    from scheduler.wsgi.server import WebServer

    listener = socket.create_server(("127.0.0.1", port))
    server = WebServer(app, listeners=[listener], limits=Limits(body_bytes=_MOST_BYTES))
    server.start()
    while True:
        time.sleep(3600)


def _module(name: str, *arguments: str) -> None:
    os.chdir(_FOLDER)
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])


SERVERS: dict[str, Callable[[int], None]] = {
    "waitress": _waitress,
    "cheroot": _cheroot,
    "gunicorn": _gunicorn,
    "granian": _granian,
    "hypercorn": _hypercorn,
    "uvicorn": _uvicorn,
    "aiohttp": _aiohttp,
    "edgeburst": _edgeburst,
}

if __name__ == "__main__":
    SERVERS[sys.argv[1]](int(sys.argv[2]))

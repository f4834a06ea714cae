"""What a body costs at least: aiohttp, or a bare protocol, that reads it and answers a few bytes.

python -m scripts.daemon_bench.bare aiohttp|protocol
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop
from aiohttp import web

ANSWER = b"x" * 400
"""About as long as the answer to a request of one picture."""
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=ANSWER)


class _Bare(asyncio.Protocol):
    """Reads a body after its length, and nothing else of a request."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._pieces: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if not self._pieces:
            end = data.index(b"\r\n\r\n") + 4
            self._missing = end + int(data[:end].lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        self._pieces.append(data)
        self._missing -= len(data)
        if not self._missing:
            b"".join(self._pieces)
            self._pieces.clear()
            self._transport.write(_HEAD + ANSWER)


async def main(kind: str) -> None:
    """Serves until it is ended."""
    loop = asyncio.get_running_loop()
    if kind == "aiohttp":
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/{path:.*}", _answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
    else:
        server = await loop.create_server(_Bare, "127.0.0.1", 0, backlog=2048)
        port = server.sockets[0].getsockname()[1]
    print(json.dumps({"event": "ready", "port": port}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.new_event_loop().run_until_complete(main(sys.argv[1]))

"""Open-loop clients of the daemon on sockets of their own: each request's end, and whatever comes beside it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from scripts.fault_table.truth import MODEL, Item, is_right

LIMIT_S = 60.0
"""A request without an answer by then is lost."""
AGAIN_S = 0.2
"""Pause before a client sends a request again that met no daemon, where the row allows it."""


@dataclass(slots=True)
class End:
    """How one request ended."""

    number: int
    status: int = 0
    """HTTP status; 0: no answer."""
    right: bool = False
    latency_s: float = 0.0
    sentence: str = ""
    """What an error says, or what happened to the connection."""
    cuts: int = 0
    """How often its connection ended before an answer and it was sent again."""


@dataclass(slots=True)
class Ends:
    """All requests of one row."""

    ends: list[End] = field(default_factory=list)
    extra: int = 0
    """Answers beyond the one that each request had: bytes that came to a connection with nothing asked."""


class _Connection(asyncio.Protocol):
    """One connection: a request at a time, read strictly."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.extra = 0
        self._buffer = bytearray()
        self._waiting: asyncio.Future[tuple[int, dict[str, str], bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._waiting is None:
            self.extra += 1
            return
        head, found, rest = bytes(self._buffer).partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return
        waiting, self._waiting = self._waiting, None
        self._buffer.clear()
        self.extra += len(rest) > length
        self.closed |= headers.get("connection", "").lower() == "close"
        if not waiting.done():
            waiting.set_result((int(first.split(" ")[1]), headers, rest[:length]))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(ConnectionError(f"the connection ended before the answer ({exc or 'closed'})"))

    async def ask(self, message: bytes) -> tuple[int, dict[str, str], bytes]:
        """Sends one request and returns status, headers and body."""
        assert self.transport is not None
        self._waiting = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return await self._waiting


class Clients:
    """Sends items to the daemon at random moments, each on a connection that is free."""

    def __init__(self, items: Sequence[Item], *, again: bool) -> None:
        """Stores what to send.

        Args:
            items: the n-th request gets the n-th of them, from the beginning again after the last.
            again: whether a request is sent again that met no daemon or whose connection ended without an answer.
        """
        self._items = items
        self._again = again
        self._free: list[_Connection] = []
        self._all: list[_Connection] = []
        self.ends = Ends()

    async def send(self, port: int, *, rate_rps: float, seconds: float, seed: int = 1) -> Ends:
        """Sends for so long and waits for the ends of all requests."""
        rng, began_s, at_s = random.Random(seed), time.monotonic(), 0.0
        tasks: list[asyncio.Task[None]] = []
        while at_s < seconds:
            await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
            tasks.append(asyncio.create_task(self._one(port, len(tasks))))
            at_s += rng.expovariate(rate_rps)
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.1)
        self.ends.extra = sum(connection.extra for connection in self._all)
        for connection in self._all:
            if connection.transport is not None:
                connection.transport.abort()
        return self.ends

    async def _one(self, port: int, number: int) -> None:
        end = End(number)
        began_s = time.monotonic()
        item = self._items[number % len(self._items)]
        message = _message(port, f"r{number}", item.picture)
        while True:
            try:
                left_s = began_s + LIMIT_S - time.monotonic()
                status, _, body = await asyncio.wait_for(self._ask(port, message), max(0.01, left_s))
                _read(end, status, body, item)
                break
            except (OSError, asyncio.TimeoutError) as error:
                end.sentence = str(error) or type(error).__name__
                if not self._again or time.monotonic() > began_s + LIMIT_S:
                    break
                end.cuts += 1
                await asyncio.sleep(AGAIN_S)
        end.latency_s = time.monotonic() - began_s
        self.ends.ends.append(end)

    async def _ask(self, port: int, message: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = None
        while self._free and connection is None:
            kept = self._free.pop()
            connection = None if kept.closed else kept
        kept_before = connection is not None
        if connection is None:
            _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
            self._all.append(connection)
        try:
            answer = await connection.ask(message)
        except ConnectionError:
            if not kept_before:
                raise
            # As every HTTP library does: a kept connection may end while a request is on its way to it.
            return await self._ask(port, message)
        if not connection.closed:
            self._free.append(connection)
        return answer


def _message(port: int, request_id: str, picture: bytes) -> bytes:
    raw = len(picture).to_bytes(4, "little") + picture
    image = {"name": "image", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"id": request_id, "inputs": [image]}).encode()
    lines = (
        f"POST /v2/models/{MODEL}/infer HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Inference-Header-Content-Length: {len(head)}",
        f"Content-Length: {len(head) + len(raw)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + head + raw


def _read(end: End, status: int, body: bytes, item: Item) -> None:
    end.status = status
    content = json.loads(body)
    if status != 200:
        end.sentence = str(content.get("error", content))
        end.right = status == 400 and item.answer is None
        return
    rows = [output["data"] for output in content["outputs"] if output["name"] == "probabilities"]
    end.right = content.get("id") == f"r{end.number}" and len(rows) == 1 and is_right(rows[0], item)
    end.sentence = "" if end.right else f"answer {str(rows)[:80]} with id {content.get('id')}"

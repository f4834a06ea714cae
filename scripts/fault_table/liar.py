"""A server before a real one that changes its answers: the neighbour that lies, breaks off, is slow or never ends.

`python -m scripts.fault_table.liar --mode FILE --upstream PORT` stands before an edge server. As a container program,
with FC_CUSTOM_LISTEN_PORT in its environment, it starts the real container behind itself and changes its frames. The
file names the mode, and is read at each answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scheduler import wire

_MEGABYTE = 2**20
SLOWER = 3.0
"""How many times longer a slow neighbour takes."""
_SAID = ("service_s", "identity", wire.ITEM_CRC32)
_SUM_DIGITS = 8
_JSON_LENGTH = wire.JSON_LENGTH_HEADER.lower()


@dataclass(frozen=True, slots=True)
class Message:
    """Status, headers (names in lower case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def encoded(self) -> bytes:
        """Returns the bytes on the wire."""
        kept = {k: v for k, v in self.headers.items() if k not in ("content-length", "transfer-encoding")}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{k}: {v}" for k, v in kept.items())]
        return "\r\n".join([*lines, f"content-length: {len(self.body)}", "", ""]).encode("latin-1") + self.body


Change = Callable[[wire.InferResponse], wire.InferResponse]


def _outputs(response: wire.InferResponse, change: Callable[[wire.Tensor], wire.Tensor]) -> wire.InferResponse:
    return replace(response, outputs=tuple(change(each) for each in response.outputs))


def _values(response: wire.InferResponse, change: Callable[[Any], Any]) -> wire.InferResponse:
    """Changes the numbers of the output that the model's card names."""

    def changed(tensor: wire.Tensor) -> wire.Tensor:
        if tensor.name != "probabilities":
            return tensor
        return wire.Tensor.from_numpy(tensor.name, change(tensor.to_numpy().copy()))

    return _outputs(response, changed)


def _rows(response: wire.InferResponse, change: Callable[[Any], Any]) -> wire.InferResponse:
    """Changes the rows of all outputs."""

    def changed(tensor: wire.Tensor) -> wire.Tensor:
        if tensor.name == wire.ITEM_ERROR:
            return wire.Tensor.from_elements(tensor.name, list(change(tensor.elements())))
        return wire.Tensor.from_numpy(tensor.name, np.array(change(list(tensor.to_numpy()))))

    return _outputs(response, changed)


def _reordered(response: wire.InferResponse) -> wire.InferResponse:
    """Answers the items in another order, each with the sum of the item that it is about."""
    swapped = _rows(response, lambda rows: rows[::-1])
    sums = str(response.parameters.get(wire.ITEM_CRC32, ""))
    parts = [sums[at : at + _SUM_DIGITS] for at in range(0, len(sums), _SUM_DIGITS)]
    return replace(swapped, parameters={**response.parameters, wire.ITEM_CRC32: "".join(reversed(parts))})


def _other_identity(response: wire.InferResponse) -> wire.InferResponse:
    return replace(response, parameters={**response.parameters, "identity": "sha256:" + "0" * 64})


def _renamed(response: wire.InferResponse) -> wire.InferResponse:
    return _outputs(
        response, lambda t: t if t.name == wire.ITEM_ERROR else wire.Tensor.from_numpy("logits", t.to_numpy())
    )


LIES: Mapping[str, Change] = {
    "NaN": lambda r: _values(r, lambda v: v * np.float32("nan")),
    "infinite": lambda r: _values(r, lambda v: v + np.float32("inf")),
    "a row less": lambda r: _rows(r, lambda rows: rows[:-1]),
    "a row more": lambda r: _rows(r, lambda rows: [*rows, rows[0]]),
    "twice as wide": lambda r: _values(r, lambda v: np.hstack([v, v])),
    "other names": _renamed,
    "other type": lambda r: _values(r, lambda v: v.astype(np.float64)),
    "no outputs": lambda r: replace(r, outputs=()),
    "reordered": _reordered,
    "other model": lambda r: replace(r, model_name="resnet50"),
    "other id": lambda r: replace(r, id="777777"),
    "other identity": _other_identity,
    "huge times": lambda r: replace(r, parameters={**r.parameters, "service_s": 1e9}),
}
"""Changes of an answer that stays one of the protocol."""
FORMS = ("HTML", "truncated", "endless", "10 MB", "empty", "garbage bytes", "a byte at a time", "twice")
"""Answers that are none."""
STATUSES = {"429": 429, "503": 503, "500": 500, "401": 401, "404": 404}


def _lying(answer: Message, change: Change) -> Message:
    """Returns the answer with a changed response, in the protocol's body or in a function's frame."""
    header: dict[str, object] | None = None
    encoded = wire.Encoded(answer.body, int(answer.headers[_JSON_LENGTH]) if _JSON_LENGTH in answer.headers else None)
    if answer.body[:4] == b"EBF1":
        header, encoded = wire.unpack_frame(answer.body)
        if not encoded.body:
            return answer
    response = wire.parse_response(encoded.body, encoded.json_length)
    if header is not None:
        # What a container says of itself and of the items is in the frame's header.
        said = {name: header[name] for name in _SAID if name in header}
        response = replace(response, parameters={**response.parameters, **said})
    changed = change(response)
    encoded = wire.encode_response(changed, binary_by_default=True)
    if header is not None:
        said = {name: changed.parameters[name] for name in _SAID if name in changed.parameters}
        return replace(answer, body=wire.pack_frame({**header, **said}, encoded))
    kept = {name: value for name, value in answer.headers.items() if name != _JSON_LENGTH}
    given = {name.lower(): value for name, value in encoded.headers.items()}
    return replace(answer, body=encoded.body, headers={**kept, **given})


async def _say(writer: asyncio.StreamWriter, answer: Message, mode: str) -> bool:
    """Sends an answer in a mode; returns whether the connection is kept."""
    whole = answer.encoded()
    if mode == "HTML":
        whole = Message(200, {"content-type": "text/html"}, b"<html><body>It works!</body></html>").encoded()
    elif mode == "empty":
        whole = Message(200, {}, b"").encoded()
    elif mode == "10 MB":
        whole = replace(answer, body=answer.body + bytes(10 * _MEGABYTE)).encoded()
    elif mode == "garbage bytes":
        whole = b"\x00\xff" * 500
    elif mode == "twice":
        whole += whole
    elif mode == "truncated":
        writer.write(whole[: len(whole) - len(answer.body) // 2 - 1])
        await writer.drain()
        return False
    elif mode == "endless":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(4000):
            writer.write(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            await writer.drain()
        return False
    elif mode == "a byte at a time":
        for at in range(len(whole)):
            writer.write(whole[at : at + 1])
            await writer.drain()
            await asyncio.sleep(0.05)
        return True
    elif mode in STATUSES:
        waits = {"retry-after": "1"} if mode in ("429", "503") else {}
        whole = Message(STATUSES[mode], waits, b'{"error": "told to"}').encoded()
    elif mode in LIES:
        whole = _lying(answer, LIES[mode]).encoded()
    writer.write(whole)
    await writer.drain()
    return mode != "closes"


class Liar:
    """Forwards each request on a connection of its own to the real server, and changes the answers of inference."""

    def __init__(self, upstream: int, mode: Path) -> None:
        """Stores where the real server listens, and which file names the mode."""
        self._upstream = upstream
        self._mode = mode

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await _body(reader, head)
                began_s = asyncio.get_running_loop().time()
                answer = await self._forward(head + body)
                path = head.split(b" ", 2)[1]
                mode = self._mode.read_text() if path.endswith((b"/infer", b"/invoke")) and body else ""
                if mode == "slow":
                    await asyncio.sleep((SLOWER - 1) * (asyncio.get_running_loop().time() - began_s))
                if mode == "hangs":
                    await asyncio.sleep(3600)
                if not await _say(writer, answer, mode):
                    break
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    async def _forward(self, request: bytes) -> Message:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=64 * _MEGABYTE)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            body = await _body(reader, head)
            first, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            headers.pop("connection", None)
            return Message(int(first.split(" ")[1]), headers, body)
        finally:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return await reader.readexactly(int(value))
    return b""


async def _listen(host: str, port: int, upstream: int, mode: Path) -> None:
    liar = Liar(upstream, mode)
    server = await asyncio.start_server(liar.serve, host, port, limit=64 * _MEGABYTE)
    print(json.dumps({"event": "ready", "port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


def _container() -> int:
    """Runs the real container on a free port behind this one, until it ends or this one is ended."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        upstream = int(free.getsockname()[1])
    environ = {**os.environ, "FC_CUSTOM_LISTEN_PORT": str(upstream)}
    real = subprocess.Popen([sys.executable, "-m", "serverless_fn"], env=environ)
    try:
        host, port = os.environ.get("EDGEBURST_LISTEN_HOST", "127.0.0.1"), int(os.environ["FC_CUSTOM_LISTEN_PORT"])
        asyncio.run(_when_up(host, port, upstream, Path(os.environ["LIAR_MODE"])))
    finally:
        real.kill()
        real.wait()
    return 0


async def _when_up(host: str, port: int, upstream: int, mode: Path) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", upstream)
            writer.close()
            break
        except OSError:
            await asyncio.sleep(0.05)
    await _listen(host, port, upstream, mode)


def main() -> int:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", type=Path)
    options = parser.parse_args()
    if options.upstream is None:
        return _container()
    asyncio.run(_listen("127.0.0.1", options.port, options.upstream, options.mode))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

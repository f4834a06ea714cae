"""An edge server that costs little: it checks nothing, and answers each batch with the same rows and its sums.

python -m scripts.daemon_bench.edge [ALPHA_S BETA_S]

It answers at once; with numbers one batch after the other, each of b items after ALPHA_S + BETA_S * b.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from functools import partial
from typing import cast

import numpy as np
import uvloop

from scheduler import wire

_ROW = np.linspace(0, 0.18, 10, dtype=np.float32)


class _Device:
    """Serves one batch after the other."""

    def __init__(self, alpha_s: float = 0.0, beta_s: float = 0.0) -> None:
        self._alpha_s, self._beta_s = alpha_s, beta_s
        self._free_at_s = 0.0

    def serve(self, items: int, answer: Callable[[float], None]) -> None:
        """Calls `answer` with the seconds of the batch's service when that is over."""
        service_s = self._alpha_s + self._beta_s * items
        if not service_s:
            answer(0.0)
            return
        loop = asyncio.get_running_loop()
        self._free_at_s = max(self._free_at_s, loop.time()) + service_s
        loop.call_at(self._free_at_s, answer, service_s)


class _Connection(asyncio.Protocol):
    """One connection."""

    def __init__(self, device: _Device) -> None:
        self._device = device
        self._transport: asyncio.Transport
        self._pieces: list[bytes] = []
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._pieces or self._missing:
            self._pieces.append(data)
            self._missing -= len(data)
        else:
            whole = b"".join([*self._pieces, data])
            end = whole.find(b"\r\n\r\n") + 4
            length = _value(whole[:end].lower(), b"\r\ncontent-length:")
            self._pieces, self._missing = [whole], end + length - len(whole)
        if not self._missing:
            request = b"".join(self._pieces)
            self._pieces = []
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        end = request.find(b"\r\n\r\n") + 4
        head = request[:end].lower()
        path = request[:end].split(b" ", 2)[1].decode()
        if not path.endswith("/infer"):
            inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
            self._say(json.dumps({"name": "stub", "inputs": inputs}).encode())
            return
        asked = wire.parse_request(memoryview(request)[end:], _value(head, b"\r\ninference-header-content-length:"))
        items = asked.inputs[0].items
        self._device.serve(items, partial(self._answer_batch, path.split("/")[3], asked, items))

    def _answer_batch(self, model: str, asked: wire.InferRequest, items: int, service_s: float) -> None:
        response = wire.InferResponse(
            model_name=model,
            outputs=(
                wire.Tensor.from_numpy("probabilities", np.broadcast_to(_ROW, (items, 10))),
                wire.Tensor.from_elements("item_error", [b""] * items),
            ),
            id=asked.id,
            parameters={"service_s": service_s, wire.ITEM_CRC32: wire.item_crc32(asked.inputs)},
        )
        encoded = wire.encode_response(response, binary_by_default=True)
        self._say(encoded.body, f"{wire.JSON_LENGTH_HEADER}: {encoded.json_length}\r\n")

    def _say(self, body: bytes, extra: str = "") -> None:
        self._transport.write(f"HTTP/1.1 200 OK\r\n{extra}Content-Length: {len(body)}\r\n\r\n".encode() + body)


def _value(head: bytes, name: bytes) -> int:
    return int(head.partition(name)[2].partition(b"\r\n")[0] or 0)


async def main() -> None:
    """Serves until it is ended."""
    device = _Device(*map(float, sys.argv[1:]))
    server = await asyncio.get_running_loop().create_server(partial(_Connection, device), "127.0.0.1", 0)
    print(json.dumps({"event": "ready", "port": server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.new_event_loop().run_until_complete(main())

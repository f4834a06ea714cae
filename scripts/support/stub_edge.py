"""Stub of an edge server: Open Inference Protocol v2 on a plain socket, with configurable delays and failures.

It runs in its own process (`python -m scripts.support.stub_edge`) and prints one JSON line when ready. `POST /control`
with a JSON object of the fields of `Behaviour` configures it. The output `probabilities` of an item depends on its
bytes only, so that exchanged answers are detected: see `expected_row`.
"""

import argparse
import asyncio
import json
import os
import sys
import time
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from scheduler import wire

CLASSES = 10


@dataclass(frozen=True)
class Behaviour:
    """Behaviour of the stub with a batch."""

    mode: str = "ok"
    """ok, hang, cut (close without an answer), die, short (a row less), nan, reversed (items), other_model, wrong_id,
    garbage, status."""
    only_model: str = ""
    """The model with which it behaves so; empty: all."""
    alpha_s: float = 0.0
    beta_s: float = 0.0
    """So many batches are served at once as the stub was started with; each takes alpha_s + beta_s * items."""
    beside_s: float = 0.0
    """Seconds of each batch before that, of any number at a time."""
    statistics: bool = False
    """Whether it has Triton's statistics, and reports no `service_s`."""
    status: int = 500
    error: str = "told to"
    retry_after: str = ""
    bad_item: str = ""
    """Items with this content (hexadecimal) are named in `item_error`."""
    not_ready: bool = False
    identity: str = ""
    """Which card and files it says that it serves, with each answer; empty: nothing."""
    says_s: float | str | None = None
    """What it reports as `service_s`; None: the truth."""
    waited_s: float | str | None = None
    """What it reports as `queue_s`; None: nothing."""
    says_waits: bool = False
    """Whether it reports the truth as `queue_s`."""


@dataclass
class Counters:
    """Counters of connections, batches and items."""

    connections: int = 0
    batches: int = 0
    items: int = 0
    batch_sizes: list[int] = field(default_factory=list)
    at_once: int = 0
    """Batches under way now."""
    most_at_once: int = 0
    served: int = 0
    queue_s: float = 0.0
    compute_s: float = 0.0

    def statistics(self) -> dict[str, object]:
        """Returns them as Triton does."""
        parts = {"queue": self.queue_s, "compute_input": 0.0, "compute_infer": self.compute_s, "compute_output": 0.0}
        seconds = {**parts, "success": self.queue_s + self.compute_s}
        stats = {name: {"count": self.served, "ns": int(value * 1e9)} for name, value in seconds.items()}
        return {"model_stats": [{"inference_stats": stats}]}


def expected_row(element: bytes) -> npt.NDArray[np.float32]:
    """Returns the ten numbers of the answer to an item with these bytes."""
    seed = zlib.crc32(element)
    return np.array([(seed >> (3 * index)) % 1000 / 1000 for index in range(CLASSES)], dtype=np.float32)


class StubEdge:
    """Server on an asyncio loop."""

    def __init__(self, behaviour: Behaviour, parallel: int = 1) -> None:
        self.behaviour = behaviour
        self.counters = Counters()
        self.device = asyncio.Semaphore(parallel)

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counters.connections += 1
        try:
            while await self.serve_one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if path.endswith("/infer"):
            return await self.infer(path, headers, body, writer)
        status, answer = self.small_talk(method, path, body)
        send(writer, status, json.dumps(answer).encode(), {})
        return True

    def small_talk(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        if path == "/control":
            if method == "POST":
                self.behaviour = replace(self.behaviour, **json.loads(body))
            return 200, self.counters.__dict__
        if path.endswith("/stats"):
            return 200, self.counters.statistics()
        inputs = [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
        said = {"identity": self.behaviour.identity} if self.behaviour.identity else {}
        metadata: dict[str, object] = {"name": "stub", "inputs": inputs, "parameters": said}
        if self.behaviour.statistics:
            metadata["extensions"] = ["binary_tensor_data", "statistics"]
        return (503, {"error": "not ready"}) if self.behaviour.not_ready else (200, metadata)

    async def infer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        behaviour = self.behaviour
        if behaviour.only_model not in ("", path.split("/")[3]):
            behaviour = replace(behaviour, mode="ok")
        json_length = headers.get(wire.JSON_LENGTH_HEADER.lower())
        request = wire.parse_request(body, int(json_length) if json_length else None)
        elements = request.inputs[0].elements()
        if behaviour.mode == "reversed":
            elements.reverse()
        self.counters.batches += 1
        self.counters.items += len(elements)
        self.counters.batch_sizes.append(len(elements))
        if behaviour.mode == "die":
            os._exit(9)
        if behaviour.mode == "cut":
            return False
        if behaviour.mode == "hang":
            await asyncio.sleep(3600)
        service_s = behaviour.alpha_s + behaviour.beta_s * len(elements)
        if service_s > 0:
            counters = self.counters
            counters.at_once += 1
            counters.most_at_once = max(counters.most_at_once, counters.at_once)
            if behaviour.beside_s:
                await asyncio.sleep(behaviour.beside_s)
            came_s = time.monotonic()
            async with self.device:
                began_s = time.monotonic()
                await asyncio.sleep(service_s)
            counters.at_once -= 1
            counters.served += 1
            counters.queue_s += began_s - came_s
            if behaviour.says_waits:
                behaviour = replace(behaviour, waited_s=began_s - came_s)
            counters.compute_s += time.monotonic() - began_s
        self.answer(behaviour, request, path.split("/")[3], elements, service_s, writer)
        return True

    def answer(
        self,
        behaviour: Behaviour,
        request: wire.InferRequest,
        model: str,
        elements: list[bytes],
        service_s: float,
        writer: asyncio.StreamWriter,
    ) -> None:
        if behaviour.mode == "status":
            extra = {"Retry-After": behaviour.retry_after, "Location": "/v2"}
            send(writer, behaviour.status, json.dumps({"error": behaviour.error}).encode(), extra)
            return
        if behaviour.mode == "garbage":
            send(writer, 200, b"<html>\xff", {})
            return
        rows = [expected_row(element) for element in elements]
        if behaviour.mode == "short":
            rows = [*rows, rows[0]]
        if behaviour.mode == "nan":
            rows = [row * np.float32("nan") for row in rows]
        errors = [b"told to" if element.hex() == behaviour.bad_item else b"" for element in elements]
        said_s = service_s if behaviour.says_s is None else behaviour.says_s
        response = wire.InferResponse(
            model_name="another" if behaviour.mode == "other_model" else model,
            outputs=(
                wire.Tensor.from_numpy("probabilities", np.stack(rows)),
                wire.Tensor.from_elements("item_error", [*errors, b""] if behaviour.mode == "short" else errors),
            ),
            id="77777" if behaviour.mode == "wrong_id" else request.id,
            parameters={
                **({} if behaviour.statistics else {"service_s": said_s}),
                wire.ITEM_CRC32: wire.item_crc32([wire.Tensor.from_elements("image", elements)]),
                **({"identity": behaviour.identity} if behaviour.identity else {}),
                **({} if behaviour.waited_s is None else {"queue_s": behaviour.waited_s}),
            },
        )
        encoded = wire.encode_response(response, binary_by_default=True)
        send(writer, 200, encoded.body, {wire.JSON_LENGTH_HEADER: str(encoded.json_length)})


def send(writer: asyncio.StreamWriter, status: int, body: bytes, extra: dict[str, str]) -> None:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in extra.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)


async def start(behaviour: Behaviour, port: int = 0, parallel: int = 1) -> tuple[StubEdge, asyncio.Server, int]:
    """Starts a stub on the running loop; returns it, its server and its port."""
    stub = StubEdge(behaviour, parallel)
    server = await asyncio.start_server(stub.serve_connection, "127.0.0.1", port, limit=2**26)
    return stub, server, int(server.sockets[0].getsockname()[1])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--alpha-s", type=float, default=0.0)
    parser.add_argument("--beta-s", type=float, default=0.0)
    parser.add_argument("--beside-s", type=float, default=0.0)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--statistics", action="store_true", help="has Triton's statistics")
    options = parser.parse_args()
    behaviour = Behaviour(
        alpha_s=options.alpha_s, beta_s=options.beta_s, beside_s=options.beside_s, statistics=options.statistics
    )
    _, server, port = await start(behaviour, options.port, options.parallel)
    print(json.dumps({"event": "ready", "host": "127.0.0.1", "port": port}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        sys.exit(0)

"""A Function Compute endpoint that checks no signature and answers as a test scripts it, on a bare socket."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from scheduler import wire
from scripts.support.stub_edge import expected_row

KEYS = {"TEST_KEY_ID": "an-id", "TEST_KEY_SECRET": "very-secret-secret"}
"""Environment of a daemon that uses the endpoint."""
FUNCTION = """
[function]
endpoint = "127.0.0.1:{port}"
protocol = "http"
access_key_id_env = "TEST_KEY_ID"
access_key_secret_env = "TEST_KEY_SECRET"
"""
"""Its table in the daemon's configuration."""
TIER = """
[[model.tier]]
name = "1gb"
function = "digits"
profile = "fc-resnet50-1gb"
memory_gb = 1.0
"""
"""The table of a tier, in that of its model."""


@dataclass(frozen=True)
class Heard:
    """One request."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Say:
    """One answer; `cut` closes the connection instead, `hang_s` waits before it."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang_s: float = 0.0
    truncate: int = 0
    """This many bytes of the body are promised and not sent."""


Script = Callable[[Heard], Say]


def error(status: int, code: str, **headers: str) -> Say:
    """The provider's error form."""
    body = json.dumps({"Code": code, "Message": f"{code} happened", "RequestId": "1-2-3"}).encode()
    return Say(status, body, {"Content-Type": "application/json", **headers})


def answer_frame(heard: Heard, **changes: object) -> Say:
    """What the container answers to a batch; `changes` go into the frame's header."""
    header, payload = wire.unpack_frame(heard.body)
    outputs: tuple[wire.Tensor, ...] = ()
    # A warming call carries nothing.
    if payload.body:
        request = wire.parse_request(payload.body, payload.json_length)
        rows = np.stack([expected_row(element) for element in request.inputs[0].elements()])
        outputs = (wire.Tensor.from_numpy("probabilities", rows),)
    response = wire.InferResponse(model_name=str(header["model"]), outputs=outputs)
    encoded = wire.encode_response(response, binary_by_default=True)
    said = {
        "status": 200,
        "service_s": 0.25,
        "duration_s": 0.3,
        "memory_bytes": 123456789,
        "instance_id": "c-1",
        "cold_start": True,
        "batch_id": header["batch_id"],
        **changes,
    }
    if said["status"] != 200:
        encoded = wire.Encoded(b"", None)
    return Say(200, wire.pack_frame(said, encoded))


@dataclass
class StubFc:
    """The server; GetFunction is answered with an Active function unless the script takes it."""

    script: Script
    heard: list[Heard] = field(default_factory=list)
    body_bytes_read: int = 0

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self.serve_one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        heard = Heard(method, target, headers, body)
        self.heard.append(heard)
        said = self.script(heard)
        if said.hang_s:
            await asyncio.sleep(said.hang_s)
        if said.cut:
            return False
        extra = "".join(f"{name}: {value}\r\n" for name, value in said.headers.items())
        length = len(said.body) + said.truncate
        head_out = f"HTTP/1.1 {said.status} X\r\nX-Fc-Request-Id: 1-2-3\r\n{extra}Content-Length: {length}\r\n\r\n"
        writer.write(head_out.encode() + said.body)
        return said.truncate == 0


async def start(script: Script) -> tuple[StubFc, asyncio.Server, int]:
    """Starts a stub on the running loop; returns it, its server and its port."""
    stub = StubFc(script)
    server = await asyncio.start_server(stub.serve_connection, "127.0.0.1", 0, limit=2**26)
    return stub, server, int(server.sockets[0].getsockname()[1])

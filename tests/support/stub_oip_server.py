"""A server of the Open Inference Protocol in a thread: it describes its model, as a real one does, and may misbehave.

What it answers is that of `stub_edge`: each item's output depends on its bytes alone (`expected_row`).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType

import numpy as np
import numpy.typing as npt

from scheduler import wire
from scripts.support.stub_edge import Behaviour, StubEdge, send

DESCRIPTION: Mapping[str, object] = {
    "name": "digits",
    "versions": ["1"],
    "platform": "stub",
    "inputs": [{"name": "picture", "datatype": "BYTES", "shape": [-1]}],
    "outputs": [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}],
}

ServeConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class ServerThread:
    """Serves connections in a thread between `with` and its end, on a free port of the loopback."""

    def __init__(self, serve_connection: ServeConnection) -> None:
        """Stores what serves a connection."""
        self.port = 0
        self._serve_connection = serve_connection
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stub", daemon=True)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ServerThread:
        """Starts it."""
        self._thread.start()
        starting = asyncio.start_server(self._serve_connection, "127.0.0.1", 0, limit=2**26)
        server = asyncio.run_coroutine_threadsafe(starting, self._loop).result(timeout=10)
        self.port = int(server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it, and with it whatever it still holds back."""
        asyncio.run_coroutine_threadsafe(self._cancel_all(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class DescribingStub(StubEdge):
    """Says what it serves at /v2/models/digits, and knows no other model."""

    description: Mapping[str, object] = DESCRIPTION

    def __init__(self, behaviour: Behaviour) -> None:
        """Starts with no batch."""
        super().__init__(behaviour)
        self.traces: list[dict[str, str]] = []
        """W3C's trace headers of each batch."""

    async def infer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Notes the trace and answers."""
        self.traces.append({name: value for name, value in headers.items() if name.startswith("trace")})
        return await super().infer(path, headers, body, writer)

    def small_talk(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Answers everything but inference."""
        if path == "/v2/models/digits":
            return 200, self.description
        if path.startswith("/v2/models/"):
            return 404, {"error": f"model {path.split('/')[3]} is not served; served is digits"}
        if path.startswith("/v1/"):
            return 404, {"error": "there is nothing here"}
        return super().small_talk(method, path, body)


class StubOipServer(ServerThread):
    """Serves `digits` as a Behaviour says."""

    def __init__(self, behaviour: Behaviour | None = None, *, parameters: Mapping[str, object] | None = None) -> None:
        """Stores what it does, and what its model's metadata says besides (device, max_batch, ...)."""
        self.stub = DescribingStub(behaviour or Behaviour())
        if parameters is not None:
            self.stub.description = {**DESCRIPTION, "parameters": parameters}
        super().__init__(self.stub.serve_connection)

    def __enter__(self) -> StubOipServer:
        """Starts it."""
        super().__enter__()
        return self


class SumsStub(StubEdge):
    """Serves `sums`: of each item, z is the sum of x (three FP32) and y (INT64)."""

    def __init__(self) -> None:
        """Starts with no batch."""
        super().__init__(Behaviour())
        self.heard: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]] = []
        """x and y of each batch."""

    def small_talk(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Describes the model."""
        if path != "/v2/models/sums":
            return 404, {"error": "there is nothing here"}
        x = {"name": "x", "datatype": "FP32", "shape": [-1, 3]}
        y = {"name": "y", "datatype": "INT64", "shape": [-1]}
        return 200, {"name": "sums", "inputs": [x, y]}

    async def infer(self, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Adds up."""
        request = wire.parse_request(body, int(headers[wire.JSON_LENGTH_HEADER.lower()]))
        x, y = (np.array(tensor.to_numpy()) for tensor in request.inputs)
        self.heard.append((x, y))
        outputs = (wire.Tensor.from_numpy("z", (x.sum(axis=1) + y).astype(np.float32)),)
        encoded = wire.encode_response(wire.InferResponse("sums", outputs, id=request.id), binary_by_default=True)
        send(writer, 200, encoded.body, {wire.JSON_LENGTH_HEADER: str(encoded.json_length)})
        return True


class SumsServer(ServerThread):
    """Serves `sums`."""

    def __init__(self) -> None:
        """Makes the stub."""
        self.stub = SumsStub()
        super().__init__(self.stub.serve_connection)

    def __enter__(self) -> SumsServer:
        """Starts it."""
        super().__enter__()
        return self

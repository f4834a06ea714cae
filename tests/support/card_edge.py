"""An edge server in a thread for a model of its own: an open axis in, ragged rows out; it counts what it is asked.

Item x of length L gives its sum, and as many rows [x[0], L] as its first value says.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from scheduler import wire
from scheduler.wire import InferResponse, Tensor

CARD = """
name = "ragged"
format = "python"
class = "handler.py:Rows"
inputs = [{ name = "x", datatype = "FP32", shape = [-1] }]
outputs = [
    { name = "sum", datatype = "FP32" },
    { name = "rows", datatype = "FP32", shape = [2], ragged = true },
]
max_batch = 8
"""
HANDLER = "class Rows: ...\n"


def card_folder(parent: Path, card: str = CARD) -> Path:
    """Writes the folder of the model."""
    folder = parent / "ragged"
    folder.mkdir(exist_ok=True)
    (folder / "model.toml").write_text(card)
    (folder / "handler.py").write_text(HANDLER)
    return folder


def expected(x: Any) -> tuple[float, Any]:
    """What an item gives."""
    count = int(x[0])
    return float(x.sum()), np.array([[x[0], len(x)]] * count, np.float32).reshape(count, 2)


class CardEdge:
    """Serves the model between `with` and its end, on a free port of the loopback or the one that is given."""

    def __init__(
        self,
        *,
        identity: str | None = None,
        port: int = 0,
        largest: int = 8,
        rows_off_by: int = 0,
        listens: bool = True,
    ) -> None:
        """Stores what it says of itself; with `listens` False nothing is on its port before `with`."""
        self.identity, self.largest, self.rows_off_by = identity, largest, rows_off_by
        self.batches: list[tuple[int, ...]] = []
        """Shapes of the batches that it answered."""
        edge = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/v2/models/ragged":
                    self._json({"name": "ragged", "parameters": {"identity": edge.identity}})
                else:
                    self._json({"ready": True})

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = wire.parse_request(body, wire.json_length_of(self.headers))
                x = request.inputs[0].to_numpy()
                if len(x) > edge.largest:
                    self._json({"error": f"at most {edge.largest} items"}, 400)
                    return
                edge.batches.append(x.shape)
                response = InferResponse("ragged", edge.outputs(x), request.id)
                encoded = wire.encode_response(response, binary_by_default=True)
                self._answer(encoded.body, encoded.headers)

            def _json(self, value: object, status: int = 200) -> None:
                self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"}, status)

            def _answer(self, body: bytes, headers: dict[str, str], status: int = 200) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler, bind_and_activate=listens)
        self._server.daemon_threads = True
        self._listens = listens
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def outputs(self, x: Any) -> tuple[Tensor, ...]:
        """Returns the outputs of a batch."""
        sums, rows = zip(*map(expected, x), strict=True)
        return (
            Tensor.from_numpy("sum", np.array(sums, np.float32)),
            Tensor.from_numpy("rows", np.concatenate(rows)),
            Tensor.from_numpy("rows_rows", np.array([len(own) + self.rows_off_by for own in rows], np.int64)),
        )

    def __enter__(self) -> CardEdge:
        """Starts it."""
        if not self._listens:
            self._server.server_bind()
            self._server.server_activate()
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self._server.shutdown()
        self._server.server_close()

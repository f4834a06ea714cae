"""Container program for the local Function Compute endpoint: answers frames as ours does, without torch.

`python -m scripts.support.stub_function`. An invocation takes ALPHA_S plus BETA_S for each item, from the environment.
The outputs are those of the stub edge, so exchanged answers are detected.
"""

import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from scheduler import wire
from scripts.support.stub_edge import expected_row

_ENDPOINT = """
[access_keys]
{key} = "{secret}"
[images.stub]
command = ["{python}", "-m", "scripts.support.stub_function"]
env = {{ PYTHONPATH = "{path}", ALPHA_S = "0.08", BETA_S = "0.04" }}
[[function]]
functionName = "digits"
runtime = "custom-container"
handler = "index.handler"
cpu = 1
memorySize = 1024
diskSize = 512
timeout = 20
customContainerConfig = {{ image = "stub" }}
"""


def endpoint_config(*, key: str, secret: str) -> str:
    """Returns the configuration of a local endpoint with one function `digits` that runs this program."""
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return _ENDPOINT.format(key=key, secret=secret, python=sys.executable, path=path)


class Handler(BaseHTTPRequestHandler):
    """Answers /invoke with a frame, everything else with an empty 200."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    calls = 0

    def do_POST(self) -> None:
        """Serves one invocation."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        Handler.calls += 1
        self._say(_answer(body, first=Handler.calls == 1) if self.path == "/invoke" else b"")

    def do_GET(self) -> None:
        """Says that it is healthy."""
        self._say(b"")

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def _say(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("x-fc-status", "200")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _answer(frame: bytes, *, first: bool) -> bytes:
    started_s = time.perf_counter()
    header, payload = wire.unpack_frame(frame)
    outputs: tuple[wire.Tensor, ...] = ()
    if payload.body:
        request = wire.parse_request(payload.body, payload.json_length)
        rows = np.stack([expected_row(element) for element in request.inputs[0].elements()])
        outputs = (wire.Tensor.from_numpy("probabilities", rows),)
        time.sleep(float(os.environ.get("ALPHA_S", "0")) + float(os.environ.get("BETA_S", "0")) * len(rows))
    service_s = time.perf_counter() - started_s
    response = wire.InferResponse(model_name=str(header["model"]), outputs=outputs)
    said = {
        "status": 200,
        "service_s": service_s,
        "duration_s": service_s,
        "memory_bytes": 0,
        "instance_id": os.environ["FC_INSTANCE_ID"],
        "cold_start": first,
        "batch_id": header["batch_id"],
    }
    return wire.pack_frame(said, wire.encode_response(response, binary_by_default=True))


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["FC_CUSTOM_LISTEN_PORT"])), Handler).serve_forever()

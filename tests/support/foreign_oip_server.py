"""A server of the Open Inference Protocol that is not ours, as a program: `python -m support.foreign_oip_server PORT`.

It takes what its options say: binary tensors, or JSON alone (as MLServer does). It answers `y`, twice `x`; for BYTES
`n`, their lengths. A model `busy` answers 503, `missing` 404, `bad` 400, `traced` 400 with the trace's headers;
`die` ends the program, `die-slowly` after it has closed its sockets.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import struct
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

REFUSALS = {"busy": (503, "queue full"), "missing": (404, "no such model"), "bad": (400, "wrong shape")}


class Handler(BaseHTTPRequestHandler):
    """Answers one request after the other."""

    protocol_version = "HTTP/1.1"
    json_only = False
    ready_at_s = 0.0

    def do_GET(self) -> None:
        """Readiness."""
        ready = self.path == "/v2/health/ready" and time.monotonic() >= self.ready_at_s
        self._answer(200 if ready else 503, b"{}", {})

    def do_POST(self) -> None:
        """Inference."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        model = self.path.split("/")[3]
        if model in ("die", "die-slowly"):
            if model == "die-slowly":
                assert isinstance(self.server, HTTPServer)
                self.server.socket.close()
                self.connection.shutdown(socket.SHUT_RDWR)
                time.sleep(0.5)
            os._exit(3)
        if model == "crumbs":
            self._answer(200, b"not json", {})
            return
        if model == "traced":
            names = ("traceparent", "tracestate")
            headers = " ".join(f"{name}={self.headers[name]}" for name in names if name in self.headers)
            self._answer(400, json.dumps({"error": headers}).encode(), {})
            return
        if model in REFUSALS:
            status, sentence = REFUSALS[model]
            self._answer(status, json.dumps({"error": sentence}).encode(), {})
            return
        length = self.headers.get("Inference-Header-Content-Length")
        if length is not None and self.json_only:
            self._answer(500, b"Internal Server Error", {})
            return
        head = json.loads(body[: int(length or len(body))])
        [tensor] = head["inputs"]
        raw = body[int(length or 0) :]
        output = doubled(tensor, raw) if tensor["datatype"] == "FP32" else lengths(tensor, raw)
        answer = {"model_name": model, "model_version": "3", "id": head.get("id", ""), "outputs": [output]}
        self._answer(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def doubled(tensor: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """Return twice the numbers."""
    count = tensor["shape"][0]
    numbers = tensor.get("data") or struct.unpack(f"<{count}f", raw)
    return {"name": "y", "datatype": "FP32", "shape": [count], "data": [2 * number for number in numbers]}


def lengths(tensor: dict[str, Any], raw: bytes) -> dict[str, Any]:
    """Return the lengths of the elements; JSON carries those that are no text as base64, and says so."""
    if "data" in tensor:
        as_base64 = tensor.get("parameters", {}).get("content_type") == "base64"
        elements = [base64.b64decode(text) if as_base64 else text.encode() for text in tensor["data"]]
    else:
        elements = []
        while raw:
            size = struct.unpack("<I", raw[:4])[0]
            elements.append(raw[4 : 4 + size])
            raw = raw[4 + size :]
    return {"name": "n", "datatype": "INT64", "shape": [len(elements)], "data": [len(one) for one in elements]}


def main() -> None:
    """Serve until the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--json-only", action="store_true")
    parser.add_argument("--ready-after-s", type=float, default=0.0)
    parser.add_argument("--end-with", type=int)
    options = parser.parse_args()
    if options.end_with is not None:
        print("the repository is empty", file=sys.stderr)
        sys.exit(options.end_with)
    Handler.json_only = options.json_only
    Handler.ready_at_s = time.monotonic() + options.ready_after_s
    HTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()

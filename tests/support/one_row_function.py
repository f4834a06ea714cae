"""A container program of the standard library, so that it starts at once: answers every frame with one row."""

import json
import os
import struct
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROW = {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}


class OneRow(BaseHTTPRequestHandler):
    """Answers /invoke with a frame, everything else with an empty 200."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.answer(one_row(body) if self.path == "/invoke" else b"")

    def do_GET(self) -> None:
        self.answer(b"")

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("x-fc-status", "200")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def one_row(frame: bytes) -> bytes:
    """The answer to a frame of one item, written out as wire/frame.py describes it."""
    (length,) = struct.unpack_from("<I", frame, 4)
    asked = json.loads(frame[8 : 8 + length])
    header = json.dumps({"status": 200, "batch_id": asked["batch_id"], "service_s": 0.0}).encode()
    answer = json.dumps({"model_name": asked["model"], "outputs": [ROW]}).encode()
    return b"EBF1" + struct.pack("<I", len(header)) + header + struct.pack("<I", 0) + answer


if __name__ == "__main__":
    address = (os.environ["EDGEBURST_LISTEN_HOST"], int(os.environ["FC_CUSTOM_LISTEN_PORT"]))
    ThreadingHTTPServer(address, OneRow).serve_forever()

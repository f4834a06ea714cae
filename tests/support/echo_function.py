"""A container program of the standard library: echoes, and misbehaves when the body says so.

The body `{"do": ..., "s": ...}` is an order; anything else comes back as it is.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    """Answers /invoke, /initialize, /pre-stop and /healthz."""

    protocol_version = "HTTP/1.1"
    # Else a body that follows its head would wait for the peer's delayed acknowledgement, 40 ms.
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/initialize":
            self._initialize()
        else:
            self._invoke(body)

    def do_GET(self) -> None:
        if self.path == "/pre-stop" and "PRE_STOP_FILE" in os.environ:
            with open(os.environ["PRE_STOP_FILE"], "a", encoding="utf-8") as file:
                file.write(os.environ["FC_INSTANCE_ID"] + "\n")
        healthy = not os.path.exists(os.environ.get("SICK_FILE", "/nonexistent"))
        self._answer(200 if healthy else 500, b"")

    def log_message(self, *_: object) -> None:
        pass

    def _initialize(self) -> None:
        time.sleep(float(os.environ.get("INITIALIZE_S", "0")))
        failing = "FAIL_INITIALIZE" in os.environ
        self._answer(404 if failing else 200, b"the weights are missing" if failing else b"")

    def _invoke(self, body: bytes) -> None:
        order = _order(body)
        time.sleep(order.get("s", 0.0))
        what = order.get("do", "echo")
        if what == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif what == "fail":
            self._answer(404, b"it failed", {"x-fc-status": "404"})
        elif what == "fail_with_200":
            self._answer(200, b"it failed", {"x-fc-status": "404"})
        elif what == "hang_up":
            self.close_connection = True
        elif what == "long_headers":
            self._answer(200, b"", {f"x-{i}": "v" * 1000 for i in range(9)})
        elif what == "describe":
            headers = {name.lower(): value for name, value in self.headers.items()}
            about = {"pid": os.getpid(), "env": dict(os.environ), "headers": headers, "path": self.path}
            self._answer(200, json.dumps(about).encode())
        else:
            self._answer(200, body)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _order(body: bytes) -> dict[str, object]:
    try:
        order = json.loads(body)
    except ValueError:
        return {}
    return order if isinstance(order, dict) else {}


def main() -> None:
    if "EXIT_AT_START" in os.environ:
        sys.exit("no such model")
    ThreadingHTTPServer.daemon_threads = True
    ThreadingHTTPServer.request_queue_size = 64
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    if "IGNORE_SIGTERM" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    address = (os.environ["EDGEBURST_LISTEN_HOST"], int(os.environ["FC_CUSTOM_LISTEN_PORT"]))
    ThreadingHTTPServer(address, Echo).serve_forever()


if __name__ == "__main__":
    main()

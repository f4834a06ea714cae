"""A container program that answers frames as ours does, without torch; an item `crash` ends its process."""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support.stub_fc import Heard, answer_frame


class Handler(BaseHTTPRequestHandler):
    """Answers /invoke with a frame, everything else with an empty 200."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    calls = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/invoke":
            return self.answer(b"")
        if b"crash" in body:
            os._exit(3)
        Handler.calls += 1
        heard = Heard("POST", self.path, {}, body)
        return self.answer(
            answer_frame(heard, cold_start=Handler.calls == 1, instance_id=os.environ["FC_INSTANCE_ID"]).body
        )

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


if __name__ == "__main__":
    ThreadingHTTPServer(("0.0.0.0", int(os.environ["FC_CUSTOM_LISTEN_PORT"])), Handler).serve_forever()

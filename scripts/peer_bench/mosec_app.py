"""mosec: its front in Rust, and one worker. `python -m scripts.peer_bench.mosec_app --port PORT`."""

from __future__ import annotations

from collections.abc import Sequence

from mosec import Server, Worker

from scripts.peer_bench.stub_model import MAX_BATCH, WAIT_S, predict


class Stub(Worker):
    """Takes and gives bytes, as they are."""

    def deserialize(self, data: bytes) -> bytes:
        """Returns the body."""
        return data

    def serialize(self, data: bytes) -> bytes:
        """Returns the answer."""
        return data

    def forward(self, data: Sequence[bytes]) -> list[bytes]:
        """Answers a batch."""
        return predict(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(Stub, num=1, max_batch_size=MAX_BATCH, max_wait_time=max(1, round(WAIT_S * 1000)))
    server.run()

"""LitServe: its front, and one worker, over its fast queue. `python -m scripts.peer_bench.litserve_app PORT`."""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import litserve
from fastapi import Body, Response

from scripts.peer_bench.stub_model import MAX_BATCH, WAIT_S, predict

_BODY = Body(media_type="application/octet-stream")


class Stub(litserve.LitAPI):
    """Takes and gives bytes, as they are."""

    def setup(self, device: str) -> None:
        """Has nothing to load."""

    def decode_request(self, request: Annotated[bytes, _BODY]) -> bytes:
        """Returns the body."""
        return request

    def batch(self, inputs: Sequence[bytes]) -> Sequence[bytes]:
        """Returns the inputs, which are no arrays."""
        return inputs

    def predict(self, x: Sequence[bytes]) -> list[bytes]:
        """Answers a batch."""
        return predict(x)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """Returns the answers."""
        return output

    def encode_response(self, output: bytes) -> Any:
        """Returns an answer of bytes."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    api = Stub(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True, timeout=30)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, log_level="error", generate_client_file=False
    )

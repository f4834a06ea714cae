"""Ray Serve: one replica that batches; `scripts.support.ray_service` starts it."""

from __future__ import annotations

import asyncio

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from scripts.peer_bench.stub_model import ALPHA_S, ANSWER, BETA_S, MAX_BATCH, WAIT_S


@serve.deployment(name="Stub", num_replicas=1, max_ongoing_requests=1000)
class Stub:
    """Takes and gives bytes, as they are."""

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=WAIT_S)
    async def predict(self, bodies: list[bytes]) -> list[bytes]:
        """Answers a batch; its batching runs one at a time."""
        await asyncio.sleep(ALPHA_S + BETA_S * len(bodies))
        return [ANSWER] * len(bodies)

    async def __call__(self, request: Request) -> Response:
        """Answers a request."""
        return Response(await self.predict(await request.body()), media_type="application/octet-stream")


application = Stub.bind()  # type: ignore[attr-defined]  # the decorator adds it

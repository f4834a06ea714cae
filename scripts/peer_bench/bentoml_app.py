"""BentoML: a front that takes bytes, and a service that batches; `bentoml serve` starts `Front`."""

from __future__ import annotations

import contextlib

import bentoml
from aiohttp import ServerDisconnectedError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scripts.peer_bench.stub_model import MAX_BATCH, predict

_LATENCY_MS = 10_000
"""Above which its dispatcher refuses; it waits for a batch as long as it deems good."""

_TRIES = 3


@bentoml.service(workers=1, traffic={"max_concurrency": 1000})
class Batcher:
    """Answers batches."""

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=_LATENCY_MS)
    def predict(self, bodies: list[bytes]) -> list[bytes]:
        """Answers a batch."""
        return predict(bodies)


async def _answer(request: Request) -> Response:
    body = await request.body()
    for _ in range(_TRIES):
        # Its connections to the service that batches are closed now and then while they are used.
        with contextlib.suppress(ServerDisconnectedError):
            (answer,) = await bentoml.get_current_service().batcher.to_async.predict([body])
            return Response(answer, media_type="application/octet-stream")
    return Response(status_code=503)


_app = Starlette(routes=[Route("/predict", _answer, methods=["POST"])])


@bentoml.service(workers=1, traffic={"max_concurrency": 1000})
@bentoml.asgi_app(_app)
class Front:
    """Takes requests of bytes."""

    batcher = bentoml.depends(Batcher)

"""MLServer: a runtime that batches in its one process. `mlserver start FOLDER`, with model-settings.json there."""

from __future__ import annotations

import asyncio

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from scripts.peer_bench.stub_model import ALPHA_S, ANSWER, BETA_S


class Stub(MLModel):
    """Answers each item of a batch with bytes."""

    async def load(self) -> bool:
        """Has nothing to load."""
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers a batch; the process serves others meanwhile."""
        items = payload.inputs[0].shape[0]
        await asyncio.sleep(ALPHA_S + BETA_S * items)
        output = ResponseOutput(name="label", datatype="BYTES", shape=[items, 1], data=[ANSWER.decode()] * items)
        return InferenceResponse(model_name=self.name, outputs=[output])

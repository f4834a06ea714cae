"""A real MLServer with two models, in the peers' environment: mlserver_server.py PORT MOST GRPC-PORT METRICS-PORT."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from mlserver import MLModel, MLServer
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.errors import InferenceError
from mlserver.settings import ModelSettings, Settings
from mlserver.types import InferenceRequest, InferenceResponse

HTTP_PORT, MOST, GRPC_PORT, METRICS_PORT = map(int, sys.argv[1:5])


class Sums(MLModel):  # type: ignore[misc]
    """Answers each row of numbers with its sum, and names its largest batch when it refuses one."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        if len(rows) > MOST:
            raise InferenceError(f"batch size {len(rows)} is larger than {MOST}")
        output = NumpyCodec.encode_output("sum", rows.sum(axis=1, keepdims=True).astype(np.float32))
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


class Sizes(MLModel):  # type: ignore[misc]
    """Answers each picture with the number of its bytes; too many are as if the memory were full."""

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        # By the content type of the request: without it the texts would be taken for the pictures.
        pictures = self.decode(payload.inputs[0])
        if len(pictures) > MOST:
            raise RuntimeError("out of memory")
        output = NumpyCodec.encode_output("bytes", np.array([[len(picture)] for picture in pictures], np.int64))
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[output])


async def main() -> None:
    ports = {"http_port": HTTP_PORT, "grpc_port": GRPC_PORT, "metrics_port": METRICS_PORT}
    server = MLServer(Settings(host="127.0.0.1", parallel_workers=0, debug=False, **ports))
    await server.start(
        [ModelSettings(name="sums", implementation=Sums), ModelSettings(name="sizes", implementation=Sizes)]
    )


if __name__ == "__main__":
    assert Base64Codec.ContentType == "base64"
    asyncio.run(main())

"""A real KServe model server with two models, in the peers' environment: python kserve_server.py PORT MOST."""

from __future__ import annotations

import base64
import sys
from typing import Any

import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.errors import InvalidInput

MOST = int(sys.argv[2])


class Sums(Model):  # type: ignore[misc]
    """Answers each row of numbers with its sum, and names its largest batch when it refuses one."""

    def __init__(self) -> None:
        super().__init__("sums")
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        rows = payload.inputs[0].as_numpy()
        if len(rows) > MOST:
            raise InvalidInput(f"batch size {len(rows)} is larger than {MOST}")
        return answer(self, payload, "sum", rows.sum(axis=1, keepdims=True).astype(np.float32))


class Sizes(Model):  # type: ignore[misc]
    """Answers each picture with the number of its bytes; too many are as if the memory were full."""

    def __init__(self) -> None:
        super().__init__("sizes")
        self.ready = True

    def predict(self, payload: InferRequest, headers: Any = None, response_headers: Any = None) -> InferResponse:
        pictures = [base64.b64decode(text) for text in payload.inputs[0].as_numpy().ravel()]
        if len(pictures) > MOST:
            raise RuntimeError("out of memory")
        return answer(self, payload, "bytes", np.array([[len(picture)] for picture in pictures], np.int64))


def answer(model: Model, payload: InferRequest, name: str, rows: Any) -> InferResponse:
    output = InferOutput(name, list(rows.shape), "FP32" if rows.dtype == np.float32 else "INT64")
    output.set_data_from_numpy(rows, binary_data=payload.use_binary_outputs)
    binary = payload.use_binary_outputs
    return InferResponse(payload.id, model.name, [output], use_binary_outputs=binary)


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, workers=1)
    server.start([Sums(), Sizes()])

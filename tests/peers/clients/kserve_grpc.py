"""KServe's own gRPC client against a daemon: python kserve_grpc.py HOST:PORT; prints what it got as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


async def main(address: str) -> dict[str, object]:
    client = InferenceGRPCClient(address, timeout=30)
    found: dict[str, object] = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model": await client.is_model_ready("sums"),
    }
    for binary in (False, True):
        rows = np.arange(12, dtype=np.float32).reshape(3, 4)
        given = InferInput("x", [3, 4], "FP32")
        given.set_data_from_numpy(rows, binary_data=binary)
        response = await client.infer(InferRequest("sums", [given], request_id="seven"))
        found["binary" if binary else "json"] = [response.id, *response.outputs[0].as_numpy().ravel().tolist()]
    await client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))

"""KServe's own REST client against a daemon: python kserve_rest.py URL; prints what it got as a line of JSON."""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig


async def main(url: str) -> dict[str, object]:
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=30))
    found: dict[str, object] = {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model": await client.is_model_ready(url, "sums"),
    }
    for binary in (False, True):
        rows = np.arange(12, dtype=np.float32).reshape(3, 4)
        given = InferInput("x", [3, 4], "FP32")
        given.set_data_from_numpy(rows, binary_data=binary)
        parameters = {"binary_data_output": True} if binary else None
        request = InferRequest("sums", [given], request_id="seven", parameters=parameters)
        response = await client.infer(url, request, model_name="sums")
        found["binary" if binary else "json"] = [response.id, *response.outputs[0].as_numpy().ravel().tolist()]
    await client.close()
    return found


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))

"""A picture as a request to a daemon over aiohttp, and the row of its answer."""

from collections.abc import Mapping
from typing import Any

import aiohttp
import numpy as np

from scheduler import wire


def picture_request(picture: bytes, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Returns the body and the headers of a request, as arguments of a session's `post`."""
    tensor = wire.Tensor.from_elements("image", [picture])
    encoded = wire.encode_request(wire.InferRequest("r", (tensor,), binary_by_default=True))
    return {"data": encoded.body, "headers": {wire.JSON_LENGTH_HEADER: str(encoded.json_length), **(headers or {})}}


def row_of(response: aiohttp.ClientResponse, body: bytes) -> np.ndarray:
    """Returns the probabilities that an answer holds."""
    length = response.headers.get(wire.JSON_LENGTH_HEADER)
    return wire.parse_response(body, int(length) if length else None).outputs[0].to_numpy()[0]

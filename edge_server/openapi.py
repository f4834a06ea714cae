"""The calls of the edge server's HTTP interface, for `GET /openapi.json`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scheduler.wire.openapi import OPENAPI_PATH, Call, description

_OF_A_MODEL = ("/v2/models/{name}", "/v2/models/{name}/versions/{number}")
_ALWAYS = (400, 401, 408, 413, 415, 417, 431, 501, 503)


def calls() -> Iterator[Call]:
    """Yields every call."""
    for path in _OF_A_MODEL:
        yield Call("POST", f"{path}/infer", "Inference of one batch", (404, 411), body="infer", answer="infer")
        yield Call("GET", path, "Inputs and outputs of a model", (404,))
        yield Call("GET", f"{path}/ready", "Can a model be asked?", (404,))
    yield Call("GET", "/v2", "Name, version, models")
    yield Call("GET", "/v2/health/live", "Does the process run?")
    yield Call("GET", "/v2/health/ready", "Can batches be sent?")
    yield Call("GET", "/metrics", "Prometheus' metrics", answer="text/plain")
    yield Call("GET", OPENAPI_PATH, "This description")


def document(version: str) -> dict[str, Any]:
    """Returns the description."""
    return description("edgeburst-edge", version, tuple(calls()), always=_ALWAYS, tokens=False)

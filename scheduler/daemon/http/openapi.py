"""The calls of the daemon's HTTP interface, for `GET /openapi.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from scheduler.daemon.http.admission import EVENTS_PATH, PAGE_PATH
from scheduler.daemon.http.model_calls import REFUSED_PATHS
from scheduler.daemon.http.spend import PATH as SPEND_PATH
from scheduler.daemon.ingress.service import server_metadata
from scheduler.wire.openapi import OPENAPI_PATH, Call, description

_MODEL = "/v2/models/{model}"
_OF_A_MODEL = (_MODEL, _MODEL + "/versions/{version}")
_ALWAYS = (400, 401, 403, 408, 421, 429, 503)
_SERVED = (404, 413, 415, 502)
_NUMBER = {"type": "integer", "minimum": 0}
_LIMITS = {
    "type": "object",
    "properties": {
        "window_s": {"type": "number", "minimum": 0, "nullable": True},
        "edge_batch_cap": {"type": "integer", "minimum": 1, "nullable": True},
        "function_batch_cap": {"type": "integer", "minimum": 1, "nullable": True},
    },
}
_IDENTITY = {
    "type": "object",
    "required": ["identity"],
    "properties": {"identity": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$", "nullable": True}},
}
_MONEY = {"type": "number"}
_REPORT = {
    "type": "object",
    "required": ["name", "process", "number", "currency", "amount", "left", "spent", "unreported"],
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"},
        "process": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
        "number": {"type": "integer", "minimum": 1},
        "currency": {"type": "string"},
        **dict.fromkeys(("amount", "left", "spent", "unreported"), _MONEY),
    },
}
_TEXT: Mapping[str, Any] = {"type": "string"}
_CLASSIFY: Mapping[str, Mapping[str, Any]] = {
    "timeout_s": {"type": "number", "minimum": 0},
    "priority": _NUMBER,
    "class": {"type": "string"},
    "top": {"type": "integer", "minimum": 1, "maximum": 1000},
}


def calls() -> Iterator[Call]:
    """Yields every call."""
    for path in _OF_A_MODEL:
        yield Call("POST", f"{path}/infer", "Inference", _SERVED, body="infer", answer="infer")
        yield Call("GET", path, "Inputs and outputs of a model", (404,))
        yield Call("GET", f"{path}/ready", "Can a model be asked?", (404,))
        yield Call("GET", f"{path}/config", "Triton's configuration of a model", (404,))
        yield Call("GET", f"{path}/stats", "Triton's statistics of a model", (404,))
    yield Call("GET", "/v2/models", "Names of the models")
    yield Call("GET", "/v2/models/stats", "Triton's statistics of all models")
    ready = {"type": "object", "properties": {"ready": {"type": "boolean"}}}
    yield Call("POST", "/v2/repository/index", "Models and their state", (413, 415), body=ready, needs_body=False)
    yield Call("GET", "/v2", "Name, version, extensions")
    yield Call("GET", "/v2/health/live", "Does the process run?")
    yield Call("GET", "/v2/health/ready", "Can requests be sent?")
    yield Call("POST", "/v1/classify/{model}", "Classes of one picture", _SERVED, body="picture", query=_CLASSIFY)
    for name, schema in (("limits", _LIMITS), ("identity", _IDENTITY)):
        path = f"/v1/models/{{model}}/{name}"
        yield Call("GET", path, f"A model's {name}", (404,))
        yield Call("PUT", path, f"Sets a model's {name}", (404, 413, 415), body=schema)
    yield Call("POST", SPEND_PATH, "Borrows money for another daemon", (409, 413, 415), body=_REPORT)
    yield Call("GET", "/v1/status", "State, counts, plans")
    page = {"after": _NUMBER, "limit": {"type": "integer", "minimum": 1, "maximum": 10_000}}
    yield Call("GET", "/v1/batches", "Ended batches", query=page)
    last: Mapping[str, Mapping[str, Any]] = {"last": {"type": "string", "enum": ["request", "miss"]}}
    yield Call("GET", "/v1/explain", "The decisions about the newest request", (404,), query=last)
    which: Mapping[str, Mapping[str, Any]] = {"before": _NUMBER, "by": {"type": "string", "enum": ["number", "client"]}}
    yield Call("GET", "/v1/explain/{request}", "The decisions about a request", (404,), query=which)
    yield Call("GET", "/v1/now", "What the dashboard begins with")
    names = dict.fromkeys(("model", "class", "tenant", "place"), _TEXT)
    span = {**dict.fromkeys(("from", "to", "columns"), _NUMBER), **names}
    yield Call("GET", "/v1/history", "Counts, latencies, money and estimates of a span of time", query=span)
    stream = {"after": _NUMBER}
    yield Call("GET", EVENTS_PATH, "What changes, second by second", answer="text/event-stream", query=stream)
    yield Call("GET", "/metrics", "Prometheus' metrics", answer="text/plain")
    yield Call("GET", "/", "The dashboard", answer="text/html")
    yield Call("GET", PAGE_PATH + "{file}", "A file of the dashboard", (404,), answer="text/plain")
    yield Call("GET", OPENAPI_PATH, "This description")
    for method, path, _ in REFUSED_PATHS:
        yield Call(method, path, "Not supported", (501,), works=False)


def document() -> dict[str, Any]:
    """Returns the description."""
    version = str(server_metadata()["version"])
    return description("edgeburst", version, tuple(calls()), always=_ALWAYS, tokens=True)

"""Descriptions of our servers' HTTP interfaces by OpenAPI 3.0, made of one table of calls for each server."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPENAPI_PATH = "/openapi.json"

_PARAMETER = re.compile(r"{(\w+)}")
_JSON, _BYTES, _FORM = "application/json", "application/octet-stream", "multipart/form-data"
_MEANINGS = {
    200: "as asked",
    400: "what was sent is not valid",
    401: "a token is needed",
    403: "the token, or the page, may not ask this",
    404: "the model, version or request is unknown",
    408: "the request did not arrive in time",
    409: "this daemon cannot do this as it is configured, or a later call came before",
    411: "the length of the body is missing",
    413: "the body, or the batch, is too large",
    415: "the body is of another kind",
    417: "what the header Expect asks for is not possible",
    421: "the server is not known by that name",
    429: "as many requests wait or run as may",
    431: "the headers are too long, or too many",
    501: "the call is not supported",
    502: "a backend failed, and no other could answer",
    503: "not now: the server starts, stops, or nothing can answer in time",
}


@dataclass(frozen=True, slots=True)
class Call:
    """One method of one path.

    Attributes:
        method: in capitals.
        path: with its parameters in braces.
        summary: a few words.
        statuses: that it may answer beside 200 and those of every call of the server.
        body: "infer", "picture", or a schema of a JSON object; None: none.
        answer: "infer", the media type of an answer that is not JSON, or empty for a JSON object.
        query: the schema of each key.
        needs_body: whether it must have one.
        works: whether it can succeed.
    """

    method: str
    path: str
    summary: str
    statuses: tuple[int, ...] = ()
    body: str | Mapping[str, Any] | None = None
    answer: str = ""
    query: Mapping[str, Mapping[str, Any]] | None = None
    needs_body: bool = True
    works: bool = True


def description(
    title: str, version: str, calls: Sequence[Call], *, always: Sequence[int], tokens: bool
) -> dict[str, Any]:
    """Returns the description.

    Args:
        title: of the server.
        version: of its program.
        calls: all of them.
        always: statuses that every call may answer.
        tokens: whether calls may need `Authorization: Bearer TOKEN`.
    """
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, always)
    components: dict[str, Any] = {"schemas": _SCHEMAS}
    found: dict[str, Any] = {"openapi": "3.0.3", "info": {"title": title, "version": version}, "paths": paths}
    if tokens:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{}, {"token": []}]
    return {**found, "components": components}


def _operation(call: Call, always: Sequence[int]) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(call.path)
    ]
    named += [{"name": name, "in": "query", "schema": schema} for name, schema in (call.query or {}).items()]
    responses = {str(status): _failure(status) for status in sorted({*always, *call.statuses})}
    if call.works:
        responses["200"] = {"description": _MEANINGS[200], "content": _answers(call.answer)}
    operation: dict[str, Any] = {"summary": call.summary, "parameters": named, "responses": responses}
    if call.body is not None:
        operation["requestBody"] = {"required": call.needs_body, "content": _bodies(call.body)}
    return operation


def _failure(status: int) -> dict[str, Any]:
    return {"description": _MEANINGS[status], "content": {_JSON: {"schema": _of("Error")}}}


def _answers(answer: str) -> dict[str, Any]:
    if answer == "infer":
        return {_JSON: {"schema": _of("InferResponse")}, _BYTES: {"schema": {"type": "string", "format": "binary"}}}
    if answer:
        return {answer: {"schema": {"type": "string"}}}
    return {_JSON: {"schema": {"type": "object"}}}


def _bodies(body: str | Mapping[str, Any]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    if body == "infer":
        return {_JSON: {"schema": _of("InferRequest")}, _BYTES: binary}
    if body == "picture":
        form = {"type": "object", "properties": {"image": binary["schema"]}, "required": ["image"]}
        return {_BYTES: binary, "image/png": binary, "image/jpeg": binary, _FORM: {"schema": form}}
    return {_JSON: {"schema": body}}


def _of(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_TENSOR = {
    "type": "object",
    "required": ["name", "shape", "datatype"],
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 32},
        "datatype": {"type": "string"},
        "parameters": {"type": "object"},
        "data": {"type": "array", "items": {}},
    },
}
_SCHEMAS: Mapping[str, Any] = {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string", "minLength": 1}}},
    "InferRequest": {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "inputs": {"type": "array", "items": _TENSOR, "minItems": 1},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {"name": {"type": "string", "minLength": 1}, "parameters": {"type": "object"}},
                },
            },
        },
    },
    "InferResponse": {
        "type": "object",
        "required": ["model_name", "outputs"],
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "parameters": {"type": "object"},
            "outputs": {"type": "array", "items": _TENSOR},
        },
    },
}

"""The fields of a body's JSON object, read and checked for their types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from scheduler.wire.error import WireError, shown

_DEEPEST = 64
"""Levels in the parameters that a body may have. The protocol has none, some servers a few; orjson writes 254."""


def json_object(document: bytes | memoryview, what: str) -> dict[str, Any]:
    """Returns a JSON object; WireError, which names `what`, for anything else."""
    try:
        value = orjson.loads(document)
    except orjson.JSONDecodeError as error:
        raise WireError(f"{what} is not valid JSON: {error}") from None
    if type(value) is not dict:
        raise WireError(f"{what} must be a JSON object")
    return value


def text(entry: Mapping[str, Any], key: str) -> str:
    """Returns an optional string, empty where it is missing or null; some servers write null for missing values."""
    value = entry.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise WireError(f"{key!r} must be a string")
    return value


def parameters(entry: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Returns the optional object `parameters` of an entry, which errors call `what`."""
    value = entry.get("parameters")
    if value is None:
        return {}
    if type(value) is not dict:
        raise WireError(f"'parameters' of {what} must be a JSON object")
    nested = [inner for inner in value.values() if type(inner) in (dict, list)]
    for _ in range(_DEEPEST):
        if not nested:
            return value
        nested = [inner for outer in nested for inner in _values(outer) if type(inner) in (dict, list)]
    raise WireError(f"'parameters' of {what} have over {_DEEPEST} levels; send numbers, texts, true or false")


def _values(nested: Any) -> Any:
    return nested.values() if type(nested) is dict else nested


def named_entries(head: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Returns the list under a key; every entry is an object, and its name occurs once."""
    entries = head.get(key)
    if type(entries) is not list:
        raise WireError(f"{key!r} is missing; send a list of tensors" if entries is None else f"{key!r} must be a list")
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        name = entry.get("name") if type(entry) is dict else None
        if type(name) is not str or not name:
            raise WireError(f"'{key}[{index}]' must be a JSON object with a 'name'")
        if name in seen:
            raise WireError(f"{key!r} names {shown(name)} twice; rename one")
        seen.add(name)
    return entries

"""Frozen values as JSON shows them."""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum


def jsonable(value: object) -> object:
    """Returns a value made of what JSON has: dataclasses become objects, enums their values, infinities null.

    >>> from scheduler.domain.requests import Attempt, Backend
    >>> jsonable({"attempt": Attempt(Backend.EDGE, 7, math.inf)})
    {'attempt': {'backend': 'edge', 'batch_id': 7, 'sent_at_s': None}}
    """
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if is_dataclass(value):
        return {field.name: jsonable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(item) for item in value]
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def _key(key: object) -> str:
    return str(key.value) if isinstance(key, Enum) else str(key)

"""Values of the domain in the types of JSON, and back."""

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


def to_plain(value: object) -> object:
    """Returns a frozen dataclass of numbers, texts, tuples, mappings and other dataclasses in the types of JSON.

    >>> from scheduler.domain.plans import Limits
    >>> to_plain(Limits(window_s=0.5))
    {'window_s': 0.5, 'edge_batch_cap': None, 'function_batch_cap': None}
    """
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    return value


def from_plain(kind: type[T], content: object) -> T:
    """Returns the dataclass that `to_plain` was given.

    Raises:
        TypeError: a value is of another type, or a field is missing or unknown.

    >>> from scheduler.domain.plans import Limits
    >>> from_plain(Limits, {"window_s": 0.5, "edge_batch_cap": None, "function_batch_cap": 2})
    Limits(window_s=0.5, edge_batch_cap=None, function_batch_cap=2)
    """
    value: T = _value(kind, content)
    return value


def _value(kind: Any, content: object) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, content)
    if origin in (Union, types.UnionType):
        return None if content is None else _value(next(each for each in inner if each is not type(None)), content)
    if origin is tuple and isinstance(content, list):
        return tuple(_value(inner[0], item) for item in content)
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(content, dict):
        return {key: _value(inner[1], item) for key, item in content.items()}
    if kind is float and isinstance(content, (int, float)) and not isinstance(content, bool):
        return float(content)
    if isinstance(kind, type) and type(content) is kind:
        return content
    raise TypeError(f"{kind} is needed, not {type(content).__name__}")


def _dataclass(kind: type, content: object) -> Any:
    hints = _hints(kind)
    if not isinstance(content, dict) or content.keys() != hints.keys():
        raise TypeError(f"the fields of {kind.__name__} are needed")
    return kind(**{name: _value(hint, content[name]) for name, hint in hints.items()})


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}

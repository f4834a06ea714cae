"""Values of the domain in the types of JSON, and back."""

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_LARGEST = 10**300
"""Of a whole number where a float belongs."""


def to_plain(value: object) -> object:
    """Returns a frozen dataclass of numbers, texts, tuples, mappings and other dataclasses in the types of JSON.

    >>> from scheduler.domain.plans import Limits
    >>> to_plain(Limits(window_s=0.5))
    {'window_s': 0.5, 'edge_batch_cap': None, 'function_batch_cap': None}
    """
    if dataclasses.is_dataclass(value):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.init}
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


def check_types(value: object) -> None:
    """Checks the fields of a frozen dataclass or a named tuple, and those of its fields, against their types.

    Raises:
        TypeError: a field holds another type, a number that is none, or one that no calculation takes.

    >>> from scheduler.domain.plans import Limits
    >>> check_types(Limits(window_s=0.5))
    >>> check_types(Limits(window_s="long"))
    Traceback (most recent call last):
        ...
    TypeError: window_s of Limits
    """
    kind: type = type(value)
    for name, hint in _all_hints(kind).items():
        if not _is_of(hint, getattr(value, name)):
            raise TypeError(f"{name} of {type(value).__name__}")


def _is_of(kind: Any, value: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_is_of(each, value) for each in inner)
    if origin is tuple:
        return isinstance(value, tuple) and all(_is_of(inner[0], item) for item in value)
    if kind is float:
        # A whole number may have more digits than a float takes.
        return (type(value) is float and value == value) or (type(value) is int and abs(value) <= _LARGEST)
    if kind is int:
        return type(value) is int
    if not isinstance(kind, type) or not isinstance(value, kind):
        return False
    if dataclasses.is_dataclass(kind) or hasattr(kind, "_fields"):
        check_types(value)
    return True


@cache
def _all_hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}

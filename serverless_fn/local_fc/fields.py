"""Reads typed fields of a JSON object; an error names the wrong field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from serverless_fn.local_fc.errors import invalid_argument


class Fields:
    """JSON object of a request. A field that is absent or null has its default value.

    Args:
        content: the object.
        where: path to the object, for messages; "" at the top.
    """

    def __init__(self, content: object, where: str = "") -> None:
        if not isinstance(content, Mapping):
            raise invalid_argument(f"{where.rstrip('.') or 'the body'} must be a JSON object")
        self._content = cast(Mapping[str, Any], content)
        self._where = where

    @property
    def content(self) -> Mapping[str, Any]:
        """The JSON object."""
        return self._content

    def has(self, key: str) -> bool:
        """Returns whether the field is present and not null."""
        return self._content.get(key) is not None

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a string; without a default it must be present and not empty."""
        value = self._content.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or (default is None and not value):
            raise self._wrong(key, "a text" if default is not None else "a text that is not empty", value)
        return value

    def whole(self, key: str, low: int, high: int, default: int | None = None) -> int:
        """Returns a whole number in [low, high]; without a default it must be present."""
        value = self._content.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not low <= value <= high:
            raise self._wrong(key, f"a whole number from {low} to {high}", value)
        return value

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        """Returns a number in [low, high]; without a default it must be present."""
        value = self._content.get(key)
        if value is None and default is not None:
            return default
        if type(value) not in (int, float) or not low <= cast(float, value) <= high:
            raise self._wrong(key, f"a number from {low:g} to {high:g}", value)
        return float(cast(float, value))

    def flag(self, key: str, *, default: bool) -> bool:
        """Returns true or false."""
        value = self._content.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self._wrong(key, "true or false", value)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Returns a list of strings, empty if absent."""
        value = self._content.get(key)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(x, str) for x in value):
            raise self._wrong(key, "a list of texts", value)
        return tuple(value)

    def wholes(self, key: str) -> tuple[int, ...] | None:
        """Returns a list of whole numbers, None if absent."""
        value = self._content.get(key)
        if value is not None and (not isinstance(value, list) or not all(type(x) is int for x in value)):
            raise self._wrong(key, "a list of whole numbers", value)
        return None if value is None else tuple(value)

    def numbers(self, key: str) -> tuple[float, ...] | None:
        """Returns a list of numbers, None if absent."""
        value = self._content.get(key)
        if value is not None and (not isinstance(value, list) or not all(type(x) in (int, float) for x in value)):
            raise self._wrong(key, "a list of numbers", value)
        return None if value is None else tuple(map(float, value))

    def text_map(self, key: str) -> dict[str, str]:
        """Returns an object whose values are strings, empty if absent."""
        value = self._content.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(x, str) for x in (*value, *value.values())):
            raise self._wrong(key, "an object of texts", value)
        return dict(value)

    def inside(self, key: str) -> Fields:
        """Returns the object of a key; an empty one if absent."""
        value = self._content.get(key)
        return Fields({} if value is None else value, f"{self._where}{key}.")

    def unknown(self, known: Sequence[str]) -> list[str]:
        """Returns the keys that are not among the known ones."""
        return [key for key in self._content if key not in known]

    def _wrong(self, key: str, wanted: str, value: object) -> Exception:
        shown = "missing" if value is None else f"{value!r}"[:80]
        return invalid_argument(f"{self._where}{key} must be {wanted}; it is {shown}")

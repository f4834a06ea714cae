"""The comparison of two configurations of a function, field by field. It never shows values that may be secret."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ENVIRONMENT = "environmentVariables"
# Maps that an update replaces as a whole, so that an existing key that is not wanted is a difference too.
_WHOLE = (_ENVIRONMENT, "gpuConfig")
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class FieldChange:
    """A field with its observed and its desired value."""

    field: str
    old: str
    new: str


def differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """Returns the fields that differ from the desired configuration; ignores fields that it does not set.

    >>> differences({"cpu": 1, "timeout": 3}, {"cpu": 2.0})
    (FieldChange(field='cpu', old='1', new='2'),)
    """
    beside = [key for key in _WHOLE if have.get(key) and key not in want]
    return tuple(_changes(have, {**want, **dict.fromkeys(beside)}, ""))


def _changes(have: Mapping[str, Any], want: Mapping[str, Any], where: str) -> Iterator[FieldChange]:
    for key, value in want.items():
        before, path = have.get(key), f"{where}{key}"
        if isinstance(value, Mapping) or key in _WHOLE:
            inner = before if isinstance(before, Mapping) else {}
            beside = dict.fromkeys(each for each in inner if key in _WHOLE and each not in (value or {}))
            yield from _changes(inner, {**(value or {}), **beside}, f"{path}.")
        elif not _equal(before, value):
            hidden = where.startswith(_ENVIRONMENT)
            yield FieldChange(path, _shown(before, hidden=hidden), _shown(value, hidden=hidden))


def _equal(have: object, want: object) -> bool:
    if isinstance(have, int | float) and isinstance(want, int | float):
        return math.isclose(have, want, rel_tol=1e-6)
    if isinstance(want, list | tuple):
        # The provider leaves out empty lists.
        return list(have if isinstance(have, list | tuple) else ()) == list(want)
    return have == want


def _shown(value: object, *, hidden: bool) -> str:
    if value is None or value in ([], ()):
        return _NOTHING
    if hidden:
        return "(a value that is not shown)"
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)

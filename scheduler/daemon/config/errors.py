"""The errors of the validation, as one sentence that names file, line, key and the next step. It never repeats a value
that may be secret."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from models import toml_lines
from scheduler.daemon.config.section import Section
from scheduler.daemon.config.sections import SECTIONS
from scheduler.daemon.config.source import Source
from scheduler.domain.errors import ConfigError

_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list in square brackets",
    "finite_number": "must be a finite number",
}
_RANGES = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_REPEATED = ("model", "tenant", "token")
_LENGTHS = {"too_short": "too few", "too_long": "too many", "string_too_long": "too long"}


def config_error(source: Source, errors: Sequence[ErrorDetails]) -> ConfigError:
    """Returns the error to report first: an unknown key before a missing one, which it may stand for; then by line."""
    written: list[ErrorDetails] = [{**error, "loc": source.written(error["loc"])} for error in errors]
    first = min(written, key=lambda error: (_rank(error["type"]), _line(source, error["loc"])))
    return source.error(first["loc"], _sentence(first))


def table_name(at: toml_lines.KeyPath) -> str:
    """Returns the header of a table as the file writes it.

    >>> table_name(("model", 0, "class", 1))
    '[[model.class]]'
    """
    keys = tuple(part for part in at if isinstance(part, str))
    if not keys:
        return "the file"
    repeated = keys[0] in _REPEATED or any(isinstance(part, int) for part in at)
    return f"[[{'.'.join(keys)}]]" if repeated else f"[{'.'.join(keys)}]"


def _rank(kind: str) -> int:
    # A list with a wrong entry is also reported as too short, which adds nothing.
    return {"extra_forbidden": 0, "missing": 2, "too_short": 3}.get(kind, 1)


def _line(source: Source, at: toml_lines.KeyPath) -> int:
    return toml_lines.line_of(at, source.lines) or 0


def _sentence(error: ErrorDetails) -> str:
    at, kind, context = error["loc"], error["type"], error.get("ctx", {})
    while len(at) > 1 and isinstance(at[-1], int):
        at = at[:-1]
    table, key = table_name(at[:-1]), at[-1]
    if kind == "extra_forbidden":
        return _unknown(at)
    if kind == "missing":
        return _missing(at)
    if kind == "too_long" and _is_section(at):
        counts, name = (context["actual_length"], context["max_length"]), table_name(at)
        name = f"[[{name.strip('[]')}]]"
        return f"{name} occurs {counts[0]} times, but at most {counts[1]} are possible; merge or remove some"
    if kind in ("model_type", "model_attributes_type", "dict_type") or _is_section(at):
        return _not_a_table(at)
    return f"`{key}` in {table} {_complaint(kind, context, error['input'], at)}"


def _complaint(kind: str, context: Mapping[str, Any], value: object, at: toml_lines.KeyPath) -> str:
    if kind in _TYPES:
        return f"{_TYPES[kind]}, not {_shown(value)}"
    if kind in _RANGES:
        bound, words = _RANGES[kind]
        return f"must be {words} {_plain(context[bound])}, not {_shown(value)}"
    if kind == "literal_error":
        return f"must be {context['expected']}"
    if kind in _LENGTHS:
        return f"has {_LENGTHS[kind]} entries" if kind != "string_too_long" else "is too long"
    if kind == "string_too_short":
        return "must not be empty"
    return _pattern(at)


def _pattern(at: toml_lines.KeyPath) -> str:
    key = str(at[-1])
    if key == "sha256":
        return (
            "must be the SHA-256 of a token, 64 digits from 0 to f, as `edgeburst token new` prints it; not the token"
        )
    if key.endswith("_env"):
        return "must be the NAME of an environment variable (capitals, digits and _), never the secret itself"
    if key in ("name", "region"):
        return "must be made of letters, digits, '.', '_' and '-', and begin with a letter or digit"
    return f"does not fit its description: {_description(at)}"


def _unknown(at: toml_lines.KeyPath) -> str:
    table, key = table_name(at[:-1]), str(at[-1])
    prefix = f"unknown key `{key}` in {table}; "
    valid = _keys(_section(at[:-1]))
    near = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if near:
        return prefix + f"did you mean `{near[0]}`?"
    homes = [table_name(path) for path, section in SECTIONS.items() if path and key in _keys(section)]
    if homes:
        return prefix + f"it belongs in {homes[0]}"
    # No key is similar, so the error lists them all.
    return prefix + f"the keys there are {', '.join(valid)}"


def _missing(at: toml_lines.KeyPath) -> str:
    if at == ("model",):
        return "there is no [[model]]; add one with a `name`"
    return f"{table_name(at[:-1])} lacks the key `{at[-1]}`: {_description(at)}"


def _not_a_table(at: toml_lines.KeyPath) -> str:
    keys = tuple(part for part in at if isinstance(part, str))
    if keys in (("model", "inputs"), ("model", "outputs")):
        return f'`{keys[-1]}` in [[model]] must be a list like [{{ name = "x", datatype = "FP32", shape = [3] }}]'
    return f"`{'.'.join(keys)}` must be a table; begin it with the line {table_name(at)}"


def _is_section(at: toml_lines.KeyPath) -> bool:
    return tuple(part for part in at if isinstance(part, str)) in SECTIONS


def _section(at: toml_lines.KeyPath) -> type[Section]:
    return SECTIONS[tuple(part for part in at if isinstance(part, str))]


def _keys(section: type[Section]) -> list[str]:
    return [field.alias or name for name, field in section.model_fields.items()]


def _description(at: toml_lines.KeyPath) -> str:
    for name, field in _section(at[:-1]).model_fields.items():
        if at[-1] in (field.alias, name):
            text = (field.description or "").rstrip(".")
            return text if text[:2].isupper() else text[:1].lower() + text[1:]
    return ""


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)


def _shown(value: object) -> str:
    """Returns a number as it is, and only the type of other values, which may be a secret in the wrong place."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return "a text" if isinstance(value, str) else "a table" if isinstance(value, dict) else "a list"

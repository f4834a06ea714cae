"""Prints the reference of all configuration keys, as Markdown tables made from the types in `config/sections.py`.

python -m scripts.config_reference             # print it
python -m scripts.config_reference --write     # replace it in scheduler/README.md
"""

from __future__ import annotations

import argparse
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from scheduler.daemon.config.section import Section
from scheduler.daemon.config.sections import SECTIONS

PAGE = Path(__file__).parents[1] / "scheduler" / "README.md"
BEGIN = "<!-- made by `python -m scripts.config_reference --write`: do not edit by hand -->"
END = "<!-- end of the configuration reference -->"
_WORDS: Mapping[object, str] = {str: "text", int: "whole number", float: "number", bool: "true or false"}
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def reference() -> str:
    """Returns the tables of all sections, with an empty line between them."""
    places: dict[type[Section], list[tuple[str, ...]]] = {}
    for path, section in SECTIONS.items():
        if path:
            places.setdefault(section, []).append(path)
    return "\n".join(line for section, paths in places.items() for line in _table(paths, section))


def replaced(page: str, tables: str) -> str:
    """Returns the page with other tables between its two marks.

    Raises:
        ValueError: the page lacks a mark.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the line {(BEGIN if not begin else END)!r}; put it back")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def main() -> None:
    """Prints the reference, or writes it into the page."""
    parser = argparse.ArgumentParser(description="Prints the reference of all configuration keys as Markdown tables.")
    parser.add_argument("--write", action="store_true", help="replace it in scheduler/README.md")
    if parser.parse_args().write:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), reference()), encoding="utf-8")
    else:
        print(reference())


def _table(paths: Sequence[tuple[str, ...]], section: type[Section]) -> Iterator[str]:
    said = re.sub(r"^`[^`]*`: ", "", " ".join((section.__doc__ or "").split()))
    yield f"### {', '.join(_heading(path) for path in paths)}"
    yield ""
    yield said[0].upper() + said[1:]
    yield ""
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for name, field in section.model_fields.items():
        cells = (f"`{field.alias or name}`", _value(field), _default(field), field.description or "")
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _heading(path: tuple[str, ...]) -> str:
    """Returns `[daemon]`, or `[[model.class]]` for a table that may be repeated."""
    fields = SECTIONS[path[:-1]].model_fields.items()
    repeated = any(
        (field.alias or name) == path[-1] and typing.get_origin(field.annotation) is tuple for name, field in fields
    )
    return f"`[[{'.'.join(path)}]]`" if repeated else f"`[{'.'.join(path)}]`"


def _value(field: FieldInfo) -> str:
    """Returns the type in words, with its range."""
    words = _type(field.annotation)
    bounds = {name: getattr(rule, name) for rule in field.metadata for name in _BOUNDS if hasattr(rule, name)}
    if {"ge", "le"} <= bounds.keys():
        return f"{words}, {_number(bounds['ge'])} to {_number(bounds['le'])}"
    return ", ".join([words, *(f"{said} {_number(bounds[name])}" for name, said in _BOUNDS.items() if name in bounds)])


def _type(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{json.dumps(value)}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in arguments if each is not type(None))
    if origin is tuple:
        inner = arguments[0]
        return (
            "list of tables" if isinstance(inner, type) and issubclass(inner, Section) else f"list of {_plural(inner)}"
        )
    if origin is dict:
        return f"table of {_plural(arguments[1])}"
    return _WORDS.get(annotation, "table")


def _plural(annotation: object) -> str:
    words = _type(annotation)
    return words if words.startswith("`") else f"{words}s"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None or value is PydanticUndefined:
        return "absent"
    if isinstance(value, bool | str):
        return f"`{json.dumps(value)}`"
    if isinstance(value, int | float):
        return f"`{_number(value)}`"
    return "`{}`" if isinstance(value, dict) else "`[]`"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


if __name__ == "__main__":
    main()

"""The line of each table and key in a TOML file, for error messages: the parser does not report it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]
"""The path of a value: keys, and the index in each array of tables; like ("model", 0, "class", 1, "slo_s")."""

_STRING = r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\''
_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)+")
_KEY_PART = re.compile(r'[ \t]*([A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\')[ \t]*')
_VALUE_TOKEN = re.compile(rf"({_STRING})|(#[^\n]*)|([\[{{])|([\]}}])|(\n)|[^\"'#\[\]{{}}\n]+", re.DOTALL)


def line_index(text: str) -> Mapping[KeyPath, int]:
    """Returns the line, from 1, of every table header and key of a valid TOML document.

    Keys in inline tables are not listed; `line_of` returns the line of the key that holds the inline table.

    >>> line_index("[daemon]\\nport = 1\\n[[model]]\\n[[model]]\\nname = 'x'")[("model", 1, "name")]
    5
    """
    lines: dict[KeyPath, int] = {}
    table: KeyPath = ()
    tables_of: dict[KeyPath, int] = {}
    for brackets, parts, at in _statements(text):
        line = text.count("\n", 0, at) + 1
        if brackets:
            table = _table_path(parts, brackets, tables_of)
        path = table if brackets else (*table, *parts)
        lines.setdefault(path, line)
    return lines


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int | None:
    """Returns the line of a path, or of the longest part of it that has one; None if there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


def _statements(text: str) -> Iterator[tuple[int, list[str], int]]:
    """Yields each table header (1 bracket; 2: of an array) and each key (0), with the key's parts and its position."""
    at = _after_blank(text, 0)
    while at < len(text):
        brackets = 2 if text.startswith("[[", at) else int(text[at] == "[")
        parts, end = _dotted_key(text, at + brackets)
        yield brackets, parts, at
        at = _after_blank(text, end + brackets if brackets else _after_value(text, end))


def _table_path(parts: list[str], brackets: int, tables_of: dict[KeyPath, int]) -> KeyPath:
    """Returns a table's path, with the index of the latest table after each key that is an array of tables."""
    path: KeyPath = ()
    for part in parts[:-1]:
        path = (*path, part)
        if path in tables_of:
            path = (*path, tables_of[path])
    path = (*path, parts[-1])
    if brackets == 1:
        return path
    tables_of[path] = tables_of.get(path, -1) + 1
    return (*path, tables_of[path])


def _after_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


def _dotted_key(text: str, at: int) -> tuple[list[str], int]:
    parts = []
    while match := _KEY_PART.match(text, at):
        parts.append(match[1].strip("\"'"))
        at = match.end()
        if not text.startswith(".", at):
            break
        at += 1
    return parts, at


def _after_value(text: str, at: int) -> int:
    """Returns the end of the line on which a value ends; strings and brackets may contain line ends."""
    depth = 0
    for token in _VALUE_TOKEN.finditer(text, at):
        depth += (token[3] is not None) - (token[4] is not None)
        if token[5] is not None and depth == 0:
            return token.end()
    return len(text)

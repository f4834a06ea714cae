"""The origin of each configured value: a line of the file, or an environment variable."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import toml_lines
from scheduler.daemon.config.sections import SECTIONS
from scheduler.domain.errors import ConfigError

# The standard library has a TOML parser since 3.11; `tomli` is the same parser for 3.10.
TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

EDGE = "edge"
"""The table that may be written once, as [edge], or several times, as [[edge]]."""
PREFIX = "EDGEBURST_"
_MAX_FILE_BYTES = 1_000_000
_OVERRIDABLE = ("daemon", "grpc", "engine", "spend", "explain", "record", "edge", "function")
_SYNTAX = re.compile(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """Where each value of a configuration was set, for error messages."""

    path: Path
    lines: Mapping[toml_lines.KeyPath, int] = field(default_factory=dict)
    overridden: Mapping[toml_lines.KeyPath, str] = field(default_factory=dict)
    """By path: the environment variable that set the value."""

    def error(self, at: toml_lines.KeyPath, sentence: str) -> ConfigError:
        """Returns an error with a sentence about the value at a path."""
        return ConfigError(f"{self.where(at)}: {sentence}")

    def written(self, at: toml_lines.KeyPath) -> toml_lines.KeyPath:
        """Returns the path as the file writes it: without an index where a table that may be repeated is not."""
        return (at[0], *at[2:]) if at[:2] == (EDGE, 0) and (EDGE, 0) not in self.lines else at

    def where(self, at: toml_lines.KeyPath) -> str:
        """Returns FILE:LINE, the environment variable, or the file alone for a value that is not written."""
        if at in self.overridden:
            return f"environment variable {self.overridden[at]}"
        line = toml_lines.line_of(at, self.lines)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def resolve(self, name: str, *, shipped: Sequence[str]) -> str | Path:
        """Returns a shipped name unchanged; other names are paths relative to the file's directory."""
        return name if name in shipped else self.path.parent / name


def read_source(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Source]:
    """Reads the file and applies the overrides of the environment.

    Returns:
        The tables, not yet checked, and the origin of each value.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or a variable names an unknown table.
    """
    text = _read(path)
    tables = _parse(path, text)
    overridden = _override(tables, environ)
    return tables, Source(path, toml_lines.line_index(text), overridden)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        if len(content) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: the file has over {_MAX_FILE_BYTES} bytes; check that it is the configuration")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read ({error.strerror}); scripts/edgeburst.example.toml is an example"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: the file is not UTF-8 text; save it as UTF-8") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        tables: dict[str, Any] = TOML.loads(text)
    except (TOML.TOMLDecodeError, RecursionError) as error:
        match = _SYNTAX.match(str(error))
        reason, line, column = match.groups() if match else (str(error), None, None)
        at_line = line or text.rstrip("\n").count("\n") + 1
        at = f"column {column}" if column else "the end of the file"
        raise ConfigError(f"{path}:{at_line}: this is not TOML: {reason[:1].lower()}{reason[1:]}, at {at}") from None
    return tables


def _override(tables: dict[str, Any], environ: Mapping[str, str]) -> dict[toml_lines.KeyPath, str]:
    """Sets keys of `tables` from EDGEBURST_TABLE__KEY variables; ignores other variables with the prefix.

    Returns:
        By path: the variable that set the value.
    """
    overridden: dict[toml_lines.KeyPath, str] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and "__" in name):
        table, _, key = variable[len(PREFIX) :].lower().partition("__")
        if table not in _OVERRIDABLE:
            near = difflib.get_close_matches(table, _OVERRIDABLE, n=1)
            hint = f"did you mean {PREFIX}{near[0].upper()}__{key.upper()}?" if near else _only_tables()
            raise ConfigError(f"environment variable {variable}: no table [{table}] can be overridden; {hint}")
        section = tables.setdefault(table, {})
        if table == EDGE and isinstance(section, list):
            if len(section) != 1:
                what = f"there are {len(section)} tables [[edge]]; set `{key}` in the file"
                raise ConfigError(f"environment variable {variable}: {what}")
            section = section[0]
        # A scalar in place of the table is left for the check of types to refuse.
        if isinstance(section, dict):
            section[key] = _value(table, key, environ[variable])
            repeated = isinstance(tables[table], list)
            overridden[(table, 0, key) if repeated else (table, key)] = variable
    return overridden


def _only_tables() -> str:
    return f"{PREFIX}TABLE__KEY works for {', '.join(f'[{table}]' for table in _OVERRIDABLE)}, set the rest in the file"


def _value(table: str, key: str, text: str) -> object:
    """Returns a text as TOML reads it; the text itself for a key of type text, or for the check of types to refuse."""
    fields = SECTIONS[(table,)].model_fields
    known = next((field for name, field in fields.items() if key == (field.alias or name)), None)
    if known is None or known.annotation not in (int, float, bool, float | None, int | None):
        return text
    try:
        return TOML.loads(f"value = {text}")["value"]
    except (TOML.TOMLDecodeError, RecursionError):
        return text

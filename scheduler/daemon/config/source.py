"""Where each configured value comes from: the file and its lines, or an environment variable."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scheduler.daemon.config import toml_lines
from scheduler.daemon.config.sections import SECTIONS
from scheduler.domain.errors import ConfigError

# The standard library has a TOML parser from 3.11 on; `tomli` is the same one for 3.10.
TOML = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

PREFIX = "EDGEBURST_"
_MAX_FILE_BYTES = 1_000_000
_OVERRIDABLE = ("daemon", "engine", "spend", "explain", "edge", "function")
_SYNTAX = re.compile(r"^(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Source:
    """Finds the place to which an error points."""

    path: Path
    lines: Mapping[toml_lines.KeyPath, int] = field(default_factory=dict)
    overridden: Mapping[toml_lines.KeyPath, str] = field(default_factory=dict)
    """By path: the environment variable that set it."""

    def error(self, at: toml_lines.KeyPath, sentence: str) -> ConfigError:
        """Returns the error that says `sentence` about the value at that path."""
        return ConfigError(f"{self.where(at)}: {sentence}")

    def where(self, at: toml_lines.KeyPath) -> str:
        """Returns FILE:LINE, the environment variable, or the file alone for what is nowhere written."""
        if at in self.overridden:
            return f"environment variable {self.overridden[at]}"
        line = toml_lines.line_of(at, self.lines)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def resolve(self, name: str, *, shipped: Sequence[str]) -> str | Path:
        """Returns a shipped name as it is, and a path as seen from the file's own directory."""
        return name if name in shipped else self.path.parent / name


def read_source(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Source]:
    """Reads the file and lays the environment's overrides on it.

    Returns:
        the tables, not yet checked, and where each value comes from.

    Raises:
        ConfigError: the file cannot be read or is not TOML, or a variable names no table.
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
            raise ConfigError(f"{path}: the file has over {_MAX_FILE_BYTES} bytes; is this the configuration?")
        return content.decode("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: the configuration cannot be read ({error.strerror}); scripts/edgeburst.example.toml shows one"
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
    """Sets in `tables` what EDGEBURST_TABLE__KEY says; other variables of the prefix are not ours to read."""
    overridden: dict[toml_lines.KeyPath, str] = {}
    for variable in sorted(name for name in environ if name.startswith(PREFIX) and "__" in name):
        table, _, key = variable[len(PREFIX) :].lower().partition("__")
        if table not in _OVERRIDABLE:
            near = difflib.get_close_matches(table, _OVERRIDABLE, n=1)
            hint = f"did you mean {PREFIX}{near[0].upper()}__{key.upper()}?" if near else _only_tables()
            raise ConfigError(f"environment variable {variable}: no table [{table}] can be set so; {hint}")
        # A scalar where the table belongs is left for the check of types to refuse.
        if isinstance(section := tables.setdefault(table, {}), dict):
            section[key] = _value(table, key, environ[variable])
            overridden[(table, key)] = variable
    return overridden


def _only_tables() -> str:
    return f"{PREFIX}TABLE__KEY works for {', '.join(f'[{table}]' for table in _OVERRIDABLE)}, the rest is in the file"


def _value(table: str, key: str, text: str) -> object:
    """Text for a key that takes text; else what TOML makes of it, or the text for the check of types to refuse."""
    known = SECTIONS[(table,)].model_fields.get(key)
    if known is None or known.annotation not in (int, float, bool, float | None):
        return text
    try:
        return TOML.loads(f"value = {text}")["value"]
    except TOML.TOMLDecodeError:
        return text

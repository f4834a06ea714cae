"""The rows of the table: what was checked where, and one sentence about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class Level(str, Enum):
    """How a check ended; the values are public words."""

    OK = "ok"
    FINDING = "finding"
    """Something should be mended: the sentence names it and the next step."""
    SKIPPED = "skipped"
    """Not checked; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One check of one place."""

    where: str
    check: str
    """A fixed word, as `--ignore` takes it."""
    level: Level
    sentence: str


Rows = Iterator[Row]
CLIENT = "client host"
FUNCTIONS = "functions"


def ok(where: str, check: str, sentence: str) -> Row:
    """Returns a row without a finding."""
    return Row(where, check, Level.OK, sentence)


def finding(where: str, check: str, sentence: str) -> Row:
    """Returns a row with a finding: what is wrong; what to do."""
    return Row(where, check, Level.FINDING, sentence)


def skipped(where: str, check: str, why: str) -> Row:
    """Returns a row of what was not checked."""
    return Row(where, check, Level.SKIPPED, why)

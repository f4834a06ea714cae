"""What must hold: each point with what was seen, and whether all hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Check:
    """One point of the list.

    Attributes:
        scene: during what.
        must: the sentence that must hold.
        holds: whether it does.
        seen: what was seen, in a few words.
    """

    scene: str
    must: str
    holds: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Explained:
    """Why a request ended as it did, as `edgeburst explain` says it.

    Attributes:
        scene: during what.
        request_id: the daemon's number.
        text: the explanation.
    """

    scene: str
    request_id: int
    text: str


def passes(checks: Sequence[Check]) -> bool:
    """Returns whether every point holds; an empty list does not pass."""
    return bool(checks) and all(check.holds for check in checks)


_LINES = 9
_TELLING = re.compile(r"request |  [+-]\d|  refused|offer|result|decided by")


def brief(text: str) -> list[str]:
    """Returns of an explanation which request it is, what was done, what each place offered, and what decided.

    >>> brief("request 7\\nmodel 'm'\\n  +0.000 s  refused\\n     decided by late: no place could")
    ['request 7', '  +0.000 s  refused', '     decided by late: no place could']
    """
    lines = [line for line in text.splitlines() if _TELLING.match(line) or _TELLING.match(line.lstrip())]
    left = len(lines) - _LINES
    return lines if left <= 0 else [*lines[:_LINES], f"  ... and {left} lines like these, in checklist.json"]

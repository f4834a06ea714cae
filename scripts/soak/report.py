"""What a world came to: what it consisted of, or the promise that was broken."""

from __future__ import annotations

from dataclasses import dataclass, field


class Violation(AssertionError):
    """A promise was broken; the message says which."""


@dataclass
class Report:
    """What a world that kept its promises consisted of."""

    calls: int = 0
    answered: int = 0
    lives: int = 0
    engine_calls: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

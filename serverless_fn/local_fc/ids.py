"""Identifiers in the provider's form."""

from __future__ import annotations

from datetime import datetime, timezone
from random import Random


class Ids:
    """Generator of unique identifiers.

    Args:
        random: source of the part beside the time.
    """

    def __init__(self, random: Random) -> None:
        self._random = random

    def request(self) -> str:
        """Returns a request id, like 1-650c0f0d-ae96ae24839e741e3ce1ba72."""
        return f"1-{_seconds():08x}-{self._random.getrandbits(96):024x}"

    def instance(self) -> str:
        """Returns an instance id, like c-650c0ecc-bd5d91ee31ed481f962c."""
        return f"c-{_seconds():08x}-{self._random.getrandbits(80):020x}"


def utc_now() -> datetime:
    """Returns the wall-clock time, which the provider's protocol and answers contain."""
    return datetime.now(timezone.utc)


def _seconds() -> int:
    return int(utc_now().timestamp())

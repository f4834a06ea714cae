"""Reader of the tables of a scenario file: takes keys of the right kind, and names those that are wrong or unknown."""

import math
from collections.abc import Mapping, Sequence

from scheduler.simulator.scenario import ScenarioError

Pairs = tuple[tuple[float, float], ...]
CHANGEPOINTS = ("native", "package", "off")


class Keys:
    """Reader of a TOML table that names wrong and unknown keys."""

    def __init__(self, table: Mapping[str, object], where: str) -> None:
        self.where = where
        self._left = dict(table)

    def take(self, key: str, default: object = None) -> object:
        """Returns the value of a key and marks the key as read; `default` if it is absent. TOML has no None."""
        return self._left.pop(key, default)

    def number(self, key: str, default: float) -> float:
        return self._number(key, self.take(key, default))

    def whole(self, key: str, default: int) -> int:
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ScenarioError(f"{self.where}: {key} must be a whole number of at least 1, not {value!r}")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key, default)
        if not isinstance(value, bool):
            raise ScenarioError(f"{self.where}: {key} must be true or false, not {value!r}")
        return value

    def text(self, key: str, default: str) -> str:
        value = self.take(key, default)
        if not isinstance(value, str):
            raise ScenarioError(f"{self.where}: {key} must be a text, not {value!r}")
        return value

    def changepoints(self) -> str | None:
        """Returns the word for the detector, which true and false stand for as well; None if the key is absent."""
        value = self.take("changepoints")
        if isinstance(value, bool):
            return "native" if value else "off"
        if value is not None and value not in CHANGEPOINTS:
            raise ScenarioError(f"{self.where}: changepoints must be {_either(CHANGEPOINTS)}, not {value!r}")
        return value

    def cap_or_none(self, key: str) -> float | None:
        """Returns a number of at least 0; None if the key is absent."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
            raise ScenarioError(f"{self.where}: {key} must be a number of at least 0, not {value!r}")
        return float(value)

    def choice(self, key: str, allowed: Sequence[str]) -> str:
        """Returns one of the allowed words; the first one if the key is absent."""
        value = self.text(key, allowed[0])
        if value not in allowed:
            raise ScenarioError(f"{self.where}: {key} must be {_either(allowed)}, not {value!r}")
        return value

    def choices(self, key: str, allowed: Sequence[str]) -> list[str]:
        value = self.take(key, [])
        if not isinstance(value, list) or any(word not in allowed for word in value):
            raise ScenarioError(f"{self.where}: {key} must be a list of {_either(allowed)}, not {value!r}")
        return value

    def texts(self, key: str) -> list[str] | None:
        """Returns a list of texts; None if the key is absent."""
        value = self.take(key)
        if value is not None and (not isinstance(value, list) or not all(isinstance(text, str) for text in value)):
            raise ScenarioError(f"{self.where}: {key} must be a list of texts, not {value!r}")
        return value

    def pair(self, key: str) -> tuple[float, float]:
        return self._pair(key, self.take(key))

    def pair_or_none(self, key: str) -> tuple[float, float] | None:
        value = self.take(key)
        return None if value is None else self._pair(key, value)

    def pairs(self, key: str) -> Pairs:
        return tuple((first, second) for first, second in self.rows(key, 2))

    def shares(self, key: str, default: tuple[float, ...]) -> tuple[float, ...]:
        value = self.take(key, list(default))
        if not isinstance(value, list) or not value:
            raise ScenarioError(f"{self.where}: {key} must be a list of numbers above 0, not {value!r}")
        return tuple(self._number(key, share) for share in value)

    def rows(self, key: str, width: int) -> list[list[float]]:
        """Returns a list of rows of numbers; an empty list if the key is absent."""
        value = self.take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not value:
            raise ScenarioError(f"{self.where}: {key} must be a list of {_tuples(width)} of numbers")
        return [self._row(key, row, width) for row in value]

    def table(self, key: str) -> "Keys":
        value = self.take(key, {})
        if not isinstance(value, dict):
            raise ScenarioError(f"{self.where}: [{key}] must be a table")
        return type(self)(value, f"{self.where}: [{key}]")

    def tables(self, key: str) -> "list[Keys]":
        value = self.take(key, [])
        if not isinstance(value, list) or not all(isinstance(table, dict) for table in value):
            raise ScenarioError(f"{self.where}: [[{key}]] must be a list of tables")
        return [type(self)(table, f"{self.where}: [[{key}]] {number}") for number, table in enumerate(value, start=1)]

    def done(self) -> None:
        if self._left:
            raise ScenarioError(f"{self.where}: unknown key {next(iter(self._left))!r}; remove it")

    def _number(self, key: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise ScenarioError(f"{self.where}: {key} must be a number above 0, not {value!r}")
        return float(value)

    def _pair(self, key: str, value: object) -> tuple[float, float]:
        first, second = self._row(key, value, 2)
        return first, second

    def _row(self, key: str, value: object, width: int) -> list[float]:
        if not isinstance(value, list) or len(value) != width or any(isinstance(x, bool) for x in value):
            raise ScenarioError(f"{self.where}: {key} must be a {_tuples(width)[:-1]} of numbers, not {value!r}")
        if not all(isinstance(x, (int, float)) and math.isfinite(x) and x >= 0 for x in value):
            raise ScenarioError(f"{self.where}: {key} must hold numbers of at least 0, not {value!r}")
        return [float(x) for x in value]


def _tuples(width: int) -> str:
    return {2: "pairs", 3: "triples"}[width]


def _either(words: Sequence[str]) -> str:
    return " or ".join(repr(word) for word in words)

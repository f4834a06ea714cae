"""Reads the fields of a JSON or TOML table one by one, so that the error for a wrong, missing or unknown field names
it.
"""

import difflib
import math
from collections.abc import Mapping

from scheduler.domain.errors import EdgeburstError


class PlanInputError(EdgeburstError):
    """The input of a plan cannot be used. The message names the field and says what it must be."""


class Fields:
    """The fields of one table.

    Args:
        content: the parsed table.
        where: the name of the table in messages, for instance "families[0]"; empty for the whole file.
        of: the file that the table is from.
    """

    def __init__(self, content: object, *, where: str, of: str) -> None:
        self._content = content
        self._where = where
        self._of = of
        self._taken: set[str] = set()
        self._known: set[str] = set()

    def table(self) -> Mapping[str, object]:
        """Returns all fields.

        Raises:
            PlanInputError: the content is not a table.
        """
        if not isinstance(self._content, dict):
            raise PlanInputError(f"{self._of}: {self._where or 'the content'} must be a table of named fields")
        return self._content

    def has(self, key: str) -> bool:
        """Returns whether the field is there."""
        return key in self.table()

    def known(self, *keys: str) -> tuple[str, ...]:
        """Counts fields as known, even if they are never taken, and returns their names."""
        self._known.update(keys)
        return keys

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a text that is not empty, or the default."""
        value = self.take(key, default)
        if value is default and default is not None:
            return default
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "must be a text that is not empty")
        return value

    def number(self, key: str, default: float | None = None, *, above: float = -math.inf) -> float:
        """Returns a finite number above a bound, or the default."""
        return self._number(key, self.take(key, default), above=above)

    def at_least(self, key: str, minimum: float, default: float | None = None) -> float:
        """Returns a finite number of at least `minimum`, or the default."""
        value = self._number(key, self.take(key, default), above=-math.inf)
        if value < minimum:
            raise self.wrong(key, f"must be at least {minimum:g}, not {value:g}")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        """Returns a whole number of at least 1, or the default."""
        value = self.take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(key, f"must be a whole number of at least 1, not {value!r}")
        return value

    def flag(self, key: str) -> bool:
        """Returns true or false; false if the field is missing."""
        value = self.take(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, f"must be true or false, not {value!r}")
        return value

    def numbers(self, key: str, *, min_length: int = 1) -> tuple[float, ...]:
        """Returns a list of at least `min_length` finite numbers."""
        value = self.take(key)
        if not isinstance(value, list) or len(value) < min_length:
            raise self.wrong(key, f"must be a list of at least {min_length} numbers")
        return tuple(self._number(f"{key}[{i}]", x, above=-math.inf) for i, x in enumerate(value))

    def rows(self, key: str) -> list[tuple[float, ...]]:
        """Returns a list of lists of finite numbers, all of one length."""
        value = self.take(key)
        if not isinstance(value, list) or not value or not all(isinstance(row, list) and row for row in value):
            raise self.wrong(key, "must be a list of lists of numbers")
        if len({len(row) for row in value}) > 1:
            raise self.wrong(key, "must have lists of one length")
        return [tuple(self._number(f"{key}[{i}]", x, above=-math.inf) for x in row) for i, row in enumerate(value)]

    def tables(self, key: str) -> "list[Fields]":
        """Returns a list of at least one table."""
        value = self.take(key)
        if not isinstance(value, list) or not value:
            raise self.wrong(key, "must be a list of at least one table")
        return [Fields(content, where=f"{self._path(key)}[{i}]", of=self._of) for i, content in enumerate(value)]

    def part(self, key: str) -> "Fields":
        """Returns a table inside the table."""
        return Fields(self.take(key), where=self._path(key), of=self._of)

    def take(self, key: str, default: object = None) -> object:
        """Returns a field as it was parsed, or the default.

        Raises:
            PlanInputError: the field is missing and there is no default.
        """
        self._taken.add(key)
        value = self.table().get(key, default)
        if value is None:
            raise self.wrong(key, "is missing; add it")
        return value

    def done(self) -> None:
        """Checks that every field was taken.

        Raises:
            PlanInputError: a field is unknown; the message suggests a known one.
        """
        for key in self.table():
            if key not in self._taken:
                known = sorted(self._taken | self._known)
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise self.wrong(key, f"is not known; {hint}")

    def wrong(self, key: str, what: str) -> PlanInputError:
        """Returns the error that says what is wrong with a field."""
        return PlanInputError(f"{self._of}: {self._path(key)} {what}")

    def _path(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _number(self, key: str, value: object, *, above: float) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(key, f"must be a finite number, not {value!r}")
        if value <= above:
            raise self.wrong(key, f"must be above {above:g}, not {value:g}")
        return float(value)

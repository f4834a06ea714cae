"""Traces as tables of text: a row for each request or stretch of time, with the columns that are known by name."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scheduler.recordings.layout import Kind, RecordingError
from scheduler.recordings.moments import DATED_S, LATEST_S, UNITS_S, iso_s, unit_of
from scheduler.recordings.traffic import MOST_REQUESTS, Seconds, Traffic, Whole, plain_traffic

TIME_NAMES = frozenset(
    (
        *("time", "timestamp", "ts", "arrival", "arrival_s", "arrival_time", "arrived_at", "arrived_at_s"),
        *("start_time", "starttime", "datetime", "date_time", "invocation_time", "at_s", "time_s", "timestamp_s"),
    )
)
COUNT_NAMES = frozenset(("count", "requests", "invocations", "invocation_count", "calls"))
_KIND_NAMES = (("model", "model_name"), ("class", "class_name"), ("tenant",))
_SIZE_NAMES = frozenset(("bytes", "body_bytes", "request_bytes"))
_ITEM_NAMES = frozenset(("items", "batch_items_requested"))
MINUTE_S = 60.0
_LEAST_COUNTS = 2
_LARGEST = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Columns:
    """What a person said of a table; None: it is found out.

    Attributes:
        time: name of the column of times, or its number from 1.
        unit: of numbers in it: s, ms, us or ns.
        row: of a table of counts by minute, only rows with a cell that reads so.
    """

    time: str | None = None
    unit: str | None = None
    row: str | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text with the lines that they begin in."""

    path: Path
    names: tuple[str, ...]
    """Of the columns; their numbers from 1 where the file names none."""
    named: bool
    rows: Sequence[Sequence[str]]
    lines: Sequence[int]

    def column(self, at: int) -> list[str]:
        """Returns the texts of a column."""
        return [row[at] for row in self.rows]

    def error(self, row: int, sentence: str) -> RecordingError:
        """Returns an error about a row."""
        return RecordingError(f"{self.path}:{self.lines[row]}: {sentence}")

    def whole(self, at: int, what: str) -> Whole:
        """Returns the whole numbers of a column.

        Raises:
            RecordingError: one is none.
        """
        found = np.empty(len(self.rows), dtype=np.int64)
        for row, text in enumerate(self.column(at)):
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if not (0 <= number <= _LARGEST and number == int(number)):
                raise self.error(row, f"{text!r} in column {self.names[at]} is no {what}; correct or remove the line")
            found[row] = int(number)
        return found


def read_table(path: Path) -> Table:
    """Reads a table with commas, semicolons or tabs.

    Raises:
        RecordingError: the file cannot be read, is no text, is empty, or has rows of unlike lengths.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise RecordingError(f"cannot read the trace {path}: {reason}") from None
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    rows: list[Sequence[str]] = []
    lines: list[int] = []
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append([cell.strip() for cell in cells])
                lines.append(reader.line_num)
    except csv.Error as error:
        raise RecordingError(f"{path}:{reader.line_num}: this is no table ({error})") from None
    if not rows:
        raise RecordingError(f"the trace {path} is empty; it must hold at least one request")
    named = not any(_is_number(cell) or iso_s(cell) for cell in rows[0][: _labels(rows[0])])
    names = tuple(rows[0]) if named else tuple(str(number) for number in range(1, len(rows[0]) + 1))
    table = Table(path, names, named, rows[named:], lines[named:])
    for index, row in enumerate(table.rows):
        if len(row) != len(names):
            raise table.error(index, f"it has {len(row)} columns and the first line {len(names)}; correct it")
    if not table.rows:
        raise RecordingError(f"the trace {path} has a line of names only; it must hold at least one request")
    return table


def minutes_from(names: Sequence[str]) -> int | None:
    """Returns the column from which on names are 1, 2, 3, ... to the last; None where they are not.

    >>> minutes_from(["HashFunction", "Trigger", "1", "2", "3"]), minutes_from(["a", "2", "3"])
    (2, None)
    """
    at = _labels(names)
    counted = [str(number) for number in range(1, len(names) - at + 1)]
    return at if len(counted) >= _LEAST_COUNTS and list(names[at:]) == counted else None


def _labels(names: Sequence[str]) -> int:
    """Returns how many of the first names come before one that is 1."""
    return next((at for at, name in enumerate(names) if at and name == "1"), len(names))


def of_minutes(table: Table, columns: Columns, rng: np.random.Generator) -> Traffic:
    """Returns the requests of a table with a column for each minute, spread evenly within it.

    Raises:
        RecordingError: a cell is no count, no row is chosen, or there is no request.
    """
    begin = minutes_from(table.names)
    assert begin is not None
    chosen = [index for index, row in enumerate(table.rows) if columns.row is None or columns.row in list(row[:begin])]
    if not chosen:
        raise RecordingError(f"{table.path} has no row with a cell {columns.row!r} before its counts; name another")
    picked = Table(table.path, table.names, True, [table.rows[i] for i in chosen], [table.lines[i] for i in chosen])
    counts = np.array([picked.whole(at, "count").sum() for at in range(begin, len(table.names))])
    starts_s = np.arange(len(counts), dtype=np.float64) * MINUTE_S
    return _spread(table.path, starts_s, counts, MINUTE_S, rng).noted(
        f"{len(chosen)} of {len(table.rows)} rows of {table.path} are taken together, as requests at even times within"
        " each minute"
    )


def of_rows(table: Table, columns: Columns, rng: np.random.Generator) -> Traffic:
    """Returns the requests of a table with a row for each of them, or a row for each stretch of time with its count.

    Raises:
        RecordingError: it is doubtful which column has the times, or a cell cannot be read.
    """
    at = _time_column(table, columns)
    times_s, dated, note = _times(table, at, columns)
    names = [name.lower() for name in table.names]
    counted = [index for index, name in enumerate(names) if name in COUNT_NAMES and index != at]
    if len(counted) > 1:
        which = ", ".join(table.names[index] for index in counted)
        raise RecordingError(
            f"{table.path}:{table.lines[0] - 1}: several columns may be counts ({which}); leave one, or name the others"
            " otherwise"
        )
    if counted:
        return _of_counts(table, times_s, table.whole(counted[0], "count"), rng)
    falls = int((np.diff(times_s) < 0).sum())
    if not table.named and len(table.names) == 1 and falls:
        raise RecordingError(
            f"the numbers of {table.path} fall, so they are no times; give gaps with --arrivals, counts with --rates"
        )
    kinds, kind = _kinds(table, names)
    sizes = next((table.whole(i, "size in bytes") for i, name in enumerate(names) if name in _SIZE_NAMES), None)
    items = next((table.whole(i, "number of items") for i, name in enumerate(names) if name in _ITEM_NAMES), None)
    if items is not None and (items < 1).any():
        raise table.error(int(np.argmax(items < 1)), "a request has at least one item; correct or remove the line")
    found = plain_traffic(times_s, dated=dated, kinds=kinds, kind=kind, body_bytes=sizes, items=items)
    notes = [note, f"{falls} rows of {table.path} were not in order of time, and were sorted" if falls else ""]
    return found.noted(*filter(None, notes))


def _kinds(table: Table, names: Sequence[str]) -> tuple[list[Kind], Whole]:
    texts = [
        next((table.column(i) for i, name in enumerate(names) if name in known and table.named), [""] * len(table.rows))
        for known in _KIND_NAMES
    ]
    numbers: dict[Kind, int] = {}
    kind = np.empty(len(table.rows), dtype=np.int64)
    for row, (model, class_name, tenant) in enumerate(zip(*texts, strict=True)):
        kind[row] = numbers.setdefault(Kind(model, class_name, tenant, 0), len(numbers))
    return list(numbers), kind


def _of_counts(table: Table, times_s: Seconds, counts: Whole, rng: np.random.Generator) -> Traffic:
    order = np.argsort(times_s, kind="stable")
    steps_s = np.diff(times_s[order])
    steps_s = steps_s[steps_s > 0]
    if not len(steps_s):
        raise RecordingError(f"{table.path} has counts of a single moment; it needs two, to say how long each counts")
    unit_s = float(steps_s.min())
    return _spread(table.path, times_s[order], counts[order], unit_s, rng).noted(
        f"each count of {table.path} is taken for {unit_s:g} s, as requests at even times"
    )


def _spread(path: Path, starts_s: Seconds, counts: Whole, unit_s: float, rng: np.random.Generator) -> Traffic:
    total = int(counts.sum())
    if not 0 < total <= MOST_REQUESTS:
        what = "no request" if not total else f"{total} requests, above {MOST_REQUESTS}"
        raise RecordingError(f"{path} holds {what}; choose other rows with --trace-row, or another trace")
    times_s = np.repeat(starts_s, counts) + rng.random(total) * unit_s
    return plain_traffic(times_s, dated=bool(starts_s[0] > DATED_S))


def _time_column(table: Table, columns: Columns) -> int:
    """Returns the index of the column of times.

    Raises:
        RecordingError: it is not certain which it is; the sentence names the columns.
    """
    known = ", ".join(table.names)
    if columns.time is not None:
        if columns.time in table.names:
            return table.names.index(columns.time)
        if columns.time.isdecimal() and 1 <= int(columns.time) <= len(table.names):
            return int(columns.time) - 1
        raise RecordingError(f"{table.path} has no column {columns.time!r}, only {known}; name one of them")
    by_name = [at for at, name in enumerate(table.names) if table.named and name.lower() in TIME_NAMES]
    first = table.rows[0]
    dates = [at for at, cell in enumerate(first) if iso_s(cell) is not None]
    numbers = [at for at, cell in enumerate(first) if _is_number(cell)]
    for found in (by_name, dates, numbers):
        if len(found) == 1:
            return found[0]
        if found:
            which = ", ".join(table.names[at] for at in found)
            raise RecordingError(
                f"{table.path} has several columns that may be times ({which}); say which: --time-column NAME"
            )
    raise RecordingError(f"{table.path} has no column of times, only {known}; a time is a date or a number")


def _times(table: Table, at: int, columns: Columns) -> tuple[Seconds, bool, str]:
    """Returns seconds, whether they are since 1970, and a note about the zone."""
    texts, name = table.column(at), table.names[at]
    if iso_s(texts[0]) is not None:
        found = [iso_s(text) for text in texts]
        for row, each in enumerate(found):
            if each is None:
                raise table.error(
                    row, f"{texts[row]!r} in column {name} is no date, as the rows before are; correct it"
                )
        zoned = all(each is not None and each[1] for each in found)
        note = "" if zoned else f"the dates of {table.path} name no zone and are read as UTC"
        return np.array([each[0] for each in found if each is not None]), True, note
    numbers = np.array([_number(text) for text in texts])
    suffix = name.lower().rpartition("_")[2]
    largest = float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))
    unit = columns.unit or (suffix if table.named and suffix in UNITS_S else unit_of(largest))
    times_s = numbers * UNITS_S[unit]
    wrong = np.flatnonzero(~(np.abs(times_s) < LATEST_S))
    if len(wrong):
        row = int(wrong[0])
        raise table.error(row, f"{texts[row]!r} in column {name} is no time in seconds; correct or remove the line")
    return times_s, bool(times_s.min() > DATED_S), ""


def _is_number(text: str) -> bool:
    return math.isfinite(_number(text))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

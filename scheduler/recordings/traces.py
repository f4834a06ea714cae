"""Reads any file of traffic: what a daemon recorded or explained, what `replay` measured, or a public trace."""

from __future__ import annotations

import glob
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scheduler.recordings.layout import LARGEST, Kind, RecordingError
from scheduler.recordings.moments import LATEST_S, iso_s
from scheduler.recordings.recorded import is_recording, read_recorded
from scheduler.recordings.tables import Columns, Table, minutes_from, of_minutes, of_rows, read_table
from scheduler.recordings.traffic import Traffic, plain_traffic

FORMATS = ("recording", "requests", "explain", "times", "minutes")
"""recording: of [record]; requests: requests.csv of `replay`; explain: the file of [explain]; times: a row for each
request, or a time and a count; minutes: a column for each minute, as the Azure Functions trace."""
CANCELLED = "cancelled"
"""Outcome of a request whose client gave up."""
_REQUESTS_BEGIN = ("id", "payload", "arrival_s")


def read_traffic(path: Path, *, columns: Columns, rng: np.random.Generator, format_name: str | None = None) -> Traffic:
    """Returns the requests of a file.

    Args:
        path: the file, or a folder of recordings.
        columns: what is said of a table.
        rng: draws times where only counts are known.
        format_name: one of `FORMATS`; None: found out.

    Raises:
        RecordingError: the file cannot be read, or it is doubtful what it means; the sentence names line and reason.
    """
    found = _format_of(path) if format_name is None else format_name
    if found == "recording":
        return read_recorded(path)
    if found == "explain":
        return _of_explanations(path)
    table = read_table(path)
    if found == "requests":
        return _of_requests(table)
    if found == "minutes":
        if minutes_from(table.names) is None:
            raise RecordingError(f"{path} has no columns named 1, 2, 3, ... to the last; give another --trace-format")
        return of_minutes(table, columns, rng)
    return of_rows(table, columns, rng)


def _format_of(path: Path) -> str:
    if is_recording(path):
        return "recording"
    try:
        with path.open("rb") as file:
            first = file.readline(2**20).lstrip(b"\xef\xbb\xbf \t\r\n")
    except OSError as error:
        raise RecordingError(f"cannot read the trace {path}: {error.strerror or error}") from None
    if first.startswith(b"{"):
        return "explain"
    names = [name.strip() for name in first.decode("utf-8", "replace").split(",")]
    if tuple(names[:3]) == _REQUESTS_BEGIN:
        return "requests"
    return "minutes" if minutes_from(names) is not None else "times"


def _of_requests(table: Table) -> Traffic:
    """Returns the requests that `edgeburst replay` sent."""
    if tuple(table.names[:3]) != _REQUESTS_BEGIN:
        raise RecordingError(f"{table.path} is no requests.csv of `edgeburst replay`; give another --trace-format")
    return of_rows(table, Columns(time="arrival_s", unit="s"), np.random.default_rng(0))


def _of_explanations(path: Path) -> Traffic:
    """Returns the requests of the file of [explain] and its older parts; dated by the moment of the first decision."""
    found = [_explained(*line) for line in _lines(path)]
    # A simulation knows no dates; in a daemon's file only requests about which nothing was decided have none.
    dated = [each for each in found if each.ahead_s is not None]
    used = dated or found
    if not used:
        raise RecordingError(f"{path} explains no request; give the file of [explain]")
    numbers: dict[Kind, int] = {}
    times_s = np.array([each.arrived_at_s + (each.ahead_s or 0.0) for each in used])
    traffic = plain_traffic(
        times_s,
        dated=bool(dated),
        kind=np.array([numbers.setdefault(each.kind, len(numbers)) for each in used]),
        kinds=tuple(numbers),
        body_bytes=np.array([each.body_bytes for each in used]),
        items=np.array([each.items for each in used]),
    )
    traffic.cancelled_s[:] = np.array([each.cancelled_s for each in used])[np.argsort(times_s, kind="stable")]
    left_out = len(found) - len(used)
    return traffic.noted(f"{left_out} requests of {path} without a decision are left out" if left_out else "")


class _Explained(NamedTuple):
    arrived_at_s: float
    ahead_s: float | None
    """Seconds from 1970 to the zero of the daemon's clock; None where that is not known."""
    kind: Kind
    body_bytes: int
    items: int
    cancelled_s: float


def _explained(file: Path, line: int, values: Mapping[str, Any]) -> _Explained:
    try:
        moment = iso_s(str(values["first_decided_at"]))
        decisions, arrived_s = values["decisions"], float(values["arrived_at_s"])
        kind = Kind(str(values["model"]), str(values["class_name"]), str(values["tenant"]), int(values["priority"]))
        cancelled = values["outcome"] == CANCELLED and values["ended_at_s"] is not None
        found = _Explained(
            arrived_s,
            None if moment is None or not decisions else moment[0] - float(decisions[0]["at_s"]),
            kind,
            int(values["body_bytes"]),
            int(values["items"]),
            float(values["ended_at_s"]) - arrived_s if cancelled else math.nan,
        )
        if not (0 <= found.body_bytes <= LARGEST and 1 <= found.items <= LARGEST):
            raise ValueError("body_bytes or items is out of range")
        if not abs(arrived_s + (found.ahead_s or 0.0)) < LATEST_S:
            raise ValueError("arrived_at_s is no time")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RecordingError(f"{file}:{line}: this is no explanation of a request ({error})") from None
    return found


def _lines(path: Path) -> Iterator[tuple[Path, int, Mapping[str, Any]]]:
    """Yields file, number and values of each line, older parts first; leaves out a last line that is cut off."""
    parts = [part for part in path.parent.glob(f"{glob.escape(path.name)}.*") if part.suffix[1:].isdigit()]
    for file in (*sorted(parts, key=lambda part: -int(part.suffix[1:])), path):
        try:
            lines = file.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        except OSError as error:
            raise RecordingError(f"cannot read {file}: {error.strerror or error}") from None
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                if number == len(lines):
                    continue
                raise RecordingError(f"{file}:{number}: this line is no JSON; remove it") from None
            if not isinstance(values, dict) or "arrived_at_s" not in values:
                raise RecordingError(f"{file}:{number}: this is no explanation of a request, as [explain] writes them")
            yield file, number, values

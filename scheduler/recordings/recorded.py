"""Reads what a daemon recorded: one file, or all files of a folder."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from scheduler.recordings.layout import COLUMNS, MAGIC, SUFFIX, Block, Events, Kind, RecordingError, read_blocks
from scheduler.recordings.traffic import Seconds, Traffic, joined

ROUNDING_S = 1e-3
"""A request is not cancelled before it came, but for how times are read."""


def read_recorded(path: Path, *, begin_s: float = -np.inf, end_s: float = np.inf) -> Traffic:
    """Returns the requests of a recording, or of all recordings of a folder, by arrival.

    Args:
        path: a file, or a folder of `[record]`.
        begin_s: seconds since 1970 from which requests are taken.
        end_s: seconds since 1970 before which they are.

    Raises:
        RecordingError: there is no recording there, a file is none, or no request came in that time.
    """
    notes: list[str] = []
    parts: list[Traffic] = []
    ends: list[Traffic] = []
    for part in _with_later_ends(_read(file, notes) for file in _files(path)):
        # Of what is not asked for only the first and the last request are kept: a folder may hold more than the memory.
        ends.append(part.at(np.arange(len(part))[:: max(1, len(part) - 1)]))
        if len(found := part.between(begin_s, end_s)):
            parts.append(found)
    if parts:
        return joined(parts).noted(*notes)
    if not any(map(len, ends)):
        raise RecordingError(f"{path} has no request; let the daemon serve some, and stop or wait for 5 s")
    raise RecordingError(f"{path} has no request in that time; {within(joined(ends))}")


def is_recording(path: Path) -> bool:
    """Returns whether a file begins as a recording does, or is a folder."""
    try:
        if path.is_dir():
            return True
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def within(traffic: Traffic) -> str:
    """Returns in which time the requests came, as words."""
    first_s, last_s = float(traffic.times_s[0]), float(traffic.times_s[-1])
    if not traffic.dated:
        return f"its times are {first_s:.10g} to {last_s:.10g} s"
    first, last = (np.datetime64(round(at_s), "s") for at_s in (first_s, last_s))
    return f"its requests came from {first}Z to {last}Z (UTC)"


def _files(path: Path) -> list[Path]:
    try:
        if not path.is_dir():
            return [path]
        # Unlike `glob`, this says so where the folder may not be read.
        files = sorted(each for each in path.iterdir() if each.suffix == SUFFIX)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not files:
        raise RecordingError(f"{path} has no recording (*{SUFFIX}); name the folder of [record]")
    return files


def _unreadable(path: Path, error: OSError) -> RecordingError:
    mend = "; read it as the daemon's user, or a copy of it" if isinstance(error, PermissionError) else ""
    return RecordingError(f"cannot read the recording {path}: {error.strerror or error}{mend}")


@dataclass(frozen=True, slots=True)
class _File:
    """What a file holds: requests by arrival, with their numbers and clocks, and cancellations of none of them."""

    traffic: Traffic
    numbers: npt.NDArray[np.uint32]
    clock_s: Seconds
    strays: Events


def _with_later_ends(files: Iterable[_File]) -> Iterator[Traffic]:
    """Yields the requests of each file, with the cancellations that came when the next file had begun.

    Another process counts its requests anew, so that a file goes on with another one only where its numbers do.
    """
    before: _File | None = None
    for file in files:
        if before is not None:
            goes_on = len(before.numbers) and (not len(file.numbers) or file.numbers.min() > before.numbers.max())
            if goes_on and len(file.strays):
                _cancel(before.traffic.cancelled_s, before.numbers, before.clock_s, file.strays)
            yield before.traffic
        before = file
    if before is not None:
        yield before.traffic


def _cancel(cancelled_s: Seconds, numbers: npt.NDArray[np.uint32], clock_s: Seconds, gone: Events) -> Events:
    """Notes after how many seconds requests were cancelled; returns the cancellations of none of them."""
    place = {int(number): at for at, number in enumerate(numbers)} if len(gone) else {}
    strays = np.ones(len(gone), dtype=bool)
    for row, event in enumerate(gone):
        at = place.get(int(event["request"]))
        if at is not None and event["clock_s"] >= clock_s[at] - ROUNDING_S:
            cancelled_s[at], strays[row] = max(0.0, float(event["clock_s"] - clock_s[at])), False
    left: Events = gone[strays]
    return left


def _read(path: Path, notes: list[str]) -> _File:
    """Returns the requests of a file; adds to the notes where it is damaged."""
    blocks: list[Block] = []
    try:
        with path.open("rb") as file:
            blocks.extend(_sound(read_blocks(file), path, notes))
    except OSError as error:
        raise _unreadable(path, error) from None
    return _contents(blocks)


def _sound(blocks: Iterator[Block], path: Path, notes: list[str]) -> Iterator[Block]:
    """Yields the blocks before one that is damaged, which is noted.

    Raises:
        RecordingError: the file is none.
    """
    try:
        yield from blocks
    except RecordingError as error:
        if "byte" not in str(error):
            raise RecordingError(f"{path} {error}; name a file or folder that [record] wrote") from None
        notes.append(f"{path} {error}: what follows is left out")


def _contents(blocks: list[Block]) -> _File:
    """Returns the requests of one file, whose times are those of its first block's clock."""
    numbers: dict[Kind, int] = {}
    tables = [block.events for block in blocks]
    kinds = [
        np.array([numbers.setdefault(kind, len(numbers)) for kind in block.kinds], dtype=np.int64)[block.events["kind"]]
        for block in blocks
    ]
    if not blocks:
        tables, kinds = [np.empty(0, dtype=COLUMNS)], [np.empty(0, dtype=np.int64)]
    table, kind = np.concatenate(tables), np.concatenate(kinds)
    came = table["items"] > 0
    arrived = table[came]
    clock_s = arrived["clock_s"]
    cancelled_s = np.full(len(arrived), np.nan)
    strays = _cancel(cancelled_s, arrived["request"], clock_s, table[~came])
    whole = Traffic(
        times_s=clock_s + (blocks[0].ahead_s if blocks else 0.0),
        dated=True,
        kinds=tuple(numbers),
        kind=kind[came],
        body_bytes=arrived["body_bytes"].astype(np.int64),
        items=arrived["items"].astype(np.int64),
        shapes=arrived["shape"].astype(np.int64),
        timeouts_s=arrived["timeout_s"].astype(np.float64),
        cancelled_s=cancelled_s,
    )
    order = np.argsort(whole.times_s, kind="stable")
    return _File(whole.at(order), arrived["request"][order], clock_s[order], strays)

"""The folder of recordings: files that are appended to, ended when they are large or a day old, and then kept a while.

The wall clock is not believed where that would cost recordings: files have rising names even after it was set back, and
after it leaps ahead nothing is removed for its age until that has passed, by a clock that nobody sets.

Everything here blocks, and is called by one thread.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

from scheduler.daemon.clocks import wall_s
from scheduler.recordings.layout import MAGIC, SUFFIX

DAY_S = 86400.0
STEP_S = 1.0
"""A wall clock that is off by more was set: another file begins, so that times within a file do not jump."""
LEAP_S = DAY_S
"""A wall clock that is further ahead than that, of what it was or of the newest file, may be wrong. Judgement: a day
less of a recording is no loss, and time servers correct less."""
_DIGITS = 3
"""Of a file's number among those that began within the same second."""


_STAMP = "%Y%m%dT%H%M%SZ"
_NAME = re.compile(rf"(\d{{8}}T\d{{6}}Z)-(\d{{{_DIGITS}}})" + re.escape(SUFFIX))


class RecordingFolder:
    """Appends blocks to the newest file of a folder; each process begins a file of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        keep_days: float,
        keep_bytes: int,
        wall: Callable[[], float] = wall_s,
    ) -> None:
        """Stores where to write; makes and opens nothing yet.

        Args:
            folder: of the recordings; it is made if it is missing.
            max_bytes: size from which another file begins.
            keep_days: age from which a file is removed.
            keep_bytes: size of all files together, above which the oldest are removed.
            wall: seconds since 1970.
        """
        self.folder = folder
        self._max_bytes = max_bytes
        self._keep_s = keep_days * DAY_S
        self._keep_bytes = keep_bytes
        self._wall = wall
        self._descriptor: int | None = None
        self._path = folder
        self._size = 0
        self._began_s = 0.0
        self._ahead_s: float | None = None
        """Of the file that was begun last."""
        self._doubted_until_s = -math.inf
        """By the clock of the events: until then no age is believed."""

    def append(self, block: bytes, ahead_s: float) -> None:
        """Appends a block; where that fails, the file is whole up to the block before.

        Args:
            block: what is appended.
            ahead_s: seconds since 1970 at the zero of its clock.

        Raises:
            OSError: the folder cannot be written, or the disk is full.
        """
        now_s = self._wall()
        full = self._size + len(block) > self._max_bytes and self._size > len(MAGIC)
        moved = self._ahead_s is not None and abs(ahead_s - self._ahead_s) > STEP_S
        if self._descriptor is not None and (full or moved or now_s - self._began_s > DAY_S):
            self.close()
        if self._descriptor is None:
            self._begin(now_s, ahead_s)
        self._write(block)

    def close(self) -> None:
        """Ends the file, if there is one; the next block begins another."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None

    def _begin(self, now_s: float, ahead_s: float) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        before = sorted(self.folder.glob(f"*{SUFFIX}"))
        self._path = self.folder / _name_after([path.name for path in before], now_s)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        if self._leapt(before, now_s, ahead_s):
            self._doubted_until_s = now_s - ahead_s + self._keep_s
        self._size, self._began_s, self._ahead_s = 0, now_s, ahead_s
        self._remove_old(before, now_s, aged=now_s - ahead_s >= self._doubted_until_s)
        self._write(MAGIC)

    def _leapt(self, before: Sequence[Path], now_s: float, ahead_s: float) -> bool:
        """Whether the wall clock is far ahead of what it was, or of the newest file of an earlier process."""
        if self._ahead_s is not None:
            return ahead_s - self._ahead_s > LEAP_S
        newest_s = max([_written_s(path) for path in before], default=now_s)
        return now_s - newest_s > LEAP_S

    def _write(self, content: bytes) -> None:
        assert self._descriptor is not None
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            if not self._size:
                with suppress(OSError):
                    self._path.unlink()
            self.close()
            raise
        self._size += len(content)

    def _remove_old(self, before: Sequence[Path], now_s: float, *, aged: bool) -> None:
        """Removes the oldest of what is too much and, where ages are believed, what is too old."""
        # The file that has just begun may become as large as it may be.
        room, too_much = self._keep_bytes - self._max_bytes, set()
        for path in reversed(before):
            with suppress(OSError):
                room -= path.stat().st_size
            if room < 0:
                too_much.add(path)
        as_of_s = -math.inf
        for path in before:
            # One that was written while the clock was ahead, or far behind, is as old as the one before it.
            written_s = _written_s(path)
            as_of_s = max(as_of_s, written_s) if written_s <= now_s else as_of_s
            too_old = aged and math.isfinite(as_of_s) and now_s - as_of_s > self._keep_s
            if too_old or path in too_much:
                with suppress(OSError):
                    path.unlink()


def _written_s(path: Path) -> float:
    """Returns when a file was last written, by the wall clock of then; the first moment of all where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def _name_after(names: Sequence[str], now_s: float) -> str:
    """Returns the name of a file that begins now: after all those names, also where the clock was set back.

    >>> _name_after([], 0.0), _name_after(["20300101T000000Z-007.arrivals"], 0.0)
    ('19700101T000000Z-001.arrivals', '20300101T000000Z-008.arrivals')
    >>> _name_after(["20300101T000000Z-999.arrivals", "mine.arrivals"], 0.0)
    '20300101T000001Z-001.arrivals'
    """
    moment, number = datetime.fromtimestamp(int(now_s), timezone.utc), 1
    own = [found.groups() for name in names if (found := _NAME.fullmatch(name))]
    if own:
        stamp, text = max(own)
        # A name that has the form of a time and is none, such as that of a 13th month, is another program's.
        with suppress(ValueError):
            newest = datetime.strptime(f"{stamp}+0000", f"{_STAMP}%z")
            if newest >= moment:
                moment, number = newest, int(text) + 1
    if number >= 10**_DIGITS:
        moment, number = moment + timedelta(seconds=1), 1
    return f"{moment.strftime(_STAMP)}-{number:0{_DIGITS}d}{SUFFIX}"

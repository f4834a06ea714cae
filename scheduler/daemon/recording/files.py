"""The folder of recordings: files that are appended to, ended when they are large or a day old, and then kept a while.

Everything here blocks, and is called by one thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from scheduler.daemon.clocks import wall_s
from scheduler.recordings.layout import MAGIC, SUFFIX

DAY_S = 86400.0
STEP_S = 1.0
"""A wall clock that is off by more was set: another file begins, so that times within a file do not jump."""
_DIGITS = 3
"""Of a file's number among those that began within the same second."""


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
        self._ahead_s = 0.0

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
        moved = abs(ahead_s - self._ahead_s) > STEP_S
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
        stamp = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        numbers = [path.name[len(stamp) + 1 :][:_DIGITS] for path in self.folder.glob(f"{stamp}-*{SUFFIX}")]
        number = 1 + max([int(text) for text in numbers if text.isdigit()], default=0)
        self._path = self.folder / f"{stamp}-{number:0{_DIGITS}d}{SUFFIX}"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._size, self._began_s, self._ahead_s = 0, now_s, ahead_s
        self._remove_old(now_s)
        self._write(MAGIC)

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

    def _remove_old(self, now_s: float) -> None:
        """Removes what is too old, and the oldest of what is too much."""
        kept = 0
        for path in sorted(self.folder.glob(f"*{SUFFIX}"), reverse=True):
            if path == self._path:
                continue
            with suppress(OSError):
                known = path.stat()
                kept += known.st_size
                # The file that has just begun may become as large as it may be.
                if now_s - known.st_mtime > self._keep_s or kept + self._max_bytes > self._keep_bytes:
                    path.unlink()

"""Waiting for the end of a process, as signals and threads ask for it."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from types import TracebackType


class Stop:
    """Whether the process is to end. The main thread waits; signal handlers and other threads set it.

    Python calls signal handlers in the main thread only, between two of its steps. Where the kernel gives a signal to
    another thread, as it may while requests come, a main thread that waits in a lock is not woken; so it waits for a
    descriptor that every signal is written to. `threading.Event` will not do for another reason, too: a handler that
    sets it while the main thread holds its lock waits forever.
    """

    def __init__(self) -> None:
        """It is not to end."""
        self._asked = False
        self._read, self._write = os.pipe()
        for each in (self._read, self._write):
            os.set_blocking(each, False)
        self._before = -1

    def __enter__(self) -> Stop:
        """Notices signals from now on; in the main thread."""
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Notices no more."""
        signal.set_wakeup_fd(self._before)
        os.close(self._read)
        os.close(self._write)

    def is_set(self) -> bool:
        """Returns whether it is to end."""
        return self._asked

    def set(self) -> None:
        """Asks for the end."""
        self._asked = True
        with contextlib.suppress(OSError):  # it is full, or closed: nothing waits
            os.write(self._write, b"\0")

    def wait(self, limit_s: float | None = None) -> bool:
        """Waits until it is to end, or for so many seconds; returns whether it is."""
        until_s = None if limit_s is None else time.monotonic() + limit_s
        while not self._asked:
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            readable, _, _ = select.select([self._read], [], [], left_s)
            if not readable:
                break
            os.read(self._read, 4096)
        return self._asked

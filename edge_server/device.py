"""The one thread that owns the device, behind a short queue."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edge_server.errors import Unavailable

Outcome = TypeVar("Outcome")


def _nothing_to_prepare() -> None:
    """Leaves all of the work to the device's thread."""


class Device:
    """Runs work one at a time and in order on a thread of its own; at most `depth` more may wait.

    A queue any deeper would only hide from the scheduler, which knows the deadlines, that the device is behind.

    Attributes:
        depth: how many batches may wait while one is being worked on.
        clock: monotonic seconds.
    """

    def __init__(self, *, depth: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        """Stores both; the thread starts with the first work."""
        self._depth = depth
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._in_hand = 0
        self._working_since_s: float | None = None
        self._last_work_s = 0.0

    @property
    def in_hand(self) -> int:
        """Batches that are being worked on or wait."""
        return self._in_hand

    def busy_s(self) -> float:
        """Returns for how many seconds the present work has been going on, 0 if there is none."""
        since_s = self._working_since_s
        return 0.0 if since_s is None else self._clock() - since_s

    def submit(
        self, work: Callable[[], Outcome], *, prepare: Callable[[], None] = _nothing_to_prepare
    ) -> Future[Outcome]:
        """Queues work.

        Args:
            work: called on the device's thread.
            prepare: called on this thread once a place is sure and before the work can begin.

        Returns:
            the work's outcome, or what it raised.

        Raises:
            Unavailable: the queue is full.
        """
        self._take_place()
        prepare()
        return self._thread.submit(self._run, work)

    def close(self) -> None:
        """Finishes what is queued and end the thread."""
        self._thread.shutdown(wait=True)

    def _take_place(self) -> None:
        with self._lock:
            if self._in_hand > self._depth:
                raise Unavailable(
                    f"the device is busy and its queue of {self._depth} is full: try again later, or elsewhere",
                    retry_after_s=max(1, math.ceil(self._in_hand * self._last_work_s)),
                )
            self._in_hand += 1

    def _run(self, work: Callable[[], Outcome]) -> Outcome:
        began_s = self._working_since_s = self._clock()
        try:
            return work()
        finally:
            # Before the outcome is handed over: whoever sends the next batch on this answer must find the place free.
            with self._lock:
                self._in_hand -= 1
                self._working_since_s = None
                self._last_work_s = self._clock() - began_s

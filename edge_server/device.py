"""The thread that owns the device, and the short queue before it."""

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
    """Does nothing: all work is done on the thread of the device."""


class Device:
    """Thread that serves one batch at a time, in order, with at most `depth` waiting batches.

    A longer queue would hide from the scheduler, which knows the deadlines, that the device is behind.

    Args:
        depth: number of batches that may wait while one is served.
        clock: returns monotonic seconds.
    """

    def __init__(self, *, depth: int = 2, clock: Callable[[], float] = time.monotonic) -> None:
        """Stores the arguments; the thread starts with the first work."""
        self._depth = depth
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._in_hand = 0
        self._working_since_s: float | None = None
        self._last_work_s = 0.0

    @property
    def in_hand(self) -> int:
        """Number of batches that are served or wait."""
        return self._in_hand

    def busy_s(self) -> float:
        """Returns the seconds since the current work began; 0 if there is none."""
        since_s = self._working_since_s
        return 0.0 if since_s is None else self._clock() - since_s

    def submit(
        self, work: Callable[[], Outcome], *, prepare: Callable[[], None] = _nothing_to_prepare
    ) -> Future[Outcome]:
        """Queues work.

        Args:
            work: called on the thread of the device.
            prepare: called on this thread after the queue has accepted the work and before it can begin.

        Returns:
            The future result of the work.

        Raises:
            Unavailable: the queue is full.
        """
        self._take_place()
        prepare()
        return self._thread.submit(self._run, work)

    def close(self) -> None:
        """Finishes the queued work and ends the thread."""
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
            # Before the result is returned: a client that sends the next batch on this answer must find a free place.
            with self._lock:
                self._in_hand -= 1
                self._working_since_s = None
                self._last_work_s = self._clock() - began_s

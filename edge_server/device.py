"""The thread that owns the device, and the short queue before it."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, TimeoutError
from typing import Any, Generic, TypeVar

from edge_server.errors import Overdue, Unavailable

Outcome = TypeVar("Outcome")


def _nothing() -> None:
    """Does nothing: all work is done on the thread of the device."""


def _not_told(_: bool) -> None:
    """Does nothing: it does not matter whether the work is stuck."""


class Job(Generic[Outcome]):
    """Work that the device has accepted, and its future outcome."""

    def __init__(self, work: Callable[[], Outcome], stuck: Callable[[bool], None]) -> None:
        """Stores its parts."""
        self.work = work
        self.stuck = stuck
        self.future: Future[Outcome] = Future()
        self.began_s: float | None = None
        self.abandoned = False

    def result(self, timeout: float | None = None) -> Outcome:
        """Waits for the outcome, however long the work takes."""
        return self.future.result(timeout)


class Device:
    """Thread that serves one batch at a time, in order, with at most `depth` waiting batches.

    A longer queue would hide from the scheduler, which knows the deadlines, that the device is behind. Work that takes
    longer than a limit is left to its thread, and a new thread serves the others: a thread cannot be interrupted.

    Args:
        depth: number of batches that may wait while one is served.
        limit_s: seconds after which `serve` gives up its work.
        clock: returns monotonic seconds.
    """

    def __init__(
        self, *, depth: int = 2, limit_s: float = math.inf, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Stores the arguments; the thread starts with the first work."""
        self.limit_s = limit_s
        self._depth = depth
        self._clock = clock
        self._queue: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._in_hand = 0
        self._job: Job[Any] | None = None
        self._last_work_s = 0.0

    @property
    def in_hand(self) -> int:
        """Number of batches that are served or wait."""
        return self._in_hand

    def busy_s(self) -> float:
        """Returns the seconds since the current work began; 0 if there is none."""
        job = self._job
        return 0.0 if job is None or job.began_s is None else self._clock() - job.began_s

    def submit(
        self,
        work: Callable[[], Outcome],
        *,
        prepare: Callable[[], None] = _nothing,
        stuck: Callable[[bool], None] = _not_told,
    ) -> Job[Outcome]:
        """Queues work.

        Args:
            work: called on the thread of the device.
            prepare: called on this thread after the queue has accepted the work and before it can begin.
            stuck: called with true when the work is given up, and with false if it ends after that.

        Raises:
            Unavailable: the queue is full.
        """
        self._take_place()
        job = Job(work, stuck)
        try:
            prepare()
        except BaseException:
            with self._lock:
                self._in_hand -= 1
            raise
        with self._lock:
            if self._thread is None:
                self._start_thread()
        self._queue.put(job)
        return job

    def outcome(self, job: Job[Outcome]) -> Outcome:
        """Waits for the outcome of work, at most `limit_s` from its begin.

        Raises:
            Overdue: the work has taken longer. It is given up, and the device serves the next batch.
        """
        limit_s = self.limit_s
        while True:
            left_s = limit_s if job.began_s is None else job.began_s + limit_s - self._clock()
            try:
                return job.future.result(max(0.0, left_s) if math.isfinite(left_s) else None)
            except TimeoutError:
                # It may be the work's own.
                if job.future.done() or (left_s <= 0 and self._abandon(job)):
                    return job.future.result()

    def close(self) -> None:
        """Finishes the queued work and ends the thread."""
        with self._lock:
            thread = self._thread
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _take_place(self) -> None:
        with self._lock:
            if self._in_hand > self._depth:
                raise Unavailable(
                    f"the device is busy and its queue of {self._depth} is full: try again later, or elsewhere",
                    retry_after_s=max(1, math.ceil(self._in_hand * self._last_work_s)),
                )
            self._in_hand += 1

    def _start_thread(self) -> None:
        # A daemon, so that work that hangs does not keep the process from ending.
        self._thread = threading.Thread(target=self._serve_queue, name="device", daemon=True)
        self._thread.start()

    def _serve_queue(self) -> None:
        while (job := self._queue.get()) is not None:
            with self._lock:
                self._job = job
                job.began_s = self._clock()
            outcome, error = None, None
            try:
                outcome = job.work()
            except BaseException as raised:  # noqa: BLE001 - passed on to the thread that waits for the outcome
                error = raised
            with self._lock:
                if not job.abandoned:
                    # Before the outcome is there: a client that sends the next batch on it must find a free place.
                    self._end(job)
            if job.abandoned:
                job.stuck(False)
                return
            if error is None:
                job.future.set_result(outcome)
            else:
                job.future.set_exception(error)

    def _end(self, job: Job[Any]) -> None:
        self._in_hand -= 1
        self._job = None
        self._last_work_s = self._clock() - (job.began_s or 0.0)

    def _abandon(self, job: Job[Any]) -> bool:
        """Leaves the running work to its thread; returns whether its future is settled now."""
        with self._lock:
            if self._job is not job:
                return False
            job.abandoned = True
            job.stuck(True)
            self._end(job)
            self._start_thread()
        job.future.set_exception(Overdue(f"the batch has not ended within {self.limit_s:g} s"))
        return True

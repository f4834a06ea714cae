"""A bounded set of daemon threads for blocking calls.

concurrent.futures is no alternative: the interpreter joins its threads at its end, so a call that hangs in a socket
would keep the daemon from ending within its drain limit.
"""

import asyncio
import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from scheduler.daemon.logs import log

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"

    def run(self) -> None:
        """Does the work and gives its result or its exception to the future that the caller awaits."""
        if self.future.cancelled():
            return
        try:
            result, error = self.work(), None
        except BaseException as raised:  # noqa: BLE001 - passed on to the caller
            result, error = None, raised
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        else:
            self.future.set_exception(error)


TRY_AGAIN_S = 1.0
"""When a thread that could not be started is tried again."""


class DaemonThreads:
    """At most `limit` threads for blocking calls, which are started when they are needed and then kept."""

    def __init__(self, *, limit: int, name: str) -> None:
        """Stores the limit; no thread runs yet."""
        self._limit = limit
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    async def run(self, work: Callable[[], T]) -> T:
        """Returns what `work()` returns in a thread. If the caller is cancelled, the work continues in vain."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(work, loop, future))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._limit:
            self._start_one(loop)
        return await future

    def close(self) -> None:
        """Makes each thread end after its current call; does not wait for them."""
        for _ in self._threads:
            self._jobs.put(None)

    def _start_one(self, loop: asyncio.AbstractEventLoop) -> None:
        name = f"{self._name}-{len(self._threads)}"
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            # No memory for it, or too many tasks of this user: the threads that there are do the work. Without any it
            # waits for better times.
            if not self._threads:
                log(logging.WARNING, "thread_missing", name=name, message=f"{error}; this is tried again")
                loop.call_later(TRY_AGAIN_S, self._start_first, loop)
            return
        self._threads.append(thread)

    def _start_first(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._threads and not self._jobs.empty():
            self._start_one(loop)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            del job
            self._idle.release()

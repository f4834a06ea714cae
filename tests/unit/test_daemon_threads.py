"""Threads for blocking calls where the system allows no further one."""

from __future__ import annotations

import asyncio
import threading

import pytest

from scheduler.daemon import threads
from scheduler.daemon.threads import DaemonThreads


def failing_starts(monkeypatch: pytest.MonkeyPatch, fails: list[bool]) -> None:
    """Makes the starts of threads fail where `fails` says so, in turn."""
    start = threading.Thread.start

    def try_to(thread: threading.Thread) -> None:
        if fails.pop(0):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", try_to)
    monkeypatch.setattr(threads, "TRY_AGAIN_S", 0.001)


def test_work_waits_until_a_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_starts(monkeypatch, [True, True, False])
    some = DaemonThreads(limit=1, name="some")
    assert asyncio.run(some.run(lambda: 7)) == 7
    some.close()


def test_a_thread_that_there_is_does_the_work_of_one_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    failing_starts(monkeypatch, [False, True])
    some, may_end = DaemonThreads(limit=2, name="some"), threading.Event()

    async def both() -> list[object]:
        first = asyncio.ensure_future(some.run(may_end.wait))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(some.run(lambda: 7))
        await asyncio.sleep(0)
        may_end.set()
        return await asyncio.gather(first, second)

    assert asyncio.run(both()) == [True, 7]
    some.close()

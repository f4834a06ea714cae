"""Threads in which Triton's client for HTTP is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import gevent

T = TypeVar("T")


class ClientThreads:
    """Calls work in threads. The client begins a loop of gevent in each, which would stay open when the thread ends."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        """Stores the threads."""
        self._pool = pool

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begins work."""
        return self._pool.submit(_without_loop, work, *arguments)


@contextmanager
def client_threads(count: int) -> Iterator[ClientThreads]:
    """Hands threads over, and waits for their work."""
    with ThreadPoolExecutor(count) as pool:
        yield ClientThreads(pool)


def _without_loop(work: Callable[..., T], *arguments: Any) -> T:
    try:
        return work(*arguments)
    finally:
        gevent.get_hub().destroy(destroy_loop=True)

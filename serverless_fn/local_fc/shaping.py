"""Uplink that all connections share: received bytes are passed on only when the link could have carried them."""

from __future__ import annotations

import math
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class SharedLink(Generic[Item]):
    """Link of a given rate that serves chunks in order of arrival: a token bucket of depth zero.

    With a depth above zero a small batch would take no time after each pause, which is not how a link behaves.

    Args:
        bytes_per_s: the rate; None is unlimited, 0 carries nothing until the rate is set again.

    >>> link = SharedLink[str](1000.0)
    >>> link.push("a", 500, now_s=0.0)
    >>> link.push("b", 500, now_s=0.2)
    >>> link.pop_due(0.4), link.next_at_s()
    ([], 0.5)
    >>> link.pop_due(1.0)
    ['a', 'b']
    """

    def __init__(self, bytes_per_s: float | None) -> None:
        self._bytes_per_s = bytes_per_s
        self._queue: deque[tuple[Item, int]] = deque()
        self._sent_bytes = 0.0
        self._as_of_s = -math.inf
        self.carried_bytes = 0

    @property
    def bytes_per_s(self) -> float | None:
        """Rate of the link; None if unlimited."""
        return self._bytes_per_s

    def push(self, item: Item, size_bytes: int, *, now_s: float) -> None:
        """Adds a chunk; `pop_due` returns it when the link has carried its last byte."""
        if not self._queue:
            self._as_of_s, self._sent_bytes = now_s, 0.0
        self._queue.append((item, size_bytes))

    def pop_due(self, now_s: float) -> list[Item]:
        """Returns the chunks that the link has carried by now, in order."""
        due: list[Item] = []
        while self._queue and self.next_at_s() <= now_s:
            # The next chunk began when this one ended, even if this call is later.
            self._as_of_s, self._sent_bytes = self.next_at_s(), 0.0
            item, size_bytes = self._queue.popleft()
            self.carried_bytes += size_bytes
            due.append(item)
        return due

    def next_at_s(self) -> float:
        """Returns the time at which the first chunk will have been carried; infinite without one or at rate 0."""
        if not self._queue:
            return math.inf
        if self._bytes_per_s is None:
            return self._as_of_s
        left_bytes = self._queue[0][1] - self._sent_bytes
        return self._as_of_s + left_bytes / self._bytes_per_s if self._bytes_per_s else math.inf

    def set_rate(self, bytes_per_s: float | None, *, now_s: float) -> None:
        """Changes the rate; the carried part of the first chunk is kept."""
        if self._queue and self._bytes_per_s is not None and now_s > self._as_of_s:
            self._sent_bytes += (now_s - self._as_of_s) * self._bytes_per_s
        self._as_of_s = max(self._as_of_s, now_s)
        self._bytes_per_s = bytes_per_s

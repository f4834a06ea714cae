"""Read-outs for operators (status, batches, explanations, metrics): in turn, and never most of the loop's time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SHARE = 0.2
"""Most of the loop's time that read-outs take while requests for them queue up; the rest is for inference."""


class ReadOuts:
    """Makes read-outs in turn: after one, the next waits until inference has had the rest of the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Stores the clock, in seconds."""
        self._clock = clock
        self._turn = asyncio.Lock()
        self._free_at_s = float("-inf")

    async def make(self, work: Callable[[], T]) -> T:
        """Returns what `work` makes, when its turn has come."""
        async with self._turn:
            wait_s = self._free_at_s - self._clock()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            begun_s = self._clock()
            try:
                return work()
            finally:
                ended_s = self._clock()
                self._free_at_s = ended_s + (ended_s - begun_s) * (1 / SHARE - 1)

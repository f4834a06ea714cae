"""An asyncio event loop whose time jumps to the next timer: what takes hours on a clock runs in milliseconds."""

import asyncio
import math
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class NothingLeft(RuntimeError):
    """Every task waits and no timer is armed: on a real loop this would hang for ever."""


class _JumpingSelector(selectors.SelectSelector):
    """Where a real loop would sleep until its next timer, time moves there instead."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise NothingLeft("every task waits for something that no timer and no other task will bring")
        if timeout > 0:
            self.loop.jump()
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at `start_s`; sockets, threads and signals do not work on it."""

    def __init__(self, start_s: float = 0.0) -> None:
        """Stores the start; nothing runs yet."""
        selector = _JumpingSelector()
        super().__init__(selector)
        selector.loop = self
        self._virtual_now_s = start_s

    def time(self) -> float:
        """Returns virtual seconds."""
        return self._virtual_now_s

    def leap(self, seconds: float) -> None:
        """Lets the clock leap: whatever fell due meanwhile is late."""
        self._virtual_now_s += seconds

    def jump(self) -> None:
        """Moves to the first timer that is armed. The loop has dropped cancelled ones from the front before."""
        due_s = self._scheduled[0].when()  # type: ignore[attr-defined]
        if due_s + self._clock_resolution <= due_s:  # type: ignore[attr-defined]
            # So late that the loop's tolerance is lost to rounding: it would wait for this timer for ever.
            due_s = math.nextafter(due_s, math.inf)
        self._virtual_now_s = max(self._virtual_now_s, due_s)


def run_virtual(main: Coroutine[Any, Any, T], *, start_s: float = 0.0) -> T:
    """Runs a coroutine to its end under virtual time, like asyncio.run."""
    loop = VirtualLoop(start_s)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main)
    finally:
        _cancel_all(loop)
        asyncio.set_event_loop(None)
        loop.close()


def _cancel_all(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

"""A cancellation of the current task by the ingress itself, told apart from that of a client that leaves."""

from __future__ import annotations

import asyncio
import sys


class OwnCancellation:
    """Cancels the task in which it was made, and tells it afterwards that this was why."""

    __slots__ = ("_task", "asked")

    def __init__(self) -> None:
        """Remembers the current task."""
        self._task = asyncio.current_task()
        self.asked = False
        """Whether the task was cancelled by this."""

    def cancel(self) -> None:
        """Cancels the task, unless it has ended."""
        assert self._task is not None
        self.asked = self._task.cancel()

    def caught(self) -> bool:
        """Returns whether the cancellation that the task met was this one; if so, revokes it."""
        if self.asked and sys.version_info >= (3, 11):
            assert self._task is not None
            self._task.uncancel()
        return self.asked

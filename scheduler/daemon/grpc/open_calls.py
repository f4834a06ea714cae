"""The open calls of each client: where there is no room for one more, the client that has most gives way to others."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected
from scheduler.daemon.ingress.own_cancellation import OwnCancellation


class OpenCalls:
    """Calls and streams that have begun and have not ended, those that wait for their client included.

    A client alone may have all there is room for. Where that is reached, the newest call of the client that has most
    ends for a call of one that has fewer.
    """

    def __init__(self, most: Callable[[], int]) -> None:
        """Opens nothing.

        Args:
            most: how many calls may be open at the moment.
        """
        self._most = most
        self._open: dict[str, dict[OwnCancellation, None]] = {}
        self._leaving: Counter[str] = Counter()
        """Calls whose work has ended, and whose status is still to be taken by the client."""
        self.count = 0
        """Open calls of all clients."""

    @contextmanager
    def opened(self, key: str, context: Any) -> Iterator[None]:
        """Counts a call that the current task serves.

        Args:
            key: of its client's shares.
            context: the call.

        Raises:
            Rejected: its client has most of the calls that may be open, or, later, has to give way to another one.
        """
        self._make_room(key)
        call = OwnCancellation()
        self._open.setdefault(key, {})[call] = None
        self.count += 1
        try:
            yield
        except asyncio.CancelledError:
            if not call.caught():
                raise
            raise self._no_room(key) from None
        finally:
            self._end(key, call)
            self._leaving[key] += 1
            context.add_done_callback(lambda _: self._left(key))

    def _make_room(self, key: str) -> None:
        """Ends a call of the client that has most, if there is no room.

        Raises:
            Rejected: that client is the one that asks.
        """
        most, own = self._most(), len(self._open.get(key, ()))
        if own + self._leaving[key] >= 2 * most:
            # A client that takes no status must not gather calls by that.
            raise _refusal(
                f"this client has {own} open calls and {self._leaving[key]} that have ended, whose statuses it has not"
                " taken; take them, or"
            )
        if self.count < most:
            return
        greedy = max(self._open, key=lambda each: len(self._open[each]))
        if greedy == key or len(self._open[greedy]) <= own + 1:
            raise self._no_room(key)
        newest = next(reversed(self._open[greedy]))
        newest.cancel()
        self._end(greedy, newest)

    def _end(self, key: str, call: OwnCancellation) -> None:
        """Counts a call out, if it is counted in."""
        calls = self._open.get(key, {})
        if call in calls:
            del calls[call]
            self.count -= 1
            if not calls:
                del self._open[key]

    def _left(self, key: str) -> None:
        self._leaving[key] -= 1
        if not self._leaving[key]:
            del self._leaving[key]

    def _no_room(self, key: str) -> Rejected:
        own = len(self._open.get(key, ()))
        has = f"this client has {own} of them; end some, or" if own else "other clients have them;"
        return _refusal(f"{self.count} calls are open, which is all there is room for, and {has}")


def _refusal(begun: str) -> Rejected:
    return Rejected(429, f"{begun} come again after the time in retry-after", {RETRY_HEADER: "1"})

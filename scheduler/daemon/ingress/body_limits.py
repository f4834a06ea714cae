"""Limits of bodies that arrive: of each, and of all together, whatever protocol they come by."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from dataclasses import dataclass, field

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected

BODY_TIME_LIMIT_S = 60.0
"""Longest time for a body to arrive: a client that stalls occupies memory that others could use."""


@dataclass(slots=True)
class BodyLimits:
    """The limits, and the bytes that have arrived of bodies that are not whole yet."""

    body_limit_bytes: int = 0
    """Of one body, decoded."""
    total_limit_bytes: int = 0
    """Of all bodies that are arriving."""
    time_limit_s: float = BODY_TIME_LIMIT_S
    arriving_bytes: int = 0
    leaving_bytes: int = 0
    """The part of them that belongs to bodies that are given up, which their tasks have yet to notice."""
    _arrivals: set[Arrival] = field(default_factory=set)
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    def check(self, size_bytes: int) -> None:
        """Checks a body of which so many bytes have arrived or are announced.

        Raises:
            Rejected: it is too large, or too many arrive at once.
        """
        if size_bytes > self.body_limit_bytes:
            raise Rejected(
                413,
                f"the body is over the limit of {self.body_limit_bytes} bytes;"
                " send fewer items at once, or raise daemon.body_limit_bytes",
            )
        if self._over:
            raise self.too_many()

    def begin(self, peer: str) -> Arrival:
        """Counts a body that the current task reads, of a client's address; `Arrival.end` ends it."""
        arrival = Arrival(self, peer)
        self._arrivals.add(arrival)
        return arrival

    def make_room(self, wanting: Arrival) -> None:
        """Gives up bodies for another one while too much arrives.

        Of the peer of which most arrives, the largest; none, where that is the other one itself or a smaller one of its
        own peer.
        """
        while self._over:
            by_peer: dict[str, int] = {}
            for each in self._arrivals:
                if not each.is_given_up:
                    by_peer[each.peer] = by_peer.get(each.peer, 0) + each.arrived_bytes
            greedy = max(by_peer, key=lambda peer: by_peer[peer])
            candidates = (each for each in self._arrivals if each.peer == greedy and not each.is_given_up)
            largest = max(candidates, key=lambda each: each.arrived_bytes)
            others = greedy != wanting.peer and by_peer[greedy] > by_peer.get(wanting.peer, 0)
            if largest is wanting or not (others or largest.arrived_bytes > wanting.arrived_bytes):
                break
            self.leaving_bytes += largest.give_up()

    @property
    def _over(self) -> bool:
        return self.arriving_bytes - self.leaving_bytes > self.total_limit_bytes

    def too_many(self) -> Rejected:
        """Returns the error for a body that there is no room for."""
        return Rejected(429, "too many bodies are arriving at once; send this one again", {RETRY_HEADER: "1"})

    def too_slow(self) -> Rejected:
        """Returns the error for a body that has not arrived within the time limit."""
        return Rejected(408, f"the body did not arrive within {self.time_limit_s:g} s; send it again")

    async def reserve(self, size_bytes: int) -> None:
        """Counts a body of which only the end will be seen, when there is room for that many bytes; `release` ends it.

        One body has room, however large it is.
        """
        while self._waiting or self._full(size_bytes):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake()
                raise
            if not self._full(size_bytes):
                break
        self.arriving_bytes += size_bytes
        self._wake()

    def release(self, size_bytes: int) -> None:
        """Takes bytes out of the count: their body is whole, or will never be."""
        self.arriving_bytes -= size_bytes
        self._wake()

    def _full(self, size_bytes: int) -> bool:
        return self.arriving_bytes > 0 and self.arriving_bytes + size_bytes > self.total_limit_bytes

    def _wake(self) -> None:
        """Lets the first of those that wait look again; it wakes the next one."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break


class Arrival:
    """A body that arrives in the current task, and can be given up for the bodies of others."""

    def __init__(self, limits: BodyLimits, peer: str) -> None:
        """Begins with no byte."""
        self._limits = limits
        self._task = asyncio.current_task()
        self.peer = peer
        self.arrived_bytes = 0
        self.is_given_up = False

    def announce(self, size_bytes: int) -> None:
        """Checks a size that the header names.

        Raises:
            Rejected: it is too large, or too many arrive at once and this one has the largest share.
        """
        self._limits.make_room(self)
        self._limits.check(size_bytes)

    def add(self, size_bytes: int) -> None:
        """Counts further bytes.

        Raises:
            Rejected: as `announce` does.
        """
        self.arrived_bytes += size_bytes
        self._limits.arriving_bytes += size_bytes
        self._limits.make_room(self)
        self._limits.check(self.arrived_bytes)

    def give_up(self) -> int:
        """Cancels the task that reads it; returns the bytes that it will release."""
        assert self._task is not None
        self.is_given_up = self._task.cancel()
        return self.arrived_bytes if self.is_given_up else 0

    def caught(self) -> bool:
        """Returns whether the cancellation that the task met was that; if so, revokes it."""
        if self.is_given_up and sys.version_info >= (3, 11):
            assert self._task is not None
            self._task.uncancel()
        return self.is_given_up

    def end(self) -> None:
        """Takes its bytes out of the count: it is whole, or will never be."""
        limits = self._limits
        limits._arrivals.discard(self)  # noqa: SLF001 - one structure in two classes
        if self.is_given_up:
            limits.leaving_bytes -= self.arrived_bytes
        limits.release(self.arrived_bytes)


class TimeLimit:
    """A timer that cancels the current task, and distinguishes its own cancellation from that of a lost client.

    asyncio.timeout exists since Python 3.11; asyncio.wait_for in Python 3.10 starts a task for every request.
    """

    def __init__(self, limit_s: float) -> None:
        """Starts the timer."""
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self._expire)
        self._expired = False

    def _expire(self) -> None:
        assert self._task is not None
        self._expired = self._task.cancel()

    def caught(self) -> bool:
        """Returns whether the timer caused the cancellation; if so, revokes it."""
        if self._expired and sys.version_info >= (3, 11):
            assert self._task is not None
            self._task.uncancel()
        return self._expired

    def end(self) -> None:
        """Stops the timer."""
        self._timer.cancel()

"""Limits of bodies that arrive: of each, and of all together, whatever protocol they come by."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected
from scheduler.daemon.ingress.own_cancellation import OwnCancellation
from scheduler.daemon.ingress.shares import shortened

BODY_TIME_LIMIT_S = 60.0
"""Longest time for a body to arrive: a client that stalls occupies memory that others could use."""

BODIES_AT_ONCE = 500
"""Bodies of one client that may arrive so slowly at the same time; where there are more, each has less time."""


@dataclass(slots=True)
class BodyLimits:
    """The limits, and the bytes that have arrived of bodies that are not whole yet."""

    body_limit_bytes: int = 0
    """Of one body, decoded."""
    total_limit_bytes: int = 0
    """Of all bodies that are arriving."""
    time_limit_s: float = BODY_TIME_LIMIT_S
    """Of one body, where its client has few that arrive."""
    arriving_bytes: int = 0
    leaving_bytes: int = 0
    """The part of them that belongs to bodies that are given up, which their tasks have yet to notice."""
    _arrivals: set[Arrival] = field(default_factory=set)
    _of_peer: Counter[str] = field(default_factory=Counter)
    """Arrivals of each peer."""
    _reserved: Counter[str] = field(default_factory=Counter)
    """Bytes that are reserved, of each peer."""
    _reserved_bytes: int = 0
    _waiting: OrderedDict[str, deque[tuple[int, asyncio.Future[None]]]] = field(default_factory=OrderedDict)

    def check(self, size_bytes: int) -> None:
        """Checks a body of which so many bytes have arrived or are announced.

        Raises:
            Rejected: it is too large, or too many arrive at once.
        """
        self.check_size(size_bytes)
        if self._over:
            raise self.too_many()

    def check_size(self, size_bytes: int) -> None:
        """Checks the size of one body.

        Raises:
            Rejected: it is too large.
        """
        if size_bytes > self.body_limit_bytes:
            raise Rejected(
                413,
                f"the body is over the limit of {self.body_limit_bytes} bytes;"
                " send fewer items at once, or raise daemon.body_limit_bytes",
            )

    def fits_at_once(self, size_bytes: int) -> bool:
        """Returns whether a body that has arrived whole, in one piece, is within the limits; else `begin` says."""
        over = self.arriving_bytes - self._reserved_bytes - self.leaving_bytes + size_bytes > self.total_limit_bytes
        return size_bytes <= self.body_limit_bytes and not over

    def begin(self, peer: str, give_up: Callable[[], object] | None = None) -> Arrival:
        """Counts a body of a client; `Arrival.end` ends it.

        Args:
            peer: the key of the client.
            give_up: is called when others need its room; None: the current task reads it, and is cancelled.
        """
        arrival = Arrival(self, peer, give_up)
        self._arrivals.add(arrival)
        self._of_peer[peer] += 1
        return arrival

    def time_limit_of(self, peer: str) -> float:
        """Returns the seconds in which the next body of a client must arrive."""
        return shortened(self.time_limit_s, self._of_peer[peer], BODIES_AT_ONCE)

    def _ended(self, arrival: Arrival) -> None:
        self._arrivals.discard(arrival)
        self._of_peer[arrival.peer] -= 1
        if not self._of_peer[arrival.peer]:
            del self._of_peer[arrival.peer]

    def make_room(self, wanting: Arrival) -> None:
        """Gives up bodies for another one while too much arrives.

        Of the peer of which most arrives, the largest; none, where that is the other one itself or a smaller one of its
        own peer.
        """
        while self._over:
            by_peer: dict[str, int] = {}
            for each in self._arrivals:
                if not each.asked:
                    by_peer[each.peer] = by_peer.get(each.peer, 0) + each.arrived_bytes
            greedy = max(by_peer, key=lambda peer: by_peer[peer])
            candidates = (each for each in self._arrivals if each.peer == greedy and not each.asked)
            largest = max(candidates, key=lambda each: each.arrived_bytes)
            others = greedy != wanting.peer and by_peer[greedy] > by_peer.get(wanting.peer, 0)
            if largest is wanting or not (others or largest.arrived_bytes > wanting.arrived_bytes):
                break
            self.leaving_bytes += largest.give_up()

    @property
    def _over(self) -> bool:
        # What is only reserved, for messages that may never come, refuses no body that does arrive.
        return self.arriving_bytes - self._reserved_bytes - self.leaving_bytes > self.total_limit_bytes

    def too_many(self) -> Rejected:
        """Returns the error for a body that there is no room for."""
        return Rejected(429, "too many bodies are arriving at once; send this one again", {RETRY_HEADER: "1"})

    def too_slow(self, limit_s: float | None = None) -> Rejected:
        """Returns the error for a body that has not arrived within its time; None: that of a client with few."""
        return Rejected(408, f"the body did not arrive within {limit_s or self.time_limit_s:.3g} s; send it again")

    async def reserve(self, size_bytes: int, peer: str = "") -> None:
        """Counts a body of which only the end will be seen, when there is room for that many bytes; `release` ends it.

        One body has room, however large it is; beside what others have reserved, a peer that has nothing finds room for
        one more. Peers that wait take turns.
        """
        if self._waiting or self._full(size_bytes, peer):
            turn = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(peer, deque()).append((size_bytes, turn))
            self._wake()
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.release(size_bytes, peer)
                else:
                    self._wake()
                raise
        else:
            self._reserve(size_bytes, peer)

    def release(self, size_bytes: int, peer: str = "") -> None:
        """Gives back what was reserved: the body is whole, or will never be."""
        self._reserved[peer] -= size_bytes
        self._reserved_bytes -= size_bytes
        if not self._reserved[peer]:
            del self._reserved[peer]
        self._left(size_bytes)

    def _reserve(self, size_bytes: int, peer: str) -> None:
        self._reserved[peer] += size_bytes
        self._reserved_bytes += size_bytes
        self.arriving_bytes += size_bytes

    def _left(self, size_bytes: int) -> None:
        self.arriving_bytes -= size_bytes
        self._wake()

    def _full(self, size_bytes: int, peer: str) -> bool:
        kept = self.body_limit_bytes if self._reserved and not self._reserved.get(peer) else 0
        return self.arriving_bytes > 0 and self.arriving_bytes + size_bytes > self.total_limit_bytes + kept

    def _wake(self) -> None:
        """Lets in those that wait, as long as there is room, the peer first that has waited longest since its last."""
        looked = 0
        while looked < len(self._waiting):
            peer, waiting = next(iter(self._waiting.items()))
            while waiting and waiting[0][1].done():
                waiting.popleft()  # its client has gone
            if not waiting:
                del self._waiting[peer]
                continue
            self._waiting.move_to_end(peer)
            size_bytes, turn = waiting[0]
            if self._full(size_bytes, peer):
                looked += 1
                continue
            waiting.popleft()
            self._reserve(size_bytes, peer)
            turn.set_result(None)
            looked = 0


class Arrival(OwnCancellation):
    """A body that arrives, and can be given up for the bodies of others."""

    def __init__(self, limits: BodyLimits, peer: str, give_up: Callable[[], object] | None = None) -> None:
        """Begins with no byte; see `BodyLimits.begin`."""
        super().__init__()
        self._limits = limits
        self._tell = give_up
        self.peer = peer
        self.arrived_bytes = 0

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
        if self.asked:
            self._limits.leaving_bytes += size_bytes  # they came before the reading ended
        self._limits.make_room(self)
        self._limits.check(self.arrived_bytes)

    def give_up(self) -> int:
        """Ends its reading; returns the bytes that it will release."""
        if self._tell is None:
            self.cancel()
        else:
            self.asked = True
            self._tell()
        return self.arrived_bytes if self.asked else 0

    def end(self) -> None:
        """Takes its bytes out of the count: it is whole, or will never be."""
        limits = self._limits
        limits._ended(self)  # noqa: SLF001 - one structure in two classes
        if self.asked:
            limits.leaving_bytes -= self.arrived_bytes
        limits._left(self.arrived_bytes)  # noqa: SLF001


class TimeLimit(OwnCancellation):
    """A timer that cancels the current task.

    asyncio.timeout exists since Python 3.11; asyncio.wait_for in Python 3.10 starts a task for every request.
    """

    def __init__(self, limit_s: float) -> None:
        """Starts the timer."""
        super().__init__()
        self._timer = asyncio.get_running_loop().call_later(limit_s, self.cancel)

    def end(self) -> None:
        """Stops the timer."""
        self._timer.cancel()

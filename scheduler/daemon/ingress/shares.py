"""What each client holds of the queue: where there is no room left, the one that holds most gives way to the others."""

from __future__ import annotations

import asyncio

from scheduler.daemon.ingress.own_cancellation import OwnCancellation
from scheduler.domain.errors import Refusal, RefusalKind

RETRY_AFTER_S = 1.0
LEAST_LIMIT_S = 5.0
"""Judgement: a client that is cut off opens the next connection at once, which costs more than one that stalls."""
GREEDY = "greedy"
"""Reason of such a refusal, in metrics."""
MOST_PUT_OUT = 16
"""Requests that may be refused to make room for one; bounds the work of an arrival."""


def shortened(limit_s: float, arriving: int, at_once: int) -> float:
    """Returns the time that one of a client's headers or bodies has to arrive.

    A client may take `limit_s` for `at_once` of them together, and so much less for each where it has more; never less
    than `LEAST_LIMIT_S`.

    >>> shortened(60.0, 10, 64), shortened(60.0, 128, 64), shortened(60.0, 10**6, 64)
    (60.0, 30.0, 5.0)
    """
    return limit_s if arriving <= at_once else max(min(LEAST_LIMIT_S, limit_s), limit_s * at_once / arriving)


class Place(OwnCancellation):
    """The place of one open request of a client, which the current task serves."""

    def __init__(self, shares: Shares, key: str, body_bytes: int) -> None:
        """Takes no room yet."""
        # As its base does it, without a call: one is made for each request.
        self._task = asyncio.current_task()
        self.asked = False
        self._shares = shares
        self._gone: asyncio.Future[None] | None = None
        self.key = key
        self.body_bytes = body_bytes

    def give_up(self) -> asyncio.Future[None]:
        """Cancels the task; returns what is done once it has ended its request."""
        self.cancel()
        self._shares.end(self)
        self._gone = asyncio.get_running_loop().create_future()
        return self._gone

    def end(self) -> None:
        """Frees the room."""
        self._shares.end(self)
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)


class Shares:
    """The open requests of each client: those that wait and those in flight.

    A client alone may fill the queue. Where it is full, a request of another client that holds less gets the place of
    the newest one of the client that holds most.
    """

    def __init__(self, max_requests: int = 1, max_bytes: int = 1) -> None:
        """Stores how many requests and bytes of bodies there is room for."""
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.requests = 0
        """Open requests of all clients."""
        self._bytes = 0
        self._held: dict[str, dict[Place, None]] = {}
        self._held_bytes: dict[str, int] = {}

    @property
    def clients(self) -> int:
        """Number of clients that hold something."""
        return len(self._held)

    def place(self, key: str, body_bytes: int) -> Place:
        """Returns a place for a request of the current task, which `take` counts and `Place.end` frees."""
        return Place(self, key, body_bytes)

    def is_full(self, body_bytes: int) -> bool:
        """Returns whether one more request of so many bytes is too much."""
        return self.requests >= self.max_requests or self._bytes + body_bytes > self.max_bytes

    def take(self, place: Place) -> None:
        """Counts a request in."""
        self.requests += 1
        self._bytes += place.body_bytes
        held = self._held.get(place.key)
        if held is None:
            held = self._held[place.key] = {}
            self._held_bytes[place.key] = 0
        held[place] = None
        self._held_bytes[place.key] += place.body_bytes

    def end(self, place: Place) -> None:
        """Counts a request out, if it is counted in."""
        held = self._held.get(place.key)
        if held is None or place not in held:
            return
        del held[place]
        self.requests -= 1
        self._bytes -= place.body_bytes
        self._held_bytes[place.key] -= place.body_bytes
        if not held:
            del self._held[place.key], self._held_bytes[place.key]

    async def make_room(self, place: Place) -> Refusal | None:
        """Counts a request in where the queue is full, and frees a place for it, if a client holds more than its own.

        Returns:
            Why the request is refused itself: its client holds most, and others hold something too. None: it may come
            in, or its client is alone, and the queue itself says whether there is room.
        """
        leaving: list[asyncio.Future[None]] = []
        while self.is_full(place.body_bytes) and len(leaving) < MOST_PUT_OUT:
            victim = self._newest_of_greediest(place)
            if victim is None:
                break
            leaving.append(victim.give_up())
        if not leaving and any(key != place.key for key in self._held):
            return self.refusal(place.key)
        # At once, so that no other request takes the room meanwhile.
        self.take(place)
        for each in leaving:
            await each
        return None

    def refusal(self, key: str) -> Refusal:
        """Returns what a client is told whose request gives way."""
        held = len(self._held.get(key, ()))
        message = (
            f"the queue is full, and this client holds {held} of its {self.max_requests} places, more than others that"
            " ask; retry after the time in Retry-After"
        )
        return Refusal(RefusalKind.QUEUE_FULL, message, RETRY_AFTER_S, GREEDY)

    def _newest_of_greediest(self, place: Place) -> Place | None:
        """Returns the request that gives way to one; None where its own client would then hold most."""
        key = max(self._held, key=self._load, default=place.key)
        if key == place.key or self._load(key) <= self._load(place.key, 1, place.body_bytes):
            return None
        return next(reversed(self._held[key]))

    def _load(self, key: str, further: int = 0, further_bytes: int = 0) -> float:
        """Returns the share of the room that a client holds, of places or of bytes, whichever is more."""
        requests = len(self._held.get(key, ())) + further
        held_bytes = self._held_bytes.get(key, 0) + further_bytes
        return max(requests / self.max_requests, held_bytes / self.max_bytes)

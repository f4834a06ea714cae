"""A request's body that arrives piece by piece: where its bytes go, and within which limits.

What is announced is not believed: a buffer is a few times what has arrived, so that a client that announces much and
sends little takes little memory. Once a fifth of a body is there, it gets one buffer for all of it, in which the socket
writes; no byte of it is copied again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from scheduler.daemon.ingress.body_limits import BodyLimits
from scheduler.daemon.ingress.errors import Rejected

_TIMES = 4
_LEAST_BYTES = 16 * 1024


class ArrivingBody:
    """One body; `end` ends its count in the limits."""

    def __init__(
        self,
        limits: BodyLimits,
        client: str,
        length: int,
        first: memoryview,
        refuse: Callable[[Rejected], object],
    ) -> None:
        """Takes in its first bytes.

        Args:
            limits: of all bodies.
            client: the key of the client's shares.
            length: bytes that the head announces, more than `first`.
            first: those that came with the head.
            refuse: is called when the rest does not come in time, or others need the room.

        Raises:
            Rejected: it is too large, or too many arrive at once.
        """
        loop = asyncio.get_running_loop()
        self._limits = limits
        self._pieces: list[memoryview] = []
        self._view = memoryview(b"")
        self._filled = 0
        self.missing = length
        self._arrival = limits.begin(client, lambda: loop.call_soon(self._refused, limits.too_many()))
        self._refuse = refuse
        limit_s = limits.time_limit_of(client)
        self._timer: asyncio.TimerHandle | None = loop.call_later(limit_s, self._refused, limits.too_slow(limit_s))
        try:
            self._arrival.announce(length)
            self._open(len(first))
            self._view[: len(first)] = first
            self.took(len(first))
        except Rejected:
            self.end()
            raise

    def room(self) -> memoryview:
        """Returns where the next bytes go: all that are missing, or a part of them."""
        return self._view[self._filled :]

    def took(self, size_bytes: int) -> None:
        """Counts bytes that are in that room now.

        Raises:
            Rejected: it is too large, or too many arrive at once.
        """
        self._filled += size_bytes
        self.missing -= size_bytes
        self._arrival.add(size_bytes)
        if self.missing and self._filled == len(self._view):
            self._pieces.append(self._view)
            self._open(self._arrival.arrived_bytes)

    def whole(self) -> bytes | memoryview:
        """Returns the body, of which nothing is missing, and ends its count."""
        self.end()
        pieces, view, filled = self._pieces, self._view, self._filled
        # What calls back holds this object, and this object that: the body would stay until cycles are searched for.
        self._pieces, self._view, self._filled = [], memoryview(b""), 0
        return b"".join([*pieces, view[:filled]]) if pieces else view

    def end(self) -> None:
        """Takes it out of the limits: it is whole, or will never be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._arrival.end()

    def _open(self, arrived_bytes: int) -> None:
        """Opens a buffer for what is missing, or for some times what has arrived."""
        size_bytes = min(self.missing, max(_LEAST_BYTES, (1 + _TIMES) * arrived_bytes))
        # Unlike a bytearray it is not filled with zeros first, which takes as long as to receive it.
        self._view, self._filled = np.empty(size_bytes, np.uint8).data, 0

    def _refused(self, error: Rejected) -> None:
        if self._timer is not None:
            self._refuse(error)

"""Measures the uplink while it is under load: what the kernel says that the functions' hosts have acknowledged.

Answers tell how long a batch was under way, but when several share the uplink, or one is given up, they do not tell
what the uplink carried meanwhile. The connections themselves do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.backends.tcp_info import sent
from scheduler.domain.messages import UplinkCarried

LOOK_S = 0.01
"""How often the connections are looked at while calls are under way. Judgement: a hundredth of a core at most."""
LEAST_S = 0.015
"""Shortest time that is told. Judgement: at least two looks."""
LEAST_BYTES = 64 * 1024
"""Fewest bytes that a time shorter than PIECE_S tells of; what carried less is left to its answers. A receiver's buffer
takes the first bytes at once, so that the rest of a short transfer seems slower. Derived: twice the buffer of the local
endpoint; without this the demo takes its link to be cut again and again."""
PIECE_S = 0.25
"""Length of what is told at once. Judgement: ten looks; a link that is cut is known within a few pieces."""


class UplinkMeter:
    """Looks at the connections while calls are under way, and tells what they carried in times without a pause."""

    def __init__(self, *, sockets: Callable[[], Sequence[Any]], clock: Clock) -> None:
        """Stores its parts.

        Args:
            sockets: returns the open connections to the functions.
            clock: monotonic seconds.
        """
        self._sockets = sockets
        self._clock = clock
        self.post: Callable[[UplinkCarried], None] = lambda _: None
        """Gives the engine a message."""
        self._calls = 0
        self._timer: asyncio.TimerHandle | None = None
        self._acknowledged: dict[Any, int] = {}
        """By connection: its bytes at the last look."""
        self._since_s: float | None = None
        """When the present piece began; None: nothing was under way at the last look."""
        self._until_s = 0.0
        """The last look at which something was under way."""
        self._carried_bytes = 0
        self._opening = False
        """Whether nothing was acknowledged since something is under way."""

    @property
    def idle(self) -> bool:
        """Whether no call is under way, so that nothing is looked at."""
        return self._timer is None

    @contextmanager
    def call(self) -> Iterator[None]:
        """Measures while a call is under way. On the loop only."""
        self._calls += 1
        if self._timer is None:
            self._acknowledged = {sock: said.acknowledged_bytes for sock in self._sockets() if (said := sent(sock))}
            self._again()
        try:
            yield
        finally:
            self._calls -= 1

    def look(self) -> None:
        """Looks at the connections now."""
        now_s, carried_bytes, under_way, acknowledged = self._clock(), 0, False, {}
        for sock in self._sockets():
            said = sent(sock)
            if said is None:
                continue
            # What is not known yet was opened since the last look.
            carried_bytes += said.acknowledged_bytes - self._acknowledged.get(sock, 0)
            acknowledged[sock] = said.acknowledged_bytes
            under_way = under_way or said.under_way
        self._acknowledged = acknowledged
        if not under_way:
            # When the last byte arrived is not known, so the time ends with the look before.
            self._tell(self._until_s, LEAST_S, LEAST_BYTES)
            self._since_s = None
            return
        if self._since_s is None or (self._opening and carried_bytes):
            # The first bytes are acknowledged a round trip after they left: the time begins with that.
            self._opening = self._since_s is None
            self._since_s, self._until_s, self._carried_bytes = now_s, now_s, 0
            return
        self._until_s = now_s
        self._carried_bytes += carried_bytes
        self._tell(now_s, PIECE_S)

    def _tell(self, end_s: float, least_s: float, least_bytes: int = 0) -> None:
        """Tells what was carried up to a look and begins anew there, if that is long enough."""
        if self._since_s is None or self._carried_bytes < least_bytes:
            return
        if end_s - self._since_s >= least_s:
            self.post(UplinkCarried(self._since_s, end_s, self._carried_bytes))
            self._since_s, self._carried_bytes, self._opening = end_s, 0, False

    def _again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._tick)

    def _tick(self) -> None:
        self.look()
        if self._calls:
            self._again()
        else:
            self._timer, self._since_s = None, None
            self._acknowledged = {}

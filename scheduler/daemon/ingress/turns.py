"""Work that only so much of is done at a time: the clients that ask for it take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected


class Turns:
    """Lets so many in at once, and of each client so many; those that wait are let in client by client."""

    def __init__(self, *, at_once: int, of_client: int, waiting_of_client: int, what: str) -> None:
        """Stores its limits.

        Args:
            at_once: of all clients together.
            of_client: of one client.
            waiting_of_client: how many of one client may wait; the next one is refused.
            what: the work, for the sentence of the refusal.
        """
        self._at_once = at_once
        self._of_client = of_client
        self._waiting_of_client = waiting_of_client
        self._what = what
        self._working: dict[str, int] = {}
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[None]:
        """Waits for the client's turn, which ends with the block.

        Raises:
            Rejected: too many of its requests wait already.
        """
        await self.begin(key)
        try:
            yield
        finally:
            self.end(key)

    def end(self, key: str) -> None:
        """Ends a turn that `begin` began."""
        self._end(key)
        self._let_in()

    async def begin(self, key: str) -> None:
        """Waits for the client's turn; see `turn`."""
        if not self._waiting.get(key) and self._may_work(key):
            self._working[key] = self._working.get(key, 0) + 1
            return
        waiting = self._waiting.setdefault(key, deque())
        if len(waiting) >= self._waiting_of_client:
            sentence = f"{len(waiting)} requests of this client wait for {self._what} already; send this one again"
            raise Rejected(429, sentence, {RETRY_HEADER: "1"})
        turn = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(key)
            self._let_in()
            raise

    def _may_work(self, key: str) -> bool:
        return sum(self._working.values()) < self._at_once and self._working.get(key, 0) < self._of_client

    def _end(self, key: str) -> None:
        self._working[key] -= 1
        if not self._working[key]:
            del self._working[key]

    def _let_in(self) -> None:
        """Gives free turns to those that wait, the client first that has waited longest since its last one."""
        for key in list(self._waiting):
            waiting = self._waiting[key]
            while waiting and waiting[0].done():
                waiting.popleft()  # its client has gone
            if waiting and self._may_work(key):
                self._working[key] = self._working.get(key, 0) + 1
                waiting.popleft().set_result(None)
                self._waiting.move_to_end(key)
            if not waiting:
                del self._waiting[key]

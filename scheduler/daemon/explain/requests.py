"""Requests that can be explained: found by the daemon's number or the client's id, and written down as they end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.explain.file import ExplanationFile
from scheduler.dispatch.decision_ring import Explanation
from scheduler.explain.json_lines import to_json, to_values
from scheduler.explain.text import Context

CLIENT_ID_LENGTH = 128
"""Characters of a client's id that are kept and compared."""
MAX_FOUND = 20
"""Clients may give one id to all their requests."""
WRITE_EVERY_S = 0.1
AT_ONCE = 64
"""Requests taken from the ring in one go: some 0.3 ms of the event loop."""
SETTLE_LIMIT_S = 60.0
"""How long a request that has ended waits for its last batch to come back, before it is written without."""
CLOSE_LIMIT_S = 1.0
"""Longest that a stop waits for the file."""

BesideTheLoop = Callable[[Callable[[], None]], Awaitable[None]]

_logger = logging.getLogger("edgeburst")


class ClientIds:
    """The clients' own ids of the last requests that had one."""

    def __init__(self, limit: int) -> None:
        """Keeps at most `limit` requests."""
        self._limit = limit
        self._order: deque[int] = deque()
        self._names: dict[int, str] = {}
        self._numbers: dict[str, deque[int]] = {}

    def add(self, request_id: int, client_id: str) -> None:
        """Keeps the id of a request; numbers rise from call to call."""
        if len(self._order) >= self._limit:
            forgotten = self._names.pop(self._order.popleft())
            numbers = self._numbers[forgotten]
            numbers.popleft()
            if not numbers:
                del self._numbers[forgotten]
        name = client_id[:CLIENT_ID_LENGTH]
        self._order.append(request_id)
        self._names[request_id] = name
        self._numbers.setdefault(name, deque()).append(request_id)

    def name(self, request_id: int) -> str:
        """Returns the id of a request; empty where it had none."""
        return self._names.get(request_id, "")

    def numbers(self, client_id: str) -> Iterator[int]:
        """Iterates over the requests of that id, newest first."""
        return reversed(self._numbers.get(client_id[:CLIENT_ID_LENGTH], deque()))


class Explanations:
    """What can be explained, by whichever name a request is asked for; and the file, if there is one."""

    def __init__(
        self,
        explain: Callable[[int], Explanation | None],
        *,
        ring: int,
        currency: str,
        clock: Clock,
        wall_clock: Callable[[], datetime],
        file: ExplanationFile | None,
        beside_the_loop: BesideTheLoop,
    ) -> None:
        """Stores its parts.

        Args:
            explain: the engine's word on a request, by number.
            ring: how many requests the engine can explain.
            currency: of all costs.
            clock: the engine's monotonic seconds.
            wall_clock: date and time.
            file: where each request is written once it has ended; None: nowhere.
            beside_the_loop: runs what blocks, one after the other.
        """
        self._explain = explain
        self._ring = ring
        self._currency = currency
        self._clock = clock
        self._wall_clock = wall_clock
        self._file = file
        self._beside_the_loop = beside_the_loop
        self._ids = ClientIds(ring)
        self._ended: deque[tuple[int, float]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._lost = 0

    def arrived(self, request_id: int, client_id: str) -> None:
        """Keeps how a client calls its request."""
        if client_id:
            self._ids.add(request_id, client_id)

    def ended(self, request_id: int) -> None:
        """Lets a request be written soon, where there is a file."""
        if self._file is None:
            return
        if len(self._ended) >= self._ring:
            # The file is slower than the requests: what the ring has forgotten cannot be written.
            self._ended.popleft()
            self._lost += 1
        self._ended.append((request_id, self._clock()))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="explain-file")

    def find(self, name: str) -> list[dict[str, object]]:
        """Returns what is known of the requests of that number or client's id, newest first."""
        numbers = set(list(self._ids.numbers(name))[:MAX_FOUND])
        if name.isascii() and name.isdigit() and len(name) <= 18:
            numbers.add(int(name))
        found = [e for number in sorted(numbers, reverse=True) if (e := self._explain(number)) is not None]
        return [to_values(explanation, self._context(explanation)) for explanation in found[:MAX_FOUND]]

    def status(self) -> dict[str, object]:
        """Returns how many requests are kept, and how the file is doing."""
        file = self._file
        if file is None:
            return {"ring": self._ring, "file": None}
        told = {"written": file.written, "lost": self._lost + file.lost, "failure": file.failure}
        return {"ring": self._ring, "file": file.baseFilename, **told}

    async def close(self) -> None:
        """Writes what has ended and was not written yet, and closes the file; a disk that hangs is left alone."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._finish(), CLOSE_LIMIT_S)

    def _context(self, explanation: Explanation) -> Context:
        return Context(self._ids.name(explanation.request_id), self._first_decided_at(explanation), self._currency)

    def _first_decided_at(self, explanation: Explanation) -> str:
        if not explanation.decisions:
            return ""
        ago = timedelta(seconds=self._clock() - explanation.decisions[0].at_s)
        moment = (self._wall_clock() - ago).astimezone(timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _write(self) -> None:
        """The outermost line of the writing task: a bug in it costs lines of the file, never a request."""
        try:
            while self._ended:
                await asyncio.sleep(WRITE_EVERY_S)
                await self._write_those_who_are_settled()
        except Exception:
            _logger.exception("explain_bug")
        self._writing = None

    async def _write_those_who_are_settled(self) -> None:
        left = len(self._ended)
        while left > 0:
            await self._write_lines(self._take(min(AT_ONCE, left), settled_only=True))
            left -= AT_ONCE

    async def _finish(self) -> None:
        if self._file is not None:
            await self._write_lines(self._take(len(self._ended), settled_only=False))
            await self._beside_the_loop(self._file.close)

    def _take(self, count: int, *, settled_only: bool) -> list[tuple[Explanation, Context]]:
        """Takes the first `count` of those that have ended; whose batches are still under way come again later."""
        taken = []
        for _ in range(count):
            request_id, ended_at_s = self._ended.popleft()
            explanation = self._explain(request_id)
            if explanation is None:
                self._lost += 1
            elif settled_only and _under_way(explanation) and self._clock() < ended_at_s + SETTLE_LIMIT_S:
                self._ended.append((request_id, ended_at_s))
            else:
                taken.append((explanation, self._context(explanation)))
        return taken

    async def _write_lines(self, told: Sequence[tuple[Explanation, Context]]) -> None:
        file = self._file
        if told and file is not None:
            await self._beside_the_loop(lambda: file.write_lines([to_json(*one) for one in told]))


def _under_way(explanation: Explanation) -> bool:
    """Whether a batch of it is not back: after a rescue the loser comes later, and its cost belongs to the story."""
    return any(sending.settled_at_s is None for sending in explanation.sendings)

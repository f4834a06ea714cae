"""Requests that can be explained: found by the daemon's number or the client's id, and written when they end."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Protocol

from scheduler.daemon.backends.batch_send import Clock
from scheduler.daemon.explain.file import ExplanationFile
from scheduler.dispatch.decision_ring import Explanation
from scheduler.domain.tenants import tenant_label
from scheduler.explain.json_lines import to_json, to_values
from scheduler.explain.text import Context

CLIENT_ID_LENGTH = 128
"""Characters of a client's id that are kept and compared."""
MAX_FOUND = 20
"""Maximum of requests found by one id: a client may give all its requests the same id."""
WRITE_EVERY_S = 0.1
AT_ONCE = 64
"""Requests that are read from the ring without a pause; they take about 0.5 ms of the event loop."""
SETTLE_LIMIT_S = 60.0
"""Longest that an ended request waits for its last batch to end; then it is written without the outcome."""
CLOSE_LIMIT_S = 1.0
"""Longest that a stop of the daemon waits for the file."""


class Newest(Protocol):
    """The numbers of the requests that the engine can explain, newest first."""

    def __call__(self, *, missed: bool) -> Iterator[int]:
        """Yields them; with `missed` only those that were refused or late."""
        ...


BesideTheLoop = Callable[[Callable[[], None]], Awaitable[None]]

_logger = logging.getLogger("edgeburst")


class ClientIds:
    """The clients' own ids of the latest requests that had one."""

    def __init__(self, limit: int) -> None:
        """Keeps at most `limit` requests."""
        self._limit = limit
        self._order: deque[int] = deque()
        self._names: dict[int, str] = {}
        self._numbers: dict[str, deque[int]] = {}

    def add(self, request_id: int, client_id: str) -> None:
        """Keeps the id of a request; the request numbers of successive calls rise."""
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
        """Returns the id of a request; empty if it had none."""
        return self._names.get(request_id, "")

    def numbers(self, client_id: str) -> Iterator[int]:
        """Iterates over the requests of that id, newest first."""
        return reversed(self._numbers.get(client_id[:CLIENT_ID_LENGTH], deque()))


class Owners:
    """The names of the tokens that the latest requests were sent with."""

    def __init__(self, limit: int) -> None:
        """Keeps at most `limit` requests."""
        self._limit = limit
        self._names: dict[int, str] = {}
        self._first = 0
        """Number from which it is known of every request."""

    def add(self, request_id: int, owner: str) -> None:
        """Keeps the token's name of a request, empty for none; the numbers of successive calls rise."""
        if not owner:
            return
        if len(self._names) >= self._limit:
            oldest = next(iter(self._names))
            del self._names[oldest]
            self._first = oldest + 1
        self._names[request_id] = owner

    def may_see(self, request_id: int, owner: str | None) -> bool:
        """Returns whether a request was sent with that token; None: any."""
        return owner is None or (request_id >= self._first and self._names.get(request_id, "") == owner)


class Explanations:
    """The explanations of the latest requests, by number or client id, and the file for them, if there is one."""

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
        newest: Newest | None = None,
    ) -> None:
        """Stores its parts.

        Args:
            explain: returns the engine's explanation of a request number, None if it is unknown.
            ring: how many requests the engine can explain.
            currency: currency of all costs.
            clock: the engine's monotonic seconds.
            wall_clock: returns date and time.
            file: the file that gets each request when it has ended; None: no file.
            beside_the_loop: runs blocking calls in a thread, one after the other.
            newest: yields the numbers of the requests that the engine can explain, of those that missed alone, newest
                first; None: it knows none.
        """
        self._newest = newest
        self._explain = explain
        self._ring = ring
        self._currency = currency
        self._clock = clock
        self._wall_clock = wall_clock
        self._file = file
        self._beside_the_loop = beside_the_loop
        self._ids = ClientIds(ring)
        self._owners = Owners(ring)
        self._ended: deque[tuple[int, float]] = deque()
        self._writing: asyncio.Task[None] | None = None
        self._lost = 0
        self.shares: Mapping[str, float] = {}
        """Of the configured tenants; empty without."""

    def arrived(self, request_id: int, client_id: str, owner: str = "") -> None:
        """Keeps the client's id of a new request, and the name of the token that it was sent with."""
        if client_id:
            self._ids.add(request_id, client_id)
        if owner:
            self._owners.add(request_id, owner)

    def ended(self, request_id: int) -> None:
        """Schedules an ended request to be written, if there is a file."""
        if self._file is None:
            return
        if len(self._ended) >= self._ring:
            # The file is slower than the requests: a request that has left the ring cannot be written.
            self._ended.popleft()
            self._lost += 1
        self._ended.append((request_id, self._clock()))
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="explain-file")

    def find(self, name: str, owner: str | None = None, before: int | None = None) -> list[dict[str, object]]:
        """Returns the explanation of the request with that number, then those with that client id.

        Args:
            name: the number or the id.
            owner: name of the token that they were sent with, empty for none; None: whatever it was.
            before: the number that theirs are below; None: any.
        """
        numbered: list[int] = []
        if name.isascii() and name.isdigit() and len(name) <= 18 and self._owners.may_see(int(name), owner):
            numbered = [int(name)] if before is None or int(name) < before else []
        found = self._explained(numbered)
        others = self.find_client(name, owner, before)
        return (found + [each for each in others if each["request_id"] not in numbered])[:MAX_FOUND]

    def find_client(self, name: str, owner: str | None = None, before: int | None = None) -> list[dict[str, object]]:
        """Returns the explanations of the requests with that client id, the newest MAX_FOUND, newest first."""
        all_own = (number for number in self._ids.numbers(name) if self._owners.may_see(number, owner))
        own = (number for number in all_own if before is None or number < before)
        return self._explained(sorted(islice(own, MAX_FOUND), reverse=True))

    def last(self, owner: str | None = None, *, missed: bool = False) -> list[dict[str, object]]:
        """Returns the explanation of the newest request of that owner, or of the newest that was refused or late."""
        numbers = iter(()) if self._newest is None else self._newest(missed=missed)
        own = (number for number in numbers if self._owners.may_see(number, owner))
        return self._explained(list(islice(own, 1)))

    def _explained(self, numbers: Sequence[int]) -> list[dict[str, object]]:
        found = [explanation for number in numbers if (explanation := self._explain(number)) is not None]
        return [to_values(explanation, self._context(explanation)) for explanation in found]

    def status(self) -> dict[str, object]:
        """Returns how many requests are kept, and the state of the file."""
        file = self._file
        if file is None:
            return {"ring": self._ring, "file": None}
        written = {"written": file.written, "lost": self._lost + file.lost, "failure": file.failure}
        return {"ring": self._ring, "file": file.baseFilename, **written}

    async def close(self) -> None:
        """Writes the ended requests that are not written yet, and closes the file; gives up after CLOSE_LIMIT_S."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._finish(), CLOSE_LIMIT_S)

    def _context(self, explanation: Explanation) -> Context:
        counts_as = tenant_label(explanation.request.tenant, self.shares) if self.shares else ""
        return Context(
            client_id=self._ids.name(explanation.request_id),
            first_decided_at=self._first_decided_at(explanation),
            currency=self._currency,
            counts_as=counts_as,
            tenant_share=self.shares.get(counts_as, 0.0),
        )

    def _first_decided_at(self, explanation: Explanation) -> str:
        if not explanation.decisions:
            return ""
        ago = timedelta(seconds=self._clock() - explanation.decisions[0].at_s)
        moment = (self._wall_clock() - ago).astimezone(timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    async def _write(self) -> None:
        """Writes until nothing is left; a bug here costs lines of the file, but no request."""
        try:
            while self._ended:
                await asyncio.sleep(WRITE_EVERY_S)
                await self._write_settled()
        except Exception:
            _logger.exception("explain_bug")
        self._writing = None

    async def _write_settled(self) -> None:
        left = len(self._ended)
        while left > 0:
            await self._write_lines(self._take(min(AT_ONCE, left), settled_only=True))
            left -= AT_ONCE

    async def _finish(self) -> None:
        if self._file is not None:
            await self._write_lines(self._take(len(self._ended), settled_only=False))
            await self._beside_the_loop(self._file.close)

    def _take(self, count: int, *, settled_only: bool) -> list[tuple[Explanation, Context]]:
        """Takes the first `count` ended requests; a request with a batch in flight is put back for later."""
        taken = []
        for _ in range(count):
            request_id, ended_at_s = self._ended.popleft()
            explanation = self._explain(request_id)
            if explanation is None:
                self._lost += 1
            elif settled_only and _in_flight(explanation) and self._clock() < ended_at_s + SETTLE_LIMIT_S:
                self._ended.append((request_id, ended_at_s))
            else:
                taken.append((explanation, self._context(explanation)))
        return taken

    async def _write_lines(self, taken: Sequence[tuple[Explanation, Context]]) -> None:
        file = self._file
        if taken and file is not None:
            await self._beside_the_loop(lambda: file.write_lines([to_json(*one) for one in taken]))


def _in_flight(explanation: Explanation) -> bool:
    """Returns whether a batch of the request is in flight: after hedging, the slower batch ends later and costs too."""
    return any(sending.settled_at_s is None for sending in explanation.sendings)

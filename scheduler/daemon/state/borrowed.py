"""Money that is borrowed from another daemon's ledger, in slices, over HTTP.

One task talks to the lender, one call after the other, so that each report replaces the one before it: an answer that
got lost is corrected by the next report. No request waits for it. While the lender gives nothing, the slice at hand is
spent, and then `over_cap` holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import aiohttp

from scheduler.client_access import ClientAccess
from scheduler.daemon.event_wait import set_within
from scheduler.daemon.logs import log
from scheduler.dispatch.spend_cap import LENDER
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.messages import Message, RequestSpend, ReturnSpend, SpendGranted
from scheduler.domain.plans import EngineSettings

PATH = "/v1/spend/lease"
REPORT_EVERY_S = 1.0
CALL_LIMIT_S = 3.0
"""Longest that an answer is waited for. The engine goes by `over_cap` after a second without one."""
AGAIN_S = 1.0
"""When a lender that cannot be reached, or that refuses, is asked again."""
BEGIN_LIMIT_S = 1.0
"""Longest that the daemon waits for its first slice before it listens."""
CLOSE_LIMIT_S = 2.0
ANSWER_BYTES = 65536
_REFUSES = "it refuses"
UNKNOWN_CAP = 1e12
"""Stands for the lender's caps until they are known; nothing is asked for until then."""


@dataclass(frozen=True, slots=True)
class Lender:
    """The daemon to borrow from, and what it is told of this one."""

    url: str
    name: str
    """Of this daemon, for people."""
    currency: str
    access: ClientAccess


@dataclass(frozen=True, slots=True)
class _Answer:
    amount: float
    closed_by: str
    opens_in_s: float
    per_hour: float | None
    per_day: float | None


class _NoMoney(Exception):
    """The lender gives nothing; the message says why."""


class Borrower:
    """The side of the daemon that borrows: it answers the engine's requests for money with slices of the lender's."""

    def __init__(self, lender: Lender) -> None:
        """Stores the lender; opens no connection."""
        self._lender = lender
        self._process = secrets.token_hex(16)
        self._numbers = 0
        self._received = 0.0
        """Granted, less what was given back."""
        self._reported = 0.0
        """Spent by the last report that was answered."""
        self._asked: RequestSpend | None = None
        self._wake = asyncio.Event()
        self._begun = asyncio.Event()
        self._caps: tuple[float | None, float | None] | None = None
        """Those of the lender; None: not known yet."""
        self._failure: str | None = "it has not been asked yet"
        self._told = ""
        """The failure that the log names; empty: none."""
        self._failures = 0
        self._session: aiohttp.ClientSession | None = None
        self._post: Callable[[Message], None] = lambda _: None
        self._left: Callable[[], float | None] = lambda: None
        self._caps_changed: Callable[[], None] = lambda: None

    def connect(self, *, post: Callable[[Message], None], left: Callable[[], float | None]) -> None:
        """Connects it with the engine.

        Args:
            post: gives the engine a message.
            left: returns what is left of the slices, negative where more was spent; None where nothing is leased.
        """
        self._post, self._left = post, left

    def when_caps_change(self, call: Callable[[], None]) -> None:
        """Has that called when the lender's caps are others than before; `applied` then differs."""
        self._caps_changed = call

    def applied(self, settings: EngineSettings) -> EngineSettings:
        """Returns the engine's settings with the lender's caps, where this daemon's own are not tighter."""
        own, theirs = (settings.spend_per_hour, settings.spend_per_day), self._caps or (None, None)
        per_hour, per_day = (
            min((cap for cap in pair if cap is not None), default=None) for pair in zip(own, theirs, strict=True)
        )
        if per_hour is None and per_day is None:
            per_hour = UNKNOWN_CAP
        return replace(settings, spend_per_hour=per_hour, spend_per_day=per_day)

    def request(self, command: RequestSpend) -> None:
        """Asks for money; the engine gets SpendGranted."""
        self._asked = command
        self._wake.set()

    def give_back(self, command: ReturnSpend) -> None:
        """Gives money back that is not needed: the next report shows it."""
        self._received -= command.amount
        self._wake.set()

    async def begun(self) -> None:
        """Waits for the first answer, so that no request comes before it; not for long."""
        await set_within(self._begun, BEGIN_LIMIT_S)

    async def run(self) -> None:
        """Reports once a second, and when money is wanted or given back, without end."""
        while True:
            asked, self._asked = self._asked, None
            self._wake.clear()
            await self._talk(asked)
            await set_within(self._wake, REPORT_EVERY_S)

    async def close(self, *, clean: bool) -> None:
        """Gives back what is left, and closes the connection. `run` must have ended.

        Args:
            clean: whether the engine's numbers can be trusted.
        """
        left = self._left()
        if clean and left is not None and self._failure is None:
            self._received -= max(0.0, left)
            try:
                await asyncio.wait_for(self._call(amount=0.0, left=min(0.0, left)), CLOSE_LIMIT_S)
            except (_NoMoney, asyncio.TimeoutError) as error:
                why = str(error) or "it does not answer"
                log(logging.WARNING, "lender_away", message=f"what is left of the slice was not given back: {why}")
        await self._disconnect()

    def status(self) -> dict[str, object]:
        """Returns the lender and whether it lends, as /v1/status shows it."""
        per_hour, per_day = self._caps or (None, None)
        return {
            "from": self._lender.url,
            "up": self._failure is None,
            "failures": self._failures,
            "per_hour": per_hour,
            "per_day": per_day,
            "message": self._sentence(self._failure) if self._failure else "money is leased from that daemon's ledger",
        }

    async def _talk(self, asked: RequestSpend | None) -> None:
        left = asked.left if asked is not None else self._left()
        # What the lender's caps are tells the size of a slice: until they are known, none is asked for.
        amount = asked.amount if asked is not None and self._caps is not None else 0.0
        try:
            answer = await self._call(amount=amount, left=left or 0.0)
        except _NoMoney as error:
            self._failed(str(error))
            if asked is not None:
                self._post(SpendGranted(0.0, LENDER, AGAIN_S))
        else:
            self._worked()
            if asked is not None:
                self._received += answer.amount
                short = amount < asked.amount
                self._post(
                    SpendGranted(0.0, LENDER, AGAIN_S)
                    if short
                    else SpendGranted(answer.amount, answer.closed_by, answer.opens_in_s)
                )
            caps = (answer.per_hour, answer.per_day)
            if caps != self._caps:
                self._caps = caps
                self._caps_changed()
        if asked is not None:
            self._begun.set()

    async def _call(self, *, amount: float, left: float) -> _Answer:
        """Reports, and asks for an amount.

        Raises:
            _NoMoney: there is no answer that can be used.
        """
        self._numbers += 1
        spent = self._received - left
        content = {
            "name": self._lender.name,
            "process": self._process,
            "number": self._numbers,
            "currency": self._lender.currency,
            "amount": max(0.0, amount),
            "left": left,
            "spent": spent,
            "unreported": spent - self._reported,
        }
        try:
            status, body = await self._exchange(content)
        except asyncio.TimeoutError:
            await self._disconnect()
            raise _NoMoney(f"it has not answered within {CALL_LIMIT_S:g} s") from None
        except (aiohttp.ClientError, EdgeburstError, OSError, ValueError) as error:
            # With the next connection, certificates that were renewed are read again.
            await self._disconnect()
            raise _NoMoney(f"it cannot be reached ({_why(error)})") from None
        answer = _read(status, body, most=max(0.0, amount))
        self._reported = spent
        return answer

    async def _exchange(self, content: Mapping[str, object]) -> tuple[int, bytes]:
        access = self._lender.access
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=access.context()),
                timeout=aiohttp.ClientTimeout(total=CALL_LIMIT_S),
                headers=access.headers,
            )
        url = self._lender.url.rstrip("/") + PATH
        async with self._session.post(url, json=content, allow_redirects=False) as response:
            body = b""
            while len(body) < ANSWER_BYTES and (part := await response.content.read(ANSWER_BYTES - len(body))):
                body += part
            return response.status, body

    async def _disconnect(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _failed(self, why: str) -> None:
        self._failures += 1
        self._failure = why
        if not self._told or (why != self._told and why.startswith(_REFUSES)):
            log(logging.WARNING, "lender_away", message=self._sentence(why))
            self._told = why

    def _worked(self) -> None:
        self._failure = None
        if self._told:
            self._told = ""
            log(logging.INFO, "lender_back", message=f"money is leased from {self._lender.url} again")

    def _sentence(self, why: str) -> str:
        return (
            f"no money is leased from {self._lender.url}: {why}; what is left of the slice is spent, then `over_cap`"
            " holds until it lends again"
        )


def _read(status: int, body: bytes, *, most: float) -> _Answer:
    """Returns an answer that was checked: a lender that counts wrong gives no more than was asked for.

    Raises:
        _NoMoney: it is a refusal, or not such an answer.
    """
    try:
        content: Any = json.loads(body)
        if status != 200:
            raise _NoMoney(f"{_REFUSES} with status {status}: {str(content['error'])[:500]}")
        amount, opens_in_s = float(content["amount"]), float(content["opens_in_s"])
        caps = tuple(None if content[key] is None else float(content[key]) for key in ("per_hour", "per_day"))
        closed_by = str(content["closed_by"])[:16]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _NoMoney(f"its answer with status {status} is not that of a lender; name a daemon in `from`") from None
    numbers = [amount, opens_in_s, *(cap for cap in caps if cap is not None)]
    if not all(math.isfinite(number) and number >= 0 for number in numbers) or closed_by not in ("", "hour", "day"):
        raise _NoMoney("its answer has numbers that cannot be")
    return _Answer(min(amount, most), closed_by, opens_in_s, *caps)


def _why(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__

"""The daemon's records of its batches (GET /v1/batches), polled while a replay runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

_PAGE = 10_000
_TIMEOUT_S = 10.0
_INTERVAL_S = 0.5
_CLOCK_READINGS = 3
"""Readings of the daemon's clock; the reading with the shortest round trip is used."""

Row = Mapping[str, Any]


class BatchLog:
    """The batches that ended since `open`, those of other clients included."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        """Stores the daemon's URL."""
        self._session = session
        self._url = url.rstrip("/")
        self._after = 0
        self._rows: dict[object, Row] = {}
        self._ahead_s = 0.0
        self.missed = 0
        """Polls that the daemon did not answer."""

    async def open(self) -> bool:
        """Skips batches that have already ended; returns whether the server has such records (only our daemon does)."""
        try:
            self._ahead_s = min([await self._clock_reading() for _ in range(_CLOCK_READINGS)])[1]
            while len(await self._page()) == _PAGE:
                pass
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError, KeyError, TypeError):
            return False
        return True

    async def _clock_reading(self) -> tuple[float, float]:
        """Returns a round trip and the lead of the daemon's clock, if it was read in the middle of the round trip."""
        asked_at_s = time.monotonic()
        status = await self._get("/v1/status")
        answered_at_s = time.monotonic()
        return answered_at_s - asked_at_s, float(status["now_s"]) - (asked_at_s + answered_at_s) / 2

    async def follow(self) -> None:
        """Polls until it is cancelled, because the daemon drops old records."""
        while True:
            await asyncio.sleep(_INTERVAL_S)
            await self.poll()

    async def poll(self) -> None:
        """Fetches new records; the second record of a batch (answered after it was given up) replaces the first."""
        try:
            page = await self._page()
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError, KeyError, TypeError):
            self.missed += 1
            return
        for row in page:
            self._rows[row.get("batch_id")] = row

    def rows(self, *, started_at_s: float) -> list[Row]:
        """Returns the rows by send time, with their times as seconds from `started_at_s` on this host's clock."""
        rows = (self._shifted(row, started_at_s) for row in self._rows.values())
        return sorted(rows, key=lambda row: float(row.get("sent_s") or 0.0))

    def _shifted(self, row: Row, started_at_s: float) -> Row:
        times = {
            f"{name}_s": row[f"{name}_at_s"] - self._ahead_s - started_at_s
            for name in ("sent", "finished")
            if isinstance(row.get(f"{name}_at_s"), (int, float))
        }
        return {**row, **times}

    async def _page(self) -> list[Row]:
        found = (await self._get(f"/v1/batches?after={self._after}&limit={_PAGE}"))["batches"]
        self._after = max((int(row["record"]) for row in found), default=self._after)
        return list(found)

    async def _get(self, path: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        async with self._session.get(self._url + path, timeout=timeout) as response:
            response.raise_for_status()
            return orjson.loads(await response.read())

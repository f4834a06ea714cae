"""The honest clients: requests at a steady rate, from an address of their own, and how each one ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp

ADDRESS = "127.0.0.2"
LIMIT_S = 20.0


@dataclass(slots=True)
class Ends:
    """How honest requests ended."""

    sent: int = 0
    within: int = 0
    """Answered within the SLO."""
    late: int = 0
    others: Counter[str] = field(default_factory=Counter)
    """Refused, by status; failed, by the name of the error."""
    latencies_s: list[float] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Share of all that were answered within the SLO."""
        return self.within / self.sent if self.sent else 0.0

    def quantile_s(self, level: float) -> float:
        """Returns a quantile of the latencies of answers."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(level * len(ordered)))] if ordered else float("nan")


async def run(
    url: str,
    pictures: Sequence[bytes],
    *,
    rate_rps: float,
    seconds: float,
    slo_s: float,
    headers: Mapping[str, str] | None = None,
    address: str = ADDRESS,
) -> Ends:
    """Sends requests at exponential intervals, whether earlier ones are answered or not; returns how they ended.

    Args:
        url: of POST /v1/classify/MODEL.
        pictures: are sent in turn.
        rate_rps: requests a second.
        seconds: how long.
        slo_s: the latency that counts as in time.
        headers: of each request.
        address: that the requests come from.
    """
    ends, draw, tasks = Ends(), random.Random(1), []
    connector = aiohttp.TCPConnector(limit=0, local_addr=(address, 0))
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as session:
        begun_s = next_s = time.monotonic()
        while next_s < begun_s + seconds:
            await asyncio.sleep(next_s - time.monotonic())
            picture = pictures[ends.sent % len(pictures)]
            ends.sent += 1
            tasks.append(asyncio.create_task(_one(session, url, picture, ends, slo_s)))
            next_s += draw.expovariate(rate_rps)
        await asyncio.gather(*tasks)
    return ends


async def _one(session: aiohttp.ClientSession, url: str, picture: bytes, ends: Ends, slo_s: float) -> None:
    begun_s = time.monotonic()
    try:
        async with session.post(url, data=picture, headers={"Content-Type": "image/jpeg"}) as answer:
            await answer.read()
            if answer.status != 200:
                ends.others[str(answer.status)] += 1
                return
    except (OSError, asyncio.TimeoutError, aiohttp.ClientError) as error:
        ends.others[type(error).__name__] += 1
        return
    latency_s = time.monotonic() - begun_s
    ends.latencies_s.append(latency_s)
    if latency_s <= slo_s:
        ends.within += 1
    else:
        ends.late += 1

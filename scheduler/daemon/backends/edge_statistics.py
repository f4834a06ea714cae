"""What a batch takes besides the device, by the statistics of a server whose answers do not say it: Triton's.

They are sums over all inferences. So the seconds of the batches between two looks, less what the server counted for
waiting and computing meanwhile, are what these took besides: on the way, and until they were read.
"""

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
from yarl import URL

from scheduler.daemon.backends.bounded_reading import TooLarge, read_within
from scheduler.daemon.model_outputs import HEADER_BYTES

EXTENSION = "statistics"
"""Named by servers that have them."""
FEWEST = 8
"""Batches of a model between two looks at its statistics, at least: a mean of fewer is of one or two."""
LIMIT_S = 1.0
"""Longest wait for them."""
OTHERS = 2
"""Inferences by which the server may have counted more or fewer: those that are on their way at a look. With more, it
has other clients, whose waits are not ours."""
_PARTS = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(slots=True)
class _OfModel:
    batches: int = 0
    """Answered since the last look."""
    elapsed_s: float = 0.0
    """Of these, in all."""
    counted: tuple[float, float] | None = None
    """Inferences that the server had counted at the last look, and their seconds; None: there was none."""
    beside_s: float | None = None


@dataclass(slots=True)
class ServerStatistics:
    """The statistics of one edge server."""

    known: dict[str, _OfModel] = field(default_factory=dict)
    """By model."""
    asking: "asyncio.Task[None] | None" = None
    """The look that is under way."""

    def answered(self, session: aiohttp.ClientSession, model_url: URL, model: str, elapsed_s: float) -> float | None:
        """Counts a batch; returns the seconds of it besides the device, or None where they are not known (yet).

        Args:
            session: the connections, for a look now and then beside the batches.
            model_url: of the model on the server.
            model: its name.
            elapsed_s: from the send to the answer.
        """
        known = self.known.setdefault(model, _OfModel())
        known.batches += 1
        known.elapsed_s += elapsed_s
        if (known.counted is None or known.batches >= FEWEST) and (self.asking is None or self.asking.done()):
            self.asking = asyncio.get_running_loop().create_task(self._look(session, model_url, known))
        return None if known.beside_s is None else min(known.beside_s, elapsed_s)

    async def _look(self, session: aiohttp.ClientSession, model_url: URL, known: _OfModel) -> None:
        limit = aiohttp.ClientTimeout(total=LIMIT_S)
        try:
            async with session.get(model_url / "stats", timeout=limit, allow_redirects=False) as response:
                body = await read_within(response, HEADER_BYTES) if response.status == 200 else b""
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, TooLarge):
            body = b""
        batches, elapsed_s, known.batches, known.elapsed_s = known.batches, known.elapsed_s, 0, 0.0
        before, known.counted = known.counted, counted(body)
        if before is None or known.counted is None or not batches:
            return
        inferences, seconds = known.counted[0] - before[0], known.counted[1] - before[1]
        if inferences > 0 and abs(inferences - batches) <= OTHERS:
            known.beside_s = max(0.0, elapsed_s / batches - seconds / inferences)

    async def close(self) -> None:
        """Ends the look that is under way."""
        if self.asking is not None:
            self.asking.cancel()
            await asyncio.wait([self.asking])


def counted(body: bytes) -> tuple[float, float] | None:
    """Returns the inferences that a server has counted, and their seconds of waiting and computing; None: neither.

    >>> stats = b'{"success": {"count": 2, "ns": 9}, "queue": {"ns": 1e9}, "compute_infer": {"ns": 5e8}}'
    >>> counted(b'{"model_stats": [{"inference_stats": %s}]}' % stats)
    (2.0, 1.5)
    >>> print(counted(b"{}"))
    None
    """
    try:
        found = [each["inference_stats"] for each in orjson.loads(body)["model_stats"]]
        inferences = math.fsum([float(stats["success"]["count"]) for stats in found])
        seconds = math.fsum([_ns(stats, part) for stats in found for part in _PARTS]) * 1e-9
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError, OverflowError):
        return None
    return (inferences, seconds) if math.isfinite(inferences + seconds) and found else None


def _ns(stats: Mapping[str, Any], part: str) -> float:
    return float(stats.get(part, {}).get("ns", 0))

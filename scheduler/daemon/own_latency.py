"""The latency that the daemon itself adds to a request, apart from the wait that the engine decides."""

from array import array
from collections.abc import Mapping

import numpy as np

PARTS = ("in", "out", "back")
"""From the last body byte read to the engine call; from the decision to send to the batch written; from the backend's
answer read to the client's answer written."""


class OwnLatency:
    """The three parts of the latest answered requests, in a ring."""

    def __init__(self, size: int = 4096) -> None:
        """Keeps the last `size` requests."""
        self._size = size
        self._parts = tuple(array("d", bytes(8 * size)) for _ in PARTS)
        self._count = 0

    def add(self, in_s: float, out_s: float, back_s: float) -> float:
        """Records one answered request; returns the sum of its parts, seconds."""
        at = self._count % self._size
        for part, seconds in zip(self._parts, (in_s, out_s, back_s), strict=True):
            part[at] = seconds
        self._count += 1
        return in_s + out_s + back_s

    def summary(self) -> Mapping[str, object]:
        """Returns the count, and p50, p99 and maximum in seconds: of the sum, and of each part by name."""
        kept = min(self._count, self._size)
        if kept == 0:
            return {"count": 0}
        parts = [np.frombuffer(part, dtype=np.float64)[:kept] for part in self._parts]
        by_name = {name: _quantiles(part) for name, part in zip(PARTS, parts, strict=True)}
        return {"count": self._count, **_quantiles(np.sum(parts, axis=0)), "parts": by_name}


def _quantiles(seconds: "np.typing.NDArray[np.float64]") -> dict[str, float]:
    p50, p99, largest = np.quantile(seconds, [0.5, 0.99, 1.0])
    return {"p50_s": float(p50), "p99_s": float(p99), "max_s": float(largest)}

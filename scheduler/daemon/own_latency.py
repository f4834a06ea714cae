"""What the daemon itself adds to a request's latency, apart from the waiting it decides on."""

from array import array
from collections.abc import Callable, Mapping

import numpy as np

PARTS = ("in", "out", "back")
"""Last body byte read to engine told; send decided to body written; backend's answer read to client's written."""


class OwnLatency:
    """The last requests' three parts, in a ring; older ones live on in whatever `observe` feeds."""

    def __init__(self, size: int = 4096) -> None:
        """Keeps the last `size` requests."""
        self._size = size
        self._parts = tuple(array("d", bytes(8 * size)) for _ in PARTS)
        self._count = 0
        self.observe: Callable[[float], None] | None = None
        """Told each request's sum in seconds, if set: a histogram's observe."""

    def add(self, in_s: float, out_s: float, back_s: float) -> None:
        """Records one answered request."""
        at = self._count % self._size
        for part, seconds in zip(self._parts, (in_s, out_s, back_s), strict=True):
            part[at] = seconds
        self._count += 1
        if self.observe is not None:
            self.observe(in_s + out_s + back_s)

    def summary(self) -> Mapping[str, object]:
        """Returns count, and p50, p99 and largest in seconds: of the sum, and of each part by its name."""
        kept = min(self._count, self._size)
        if kept == 0:
            return {"count": 0}
        parts = [np.frombuffer(part, dtype=np.float64)[:kept] for part in self._parts]
        by_name = {name: _quantiles(part) for name, part in zip(PARTS, parts, strict=True)}
        return {"count": self._count, **_quantiles(np.sum(parts, axis=0)), "parts": by_name}


def _quantiles(seconds: "np.typing.NDArray[np.float64]") -> dict[str, float]:
    p50, p99, largest = np.quantile(seconds, [0.5, 0.99, 1.0])
    return {"p50_s": float(p50), "p99_s": float(p99), "max_s": float(largest)}

"""Simulation of a batch buffer with drawn arrivals, in blocks, so that errors can be estimated."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scheduler.planner.queueing.map_process import MarkovianArrivals
from scheduler.planner.queueing.map_sampling import ArrivalStream

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive batches of a buffer.

    Attributes:
        sizes: sizes of the batches, shape (batches,).
        waits_s: waits of their requests in seconds, batch after batch, shape (requests,).
    """

    sizes: Indices
    waits_s: Array


class Buffer:
    """Buffer whose batch closes at `max_batch` requests or `timeout_s` after its first request."""

    def __init__(self, stream: ArrivalStream, *, max_batch: int, timeout_s: float) -> None:
        """Creates an empty buffer with a source of arrivals."""
        self._stream = stream
        self._max_batch = max_batch
        self._timeout_s = timeout_s
        self._left_s: Array = np.empty(0)
        """Arrivals of the batch that is still open, relative to the last of them."""

    def block(self, requests: int) -> Block:
        """Simulates further arrivals and returns the batches that have closed."""
        fresh_s = np.cumsum(self._stream.gaps_s(requests))
        times_s = np.concatenate([self._left_s, fresh_s])
        ends = np.searchsorted(times_s, times_s + self._timeout_s, side="right")
        ends = np.minimum(ends, np.arange(len(times_s)) + self._max_batch)
        opens, first = [], 0
        following = ends.tolist()
        # Further requests may join the last batch, unless it is full.
        while first < len(times_s) and (following[first] < len(times_s) or following[first] - first == self._max_batch):
            opens.append(first)
            first = following[first]
        self._left_s = times_s[first:] - times_s[-1]
        return self._closed(times_s[:first], np.array(opens, dtype=np.int64))

    def _closed(self, times_s: Array, opens: Indices) -> Block:
        sizes = np.diff(opens, append=len(times_s))
        full = sizes == self._max_batch
        closes_s = np.where(full, times_s[opens + sizes - 1], times_s[opens] + self._timeout_s)
        return Block(sizes, np.repeat(closes_s, sizes) - times_s)


def simulated(process: MarkovianArrivals, *, max_batch: int, timeout_s: float, rng: np.random.Generator) -> Buffer:
    """Returns a buffer with arrivals drawn from `process`."""
    return Buffer(ArrivalStream(process, rng), max_batch=max_batch, timeout_s=timeout_s)

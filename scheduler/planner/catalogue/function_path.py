"""The path of a batch from its buffer to a function instance at work: uplink, round trip, cold start."""

import math
from dataclasses import dataclass

import numpy as np

from scheduler.planner.catalogue.latency_models import ServiceTable


@dataclass(frozen=True, slots=True)
class FunctionPath:
    """The time that a batch spends between its buffer and its service. None of it is billed.

    Attributes:
        bytes_per_s: bandwidth of the uplink; None: ample; 0: nothing passes.
        rtt_s: round trip.
        busy: fraction of time that the uplink sends, below 1.
        item_bytes: bytes that one item adds to a batch.
        cold_probability: probability that a batch finds no warm instance.
        cold_s: seconds of a cold start.

    An item of 10 kB takes 0.01 s at 1 MB/s. A batch of two waits for others besides, as in M/D/1 at half load for half
    of its own 0.02 s: 0.03 + 0.02 + 0.01.

    >>> round(FunctionPath(bytes_per_s=1e6, rtt_s=0.03, busy=0.5, item_bytes=1e4).takes_s(2), 9)
    0.06
    """

    bytes_per_s: float | None = None
    rtt_s: float = 0.0
    busy: float = 0.0
    item_bytes: float = 0.0
    cold_probability: float = 0.0
    cold_s: float = 0.0

    def takes_s(self, items: int) -> float:
        """Returns the expected seconds of a batch: wait for the uplink (M/D/1), transfer, round trip; no cold start."""
        if self.bytes_per_s is None or self.item_bytes <= 0:
            return self.rtt_s
        if self.bytes_per_s <= 0:
            return math.inf
        return self.rtt_s + items * self.item_bytes / self.bytes_per_s * (1 + self.busy / (2 * (1 - self.busy)))

    @property
    def capacity_rps(self) -> float:
        """Items a second that the uplink carries."""
        if self.bytes_per_s is None or self.item_bytes <= 0:
            return math.inf
        return self.bytes_per_s / self.item_bytes

    def lengthened(self, services: ServiceTable) -> ServiceTable:
        """Returns the services with the seconds of the path added."""
        path_s = np.array([self.takes_s(items) for items in range(1, services.mean_s.shape[1] + 1)])
        services = services.after(path_s) if path_s.any() else services
        return services.with_cold_starts(probability=self.cold_probability, seconds=self.cold_s)


AT_ONCE = FunctionPath()
"""No uplink, no round trip, no cold start."""

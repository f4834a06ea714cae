"""The planning problem of one model's function buffers, as one value."""

from dataclasses import dataclass

from scheduler.domain.plans import ModelEstimates, ModelSettings, ServiceClass
from scheduler.planner.catalogue.function_path import FunctionPath

_MAX_BUSY = 0.95
"""Utilisation of the uplink above which the M/D/1 wait is not used any more: it grows without bound towards 1, and the
plan lacks capacity then. Judgement: at 0.95 a batch waits 9.5 transfers; at 0.9 it would be 4.5, at 0.98 24.5."""


@dataclass(frozen=True, slots=True)
class Uplink:
    """The uplink to the functions, shared by all models.

    Attributes:
        bytes_per_s: its bandwidth; None: ample; 0: nothing passes.
        rtt_s: round trip.
        sent_bytes_per_s: bytes a second that all models together are expected to send.
    """

    bytes_per_s: float | None
    rtt_s: float
    sent_bytes_per_s: float

    def path(self, item_bytes: float) -> FunctionPath:
        """Returns the path to the functions for items of `item_bytes` on the wire."""
        busy = min(self.sent_bytes_per_s / self.bytes_per_s, _MAX_BUSY) if self.bytes_per_s else 0.0
        return FunctionPath(bytes_per_s=self.bytes_per_s, rtt_s=self.rtt_s, busy=busy, item_bytes=item_bytes)


@dataclass(frozen=True, slots=True)
class BufferProblem:
    """What the function buffers of one model are planned for.

    Attributes:
        settings: tiers, loaded buffers, and whether there is an edge.
        classes: service classes whose requests may leave the site, at least one.
        estimates: rates, sizes and services at present.
        uplink: the uplink to the tiers.
        gather_rps: items a second that arrive while a batch is gathered.
        max_items: largest batch of a function, at least 1.
        max_in_flight: largest number of batches in flight, for all tiers together.
        window_s: longest wait that the operator allows; infinite if none is set.
    """

    settings: ModelSettings
    classes: tuple[ServiceClass, ...]
    estimates: ModelEstimates
    uplink: Uplink
    gather_rps: float
    max_items: int
    max_in_flight: int
    window_s: float

"""The planning problem of one model's function buffers, as one value."""

from dataclasses import dataclass

from scheduler.domain.plans import ModelEstimates, ModelSettings, ServiceClass


@dataclass(frozen=True, slots=True)
class Uplink:
    """The uplink to the functions, shared by all models.

    Parameters:
        bytes_per_s: its bandwidth; None: ample; 0: nothing passes.
        rtt_s: round trip.
        sent_bytes_per_s: what all models together are expected to send.
    """

    bytes_per_s: float | None
    rtt_s: float
    sent_bytes_per_s: float


@dataclass(frozen=True, slots=True)
class BufferProblem:
    """The function buffers of one model are planned from this.

    Parameters:
        settings: tiers, loaded buffers, and whether there is an edge.
        classes: service classes whose requests may leave the site, at least one.
        estimates: rates, sizes and services as they are now.
        uplink: to the tiers.
        gather_rps: items a second that arrive while a batch is gathered.
        max_items: largest batch of a function; with 0 there is no function.
        max_in_flight: most batches in flight, for all tiers together.
        window_s: longest wait that an operator allows; infinite where none is set.
    """

    settings: ModelSettings
    classes: tuple[ServiceClass, ...]
    estimates: ModelEstimates
    uplink: Uplink
    gather_rps: float
    max_items: int
    max_in_flight: int
    window_s: float

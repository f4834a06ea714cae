"""The uplink to the functions, as far as it is known."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UplinkEstimate:
    """What is known of the way to the functions."""

    bytes_per_s: float | None = None
    """Bandwidth; None: ample."""
    rtt_s: float = 0.0
    """Round trip."""
    excess_s: float = 0.0
    """What the way has been taking beyond queueing, transfer and round trip: its median."""
    margin_s: float = 0.0
    """What it may take beyond that at the strictest percentile."""
    sigma_s: float = 0.0
    """Its standard deviation, read where a rare stall does not reach."""


AMPLE_UPLINK = UplinkEstimate()

"""The estimate of the uplink to the functions."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class UplinkEstimate:
    """Estimate of the path to the functions and back."""

    bytes_per_s: float | None = None
    """Bandwidth; None: not a limit."""
    rtt_s: float = 0.0
    """Round trip."""
    excess_s: float = 0.0
    """Median of what the path takes in addition to queueing, transfer and round trip."""
    margin_s: float = 0.0
    """What it takes beyond that median at the strictest percentile."""
    sigma_s: float = 0.0
    """Standard deviation of the same, computed from the 95th percentile so that rare stalls do not count."""


AMPLE_UPLINK = UplinkEstimate()

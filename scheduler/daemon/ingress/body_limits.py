"""Limits of bodies that arrive: of each, and of all together, whatever protocol they come by."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.daemon.ingress.errors import RETRY_HEADER, Rejected

BODY_TIME_LIMIT_S = 60.0
"""Longest time for a body to arrive: a client that stalls occupies memory that others could use."""


@dataclass(slots=True)
class BodyLimits:
    """The limits, and the bytes that have arrived of bodies that are not whole yet."""

    body_limit_bytes: int = 0
    """Of one body, decoded."""
    total_limit_bytes: int = 0
    """Of all bodies that are arriving."""
    time_limit_s: float = BODY_TIME_LIMIT_S
    arriving_bytes: int = 0

    def check(self, size_bytes: int) -> None:
        """Checks a body of which so many bytes have arrived or are announced.

        Raises:
            Rejected: it is too large, or too many arrive at once.
        """
        if size_bytes > self.body_limit_bytes:
            raise Rejected(
                413,
                f"the body is over the limit of {self.body_limit_bytes} bytes;"
                " send fewer items at once, or raise daemon.body_limit_bytes",
            )
        if self.arriving_bytes > self.total_limit_bytes:
            raise Rejected(429, "too many bodies are arriving at once; send this one again", {RETRY_HEADER: "1"})

    def too_slow(self) -> Rejected:
        """Returns the error for a body that has not arrived within the time limit."""
        return Rejected(408, f"the body did not arrive within {self.time_limit_s:g} s; send it again")

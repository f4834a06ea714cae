"""The error of measurements."""

from scheduler.domain.errors import EdgeburstError


class MeasuringError(EdgeburstError):
    """A measurement that is not possible; the message names the reason and the next step."""

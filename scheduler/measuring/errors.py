"""The errors of measuring."""

from scheduler.domain.errors import EdgeburstError


class MeasuringError(EdgeburstError):
    """A measurement cannot be made; the message says why and what to do."""

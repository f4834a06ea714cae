"""Errors of the demo."""

from scheduler.domain.errors import EdgeburstError


class DemoError(EdgeburstError):
    """Error: the demo cannot continue; the message says why and where to look."""

"""What stops the demo."""

from scheduler.domain.errors import EdgeburstError


class DemoError(EdgeburstError):
    """The demo cannot go on; the message says why and where to look."""

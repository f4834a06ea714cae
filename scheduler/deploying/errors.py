"""The errors of deploying."""

from scheduler.domain.errors import EdgeburstError


class DeployError(EdgeburstError):
    """A deployment cannot go on; the message says why and what to do."""

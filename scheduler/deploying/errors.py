"""The error of deployments."""

from scheduler.domain.errors import EdgeburstError


class DeployError(EdgeburstError):
    """A deployment that cannot continue; the message names the reason and the next step."""

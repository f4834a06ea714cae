"""Takes functions away again, in the order in which the provider lets things go, and nothing that was not made here."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.deploying.desired import Deployment
from scheduler.deploying.difference import Kind, removal
from scheduler.deploying.observing import observe
from scheduler.deploying.platform import Platform
from scheduler.deploying.waiting import wait_for


def remove(platform: Platform, deployment: Deployment, name: str, *, tell: Callable[[str], None]) -> None:
    """Deletes a function with all that hangs on it; one that is not there, or not ours, is left alone.

    Parameters:
        platform: where it is.
        deployment: that made it.
        name: the function.
        tell: is told of every step.

    Raises:
        DeployError: something hangs on it that was not made here, or it takes too long.
    """
    function = observe(platform, name)
    if function is None or not deployment.made(function.description):
        return
    steps = removal(deployment, function)
    for qualifier in function.provisioned:
        release(platform, name, qualifier, tell=tell)
    for step in steps:
        tell(f"deleting {step.kind.value} {step.what}")
        if step.kind is Kind.ALIAS:
            platform.delete_alias(name, step.name)
        elif step.kind is Kind.VERSION:
            platform.delete_version(name, step.name)
    if function.reserved is not None:
        platform.unreserve(name)
    # Instances that were kept end in their own time; until then the function stays.
    wait_for(platform, lambda: platform.delete_function(name) or None, lambda: f"function {name} still has instances")


def release(platform: Platform, name: str, qualifier: str, *, tell: Callable[[str], None]) -> None:
    """Keeps no more instances for a qualifier, and waits until there are none: an alias does not go before them.

    Raises:
        DeployError: the provider refuses, or it takes too long.
    """
    tell(f"giving up provisioned instances of {name}:{qualifier}")
    platform.unprovision(name, qualifier)
    wait_for(
        platform,
        lambda: True if not platform.provisioned_for(name, qualifier).current else None,
        lambda: f"{name}:{qualifier} still has provisioned instances",
    )

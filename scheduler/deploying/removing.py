"""Removes functions that were made here, in the order that the provider requires."""

from __future__ import annotations

from collections.abc import Callable

from scheduler.deploying.desired import Deployment
from scheduler.deploying.difference import Kind, removal
from scheduler.deploying.observing import observe
from scheduler.deploying.platform import Platform
from scheduler.deploying.waiting import wait_for


def remove(platform: Platform, deployment: Deployment, name: str, *, tell: Callable[[str], None]) -> None:
    """Deletes a function with its parts, if it exists and was made here.

    Args:
        platform: the account of the function.
        deployment: the deployment that made it.
        name: name of the function.
        tell: called with every step.

    Raises:
        DeployError: the function has a part that was not made here, or the deletion takes too long.
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
    # Provisioned instances end some time later; the function stays until then.
    wait_for(platform, lambda: platform.delete_function(name) or None, lambda: f"function {name} still has instances")


def release(platform: Platform, name: str, qualifier: str, *, tell: Callable[[str], None]) -> None:
    """Ends the provisioning for a qualifier and waits until it has no instances: only then can its alias be deleted.

    Raises:
        DeployError: the provider refuses, or the instances do not end in time.
    """
    tell(f"ending provisioning for {name}:{qualifier}")
    platform.unprovision(name, qualifier)
    wait_for(
        platform,
        lambda: True if not platform.provisioned_for(name, qualifier).current else None,
        lambda: f"{name}:{qualifier} still has provisioned instances",
    )

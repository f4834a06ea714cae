"""Reads the observed state from the provider."""

from __future__ import annotations

from scheduler.deploying.desired import Deployment
from scheduler.deploying.observed import Alias, Function, Provisioned
from scheduler.deploying.platform import Platform


def observe(platform: Platform, name: str) -> Function | None:
    """Returns a function with its parts, None if it does not exist.

    Raises:
        DeployError: the provider refuses a call, or does not answer.
    """
    latest = platform.function(name)
    if latest is None:
        return None
    provisioned = platform.provisioned(name)
    configurations = {"": latest}
    aliases = {}
    for alias in platform.aliases(name):
        alias_name, version_id = str(alias["aliasName"]), str(alias.get("versionId") or "")
        if version_id not in configurations:
            configurations[version_id] = platform.function(name, version_id) or {}
        aliases[alias_name] = Alias(
            name=alias_name,
            version_id=version_id,
            weights=dict(alias.get("additionalVersionWeight") or {}),
            description=str(alias.get("description") or ""),
            configuration=configurations[version_id],
            provisioned=provisioned.get(alias_name, Provisioned()),
        )
    return Function(
        name=name,
        latest=latest,
        versions=platform.versions(name),
        aliases=aliases,
        reserved=platform.reserved(name),
        triggers=platform.triggers(name),
        provisioned=provisioned,
    )


def observe_all(platform: Platform, deployment: Deployment) -> dict[str, Function]:
    """Returns the existing functions of a deployment, by name.

    Raises:
        DeployError: the provider refuses a call, or does not answer.
    """
    found = {name: observe(platform, name) for name in deployment.functions}
    return {name: function for name, function in found.items() if function is not None}


def leftovers(platform: Platform, deployment: Deployment) -> tuple[str, ...]:
    """Returns the names of functions with the deployment's mark that it no longer asks for.

    Raises:
        DeployError: the provider refuses a call, or does not answer.
    """
    marked = (each for each in platform.functions() if deployment.made(each.get("description")))
    names = (str(each["functionName"]) for each in marked)
    return tuple(name for name in names if name not in deployment.functions)

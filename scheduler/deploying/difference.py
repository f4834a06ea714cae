"""The changes from the observed to the desired state; computed only, so that what is shown is what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from scheduler.deploying.comparison import FieldChange, differences
from scheduler.deploying.desired import Deployment, Tier
from scheduler.deploying.errors import DeployError
from scheduler.deploying.observed import Alias, Function
from scheduler.planning.instance_sizes import size_in

VERSIONS_KEPT = 3
"""Number of versions without an alias that are kept, so that an operator can go back to them."""


class Action(Enum):
    """What happens to a function, an alias or a version."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"


class Kind(Enum):
    """What is changed."""

    FUNCTION = "function"
    ALIAS = "alias"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Change:
    """One change.

    Attributes:
        action: what happens.
        kind: what is changed.
        function: name of the function, also for its aliases and versions.
        name: name of the alias or version; "" for a function.
        fields: the fields that change.
        only_pruned: whether it happens only with --prune.
    """

    action: Action
    kind: Kind
    function: str
    name: str = ""
    fields: tuple[FieldChange, ...] = ()
    only_pruned: bool = False

    @property
    def what(self) -> str:
        """The changed function, or FUNCTION:NAME of its alias or version."""
        return f"{self.function}:{self.name}" if self.name else self.function


def difference(
    deployment: Deployment, functions: Mapping[str, Function], leftovers: Sequence[str] = ()
) -> tuple[Change, ...]:
    """Returns the changes that a deployment needs.

    Args:
        deployment: the desired state.
        functions: the existing functions of the deployment, by name.
        leftovers: names of other functions that this deployment made and no longer asks for.

    Raises:
        DeployError: something with a desired name exists but was not made here, or cannot be changed as desired.
    """
    changes: list[Change] = []
    for name in deployment.functions:
        changes += _of_function(deployment, name, functions.get(name))
    changes += [Change(Action.DELETE, Kind.FUNCTION, name, only_pruned=True) for name in leftovers]
    return tuple(changes)


def removal(deployment: Deployment, function: Function) -> list[Change]:
    """Returns the deletions of a function and its parts, in the order that the provider requires.

    Raises:
        DeployError: the function has a part that was not made here.
    """
    foreign = [f"alias {alias.name}" for alias in function.aliases.values() if not deployment.made(alias.description)]
    foreign += [f"version {each.version_id}" for each in function.versions if not deployment.made(each.description)]
    foreign += [f"trigger {name}" for name in function.triggers]
    if foreign:
        raise DeployError(
            f"function {function.name} has {foreign[0]}, which edgeburst did not make; delete that first, or keep both"
        )
    aliases = [Change(Action.DELETE, Kind.ALIAS, function.name, name) for name in function.aliases]
    versions = [Change(Action.DELETE, Kind.VERSION, function.name, each.version_id) for each in function.versions]
    return [*aliases, *versions, Change(Action.DELETE, Kind.FUNCTION, function.name)]


def surplus(deployment: Deployment, function: Function) -> Iterator[Change]:
    """Yields the deletions of a function's parts that were made here and are not needed: aliases before versions."""
    wanted = {tier.alias for tier in deployment.tiers_of(function.name)}
    staying = []
    for name, alias in function.aliases.items():
        if name in wanted or not deployment.made(alias.description):
            staying.append(alias)
        else:
            yield Change(Action.DELETE, Kind.ALIAS, function.name, name, only_pruned=True)
    held = {version_id for alias in staying for version_id in (alias.version_id, *alias.weights)}
    free = [each for each in function.versions if each.version_id not in held and deployment.made(each.description)]
    newest_first = sorted(free, key=lambda version: int(version.version_id), reverse=True)
    for version in newest_first[VERSIONS_KEPT:]:
        yield Change(Action.DELETE, Kind.VERSION, function.name, version.version_id, only_pruned=True)


def is_current(deployment: Deployment, tier: Tier, alias: Alias | None) -> bool:
    """Returns whether an alias points to a version as desired, without regard to its provisioned instances."""
    return (
        alias is not None
        and not alias.weights
        and deployment.made(alias.description)
        and not differences(alias.configuration, tier.configuration)
    )


def reserved_change(deployment: Deployment, function: Function | None) -> tuple[FieldChange, ...]:
    """Returns the change of the reserved concurrency; it stays unchanged if the deployment does not set it."""
    have, want = function.reserved if function else None, deployment.reserved_concurrency
    if want is None or have == want:
        return ()
    return (FieldChange("reservedConcurrency", "-" if have is None else str(have), str(want)),)


def _of_function(deployment: Deployment, name: str, function: Function | None) -> Iterator[Change]:
    tiers = deployment.tiers_of(name)
    reserved = reserved_change(deployment, function)
    if function is None:
        yield Change(Action.CREATE, Kind.FUNCTION, name, fields=reserved)
        yield from (_of_tier(tier, None) for tier in tiers)
        return
    _check_ownership(deployment, function, tiers)
    yield Change(Action.UPDATE if reserved else Action.UNCHANGED, Kind.FUNCTION, name, fields=reserved)
    for tier in tiers:
        yield _of_tier(tier, function.aliases.get(tier.alias))
    yield from surplus(deployment, function)


def _of_tier(tier: Tier, alias: Alias | None) -> Change:
    have = alias.provisioned.target if alias else 0
    kept = (FieldChange("provisioned", str(have), str(tier.provisioned)),) if have != tier.provisioned else ()
    if alias is None:
        size = FieldChange("size", "-", size_in(tier.configuration))
        image = FieldChange("image", "-", str(tier.configuration["customContainerConfig"]["image"]))
        return Change(Action.CREATE, Kind.ALIAS, tier.function, tier.alias, (size, image, *kept))
    fields = differences(alias.configuration, tier.configuration) + kept
    if alias.weights:
        fields += (FieldChange("additionalVersionWeight", "set", "-"),)
    return Change(Action.UPDATE if fields else Action.UNCHANGED, Kind.ALIAS, tier.function, tier.alias, fields)


def _check_ownership(deployment: Deployment, function: Function, tiers: Sequence[Tier]) -> None:
    if not deployment.made(function.description):
        raise DeployError(
            f"function {function.name} exists and was not made by this deployment ({deployment.name}); give another"
            " `function` to the tier, or delete it first"
        )
    for tier in tiers:
        alias = function.aliases.get(tier.alias)
        if alias is not None and not deployment.made(alias.description):
            raise DeployError(
                f"alias {tier.address} exists and edgeburst did not make it; give the tier another `qualifier`"
            )
        if function.latest.get("gpuConfig") and not tier.has_gpu:
            raise DeployError(
                f"function {function.name} has a GPU, which the provider cannot remove; give tier {tier.name} another"
                " `function`"
            )

"""What has to change from what there is to what shall be: pure, so that what is shown is what is done."""

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
"""Versions that no alias points to any more and that are kept for a step back by hand."""


class Action(Enum):
    """What happens to a thing."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    DELETE = "delete"


class Kind(Enum):
    """What a thing is."""

    FUNCTION = "function"
    ALIAS = "alias"
    VERSION = "version"


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the difference.

    Parameters:
        action: what happens.
        kind: to what kind of thing.
        function: the function that it is, or hangs on.
        name: of the alias or version; "" for a function.
        fields: what changes in it.
        only_pruned: whether it happens only if it is asked for.
    """

    action: Action
    kind: Kind
    function: str
    name: str = ""
    fields: tuple[FieldChange, ...] = ()
    only_pruned: bool = False

    @property
    def what(self) -> str:
        """The thing, as people write it."""
        return f"{self.function}:{self.name}" if self.name else self.function


def difference(
    deployment: Deployment, functions: Mapping[str, Function], leftovers: Sequence[str] = ()
) -> tuple[Change, ...]:
    """Returns what has to change.

    Parameters:
        deployment: what shall be.
        functions: what there is of its functions, by name.
        leftovers: names of other functions that this deployment made and that are no longer asked for.

    Raises:
        DeployError: something of that name is there and was not made here, or cannot be changed into what is wanted.
    """
    changes: list[Change] = []
    for name in deployment.functions:
        changes += _of_function(deployment, name, functions.get(name))
    changes += [Change(Action.DELETE, Kind.FUNCTION, name, only_pruned=True) for name in leftovers]
    return tuple(changes)


def removal(deployment: Deployment, function: Function) -> list[Change]:
    """Returns what goes with a function, in the order in which the provider lets it go.

    Raises:
        DeployError: something hangs on it that was not made here.
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
    """Yields what was made here and is no longer needed of a function: aliases first, because they hold versions."""
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
    """Returns whether an alias points to a version that is as it shall be; how many are kept is another matter."""
    return (
        alias is not None
        and not alias.weights
        and deployment.made(alias.description)
        and not differences(alias.configuration, tier.configuration)
    )


def reserved_change(deployment: Deployment, function: Function | None) -> tuple[FieldChange, ...]:
    """Returns how the reserved concurrency changes; one that nobody asks for stays as it is."""
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
    _refuse_strangers(deployment, function, tiers)
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


def _refuse_strangers(deployment: Deployment, function: Function, tiers: Sequence[Tier]) -> None:
    if not deployment.made(function.description):
        raise DeployError(
            f"function {function.name} exists and was not made by this deployment ({deployment.name}); name another in"
            " `function` of the tier, or delete it first"
        )
    for tier in tiers:
        alias = function.aliases.get(tier.alias)
        if alias is not None and not deployment.made(alias.description):
            raise DeployError(
                f"alias {tier.address} exists and edgeburst did not make it; name another in `qualifier` of the tier"
            )
        if function.latest.get("gpuConfig") and not tier.has_gpu:
            raise DeployError(
                f"function {function.name} has a GPU, which the provider does not take away again; give tier"
                f" {tier.name} another `function`"
            )

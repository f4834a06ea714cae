"""From a configuration, or a plan and a configuration, to the desired state."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from models import catalogue
from scheduler.daemon.config.config import Config
from scheduler.daemon.config.deploy_sections import DeploySection
from scheduler.daemon.config.model_sections import ModelSection, TierSection
from scheduler.deploying.desired import Deployment, Tier
from scheduler.deploying.errors import DeployError
from scheduler.deploying.probe import probe_request, ragged_outputs
from scheduler.planning.instance_sizes import Size, fitted
from scheduler.planning.plan_file import Group

_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
# Where serverless_fn's Dockerfile puts folders of models.
_MODELS = "/srv/models"


@dataclass(frozen=True, slots=True)
class Draft:
    """The desired state, and the tiers that a configuration still lacks.

    Attributes:
        deployment: the desired state.
        unconfigured: tiers without a [[model.tier]], which no daemon calls yet.
        proposed: provisioned instances that a plan proposes, by tier.
    """

    deployment: Deployment
    unconfigured: tuple[Tier, ...] = ()
    proposed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The names, the size and the largest batch of a tier."""

    name: str
    function: str
    alias: str
    size: Size
    max_batch: int


def draft(config: Config) -> Draft:
    """Returns the tiers of a configuration.

    Raises:
        DeployError: there is nothing to deploy, or the configuration contradicts itself; names table and key.
    """
    deploy = _deploy_section(config)
    tiers = [
        _tier(config, deploy, model, _configured(config, deploy, index, number))
        for index, model in enumerate(config.models)
        for number in range(len(model.tiers))
    ]
    if not tiers:
        raise DeployError(f"{config.path}: there is no [[model.tier]] to deploy; add one")
    return Draft(_checked(config, deploy, tiers))


def draft_plan(config: Config, groups: Sequence[Group], *, model_name: str) -> Draft:
    """Returns the tiers for the groups of a plan; groups of one size share a tier.

    A group with the size of a configured tier gets the function and qualifier of that tier; other groups get names made
    of their model and size.

    Args:
        config: account, images, and configured tiers.
        groups: the groups of the plan.
        model_name: the model of the applications; "" if the configuration has only one.

    Raises:
        DeployError: the configuration contradicts itself.
        SizeError: the provider does not sell a group's size.
    """
    deploy = _deploy_section(config)
    index, model = _model(config, model_name)
    known = [_configured(config, deploy, index, number) for number in range(len(model.tiers))]
    wanted: dict[str, _Wanted] = {}
    proposed: dict[str, int] = {}
    for group in groups:
        each = _planned(deploy, model, group, known)
        before = wanted.get(each.name)
        proposed[each.name] = proposed.get(each.name, 0) + group.provisioned
        wanted[each.name] = each if before is None or before.max_batch < each.max_batch else before
    tiers = [_tier(config, deploy, model, each) for each in wanted.values()]
    names = {tier.name for tier in model.tiers}
    unconfigured = tuple(tier for tier in tiers if tier.name not in names)
    return Draft(_checked(config, deploy, tiers), unconfigured, proposed)


def tier_table(tier: Tier) -> str:
    """Returns the table that a configuration needs for the daemon to use a tier."""
    configuration: Mapping[str, Any] = tier.configuration
    card = configuration.get("gpuConfig", {})
    lines = [
        "[[model.tier]]",
        f'name = "{tier.name}"',
        f'function = "{tier.function}"',
        f'qualifier = "{tier.alias}"',
        f'profile = "{tier.name}.json"    # measure it: edgeburst profile function --function {tier.function}'
        f" --qualifier {tier.alias} --model {tier.model} --memory-mb {configuration['memorySize']}"
        f" --vcpu {configuration['cpu']:g} --out {tier.name}.json",
        f"memory_gb = {configuration['memorySize'] / 1024:g}",
        f"vcpu = {configuration['cpu']:g}",
    ]
    if card:
        lines += [f"gpu_gb = {card['gpuMemorySize'] / 1024:g}", f'gpu_type = "{card["gpuType"]}"']
    return "\n".join(lines)


def _deploy_section(config: Config) -> DeploySection:
    if config.deploy is None:
        raise DeployError(f"{config.path}: the table [deploy], which names the image, is missing; add it")
    if config.function is None:
        raise DeployError(f"{config.path}: the table [function], which names the account, is missing; add it")
    return config.deploy


def _model(config: Config, name: str) -> tuple[int, ModelSection]:
    names = [model.name for model in config.models]
    if not name and len(names) > 1:
        raise DeployError(f"{config.path} has several models; name that of the plan with --model: {', '.join(names)}")
    if name and name not in names:
        raise DeployError(f"{config.path} has no model {name}; name one of {', '.join(names)}")
    index = names.index(name) if name else 0
    return index, config.models[index]


def _configured(config: Config, deploy: DeploySection, index: int, number: int) -> _Wanted:
    tier = config.models[index].tiers[number]
    return _Wanted(
        name=tier.name,
        function=tier.function,
        alias=tier.qualifier,
        size=fitted(_size(tier, deploy), where=f"{config.path}: tier {tier.name}"),
        max_batch=config.tier_profile(index, number).max_batch,
    )


def _size(tier: TierSection, deploy: DeploySection) -> Size:
    return Size(
        vcpu=tier.vcpu,
        memory_gb=tier.memory_gb,
        gpu_gb=tier.gpu_gb,
        gpu_type=tier.gpu_type or deploy.gpu_type,
        disk_gb=tier.disk_gb,
    )


def _planned(deploy: DeploySection, model: ModelSection, group: Group, known: Sequence[_Wanted]) -> _Wanted:
    size = fitted(group.size(deploy.gpu_type), where=group.name)
    for tier in known:
        if tier.size.label == size.label:
            return _Wanted(tier.name, tier.function, tier.alias, tier.size, max(tier.max_batch, group.batch))
    function = re.sub(r"[^A-Za-z0-9_-]", "-", f"{deploy.name}-{model.name}-{group.kind}")
    return _Wanted(size.label, function, size.label, size, group.batch)


def _tier(config: Config, deploy: DeploySection, model: ModelSection, wanted: _Wanted) -> Tier:
    return Tier(
        name=wanted.name,
        function=wanted.function,
        alias=wanted.alias,
        model=model.name,
        configuration=_configuration(config, deploy, model, wanted),
        provisioned=deploy.provisioned.get(wanted.name, 0),
        probe=probe_request(model),
        ragged=ragged_outputs(model),
    )


def _configuration(config: Config, deploy: DeploySection, model: ModelSection, wanted: _Wanted) -> dict[str, Any]:
    """Returns a function's configuration in the provider's fields; serverless_fn is the program of its container."""
    on_gpu = bool(wanted.size.gpu_gb)
    device = {"DEVICE": "cuda"} if on_gpu else {}
    return {
        **wanted.size.configuration(),
        "runtime": "custom-container",
        "handler": "index.handler",
        "timeout": deploy.timeout_s,
        # One batch at a time: a second batch would share the vCPU with the first one.
        "instanceConcurrency": 1,
        "internetAccess": False,
        "customContainerConfig": {
            "image": (deploy.gpu_image if on_gpu else "") or deploy.image,
            "port": deploy.port,
            "command": list(deploy.command),
            "healthCheckConfig": {
                "httpGetUrl": "/healthz",
                "initialDelaySeconds": 1,
                "periodSeconds": 3,
                "timeoutSeconds": 1,
                "failureThreshold": 3,
                "successThreshold": 1,
            },
        },
        "instanceLifecycleConfig": {
            # No pre-stop hook: each call of it would be billed, and the container has nothing to do in it.
            "initializer": {"handler": "index.initialize", "timeout": 120},
        },
        "environmentVariables": {
            "MODEL": model.name,
            **_own_model(config, model),
            "MAX_BATCH": str(wanted.max_batch),
            **device,
            **deploy.environment,
        },
    }


def _own_model(config: Config, model: ModelSection) -> dict[str, str]:
    """Returns the variables of a model with a card: where the image has it, and which one it must be."""
    if not model.card:
        return {}
    identity, card = config.identities()[model.name], config.card(config.models.index(model))
    # A shipped model is in every image.
    where = {} if card is not None and card.folder.parent == catalogue.SHIPPED else {"MODELS": _MODELS}
    return where | ({} if identity is None else {"MODEL_IDENTITY": f"{model.name}={identity}"})


def _checked(config: Config, deploy: DeploySection, tiers: Sequence[Tier]) -> Deployment:
    configured = {tier.name for model in config.models for tier in model.tiers}
    for sentence in (*_contradictions(tiers), *_unknown_tiers(deploy, configured | {tier.name for tier in tiers})):
        raise DeployError(f"{config.path}: {sentence}")
    return Deployment(deploy.name, tuple(tiers), deploy.reserved_concurrency)


def _contradictions(tiers: Sequence[Tier]) -> Iterator[str]:
    addresses: dict[str, Tier] = {}
    for tier in tiers:
        if tier.alias == "LATEST" or tier.alias.isdecimal() or not _ALIAS.fullmatch(tier.alias):
            yield (
                f"`qualifier` of tier {tier.name} is {tier.alias}; it must be an alias (letters, digits, _ and -), so"
                " that it can move to a new version in one step"
            )
        if not _FUNCTION.fullmatch(tier.function):
            yield f"`function` of tier {tier.name} must be 1 to 64 letters, digits, _ or -, the first a letter or _"
        other = addresses.setdefault(tier.address, tier)
        if other is not tier:
            yield f"tiers {other.name} and {tier.name} are both {tier.address}; give one another `qualifier`"
        if any(each.function == tier.function and each.has_gpu != tier.has_gpu for each in tiers):
            yield f"function {tier.function} has tiers with and without a GPU; give them a `function` each"


def _unknown_tiers(deploy: DeploySection, names: AbstractSet[str]) -> Iterator[str]:
    for name in deploy.provisioned:
        if name not in names:
            known = ", ".join(sorted(names))
            yield f"`provisioned` in [deploy] names tier {name}, which does not exist; name one of {known}"

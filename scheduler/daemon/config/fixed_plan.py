"""A plan of `edgeburst plan --json` as the daemon follows it: applications become classes, groups become buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from scheduler.daemon.config.model_sections import ModelSection, TierSection
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier
from scheduler.domain.plans import LoadedBuffer, ServiceClass
from scheduler.planning.instance_sizes import Size, fitted
from scheduler.planning.plan_file import Group, PlanFile


class LoadedPlanError(EdgeburstError):
    """A plan that does not fit the configuration; one sentence without the file's name."""


def loaded_buffers(
    plan: PlanFile, model: ModelSection, *, classes: Sequence[ServiceClass], tiers: Sequence[FunctionTier]
) -> tuple[LoadedBuffer, ...]:
    """Returns the buffers of a model; those of one class by ascending size of requests.

    A plan with one application fits a model with one class, whatever their names are.

    Args:
        plan: the plan.
        model: the model that the plan is for.
        classes: the classes of the model.
        tiers: the tiers of the model, with their latency models and prices.

    Raises:
        LoadedPlanError: an application, a class or a tier has no counterpart, or a batch or a wait of the plan is not
            feasible.
    """
    leaving = {c.name: c for c in classes if not c.edge_only}
    if plan.infeasible:
        raise LoadedPlanError(f"the plan does not keep its objectives ({plan.infeasible}); plan again")
    if plan.currency and tiers and plan.currency != tiers[0].price.currency:
        raise LoadedPlanError(
            f"the plan is in {plan.currency}, `price_sheet` in {tiers[0].price.currency}; plan with the same sheet"
        )
    names = {app: app for app in plan.apps}
    if len(plan.apps) == len(leaving) == 1:
        names = {plan.apps[0]: next(iter(leaving))}
    for sentence in _unmatched(names, leaving, model):
        raise LoadedPlanError(sentence)
    buffers = [_buffer(group, model, names=names, classes=leaving, tiers=tiers) for group in _ascending(plan.groups)]
    return tuple(buffers)


def _unmatched(names: Mapping[str, str], leaving: Mapping[str, ServiceClass], model: ModelSection) -> Iterator[str]:
    for name in names.values():
        if name not in leaving:
            yield (
                f"model {model.name} has no [[model.class]] for application {name} of the plan, or it is edge-only;"
                " add a class of that name, or plan without it"
            )
    for name in leaving:
        if name not in names.values():
            yield f"the plan has no application for class {name} of model {model.name}; plan with one of that name"


def _ascending(groups: Sequence[Group]) -> list[Group]:
    """Returns groups by ascending size of requests; the last group of an application also takes all larger requests.

    An application has at most one group for requests of any size.
    """
    seen: dict[str, list[Group]] = {}
    for group in groups:
        for app in group.apps:
            seen.setdefault(app, []).append(group)
    for app, own in seen.items():
        if len(own) > 1 and any(group.up_to_bytes is None for group in own):
            raise LoadedPlanError(f"application {app} is in two groups of the plan; plan again")
        if len({group.apps for group in own}) > 1:
            raise LoadedPlanError(f"application {app} shares only some of its groups with others; plan again")
        if len({group.up_to_bytes for group in own}) < len(own):
            raise LoadedPlanError(f"application {app} has two groups with the same up_to_bytes; plan again")
    ordered = sorted(groups, key=lambda group: group.up_to_bytes or 0.0)
    last = [max(own, key=lambda group: group.up_to_bytes or 0.0) for own in seen.values()]
    return [replace(group, up_to_bytes=None) if any(group is each for each in last) else group for group in ordered]


def _buffer(
    group: Group,
    model: ModelSection,
    *,
    names: Mapping[str, str],
    classes: Mapping[str, ServiceClass],
    tiers: Sequence[FunctionTier],
) -> LoadedBuffer:
    tier = _tier(group, model, tiers)
    max_batch = min(tier.latency.max_batch, model.max_items)
    if group.batch > max_batch:
        raise LoadedPlanError(
            f"{group.name} has batches of {group.batch}, but tier {tier.name} takes at most {max_batch} items"
            " (its profile's largest batch, and `max_items`); measure larger ones, or plan again"
        )
    for app in group.apps:
        for sentence in _broken(app, group, classes[names[app]]):
            raise LoadedPlanError(f"application {app}: {sentence}")
        _check_in_time(app, group.timeouts_s[app], tier, classes[names[app]])
    return LoadedBuffer(
        classes=tuple(names[app] for app in group.apps),
        tier=tier.name,
        target_batch=group.batch,
        timeouts_s={names[app]: group.timeouts_s[app] for app in group.apps},
        cost_per_item=group.cost_per_request,
        up_to_bytes=group.up_to_bytes,
    )


def _check_in_time(app: str, wait_s: float, tier: FunctionTier, service_class: ServiceClass) -> None:
    """Checks that a request which waits as long as the plan allows can still be in time on its tier.

    Raises:
        LoadedPlanError: the wait and the tier's service time of one item exceed the SLO.
    """
    takes_s = tier.latency.predict_s(1)
    if wait_s + takes_s > service_class.slo_s:
        raise LoadedPlanError(
            f"application {app}: it waits up to {wait_s:.3g} s, and tier {tier.name} takes {takes_s:.3g} s for one item"
            f" by its profile, which exceeds the `slo_s` of {service_class.slo_s:g}; plan again with that profile"
        )


def _broken(app: str, group: Group, service_class: ServiceClass) -> Iterator[str]:
    """Yields a sentence for each promise of the plan that does not fit the application's class."""
    if app not in group.timeouts_s:
        yield "`timeouts_s` is missing in the plan; make the plan with `edgeburst plan --json`"
    elif group.timeouts_s[app] >= service_class.slo_s:
        yield (
            f"it waits up to {group.timeouts_s[app]:g} s, but its class has an `slo_s` of {service_class.slo_s:g};"
            " plan with that SLO"
        )
    percentile, latency_s = group.promises.get(app, (1.0, 0.0))
    if latency_s > service_class.slo_s * (1 + 1e-9):
        yield f"the plan promises {latency_s:g} s, its class has an `slo_s` of {service_class.slo_s:g}; plan with that"
    if percentile < service_class.percentile - 1e-9:
        yield (
            f"the plan promises its latency for {percentile:g} of the requests, but its class has a `percentile` of"
            f" {service_class.percentile:g}; plan with that"
        )


def _tier(group: Group, model: ModelSection, tiers: Sequence[FunctionTier]) -> FunctionTier:
    wanted = fitted(group.size(), where=group.name)
    for section, tier in zip(model.tiers, tiers, strict=True):
        if _size(section).label == wanted.label:
            return tier
    raise LoadedPlanError(
        f"{group.name} needs {wanted.label}, but model {model.name} has no such [[model.tier]]; `edgeburst fc apply"
        " PLAN --config FILE` makes the function and prints the table to add"
    )


def _size(tier: TierSection) -> Size:
    asked = Size(vcpu=tier.vcpu, memory_gb=tier.memory_gb, gpu_gb=tier.gpu_gb, disk_gb=tier.disk_gb)
    return fitted(asked, where=f"tier {tier.name}")

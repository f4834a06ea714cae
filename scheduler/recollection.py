"""What estimates leave to the next process, part by part, and the plan: each is taken up where it is still true."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from scheduler.domain.latency import FunctionTier
from scheduler.domain.memory import Remembered, entries, fingerprint, finite
from scheduler.domain.plain import from_plain, to_plain
from scheduler.domain.plans import EdgeSettings, EngineSettings, GroupPlan, Plan
from scheduler.domain.requests import EDGE_NAME
from scheduler.estimates import Estimates, ModelKnowledge
from scheduler.estimators.size_effect import SizeEffect

_LARGEST_BATCH = 2**20
"""Of a plan that is taken up."""
VERSION = 1
"""Of the contents here; raise it when an estimator's snapshot changes its form."""


def estimates_parts(estimates: Estimates, settings: EngineSettings) -> Iterator[Remembered]:
    """Yields the parts of the estimates under these settings."""
    yield _uplink(estimates, settings)
    for model in settings.models:
        known = estimates.models[model.name]
        yield _traffic(known)
        for name in known.edges:
            yield _edge(known, name, settings.edge_overhead_s, alone=len(settings.edges) == 1)
        for tier in model.tiers:
            yield _function(known, tier)


class PlanMemory:
    """The last plan, for the next process to begin with."""

    def __init__(self) -> None:
        """Starts without a plan."""
        self.plan: Plan | None = None
        self.seen_s = 0.0
        """Seconds of traffic that it was made from."""
        self.age_s = 0.0

    def part(self, settings: EngineSettings, plan: Plan | None, seen_s: float) -> Remembered:
        """Returns the present plan as a part; it is only true of the same models, classes, tiers and edge servers."""

        def snapshot(now_s: float) -> object:  # noqa: ARG001
            return {"seen_s": seen_s if math.isfinite(seen_s) else 0.0, "plan": to_plain(plan)}

        def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
            given = entries(content)
            seen = finite(given["seen_s"])
            plan = from_plain(Plan, given["plan"])
            for group in plan.groups:
                _check_group(group, settings)
            self.plan, self.seen_s, self.age_s = plan, seen, age_s

        edges = "" if settings.edges == (EdgeSettings(),) else repr(settings.edges)
        return Remembered("plan", VERSION, fingerprint(model=repr(settings.models) + edges), snapshot, restore)

    def first_plan(self, *, now_s: float, stands_s: float) -> Plan | None:
        """Returns the plan to begin with; None where none was taken up.

        Args:
            now_s: the present.
            stands_s: how long it stands: what has changed meanwhile is learned by then.
        """
        if self.plan is None:
            return None
        detail = f"as before the restart, saved {self.age_s:.0f} s ago"
        return replace(
            self.plan, plan_id=1, made_at_s=now_s, expires_at_s=now_s + stands_s, cause="start", detail=detail
        )


def _check_group(group: GroupPlan, settings: EngineSettings) -> None:
    """Raises ValueError for a plan that the planner cannot have made for these models."""
    model = next((each for each in settings.models if each.name == group.model), None)
    if model is None:
        raise ValueError(f"a plan for model {group.model}")
    classes, tiers = {each.name for each in model.classes}, {tier.name for tier in model.tiers}
    known = set(group.classes) == classes and classes >= group.edge_margins.keys()
    sound = 0 <= group.edge_batch_cap <= _LARGEST_BATCH and _are_factors(group.edge_margins.values())
    for buffer in group.buffers:
        named = set(buffer.classes) | buffer.margins.keys() | buffer.timeouts_s.keys()
        known = known and buffer.tier in tiers and bool(buffer.classes) and classes >= named
        sound = sound and 1 <= buffer.target_batch <= _LARGEST_BATCH and 0 < buffer.percentile < 1
        factors = (buffer.share, buffer.size_factor, *buffer.margins.values(), *buffer.timeouts_s.values())
        sound = (
            sound and _are_factors(factors) and set(buffer.classes) <= buffer.margins.keys() & buffer.timeouts_s.keys()
        )
    if not (known and sound and 0 < group.percentile < 1):
        raise ValueError(f"a plan for other classes or tiers of model {group.model}")


def _are_factors(numbers: Iterable[float]) -> bool:
    """Whether all are at least 0; NaN is not."""
    return all(number >= 0 for number in numbers)


def _uplink(estimates: Estimates, settings: EngineSettings) -> Remembered:
    def snapshot(now_s: float) -> object:
        return {
            "bandwidth": estimates.bandwidth.snapshot(now_s),
            "excess": estimates.path_excess.snapshot(),
            "seen_ago_s": now_s - estimates.path_seen_s,
        }

    def restore(content: object, age_s: float, now_s: float) -> None:
        given = entries(content)
        # That nothing was sent since it was saved is no sign of a link that is gone: this process was.
        seen_at_s = now_s - finite(given["seen_ago_s"])
        excess = estimates.path_excess.restored(given["excess"], age_s=age_s)
        estimates.bandwidth.restore(given["bandwidth"], age_s=age_s, now_s=now_s)
        estimates.path_excess, estimates.path_seen_s = excess, seen_at_s
        estimates.read_path()

    names = sorted({tier.function_name for model in settings.models for tier in model.tiers})
    return Remembered("uplink", VERSION, fingerprint(model=",".join(names)), snapshot, restore)


def _traffic(known: ModelKnowledge) -> Remembered:
    def snapshot(now_s: float) -> object:  # noqa: ARG001
        arrivals, mix = known.arrivals.snapshot(), known.mix.snapshot()
        return {"arrivals": arrivals, "mix": mix, "item_bytes": known.item_bytes}

    def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
        given = entries(content)
        item_bytes, mix = finite(given["item_bytes"]), known.mix.restored(given["mix"], age_s=age_s)
        known.arrivals.restore(given["arrivals"], age_s=age_s)
        known.item_bytes, known.mix = item_bytes, mix

    model = known.settings
    classes = ",".join(sorted(each.name for each in model.classes))
    return Remembered(f"traffic:{model.name}", VERSION, fingerprint(model=f"{model.name}/{classes}"), snapshot, restore)


def _edge(known: ModelKnowledge, name: str, overhead_s: float, *, alone: bool) -> Remembered:
    """Returns what is known of the model on one edge server.

    Args:
        known: of the model.
        name: the server's.
        overhead_s: what is added to the profile's services.
        alone: whether it is the only one: then what was saved of one without a name is true of it.
    """
    service, before = known.edges[name], f"edge:{known.settings.name}"

    def snapshot(now_s: float) -> object:  # noqa: ARG001
        return service.snapshot()

    def restore(content: object, age_s: float, now_s: float) -> None:  # noqa: ARG001
        service.restore(content, age_s=age_s)

    model = known.settings
    mark = fingerprint(model=model.name, profile=model.edge_latency_on(name), overhead_s=overhead_s)
    if name == EDGE_NAME:
        return Remembered(before, VERSION, mark, snapshot, restore)
    return Remembered(f"{before}:{name}", VERSION, mark, snapshot, restore, before if alone else "")


def _function(known: ModelKnowledge, tier: FunctionTier) -> Remembered:
    service, pool = known.functions[tier.name], known.warm[tier.name]

    def snapshot(now_s: float) -> object:
        sizes = known.size_effects.get(tier.name, SizeEffect()).snapshot()
        return {"service": service.snapshot(), "sizes": sizes, "pool": pool.snapshot(now_s)}

    def restore(content: object, age_s: float, now_s: float) -> None:
        given = entries(content)
        sizes = SizeEffect.restored(given["sizes"], age_s=age_s)
        pool.restore(given["pool"], age_s=age_s, now_s=now_s)
        service.restore(given["service"], age_s=age_s)
        known.size_effects[tier.name] = sizes

    mark = fingerprint(model=known.settings.name, profile=tier.latency, tier=tier)
    return Remembered(f"function:{known.settings.name}:{tier.name}", VERSION, mark, snapshot, restore)

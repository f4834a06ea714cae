"""Proposals of provisioned instances for the tiers of a configuration, as values, JSON and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scheduler.domain.plans import EngineSettings, ModelSettings, Snapshot
from scheduler.estimates import Estimates
from scheduler.planner.functions.provisioning import Upkeep
from scheduler.planner.site.outlook import Serving
from scheduler.planner.site.plan import servings
from scheduler.planner.site.warm_instances import Proposal, TierInstances, propose

HOUR_S, DAY_S = 3600.0, 86_400.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Expected traffic of one model.

    Attributes:
        rates_rps: requests a second, one rate after another, and then the first again; at least one.
        hold_s: mean seconds of each rate.
        request_bytes: mean bytes of a request.
    """

    rates_rps: tuple[float, ...]
    hold_s: float = HOUR_S
    request_bytes: float = 24_000.0

    @property
    def mean_rps(self) -> float:
        """Requests a second over all rates."""
        return sum(self.rates_rps) / len(self.rates_rps)


@dataclass(frozen=True, slots=True)
class InstanceTerms:
    """What is assumed of the platform's instances.

    Attributes:
        idle_prices: price of a second of a provisioned instance without a request, by model and tier.
        start_s: seconds of a start.
        kept_s: idle seconds after which the platform removes an instance that is not provisioned.
        uplink_bytes_per_s: bandwidth to the functions; None: that of the settings.
    """

    idle_prices: Mapping[tuple[str, str], float]
    start_s: float
    kept_s: float
    uplink_bytes_per_s: float | None = None


def tier_proposals(
    settings: EngineSettings, traffic: Mapping[str, Traffic], terms: InstanceTerms, *, on_demand: bool = True
) -> tuple[Proposal, ...]:
    """Returns the number of provisioned instances that pays, for each tier of the models whose traffic is given.

    Args:
        settings: the models.
        traffic: expected traffic by model; other models are planned without any.
        terms: prices and times of the instances.
        on_demand: False if no batch may start an instance beside the provisioned ones.
    """
    proposals = []
    for model in settings.models:
        expected = traffic.get(model.name)
        if expected is None or not model.tiers:
            continue
        phases = [
            (expected.hold_s, _serving(settings, model, rate_rps, traffic, terms)) for rate_rps in expected.rates_rps
        ]
        for tier in model.tiers:
            instances = TierInstances(tier, terms.idle_prices[model.name, tier.name], terms.start_s, terms.kept_s)
            proposals.append(propose(phases, instances, on_demand=on_demand))
    return tuple(proposals)


def _serving(
    settings: EngineSettings,
    model: ModelSettings,
    rate_rps: float,
    traffic: Mapping[str, Traffic],
    terms: InstanceTerms,
) -> Serving:
    """Returns how a model is served at one of its rates while the others have their mean rates."""
    estimates = Estimates(settings)
    models = {}
    for name, known in estimates.models.items():
        expected = traffic.get(name)
        mean_rps = expected.mean_rps if expected else 0.0
        models[name] = replace(
            known.estimates(),
            rate_rps=rate_rps if name == model.name else mean_rps,
            dispersion=1.0,
            item_bytes=float(expected.request_bytes) if expected else 0.0,
        )
    snapshot = Snapshot(
        taken_at_s=0.0,
        settings=settings,
        models=models,
        uplink_bytes_per_s=terms.uplink_bytes_per_s or estimates.uplink_bytes_per_s,
        uplink_rtt_s=estimates.uplink_rtt_s,
    )
    return next(each for each in servings(snapshot) if each.settings.name == model.name)


def proposal_json(proposal: Proposal, *, currency: str, configured: int | None = None) -> dict[str, Any]:
    """Returns a proposal, and what a configured number would lead to, as JSON shows it."""
    found: dict[str, Any] = {
        "model": proposal.model,
        "tier": proposal.tier,
        "currency": currency,
        "allowed_late": proposal.allowed,
        "proposed": _upkeep_json(proposal, proposal.chosen),
        "none": _upkeep_json(proposal, proposal.without),
    }
    if configured is not None:
        found["configured"] = _upkeep_json(proposal, proposal.at(configured))
    return found


def _upkeep_json(proposal: Proposal, found: Upkeep) -> dict[str, float]:
    return {
        "instances": found.count,
        "idle_per_hour": found.idle_per_s * HOUR_S,
        "starts_per_hour": found.starts_per_s * HOUR_S,
        "start_cost_per_hour": found.starting_per_s * HOUR_S,
        "late": proposal.late(found),
    }


def proposal_sentence(proposal: Proposal, *, currency: str) -> str:
    """Returns the proposal as a sentence."""
    chosen, without = proposal.chosen, proposal.without
    words = (
        f"tier {proposal.tier}: {chosen.count} provisioned, {_money(chosen.idle_per_s, currency)} while idle; without a"
        f" free one {_share(proposal.late(chosen))} of the requests are late, and {_share(proposal.allowed)} may be"
    )
    return words if not chosen.count else f"{words} (with none provisioned: {_share(proposal.late(without))})"


def configured_sentence(proposal: Proposal, configured: int, *, currency: str) -> str:
    """Returns a sentence if a configured number costs more than it saves, or is too small; else an empty text."""
    chosen, found = proposal.chosen, proposal.at(configured)
    where = f"`provisioned` in [deploy] has {configured} for tier {proposal.tier}"
    late = _share(proposal.late(found))
    if configured > chosen.count and found.cost_per_s > chosen.cost_per_s:
        more = (found.cost_per_s - chosen.cost_per_s) * DAY_S
        return (
            f"{where}, which costs {more:.4g} {currency} a day more than it saves: with {chosen.count},"
            f" {_share(proposal.late(chosen))} of the requests are late for want of a warm instance, and"
            f" {_share(proposal.allowed)} may be"
        )
    if configured < chosen.count and proposal.late(found) > proposal.allowed:
        return (
            f"{where}, with which {late} of the requests are late for want of a warm instance;"
            f" {_share(proposal.allowed)} may be, which needs {chosen.count}"
        )
    return ""


def _money(per_s: float, currency: str) -> str:
    return f"{per_s * HOUR_S:.4g} {currency} an hour and {per_s * DAY_S:.4g} {currency} a day"


def _share(part: float) -> str:
    return f"{part:.2g}" if 0 < part < 1e-5 else f"{part:.3%}"

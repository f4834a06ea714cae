"""What the provisioned instances of a deployment cost while idle, beside what the planner proposes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.deploying.desired import Deployment, Tier
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.site.warm_instances import Proposal
from scheduler.planning.warm_instances import DAY_S, HOUR_S, configured_sentence, proposal_sentence

_MB_PER_GB = 1024.0


@dataclass(frozen=True, slots=True)
class InstanceCosts:
    """Money for the provisioned instances of all tiers.

    Attributes:
        tiers: the tiers with instances, and the price of a second of one of them while idle.
        currency: currency of the prices.
        proposals: the planner's proposals, for the tiers whose traffic is known.
        planned: the number that a plan of applications proposes, by tier.
    """

    tiers: tuple[tuple[Tier, float], ...]
    currency: str
    proposals: tuple[Proposal, ...] = ()
    planned: Mapping[str, int] = field(default_factory=dict)

    @property
    def idle_per_s(self) -> float:
        """Money a second while all instances are idle."""
        return sum(tier.provisioned * per_s for tier, per_s in self.tiers)

    def sentence(self) -> str:
        """Returns the whole cost in one sentence; empty without instances."""
        count = sum(tier.provisioned for tier, _ in self.tiers)
        if not count:
            return ""
        per_hour, per_day = self.idle_per_s * HOUR_S, self.idle_per_s * DAY_S
        noun = "instance" if count == 1 else "instances"
        return (
            f"{count} provisioned {noun} will cost {per_hour:.4g} {self.currency} an hour and {per_day:.4g}"
            f" {self.currency} a day while idle"
        )

    def lines(self) -> Iterator[str]:
        """Yields the cost, and for each tier with known traffic what the planner proposes."""
        if words := self.sentence():
            yield f"{words}:"
        for tier, per_s in self.tiers:
            if tier.provisioned:
                yield f"  {tier.address}: {tier.provisioned} x {per_s * HOUR_S:.4g} {self.currency} an hour"
        for name, count in self.planned.items():
            yield f"proposed by the plan: {count} for tier {name} (`provisioned` in [deploy])"
        counts = {tier.name: tier.provisioned for tier, _ in self.tiers}
        for proposal in self.proposals:
            wrong = configured_sentence(proposal, counts.get(proposal.tier, 0), currency=self.currency)
            yield f"proposed for the expected traffic: {proposal_sentence(proposal, currency=self.currency)}"
            if wrong:
                yield f"warning: {wrong}"

    def as_json(self) -> dict[str, Any]:
        """Returns the same as JSON shows it."""
        proposed = {**self.planned, **{proposal.tier: proposal.chosen.count for proposal in self.proposals}}
        return {
            "currency": self.currency,
            "idle_per_hour": self.idle_per_s * HOUR_S,
            "idle_per_day": self.idle_per_s * DAY_S,
            "tiers": [
                {
                    "tier": tier.name,
                    "function": tier.address,
                    "instances": tier.provisioned,
                    "proposed": proposed.get(tier.name),
                    "idle_per_hour": tier.provisioned * per_s * HOUR_S,
                    "idle_per_day": tier.provisioned * per_s * DAY_S,
                }
                for tier, per_s in self.tiers
            ],
        }


def instance_costs(
    deployment: Deployment,
    sheet: PriceSheet,
    proposals: Sequence[Proposal] = (),
    planned: Mapping[str, int] | None = None,
) -> InstanceCosts:
    """Returns what the provisioned instances of a deployment cost.

    Raises:
        PriceSheetError: the sheet has no price for a tier's instances.
    """
    priced = tuple((tier, _idle_per_s(tier, sheet)) for tier in deployment.tiers)
    return InstanceCosts(priced, sheet.currency, tuple(proposals), planned or {})


def _idle_per_s(tier: Tier, sheet: PriceSheet) -> float:
    card = tier.configuration.get("gpuConfig", {})
    return sheet.idle_per_s(
        memory_gb=tier.configuration["memorySize"] / _MB_PER_GB,
        vcpu=tier.configuration["cpu"],
        gpu_gb=card.get("gpuMemorySize", 0) / _MB_PER_GB,
        gpu_type=card.get("gpuType", ""),
        disk_gb=tier.configuration["diskSize"] / _MB_PER_GB,
    )

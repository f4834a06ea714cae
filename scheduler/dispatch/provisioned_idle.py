"""What provisioned instances cost while they serve nothing: by the clock, less the seconds in which they serve."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from scheduler.domain.latency import FunctionTier
from scheduler.domain.plans import ModelSettings


@dataclass(slots=True)
class _Kept:
    """The instances of one tier."""

    tier: FunctionTier
    counted_s: float = 0.0
    """Instance-seconds without a call so far, under the present settings."""
    cost: float = 0.0
    """Of those before."""


@dataclass(slots=True)
class ProvisionedIdle:
    """Money for idle instances since time first passed.

    >>> from scheduler.domain.latency import LatencyModel, Price
    >>> tier = FunctionTier("cpu", "f", LatencyModel(0.1, 0.0, 4), Price(2.0, 0.0), provisioned=3, idle_per_s=1.0)
    >>> idle = ProvisionedIdle()
    >>> idle.configure([ModelSettings("m", tiers=(tier,))])
    >>> idle.pass_time(100.0)
    >>> idle.pass_time(110.0)
    >>> idle.served("m", "cpu", 4.0)
    >>> idle.cost_per_s, idle.total
    (3.0, 26.0)
    """

    _kept: dict[tuple[str, str], _Kept] = field(default_factory=dict)
    """By model and tier; those that a reload took away stay with what they cost."""
    _now_s: float | None = None
    """Until when time is counted; None: it has not begun."""

    @property
    def cost_per_s(self) -> float:
        """Money a second if none of them serves."""
        return sum([kept.tier.provisioned * kept.tier.idle_per_s for kept in self._kept.values()])

    @property
    def total(self) -> float:
        """Money so far."""
        return sum([amount for _, _, amount in self.amounts()])

    def amounts(self) -> list[tuple[str, FunctionTier, float]]:
        """Returns model, tier and money so far of each tier that costs any."""
        rows = [(model, kept.tier, _amount(kept)) for (model, _), kept in sorted(self._kept.items())]
        return [row for row in rows if row[2] > 0.0]

    def configure(self, models: Sequence[ModelSettings]) -> None:
        """Takes over the tiers of a configuration, from the time on that has passed last."""
        tiers = {(model.name, tier.name): tier for model in models for tier in model.tiers}
        for pool, kept in self._kept.items():
            kept.cost, kept.counted_s = _amount(kept), 0.0
            kept.tier = tiers.get(pool) or replace(kept.tier, provisioned=0)
        for pool, tier in tiers.items():
            self._kept.setdefault(pool, _Kept(tier))

    def pass_time(self, now_s: float) -> None:
        """Counts the time up to now."""
        before_s = now_s if self._now_s is None else self._now_s
        self._now_s = max(before_s, now_s)
        for kept in self._kept.values():
            kept.counted_s += kept.tier.provisioned * (self._now_s - before_s)

    def served(self, model: str, tier: str, duration_s: float) -> None:
        """Takes off the seconds in which one of them served a call, which is billed as such."""
        kept = self._kept.get((model, tier))
        if kept is not None:
            kept.counted_s -= duration_s


def _amount(kept: _Kept) -> float:
    return kept.cost + max(0.0, kept.counted_s) * kept.tier.idle_per_s

"""Deployed tiers as functions to choose from: what is known of their services, behind the uplink, at their prices."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.planner.catalogue.configurations import Configurations
from scheduler.planner.catalogue.function_path import FunctionPath
from scheduler.planner.catalogue.latency_models import Resources, TableLatency
from scheduler.planner.catalogue.prices import PriceSheet
from scheduler.planner.functions.size_classes import largest_of_batch


@dataclass(frozen=True, slots=True)
class TierOffer:
    """Tiers, each a configuration of its own whose kind is the tier's name.

    Attributes:
        name: for messages.
        tiers: at least one.
        latencies: what was learned of them by name; a tier's own latency model counts where nothing was.
        sigma: of the lognormal spread of their services.
        path: to them.
        max_items: most items in a batch.
        size_factors: by tier, what items of a size make of a service; empty where size does not matter.
        size_shares: part of the items of each of these sizes.
    """

    name: str
    tiers: tuple[FunctionTier, ...]
    latencies: Mapping[str, LatencyModel]
    sigma: float
    path: FunctionPath
    max_items: int
    size_factors: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    size_shares: tuple[float, ...] = ()

    @property
    def sheet(self) -> PriceSheet:
        """Stands where a price sheet is asked for: a deployed tier brings its price along."""
        price = self.tiers[0].price
        return PriceSheet(self.name, price.currency, price.sheet, date="", note="", grain_s=price.grain_s)

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...] = ()) -> tuple[Configurations, ...]:  # noqa: ARG002
        """Returns one configuration for each tier; price sheet and kinds say nothing about deployed ones.

        Batches of all sizes are as late as those with the largest items, and billed by the largest of each batch.
        """
        return tuple(self._mixed(tier) for tier in self.tiers)

    def _mixed(self, tier: FunctionTier) -> Configurations:
        factors = tuple(self.size_factors.get(tier.name, {}).values())
        if not factors:
            return self._configuration(tier)
        slowest = self._configuration(tier, factors[-1])
        items = np.arange(1, slowest.max_batch + 1)
        weights = largest_of_batch(self.size_shares, items) * (np.array(factors) / factors[-1])[:, None]
        billed_s = slowest.services.billed_s * weights.sum(axis=0)
        return replace(slowest, services=replace(slowest.services, billed_s=billed_s))

    def tabulated_for(
        self,
        size_bytes: float,
        sheet: PriceSheet,  # noqa: ARG002
        *,
        kinds: tuple[str, ...] = (),  # noqa: ARG002
    ) -> tuple[Configurations, ...]:
        """Returns the same for batches whose largest item is of one size.

        The path stays that of all sizes: transfers are not billed, and the dispatcher counts every byte itself.
        """
        return tuple(
            self._configuration(tier, self.size_factors.get(tier.name, {}).get(size_bytes, 1.0)) for tier in self.tiers
        )

    def _configuration(self, tier: FunctionTier, size_factor: float = 1.0) -> Configurations:
        latency, nothing = self.latencies.get(tier.name, tier.latency).slower(size_factor), np.zeros(1)
        max_batch = min(latency.max_batch, self.max_items)
        seconds = TableLatency((tuple(latency.predict_s(items) for items in range(1, max_batch + 1)),), self.sigma)
        services = seconds.table(Resources(nothing, nothing, nothing), max_batch=max_batch, grain_s=tier.price.grain_s)
        return Configurations(
            kind=tier.name,
            vcpu=nothing,
            gpu_gb=nothing,
            memory_gb=np.zeros((1, max_batch)),
            allowed=np.ones((1, max_batch), dtype=np.bool_),
            services=self.path.lengthened(services),
            per_s=np.full((1, max_batch), tier.price.per_s),
            per_call=tier.price.per_call,
        )

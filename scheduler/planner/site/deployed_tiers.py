"""Deployed tiers as functions to choose from: their learned services, behind the uplink, at their prices."""

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
    """Tiers, each of them one configuration whose kind is the name of the tier.

    Attributes:
        name: name of the offer in messages.
        tiers: at least one.
        latencies: learned latency models by tier name; a tier without one uses its own.
        sigma: standard deviation of the logarithm of their services.
        path: path to the tiers.
        max_items: largest batch.
        size_factors: factor of items of a size on a service, by tier; empty if sizes do not matter.
        size_shares: share of the items of each of these sizes.
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
        """A price sheet as the planner needs one; deployed tiers bring their own prices."""
        price = self.tiers[0].price
        return PriceSheet(self.name, price.currency, price.sheet, date="", note="", grain_s=price.grain_s)

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...] = ()) -> tuple[Configurations, ...]:  # noqa: ARG002
        """Returns one configuration for each tier; the arguments have no effect on deployed tiers.

        Batches of all sizes are as late as those with the largest items, and billed by the largest item of each batch.
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
        """Returns the same for batches whose largest item has one size.

        The path is that of all sizes: transfers are not billed, and the dispatcher counts every byte itself.
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

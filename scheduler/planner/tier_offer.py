"""Deployed tiers as functions to choose from: what is known of their services, behind the uplink, at their prices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from scheduler.domain.laws import FunctionTier, LatencyLaw
from scheduler.planner.configurations import Configurations, Way
from scheduler.planner.latency_laws import Grants, TableLaw
from scheduler.planner.prices import PriceSheet


@dataclass(frozen=True, slots=True)
class TierOffer:
    """Tiers, each a configuration of its own whose kind is the tier's name.

    Parameters:
        name: for messages.
        tiers: at least one.
        laws: what was learned of them by name; a tier's own law counts where nothing was.
        sigma: of the lognormal spread of their services.
        way: to them.
        max_items: most items in a batch.
    """

    name: str
    tiers: tuple[FunctionTier, ...]
    laws: Mapping[str, LatencyLaw]
    sigma: float
    way: Way
    max_items: int

    @property
    def sheet(self) -> PriceSheet:
        """Stands where a price sheet is asked for: a deployed tier brings its price along."""
        price = self.tiers[0].price
        return PriceSheet(self.name, price.currency, price.sheet, date="", note="", grain_s=price.grain_s)

    def tabulated(self, sheet: PriceSheet, *, kinds: tuple[str, ...] = ()) -> tuple[Configurations, ...]:  # noqa: ARG002
        """Returns one configuration for each tier; price sheet and kinds say nothing about deployed ones."""
        return tuple(self._configuration(tier, self.way) for tier in self.tiers)

    def tabulated_for(
        self,
        size_bytes: float,
        sheet: PriceSheet,  # noqa: ARG002
        *,
        kinds: tuple[str, ...] = (),  # noqa: ARG002
    ) -> tuple[Configurations, ...]:
        """Returns the same as items of one size find them."""
        way = replace(self.way, item_bytes=size_bytes)
        return tuple(self._configuration(tier, way) for tier in self.tiers)

    def _configuration(self, tier: FunctionTier, way: Way) -> Configurations:
        law, nothing = self.laws.get(tier.name, tier.law), np.zeros(1)
        most = min(law.max_batch, self.max_items)
        seconds = TableLaw((tuple(law.predict_s(items) for items in range(1, most + 1)),), self.sigma)
        services = seconds.table(Grants(nothing, nothing, nothing), max_batch=most, grain_s=tier.price.grain_s)
        return Configurations(
            kind=tier.name,
            vcpu=nothing,
            gpu_gb=nothing,
            memory_gb=np.zeros((1, most)),
            allowed=np.ones((1, most), dtype=np.bool_),
            services=way.lengthened(services),
            per_s=np.full((1, most), tier.price.per_s),
            per_call=tier.price.per_call,
        )


def tier_way(*, item_bytes: float, bytes_per_s: float | None, rtt_s: float, sent_bytes_per_s: float) -> Way:
    """Returns the way to deployed tiers.

    Parameters:
        item_bytes: of an item on the wire.
        bytes_per_s: bandwidth of the uplink, above 0; None: ample.
        rtt_s: round trip.
        sent_bytes_per_s: what is sent by the uplink on average.
    """
    if bytes_per_s is None:
        return Way(item_bytes=item_bytes, bytes_per_s=_AMPLE, rtt_s=rtt_s)
    busy = min(sent_bytes_per_s / bytes_per_s, _BUSIEST)
    return Way(item_bytes=item_bytes, bytes_per_s=bytes_per_s, rtt_s=rtt_s, busy=busy)


_AMPLE = math.ldexp(1.0, 60)
_BUSIEST = 0.95
"""Above this load a formula for the uplink's waits means nothing."""

"""What whoever sets a policy up knows of the place: laws, prices, noise and the workload's means, as from a profile."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.network import Bandwidth, seconds_for
from scheduler.simulator.scenario import Scenario, ScenarioError, SimulatedModel

_NORMAL_99 = 2.3263
"""99 % of a standard normal are below it."""


@dataclass(frozen=True)
class Site:
    """The place as a policy is told of it.

    Attributes:
        model: the one model, with its true latency models, prices and classes.
        rtt_s: round trip to the functions.
        bandwidth: of the uplink, over time.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        mean_rate_rps: of the whole workload.
    """

    model: SimulatedModel
    rtt_s: float
    bandwidth: Bandwidth
    edge_noise: float
    function_noise: float
    mean_rate_rps: float

    @cached_property
    def slo_s(self) -> float:
        """The tightest class's; a policy without a notion of classes keeps that one."""
        return min(kind.service_class.slo_s for kind in self.model.classes)

    @cached_property
    def percentile(self) -> float:
        """The strictest class's."""
        return max(kind.service_class.percentile for kind in self.model.classes)

    @cached_property
    def stays(self) -> frozenset[str]:
        """Classes whose data never leaves the site."""
        return frozenset(k.service_class.name for k in self.model.classes if k.service_class.edge_only)

    @cached_property
    def served_late(self) -> frozenset[str]:
        """Classes whose requests are served even when their deadline is lost."""
        return frozenset(k.service_class.name for k in self.model.classes if k.service_class.serve_late)

    @cached_property
    def edge_s(self) -> tuple[float, ...]:
        """Seconds that 99 % of the edge's batches of 0, 1, 2, ... requests keep to; only 0 where there is no edge."""
        latency = self.model.edge_latency
        max_items = 0 if latency is None else min(latency.max_batch, self.model.max_items)
        factor = math.exp(_NORMAL_99 * self.edge_noise)
        return (0.0, *(latency.predict_s(items) * factor for items in range(1, max_items + 1))) if latency else (0.0,)

    @cached_property
    def mean_bytes_per_s(self) -> float:
        """Of the uplink: over a log that repeats, else as it is at the start."""
        return self.bandwidth.mean_rate()

    def function_items(self, tier: FunctionTier) -> int:
        """Returns the most requests in a function batch of that tier."""
        return min(tier.latency.max_batch, self.model.max_items)

    def function_s(self, tier: FunctionTier, items: int) -> float:
        """Returns seconds from a send to the answer that 99 % keep to, at the mean bandwidth and an idle uplink."""
        spread_s = tier.latency.predict_s(items) * (math.exp(_NORMAL_99 * self.function_noise) - 1)
        return self.function_median_s(tier, items) + spread_s

    def function_median_s(self, tier: FunctionTier, items: int) -> float:
        """Returns seconds from a send to the answer that half the calls keep to, by the same token."""
        transfer_s = seconds_for(items * self.model.request_bytes, self.mean_bytes_per_s)
        return tier.latency.predict_s(items) + transfer_s + self.rtt_s

    def cheapest_function(self, within_s: float) -> tuple[FunctionTier, int]:
        """Returns tier and size of the function batch that is cheapest an item among those answered so soon.

        Where none is, it is the fastest.
        """
        each = [(tier, items) for tier in self.model.tiers for items in range(1, self.function_items(tier) + 1)]
        in_time = [(tier, items) for tier, items in each if self.function_s(tier, items) <= within_s]
        if not in_time:
            return min(each, key=lambda choice: self.function_s(*choice))
        return min(in_time, key=lambda choice: choice[0].price.cost(choice[0].latency.predict_s(choice[1])) / choice[1])

    def largest_edge_batch(self, within_s: float) -> int:
        """Returns the most requests that the edge serves in so many seconds; at least 1, 0 without an edge."""
        fitting = [items for items, seconds in enumerate(self.edge_s) if items and seconds <= within_s]
        return max(fitting, default=min(1, len(self.edge_s) - 1))


def site_of(scenario: Scenario, requests: Sequence[Request]) -> Site:
    """Returns the place of a scenario.

    Raises:
        ScenarioError: it has several models; these policies know one.
    """
    models = scenario.served()
    if len(models) > 1:
        raise ScenarioError(
            f"the policy {scenario.policy} knows one model only, the scenario has {len(models)}; simulate edgeburst"
        )
    duration_s = requests[-1].arrived_at_s if requests else 0.0
    return Site(
        model=models[0],
        rtt_s=scenario.rtt_s,
        bandwidth=scenario.bandwidth,
        edge_noise=scenario.edge_noise,
        function_noise=scenario.function_noise,
        mean_rate_rps=len(requests) / duration_s if duration_s > 0 else 0.0,
    )

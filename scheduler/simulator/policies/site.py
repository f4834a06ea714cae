"""Site of a policy: the latency models, prices, noise and mean rate that are known when the policy is set up."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.requests import Request
from scheduler.simulator.network import Bandwidth, seconds_for
from scheduler.simulator.scenario import Scenario, ScenarioError, SimulatedModel

_NORMAL_99 = 2.3263
"""99 % of a standard normal are below it."""


@dataclass(frozen=True, slots=True)
class SiteSlot:
    """One batch at a time on one edge server, as a policy knows it.

    Attributes:
        name: of the server.
        latency: true latency model.
        safe_s: 99th percentile of the seconds from send to answer for 0, 1, 2, ... requests, on a device that is free.
        beside_s: seconds of them for the way there and for decoding.
    """

    name: str
    latency: LatencyModel
    safe_s: tuple[float, ...]
    beside_s: float = 0.0


@dataclass(frozen=True)
class Site:
    """Edge, functions, uplink and workload as a policy knows them.

    Attributes:
        model: the only model, with its true latency models, prices and classes.
        rtt_s: round trip to the functions, seconds.
        bandwidth: bandwidth of the uplink over time.
        edge_noise, function_noise: sigma of the lognormal factor on a service time.
        mean_rate_rps: mean rate of the whole workload, requests a second.
        slots: all that the edge servers serve at once, for policies that know of more than one.
    """

    model: SimulatedModel
    rtt_s: float
    bandwidth: Bandwidth
    edge_noise: float
    function_noise: float
    mean_rate_rps: float
    slots: tuple[SiteSlot, ...] = ()

    @cached_property
    def slo_s(self) -> float:
        """SLO of the strictest class, seconds; policies that do not distinguish classes keep this one."""
        return min(kind.service_class.slo_s for kind in self.model.classes)

    @cached_property
    def percentile(self) -> float:
        """Percentile of the strictest class."""
        return max(kind.service_class.percentile for kind in self.model.classes)

    @cached_property
    def stays(self) -> frozenset[str]:
        """Names of the edge-only classes."""
        return frozenset(k.service_class.name for k in self.model.classes if k.service_class.edge_only)

    @cached_property
    def served_late(self) -> frozenset[str]:
        """Names of the classes whose requests are served even after their deadline."""
        return frozenset(k.service_class.name for k in self.model.classes if k.service_class.serve_late)

    @cached_property
    def edge_s(self) -> tuple[float, ...]:
        """`safe_s` of the first slot; only the 0 without an edge."""
        return self.slots[0].safe_s if self.slots else (0.0,)

    @cached_property
    def mean_bytes_per_s(self) -> float:
        """Mean bandwidth of the uplink, bytes a second; without a period, that at time 0."""
        return self.bandwidth.mean_rate()

    def function_items(self, tier: FunctionTier) -> int:
        """Returns the largest number of requests in a function batch of a tier."""
        return min(tier.latency.max_batch, self.model.max_items)

    def function_s(self, tier: FunctionTier, items: int) -> float:
        """Returns the 99th percentile of the seconds from send to answer, at the mean bandwidth and an idle uplink."""
        spread_s = tier.latency.predict_s(items) * (math.exp(_NORMAL_99 * self.function_noise) - 1)
        return self.function_median_s(tier, items) + spread_s

    def function_median_s(self, tier: FunctionTier, items: int) -> float:
        """Returns the median of the seconds from send to answer, at the mean bandwidth and an idle uplink."""
        transfer_s = seconds_for(items * self.model.request_bytes, self.mean_bytes_per_s)
        return tier.latency.predict_s(items) + transfer_s + self.rtt_s

    def cheapest_function(self, within_s: float) -> tuple[FunctionTier, int]:
        """Returns tier and size of the function batch with the least cost an item among those within `within_s`.

        If there is none, it is the fastest batch.
        """
        each = [(tier, items) for tier in self.model.tiers for items in range(1, self.function_items(tier) + 1)]
        in_time = [(tier, items) for tier, items in each if self.function_s(tier, items) <= within_s]
        if not in_time:
            return min(each, key=lambda choice: self.function_s(*choice))
        return min(in_time, key=lambda choice: choice[0].price.cost(choice[0].latency.predict_s(choice[1])) / choice[1])

    def largest_edge_batch(self, within_s: float) -> int:
        """Returns the largest edge batch served within `within_s`; at least 1, and 0 without an edge."""
        fitting = [items for items, seconds in enumerate(self.edge_s) if items and seconds <= within_s]
        return max(fitting, default=min(1, len(self.edge_s) - 1))


def site_of(scenario: Scenario, requests: Sequence[Request]) -> Site:
    """Returns the site of a scenario.

    Raises:
        ScenarioError: the scenario has several models; these policies support one.
    """
    models = scenario.served()
    if len(models) > 1:
        raise ScenarioError(
            f"the policy {scenario.policy} supports one model only, the scenario has {len(models)}; choose edgeburst"
        )
    duration_s = requests[-1].arrived_at_s if requests else 0.0
    return Site(
        model=models[0],
        rtt_s=scenario.rtt_s,
        bandwidth=scenario.bandwidth,
        edge_noise=scenario.edge_noise,
        function_noise=scenario.function_noise,
        mean_rate_rps=len(requests) / duration_s if duration_s > 0 else 0.0,
        slots=tuple(_slots(scenario, models[0])),
    )


def _slots(scenario: Scenario, model: SimulatedModel) -> Iterator[SiteSlot]:
    for server in scenario.edge_servers():
        latency = server.latency_of(model)
        if latency is not None:
            beside_s = server.lan_s + server.decode_s
            safe_s = _safe_s(latency, model.max_items, server.noise, beside_s)
            yield from [SiteSlot(server.name, latency, safe_s, beside_s)] * server.parallel


def _safe_s(latency: LatencyModel, max_items: int, noise: float, beside_s: float) -> tuple[float, ...]:
    most, factor = min(latency.max_batch, max_items), math.exp(_NORMAL_99 * noise)
    return (0.0, *(beside_s + latency.predict_s(items) * factor for items in range(1, most + 1)))

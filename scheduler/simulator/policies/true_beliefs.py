"""What the engine believes where it is told the truth: all of it (the oracles), or a part, for ablations."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from scheduler.beliefs import Beliefs, Outages
from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import BufferPlan, EngineSettings
from scheduler.domain.requests import EDGE_NAME, Backend
from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import ServiceTimes, service_times
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.simulator.policies.log_oracle import Truth
from scheduler.simulator.scenario import TOLD, Scenario


class TrueBeliefs:
    """The truth in place of beliefs: rates, uplink, service times and outages. What is yet to happen it does not tell.

    The one exception is a backend that is away: it is known until when. Warm instances are learned, as by any engine.
    """

    def __init__(
        self,
        learned: Beliefs,
        settings: EngineSettings,
        scenario: Scenario,
        truth: Truth,
        *,
        told: Collection[str] = TOLD,
    ) -> None:
        """Stores what is true.

        Args:
            learned: for what the truth does not hold: item sizes, warm instances, the way on a link that moves; and
                for what is not told.
            settings: the engine's, with the true latency models.
            scenario: for noise and links.
            truth: over time.
            told: names of `TOLD`.
        """
        self._learned = learned
        self._models = {model.name: model for model in settings.models}
        self._scenario = scenario
        self._truth = truth
        self._told = told
        self._edge_noise = {server.name: server.noise for server in scenario.edge_servers()}
        self._edge_lan_s = {server.name: server.lan_s for server in scenario.edge_servers()}
        self._times: dict[tuple[str, Backend, str], tuple[tuple[_Law, ServiceTimes | None], ServiceTimes]] = {}

    def revision(self, model: str = "") -> int | None:  # noqa: ARG002
        """Returns None: the truth may change at any moment."""
        return None

    def outages(self, now_s: float) -> Outages | None:
        """Returns which backends are truly away."""
        if "changes" not in self._told:
            return self._learned.outages(now_s)
        edges_back_s = {server: self._truth.edge_back_s(now_s, server) for server in self._edge_noise}
        away = {server: back_s if back_s > now_s else None for server, back_s in edges_back_s.items()}
        return Outages(functions_back_s=self._truth.functions_back_s(now_s), edges_back_s=away)

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the true items a second."""
        return self._truth.rate_rps(model, now_s) if "rate" in self._told else self._learned.recent_rps(model, now_s)

    def item_bytes(self, model: str) -> float:
        """Returns the bytes of an item on the wire, lately."""
        return self._learned.item_bytes(model)

    def warm_pool(self, model: str, tier: str) -> WarmInstances | None:
        """Returns what is known of a tier's instances; None for a tier that there is not."""
        return self._learned.warm_pool(model, tier)

    def uplink(self, now_s: float) -> UplinkEstimate:
        """Returns the true bandwidth at this moment and the true round trip.

        Beyond its parts the way takes nothing but where the link moves while something is on it.
        """
        if "link" not in self._told:
            return self._learned.uplink(now_s)
        bytes_per_s = self._truth.bytes_per_s(now_s)
        told = UplinkEstimate(None if math.isinf(bytes_per_s) else bytes_per_s, self._scenario.rtt_s)
        if len(self._scenario.bandwidth.rates) > 1:
            learned = self._learned.uplink(now_s)
            told = replace(told, excess_s=learned.excess_s, margin_s=learned.margin_s, sigma_s=learned.sigma_s)
        return told

    def edge_times(self, model: str, percentile: float, now_s: float, edge: str = EDGE_NAME) -> ServiceTimes | None:
        """Returns tables from the true latency model and its true noise."""
        settings = self._models[model]
        latency = settings.edge_latency_on(edge)
        if latency is None:
            return None
        max_batch, slowdown = min(latency.max_batch, settings.max_items), self._truth.edge_slowdown(now_s, edge)
        beside_s, noise = self._edge_lan_s[edge] + latency.decode_s, self._edge_noise[edge]
        law = _Law(latency, max_batch, slowdown, noise, percentile, beside_s)
        learned = None if self._knows_services else self._learned.edge_times(model, percentile, now_s, edge)
        return self._tables((model, Backend.EDGE, edge), law, learned)

    def function_times(self, model: str, plan: BufferPlan, now_s: float) -> ServiceTimes | None:
        """Returns the tables of a buffer's tier in the same way."""
        latency = next((tier.latency for tier in self._models[model].tiers if tier.name == plan.tier), None)
        if latency is None:
            return None
        slowdown, sigma = self._truth.function_slowdown(now_s), self._scenario.function_noise
        law = _Law(latency, latency.max_batch, slowdown, sigma, plan.percentile)
        learned = None if self._knows_services else self._learned.function_times(model, plan, now_s)
        # Buffers that share a tier but no percentile have tables of their own.
        return self._tables((model, Backend.FUNCTION, f"{plan.tier} at {plan.percentile}"), law, learned)

    @property
    def _knows_services(self) -> bool:
        return "laws" in self._told and "scatter" in self._told

    def _tables(self, place: tuple[str, Backend, str], law: "_Law", learned: ServiceTimes | None) -> ServiceTimes:
        """Returns the same object as long as nothing changes: all that is worked out from it is kept as long."""
        kept = self._times.get(place)
        if kept is not None and kept[0] == (law, learned):
            return kept[1]
        median_s = law.median_s() if learned is None or "laws" in self._told else learned.median_s[1:]
        if learned is None or "scatter" in self._told:
            times = service_times(median_s, margin=law.margin, scatter=Scatter(sigma=law.sigma))
        else:
            of = learned
            times = service_times(median_s, margin=of.margin, scatter=of.scatter, forecast=of.forecast)
        self._times[place] = (law, learned), times
        return times


@dataclass(frozen=True, slots=True)
class _Law:
    """True services of a model at a place, at one moment."""

    latency: LatencyModel
    max_batch: int
    slowdown: float
    sigma: float
    percentile: float
    beside_s: float = 0.0

    def median_s(self) -> list[float]:
        """Returns the median seconds of batches of 1, 2, ... items."""
        sizes = range(1, self.max_batch + 1)
        return [self.beside_s + self.slowdown * self.latency.predict_s(items) for items in sizes]

    @property
    def margin(self) -> float:
        return true_factor(self.sigma, self.percentile)


def true_factor(sigma: float, percentile: float) -> float:
    """Returns the quantile of a lognormal service time as a factor on its median, at least 1."""
    return max(1.0, math.exp(Scatter(sigma=sigma).quantile(percentile)))

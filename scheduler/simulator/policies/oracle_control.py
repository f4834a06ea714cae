"""The engine's control with true values instead of estimates: of all quantities (the oracles), or of change times."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace

from scheduler.beliefs import Beliefs, Outages
from scheduler.control import NEVER, Control
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import BufferPlan, EdgeEstimate, EngineSettings, ModelEstimates, ModelSettings, Snapshot
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import EDGE_NAME, Backend, Request
from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import ServiceTimes, service_times
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimators.findings import Finding
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.simulator.policies.log_oracle import Laws, Truth
from scheduler.simulator.scenario import Scenario
from scheduler.workloads import RateSteps

LAST_CHANGE_S = 60.0
"""Seconds after the last arrival until which changes are considered; all requests have ended by then."""
TOLD_AFTER_S = 2.0
"""Seconds from a known change to the request for a plan: eight ticks, so that estimates have seen the new values."""


class TimedControl(Control):
    """Control that asks for a plan at given times and ignores detected changes."""

    def __init__(self, settings: EngineSettings, truth: Truth, moments_s: Sequence[float]) -> None:
        """Stores the true values and the times at which to ask for a plan, ascending."""
        super().__init__(replace(settings, changepoints=False))
        self.now_s = 0.0
        self.truth = truth
        self._moments_s = moments_s
        self._next = 0

    def advance(self, now_s: float) -> None:
        """Advances the time, and calls `passed` if this passes one of the given times."""
        self.now_s = now_s
        super().advance(now_s)
        passed = bisect_right(self._moments_s, now_s)
        if passed > self._next:
            self._next = passed
            self.passed(self._moments_s[passed - 1])

    def passed(self, moment_s: float) -> None:
        """Asks for a plan, since the time `moment_s` has passed."""
        self._found(Finding(self.truth.cause_of(moment_s), f"a change at {moment_s:.2f} s"))

    def next_wakeup_s(self) -> float:
        """Returns the next time at which to call `advance`, true changes included; infinite for never."""
        next_s = self._moments_s[self._next] if self._next < len(self._moments_s) else NEVER
        return min(super().next_wakeup_s(), next_s)


class TrueBeliefs:
    """The truth in place of beliefs: rates, uplink, service times and outages. What is yet to happen it does not tell.

    The one exception is a backend that is away: it is known until when. Warm instances are learned, as by any engine.
    """

    def __init__(self, learned: Beliefs, settings: EngineSettings, scenario: Scenario, truth: Truth) -> None:
        """Stores what is true.

        Args:
            learned: for what the truth does not hold: item sizes, warm instances, the way on a link that moves.
            settings: the engine's, with the true latency models.
            scenario: for noise and links.
            truth: over time.
        """
        self._learned = learned
        self._models = {model.name: model for model in settings.models}
        self._scenario = scenario
        self._truth = truth
        self._edge_noise = {server.name: server.noise for server in scenario.edge_servers()}
        self._edge_lan_s = {server.name: server.lan_s for server in scenario.edge_servers()}
        self._times: dict[tuple[str, Backend, str], tuple[tuple[object, ...], ServiceTimes]] = {}

    def revision(self) -> int | None:
        """Returns None: the truth may change at any moment."""
        return None

    def outages(self, now_s: float) -> Outages:
        """Returns which backends are truly away."""
        edges_back_s = {server: self._truth.edge_back_s(now_s, server) for server in self._edge_noise}
        away = {server: back_s if back_s > now_s else None for server, back_s in edges_back_s.items()}
        return Outages(functions_back_s=self._truth.functions_back_s(now_s), edges_back_s=away)

    def recent_rps(self, model: str, now_s: float) -> float:
        """Returns the true items a second."""
        return self._truth.rate_rps(model, now_s)

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
        place = (model, Backend.EDGE, edge)
        beside_s = self._edge_lan_s[edge] + latency.decode_s
        return self._tables(place, latency, max_batch, slowdown, self._edge_noise[edge], percentile, beside_s=beside_s)

    def function_times(self, model: str, plan: BufferPlan, now_s: float) -> ServiceTimes | None:
        """Returns the tables of a buffer's tier in the same way."""
        latency = next((tier.latency for tier in self._models[model].tiers if tier.name == plan.tier), None)
        if latency is None:
            return None
        slowdown, sigma = self._truth.function_slowdown(now_s), self._scenario.function_noise
        # Buffers that share a tier but no percentile have tables of their own.
        place = (model, Backend.FUNCTION, f"{plan.tier} at {plan.percentile}")
        return self._tables(place, latency, latency.max_batch, slowdown, sigma, plan.percentile)

    def _tables(
        self,
        place: tuple[str, Backend, str],
        latency: LatencyModel,
        max_batch: int,
        slowdown: float,
        sigma: float,
        percentile: float,
        *,
        beside_s: float = 0.0,
    ) -> ServiceTimes:
        """Returns the same object as long as nothing changes: all that is worked out from it is kept as long."""
        made_from = (latency, max_batch, slowdown, percentile)
        kept = self._times.get(place)
        if kept is not None and kept[0] == made_from:
            return kept[1]
        scatter = Scatter(sigma=sigma)
        predicted_s = [beside_s + slowdown * latency.predict_s(items) for items in range(1, max_batch + 1)]
        times = service_times(predicted_s, margin=_factor(sigma, percentile), scatter=scatter)
        self._times[place] = made_from, times
        return times


class OracleControl(TimedControl):
    """Plans from the truth, and gives it to the engine as its beliefs."""

    def __init__(self, settings: EngineSettings, scenario: Scenario, truth: Truth, changes_s: Sequence[float]) -> None:
        """Stores the true values.

        Args:
            settings: the engine's, with the true latency models.
            scenario: for noise and links.
            truth: over time.
            changes_s: its changes, ascending.
        """
        super().__init__(settings, truth, changes_s)
        self._scenario = scenario
        self.beliefs = TrueBeliefs(self.beliefs, settings, scenario, truth)

    def snapshot(
        self,
        now_s: float,
        *,
        edge_up: bool,
        function_up: bool,
        quotas: tuple[Quota, ...] = (),
        edges_away: tuple[str, ...] = (),
    ) -> Snapshot:
        """Returns a snapshot of the true values for the planner."""
        up = {"edge_up": edge_up, "function_up": function_up}
        learned = super().snapshot(now_s, **up, quotas=quotas, edges_away=edges_away)
        uplink = self.beliefs.uplink(now_s)
        return replace(
            learned,
            models={name: self._told(self.model(name), model) for name, model in learned.models.items()},
            uplink_bytes_per_s=uplink.bytes_per_s,
            uplink_rtt_s=uplink.rtt_s + (uplink.excess_s + uplink.margin_s),
            function_up=self.truth.functions_back_s(now_s) <= now_s,
        )

    def _told(self, settings: ModelSettings, learned: ModelEstimates) -> ModelEstimates:
        scenario, truth = self._scenario, self.truth
        percentiles = {c.percentile for c in settings.classes}
        slowdown = truth.function_slowdown(self.now_s)
        edges = {
            server.name: EdgeEstimate(
                law.slower(truth.edge_slowdown(self.now_s, server.name)),
                {p: _factor(server.noise, p) for p in percentiles},
            )
            for server in scenario.edge_servers()
            if (law := settings.edge_latency_on(server.name)) is not None
        }
        first = next(iter(edges.values()), None)
        return replace(
            learned,
            rate_rps=truth.rate_rps(settings.name, self.now_s),
            edge_latency=None if first is None else first.latency,
            edge_quantile_factor={} if first is None else first.quantile_factor,
            edges=edges,
            function_latencies={tier.name: tier.latency.slower(slowdown) for tier in settings.tiers},
            function_quantile_factor={p: _factor(scenario.function_noise, p) for p in percentiles},
            # All simulated items have the same size.
            size_factors={},
        )


class ToldControl(TimedControl):
    """Control that learns as the engine does, but restarts estimates at the true changes of rate and edge speed."""

    def __init__(self, settings: EngineSettings, truth: Truth, changes_s: Sequence[float]) -> None:
        """Stores the true values and the times of their changes, ascending."""
        super().__init__(settings, truth, [at_s + TOLD_AFTER_S for at_s in changes_s])
        self._changes_s = changes_s
        self._rate_changes_s = frozenset(truth.rate_changes_s())
        self._speed_changes_s = {edge.name: truth.edge_speed_changes_s(edge.name) for edge in settings.edges}
        self._since_change: dict[tuple[str, str], int] = {}
        """Batches by model and edge server since the server's speed last changed."""

    def passed(self, moment_s: float) -> None:
        """Restarts the estimates that have changed, and asks for a plan."""
        at_s = min(self._changes_s, key=lambda change_s: abs(change_s + TOLD_AFTER_S - moment_s))
        for model in self._estimates.models.values():
            if at_s in self._rate_changes_s:
                model.arrivals.restart(int(TOLD_AFTER_S / model.arrivals.tick_s))
            for name, service in model.edges.items():
                if at_s in self._speed_changes_s[name]:
                    service.restart(self._since_change.get((model.settings.name, name), 0))
        self._estimates.note_change()
        super().passed(at_s)

    def batch_finished(self, batch: Batch, report: BatchReport, now_s: float, *, open_since_s: float) -> None:
        """Learns from an answered batch."""
        if batch.backend is Backend.EDGE:
            key, changes_s = (batch.model, batch.place.name), self._speed_changes_s[batch.place.name]
            last_s = max((at_s for at_s in changes_s if at_s <= now_s), default=-math.inf)
            self._since_change[key] = self._since_change.get(key, 0) + 1 if batch.sent_at_s >= last_s else 0
        super().batch_finished(batch, report, now_s, open_since_s=open_since_s)


def oracle_control(scenario: Scenario, requests: Sequence[Request], *, rate: RateSteps | None = None) -> OracleControl:
    """Returns the control of `log-oracle` or `oracle-laws`.

    Args:
        scenario: names the policy.
        requests: the requests that will arrive.
        rate: that they were drawn from, for `oracle-laws`; None if it is not known.
    """
    truth = Laws(scenario, requests, rate) if scenario.policy == "oracle-laws" else Truth(scenario, requests)
    return OracleControl(scenario.engine_settings(), scenario, truth, _changes_s(truth, requests))


def told_control(scenario: Scenario, requests: Sequence[Request]) -> ToldControl:
    """Returns a control that knows the times at which a scenario changes."""
    truth = Truth(scenario, requests)
    return ToldControl(scenario.engine_settings(), truth, _changes_s(truth, requests))


def _changes_s(truth: Truth, requests: Sequence[Request]) -> list[float]:
    last_s = requests[-1].arrived_at_s if requests else 0.0
    # The end of the arrivals is no change of their rate: no request is left to plan for.
    ended_s = {at_s for at_s in truth.rate_changes_s() if at_s > last_s}
    return [at_s for at_s in truth.changes_s(last_s + LAST_CHANGE_S) if at_s not in ended_s]


def _factor(sigma: float, percentile: float) -> float:
    """Returns the quantile of a lognormal service time as a factor on its median, at least 1."""
    return max(1.0, math.exp(Scatter(sigma=sigma).quantile(percentile)))

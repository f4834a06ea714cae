"""The engine's control with true values instead of estimates: of all quantities (the oracles), or of change times."""

import math
from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import replace

from scheduler.control import NEVER, Control
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import EdgeEstimate, EngineSettings, ModelEstimates, ModelSettings, Snapshot
from scheduler.domain.quotas import Quota
from scheduler.domain.requests import Backend, Request
from scheduler.estimators.findings import Finding
from scheduler.simulator.policies.log_oracle import Laws, Truth
from scheduler.simulator.policies.true_beliefs import TrueBeliefs, true_factor
from scheduler.simulator.scenario import ORACLES, TOLD, EdgeServer, Scenario
from scheduler.workloads import RateSteps

LAST_CHANGE_S = 60.0
"""Seconds after the last arrival until which changes are considered; all requests have ended by then."""
TOLD_AFTER_S = 2.0
"""Seconds from a known change to the request for a plan: eight ticks, so that estimates have seen the new values."""


class TimedControl(Control):
    """Control that asks for a plan at given times and ignores detected changes."""

    def __init__(
        self, settings: EngineSettings, truth: Truth, moments_s: Sequence[float], *, detects: bool = False
    ) -> None:
        """Stores the true values and the times at which to ask for a plan, ascending.

        Args:
            settings: of the engine.
            truth: over time.
            moments_s: at which to ask for a plan, ascending.
            detects: whether detectors ask for plans as well, where the settings have them.
        """
        super().__init__(settings if detects else replace(settings, changepoints=False))
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


class OracleControl(TimedControl):
    """Plans from the truth, and gives it to the engine as its beliefs; what it is not told it learns."""

    def __init__(
        self,
        settings: EngineSettings,
        scenario: Scenario,
        truth: Truth,
        changes_s: Sequence[float],
        *,
        told: Collection[str] = TOLD,
    ) -> None:
        """Stores the true values.

        Args:
            settings: the engine's, with the true latency models.
            scenario: for noise and links.
            truth: over time.
            changes_s: its changes, ascending.
            told: names of `TOLD`.
        """
        knows_changes = "changes" in told
        super().__init__(settings, truth, changes_s if knows_changes else (), detects=not knows_changes)
        self._told, self._scenario = told, scenario
        self.beliefs = TrueBeliefs(self.beliefs, settings, scenario, truth, told=told)

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
        snapshot = super().snapshot(now_s, **up, quotas=quotas, edges_away=edges_away)
        models = {name: self._with_truth(self.model(name), model) for name, model in snapshot.models.items()}
        snapshot = replace(snapshot, models=models)
        if "link" in self._told:
            uplink = self.beliefs.uplink(now_s)
            rtt_s = uplink.rtt_s + (uplink.excess_s + uplink.margin_s)
            snapshot = replace(snapshot, uplink_bytes_per_s=uplink.bytes_per_s, uplink_rtt_s=rtt_s)
        if "changes" in self._told:
            snapshot = replace(snapshot, function_up=self.truth.functions_back_s(now_s) <= now_s)
        return snapshot

    def _with_truth(self, settings: ModelSettings, learned: ModelEstimates) -> ModelEstimates:
        scenario, truth = self._scenario, self.truth
        percentiles = {c.percentile for c in settings.classes}
        edges = {
            server.name: self._edge(server, law, learned.edges.get(server.name), percentiles)
            for server in scenario.edge_servers()
            if (law := settings.edge_latency_on(server.name)) is not None
        }
        first = next(iter(edges.values()), None)
        learned = replace(
            learned,
            edges=edges,
            edge_latency=None if first is None else first.latency,
            edge_quantile_factor={} if first is None else first.quantile_factor,
        )
        if "rate" in self._told:
            learned = replace(learned, rate_rps=truth.rate_rps(settings.name, self.now_s))
        if "laws" in self._told:
            slowdown = truth.function_slowdown(self.now_s)
            learned = replace(
                learned,
                function_latencies={tier.name: tier.latency.slower(slowdown) for tier in settings.tiers},
                # All simulated items have the same size.
                size_factors={},
            )
        if "scatter" in self._told:
            learned = replace(
                learned,
                function_quantile_factor={p: true_factor(scenario.function_noise, p) for p in percentiles},
            )
        return learned

    def _edge(
        self, server: EdgeServer, law: LatencyModel, learned: EdgeEstimate | None, percentiles: set[float]
    ) -> EdgeEstimate:
        """Returns what the planner is told of a model's services on an edge server."""
        told = EdgeEstimate(
            law.slower(self.truth.edge_slowdown(self.now_s, server.name)),
            {p: true_factor(server.noise, p) for p in percentiles},
        )
        if learned is None:
            return told
        return EdgeEstimate(
            told.latency if "laws" in self._told else learned.latency,
            told.quantile_factor if "scatter" in self._told else learned.quantile_factor,
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
    """Returns the control of `log-oracle` or `oracle-laws`, or of the engine where it is told a part of the truth.

    Args:
        scenario: names the policy.
        requests: the requests that will arrive.
        rate: that they were drawn from, for all but `log-oracle`; None if it is not known.
    """
    truth = Truth(scenario, requests) if scenario.policy == "log-oracle" else Laws(scenario, requests, rate)
    told = TOLD if scenario.policy in ORACLES else scenario.told
    return OracleControl(scenario.engine_settings(), scenario, truth, _changes_s(truth, requests), told=told)


def told_control(scenario: Scenario, requests: Sequence[Request]) -> ToldControl:
    """Returns a control that knows the times at which a scenario changes."""
    truth = Truth(scenario, requests)
    return ToldControl(scenario.engine_settings(), truth, _changes_s(truth, requests))


def _changes_s(truth: Truth, requests: Sequence[Request]) -> list[float]:
    last_s = requests[-1].arrived_at_s if requests else 0.0
    # The end of the arrivals is no change of their rate: no request is left to plan for.
    ended_s = {at_s for at_s in truth.rate_changes_s() if at_s > last_s}
    return [at_s for at_s in truth.changes_s(last_s + LAST_CHANGE_S) if at_s not in ended_s]

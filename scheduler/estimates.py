"""What the host has learned: one set of estimators per model, one for the uplink, and the changes found in them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.latency import LatencyModel
from scheduler.domain.plans import BufferPlan, EdgeEstimate, EngineSettings, ModelEstimates, ModelSettings
from scheduler.domain.requests import EDGE_NAME, Backend, Request
from scheduler.domain.service_times import ServiceTimes
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimators import findings
from scheduler.estimators.arrival_rate import ArrivalRate
from scheduler.estimators.bandwidth import Bandwidth
from scheduler.estimators.changepoint import Detector
from scheduler.estimators.edge_service import EdgeService
from scheduler.estimators.findings import Finding
from scheduler.estimators.lesson_budget import LessonBudget
from scheduler.estimators.package_changepoint import detectors_of
from scheduler.estimators.residuals import ResidualWindow
from scheduler.estimators.service_changes import ServiceChanges
from scheduler.estimators.service_tables import TimesCache
from scheduler.estimators.service_time import ServiceTime
from scheduler.estimators.size_effect import SizeEffect
from scheduler.estimators.start_changes import StartChanges
from scheduler.estimators.traffic_mix import TrafficMix
from scheduler.estimators.warm_instances import WarmInstances

FUNCTION_SHAPE_SIGMA = 0.02
"""A function's latency model is profiled where it runs; noise in it would steer batches to a size that only looks
cheap. Judgement: halved, within noise; doubled, cost +0.8 %, in time +0.0 points."""
BYTES_SMOOTHING = 0.05
"""Weight of a new request in the mean item size: the last twenty or so requests count. Judgement: the simulations have
one size; with 1 none differs."""

PATH_WINDOW = 128
"""Function batches from which the excess of the path is read. Judgement: halved or doubled, cost and lateness stay
within noise."""
PATH_SIGMA_S = 0.02
"""Scatter of the path's excess before any is seen. Judgement: halved, within noise; doubled, cost +1.1 %."""
GAP_S = 1.0
"""Error of a predicted path above which the link is taken to have been away. Judgement: without it the simulations cost
2.5 % less and have 0.4 points more late."""
PATH_STALE_S = 3.0
"""Age at which what the path took says nothing any more once a probe is back. Judgement: halved or doubled, cost and
lateness stay within noise."""
SIGMA_PERCENTILE = 0.95
"""Where the scatter of the path is read, below the rare stalls. Judgement: halved, cost +1.0 %, in time +0.1 points;
doubled, cost +1.3 %, in time +0.1 points."""
SIGMAS = 1.645
"""Derived: 95 % of a normal distribution lie below so many standard deviations. Halved, cost -1.2 %, in time -0.0
points; doubled, cost +1.0 %, in time +0.1 points."""
MAX_TABLES = 256
"""Service tables kept for one model, by tier, percentile and size: more than any one plan asks for. A bound of
memory."""


@dataclass(slots=True)
class ModelKnowledge:
    """One model's estimators."""

    settings: ModelSettings
    arrivals: ArrivalRate
    rate_changes: Detector
    edges: dict[str, EdgeService]
    """By edge server that serves it."""
    functions: dict[str, ServiceTime]
    warm: dict[str, WarmInstances]
    """By tier."""
    edge_tables: dict[str, TimesCache]
    """By edge server."""
    function_tables: dict[tuple[str, float, float], TimesCache]
    """By tier, percentile and size factor."""
    item_bytes: float = 0.0
    mix: TrafficMix = field(default_factory=TrafficMix)
    size_effects: dict[str, SizeEffect] = field(default_factory=dict)
    """By tier."""
    start_changes: dict[str, StartChanges] = field(default_factory=dict)
    service_changes: dict[str, ServiceChanges] = field(default_factory=dict)
    lessons: int = 0
    """Answered batches that were learned from: the tables are the same as long as it is."""
    budgets: dict[tuple[Backend, str], LessonBudget] = field(default_factory=dict)
    """By kind and name of the place."""

    def arrived(self, request: Request, now_s: float) -> None:
        """Counts an arrival."""
        self.arrivals.update(request.items, now_s)
        item_bytes = request.body_bytes / request.items
        weight = BYTES_SMOOTHING if self.item_bytes else 1.0
        self.item_bytes += weight * (item_bytes - self.item_bytes)
        self.mix.update(request.class_name, request.items, item_bytes)

    def edge_times(self, percentile: float, edge: str = EDGE_NAME) -> ServiceTimes | None:
        """Returns an edge server's tables with the margin at which this percentile holds by what is known now."""
        tables = self.edge_tables.get(edge)
        return None if tables is None else tables.get(percentile)

    def follow(self, settings: ModelSettings, engine: EngineSettings) -> None:
        """Takes over settings that are alike but for the edge servers: starts afresh with those that are others."""
        before, self.settings = self.settings, settings
        laws = {edge.name: settings.edge_latency_on(edge.name) for edge in engine.edges}
        kept = {
            name for name in self.edges if laws.get(name) is not None and before.edge_latency_on(name) == laws[name]
        }
        known, tables, self.edges, self.edge_tables = self.edges, self.edge_tables, {}, {}
        for name, law in laws.items():
            if name in kept:
                self.edges[name], self.edge_tables[name] = known[name], tables[name]
            elif law is not None:
                detectors = detectors_of(engine.changepoint_package)
                whole = ServiceTime(law, overhead_s=engine.edge_overhead_s, detectors=detectors)
                self.edges[name] = service = EdgeService(whole, grows=bool(settings.tiers))
                self.edge_tables[name] = TimesCache(service, min(law.max_batch, settings.max_items))

    def function_times(self, plan: BufferPlan) -> ServiceTimes | None:
        """Returns the tables of a buffer's tier, in the same way."""
        key = (plan.tier, plan.percentile, plan.size_factor)
        tables = self.function_tables.get(key)
        if tables is None:
            service = self.functions.get(plan.tier)
            if service is None:
                return None
            if len(self.function_tables) >= MAX_TABLES:
                # Every plan may bring other size factors.
                self.function_tables.clear()
            max_batch = self.settings.tier(plan.tier).latency.max_batch
            tables = TimesCache(service, max_batch, plan.size_factor, forecasts=True)
            self.function_tables[key] = tables
        return tables.get(plan.percentile)

    def estimates(self) -> ModelEstimates:
        """Freezes what is known."""
        percentiles = {c.percentile for c in self.settings.classes}
        tiers = {tier.name: tier for tier in self.settings.tiers}
        sizes = self.mix.item_sizes()
        edges = {
            name: EdgeEstimate(latency, {p: service.quantile_factor(p) for p in percentiles})
            for name, service in self.edges.items()
            if (latency := _learned(self.settings.edge_latency_on(name), service)) is not None
        }
        first = next(iter(edges.values()), None)
        return ModelEstimates(
            rate_rps=self.arrivals.regime_rps,
            dispersion=self.arrivals.dispersion,
            item_bytes=self.item_bytes,
            edge_latency=None if first is None else first.latency,
            edge_quantile_factor={} if first is None else first.quantile_factor,
            edges=edges,
            function_latencies={
                name: latency
                for name, service in self.functions.items()
                if (latency := _learned(tiers[name].latency, service)) is not None
            },
            function_quantile_factor={
                p: max((service.quantile_factor(p) for service in self.functions.values()), default=1.0)
                for p in percentiles
            },
            class_shares=self.mix.class_shares(),
            item_sizes=sizes,
            size_factors={
                tier: factors for tier, effect in self.size_effects.items() if (factors := effect.factors(sizes))
            },
            tick_s=self.arrivals.tick_s,
        )


class Estimates:
    """All that is learned while running, fed with messages by control."""

    def __init__(self, settings: EngineSettings) -> None:
        """Stores the settings; estimators start from the profiles."""
        self._settings = settings
        self._strictest = _strictest_percentile(settings)
        self.models: dict[str, ModelKnowledge] = {m.name: _know(m, settings) for m in settings.models}
        self.bandwidth = Bandwidth(detectors_of(settings.changepoint_package))
        self.path_excess = ResidualWindow(size=PATH_WINDOW, prior_sigma=PATH_SIGMA_S)
        self._path_excess_s = self._path_margin_s = self._path_sigma_s = 0.0
        self.path_seen_s = 0.0
        self.revision = 0
        """Counts what was learned: tables and the uplink's estimate are the same as long as it is."""
        self.ticks_until_s = -math.inf
        """No counting tick of any model ends before; in the past where that is to be found out."""
        self._uplink: UplinkEstimate | None = None
        """None: to be made anew."""
        self.read_path()
        if settings.changepoints:
            self.bandwidth.watch()

    def note_change(self) -> None:
        """Notes that something was learned, so that tables and the uplink's estimate may be others now."""
        self.revision += 1
        self._uplink = None

    @property
    def uplink(self) -> UplinkEstimate:
        """What is known of the way to the functions; the same object as long as nothing new is."""
        if self._uplink is None:
            self._uplink = UplinkEstimate(
                self.uplink_bytes_per_s,
                self.uplink_rtt_s,
                excess_s=self._path_excess_s,
                margin_s=self._path_margin_s,
                sigma_s=self._path_sigma_s,
            )
        return self._uplink

    @property
    def uplink_bytes_per_s(self) -> float | None:
        """The uplink's bandwidth; None: ample or unknown."""
        measured = self.bandwidth.bytes_per_s
        return self._settings.uplink_bytes_per_s if measured is None else measured

    @property
    def uplink_rtt_s(self) -> float:
        """The round trip to the functions."""
        measured = self.bandwidth.rtt_s
        return self._settings.uplink_rtt_s if measured is None else measured

    def settings_changed(self, settings: EngineSettings) -> None:
        """Keeps what is known of models that stay as they are, starts afresh with the others."""
        self._settings = settings
        self._strictest = _strictest_percentile(settings)
        self.read_path()
        known = self.models
        self.models = {
            m.name: known[m.name] if m.name in known and _alike(known[m.name].settings, m) else _know(m, settings)
            for m in settings.models
        }
        self.ticks_until_s = -math.inf
        for model in settings.models:
            self.models[model.name].follow(model, settings)

    def advance(self, now_s: float) -> Iterator[Finding]:
        """Closes the ticks that have passed and yields the rate changes found in them."""
        for name, model in self.models.items():
            if any([service.forgets(now_s) for service in model.edges.values()]):
                model.lessons += 1
                self.note_change()
            counts = model.arrivals.advance(now_s)
            if not counts:
                continue
            for change in model.rate_changes.update_counts(counts) if self._settings.changepoints else ():
                model.arrivals.restart(change.run_length)
                yield findings.of_rate(name, change, model.arrivals.tick_s)
        self.ticks_until_s = min([model.arrivals.open_until_s for model in self.models.values()], default=math.inf)

    def learns_from(self, batch: Batch, now_s: float) -> bool:
        """Whether to learn from a batch that came back at this time: where there are many, not from all."""
        model = self.models.get(batch.model)
        if model is None:
            return False
        place = batch.backend, batch.place.name
        budget = model.budgets.get(place)
        if budget is None:
            budget = model.budgets[place] = LessonBudget()
        return budget.takes(now_s)

    def batch_finished(self, batch: Batch, report: BatchReport, *, open_since_s: float) -> Iterator[Finding]:
        """Learns from an answered batch and yields the changes it reveals.

        Args:
            batch: as sent.
            report: what came back.
            open_since_s: when the oldest function batch was sent that is still in flight; inf for none.
        """
        model = self.models.get(batch.model)
        if model is None:
            return
        model.lessons += 1
        self.note_change()
        if batch.backend is Backend.EDGE:
            name = batch.place.name
            if (service := model.edges.get(name)) is not None:
                now_s = batch.sent_at_s + report.elapsed_s
                others_s = report.others_s if report.queue_s else report.queue_s
                change = service.update(batch.items, report.elapsed_s, others_s=others_s, now_s=now_s)
                if change is not None:
                    several = len(self._settings.edges) > 1
                    yield findings.of_edge_service(batch.model, change, edge=name if several else "")
            return
        yield from self._function_finished(batch, report, model, open_since_s)

    def started(self, model: str, tier: str, start_s: float) -> Finding | None:
        """Learns from a cold start that took so long, and returns the change that it reveals."""
        knowledge = self.models[model]
        if tier not in knowledge.start_changes:
            knowledge.start_changes[tier] = StartChanges(detectors_of(self._settings.changepoint_package))
        change = knowledge.start_changes[tier].update(start_s)
        if change is None:
            return None
        # Starts of before the change say nothing about those to come.
        knowledge.warm[tier].keep_starts(change.run_length)
        return findings.of_function_start(model, tier, change)

    def probed(self, *, sent_bytes: int, transfer_s: float | None, rtt_s: float | None, now_s: float) -> None:
        """Learns the uplink from a probe."""
        if now_s > self.path_seen_s + PATH_STALE_S:
            # Nothing was sent for so long that what the way took then says nothing: perhaps nothing was for that.
            self.path_excess = ResidualWindow(size=PATH_WINDOW, prior_sigma=PATH_SIGMA_S)
            self.read_path()
        if rtt_s is not None:
            self.bandwidth.update_rtt(rtt_s)
        if transfer_s is not None and transfer_s > 0:
            self.bandwidth.update(sent_at_s=now_s - transfer_s, upload_end_s=now_s, sent_bytes=sent_bytes)
        self.note_change()

    def _path_moved(self, error_s: float) -> None:
        """Learns from the error of a predicted way, in which the excess known at the send was counted already."""
        self.path_excess.update(error_s + self._path_excess_s)
        self.read_path()

    def read_path(self) -> None:
        """Reads what the way takes from what is known of its excess."""
        way = self.path_excess.scatter()
        median_s = way.quantile(0.5)
        self._path_excess_s = max(0.0, median_s)
        self._path_margin_s = max(0.0, way.quantile(self._strictest) - median_s)
        self._path_sigma_s = max(0.0, way.quantile(SIGMA_PERCENTILE) - median_s) / SIGMAS
        self.note_change()

    def _function_finished(
        self, batch: Batch, report: BatchReport, model: ModelKnowledge, open_since_s: float
    ) -> Iterator[Finding]:
        service = model.functions.get(batch.tier)
        if service is not None and report.service_s is not None and report.service_s > 0:
            for_any_size_s = report.service_s / batch.size_factor
            if batch.predicted_service_s > 0:
                residual = math.log(report.service_s * batch.size_factor / batch.predicted_service_s)
                model.size_effects.setdefault(batch.tier, SizeEffect()).update(batch.largest_item_bytes, residual)
            change = service.update(batch.items, for_any_size_s)
            changes = model.service_changes.setdefault(batch.tier, ServiceChanges())
            level = service.level(batch.items, report.service_s)
            changes.note(batch.largest_item_bytes, level, sent_at_s=batch.sent_at_s, elapsed_s=report.elapsed_s)
            if (shown := changes.shown(change, open_since_s=open_since_s)) is not None:
                yield findings.of_function_service(batch.model, batch.tier, shown)
        if report.rtt_s is not None:
            self.bandwidth.update_rtt(report.rtt_s)
        self.note_change()
        # A cold start hides in the elapsed time; it says nothing about the uplink.
        if report.service_s is None or report.cold_start:
            return
        predicted_path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
        # Sent all the same over an uplink that was thought to be down: a way without an end has no error.
        if math.isfinite(predicted_path_s):
            self.path_seen_s = batch.sent_at_s + report.elapsed_s
            error_s = report.elapsed_s - report.service_s - predicted_path_s
            # A link that was gone for a while says nothing about the way when it is there.
            if error_s < GAP_S:
                self._path_moved(error_s)
        upload_s = report.elapsed_s - report.service_s - self.uplink_rtt_s
        change = self.bandwidth.update(
            sent_at_s=batch.sent_at_s,
            upload_end_s=batch.sent_at_s + max(upload_s, 1e-4),
            sent_bytes=batch.body_bytes,
            open_since_s=open_since_s,
        )
        self.note_change()
        if change is not None:
            yield findings.of_bandwidth(change)


def _know(settings: ModelSettings, engine: EngineSettings) -> ModelKnowledge:
    detectors = detectors_of(engine.changepoint_package)
    functions = {
        tier.name: ServiceTime(tier.latency, shape_sigma=FUNCTION_SHAPE_SIGMA, detectors=detectors)
        for tier in settings.tiers
    }
    made = ModelKnowledge(
        settings=settings,
        arrivals=ArrivalRate(),
        rate_changes=detectors.counts(),
        edges={},
        functions=functions,
        warm={tier.name: WarmInstances() for tier in settings.tiers},
        edge_tables={},
        function_tables={},
    )
    made.follow(settings, engine)
    return made


def _alike(before: ModelSettings, after: ModelSettings) -> bool:
    """Whether what was learned still holds: neither another plan for its functions nor other edge servers make another
    model of it."""
    same: dict[str, Any] = {"buffers": (), "edge_latency": None, "edge_latencies": {}}
    return replace(before, **same) == replace(after, **same)


def _strictest_percentile(settings: EngineSettings) -> float:
    return max((c.percentile for model in settings.models for c in model.classes), default=0.5)


def _learned(latency: LatencyModel | None, service: ServiceTime | EdgeService | None) -> LatencyModel | None:
    """Returns the latency model with its rows replaced by what is predicted now."""
    if latency is None or service is None:
        return None
    rows = tuple(enumerate(service.predict_all_s(latency.max_batch), start=1))
    return LatencyModel(latency.alpha_s, latency.beta_s, latency.max_batch, rows, latency.decode_s)

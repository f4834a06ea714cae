"""What the page shows of this moment, as short values: only those that change are sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler.daemon.history.buckets import short
from scheduler.daemon.history.savings import PARTS
from scheduler.daemon.records import BatchRecord, start_kind
from scheduler.daemon.shadow.report import page_values
from scheduler.daemon.status import RunnerStatistics, jsonable
from scheduler.domain.plans import EngineSettings, Plan
from scheduler.domain.requests import EDGE_NAME, Place
from scheduler.domain.statistics import EngineStatistics, SharedEdge

PLANS_SHOWN = 24
CHANGES_SHOWN = 32


@dataclass(slots=True)
class Sources:
    """What is asked each second, and what the configuration says. The defaults know nothing."""

    engine: Callable[[], EngineStatistics | None] = lambda: None
    runner: Callable[[], RunnerStatistics | None] = lambda: None
    plans: Callable[[], Sequence[Plan]] = tuple
    """The latest plans, oldest first."""
    batches: Callable[[int, int], Sequence[tuple[int, BatchRecord]]] = lambda *_: ()
    """The latest records above a number, at most so many, oldest first."""
    models: Callable[[], Mapping[str, Mapping[str, Any]]] = dict
    """Which card and files each place serves, by model."""
    edges: Callable[[], Sequence[Mapping[str, Any]]] = tuple
    own_latency: Callable[[], Mapping[str, Any]] = dict
    state: Callable[[], Mapping[str, Any]] = dict
    shadow: Callable[[], Mapping[str, Any] | None] = lambda: None


@dataclass(slots=True)
class Sighting:
    """Since when a place is used, or is not."""

    up: bool
    since_s: float
    why: str = ""


@dataclass(slots=True)
class Sightings:
    """When places went away and came back, and why they went, as far as their last failed batch says."""

    seen: dict[str, Sighting] = field(default_factory=dict)
    _errors: dict[str, str] = field(default_factory=dict)

    def failed(self, place: str, error: str) -> None:
        """Keeps the last error of a place."""
        self._errors[place] = error[:200]
        if (seen := self.seen.get(_endpoint(place))) is not None and not seen.up and not seen.why:
            seen.why = error[:200]

    def note(self, engine: EngineStatistics, at_s: float) -> None:
        """Looks which places are used now."""
        now = {str(Place.edge(edge.name)): edge.up for edge in engine.edges}
        now["function"] = engine.function_up
        for place, up in now.items():
            before = self.seen.get(place)
            if before is None or before.up is not up:
                self.seen[place] = Sighting(up, at_s, "" if up else self._why(place))
        self.seen = {place: seen for place, seen in self.seen.items() if place in now}

    def _why(self, place: str) -> str:
        return next((why for of, why in reversed(self._errors.items()) if _endpoint(of) == place), "")


def _endpoint(place: str) -> str:
    return "function" if place.startswith("function:") else place


def site_values(settings: EngineSettings, *, version: str, config: str) -> dict[str, Any]:
    """Returns what the configuration says: classes with their objectives, places, tenants, version."""
    models = settings.models
    edges = [edge.name for edge in settings.edges if any(model.edge_latency_on(edge.name) for model in models)]
    return {
        "version": version,
        "config": config,
        "classes": [
            {"model": model.name, "class": each.name, "slo_s": each.slo_s, "objective": each.percentile}
            for model in models
            for each in model.classes
        ],
        "tenants": [tenant.name for tenant in settings.tenants],
        "edges": edges,
        "tiers": sorted({tier.name for model in models for tier in model.tiers}),
        "several_edges": edges != [EDGE_NAME],
    }


def figures(
    sources: Sources,
    sightings: Sightings,
    plan_values: PlanValues,
    today: Mapping[str, float],
    *,
    ahead_s: float,
    ready: bool,
) -> dict[str, Any]:
    """Returns the values by name, `slow_figures` apart.

    Args:
        sources: what is asked.
        sightings: since when places are used.
        plan_values: words the plan.
        today: money since midnight.
        ahead_s: the wall clock less the daemon's.
        ready: whether the daemon has started.
    """
    runner, engine = sources.runner(), sources.engine()
    found: dict[str, Any] = {"state": _state(runner, sightings, ready=ready)}
    if runner is not None:
        found["began_s"] = round(runner.now_s - runner.uptime_s + ahead_s)
        found["late_answers"] = runner.late_answers
        found["disbelieved"] = list(runner.disbelieved)
        found["left"] = [[row["place"], row["why"], row["batches"]] for row in runner.batches_left]
    own = sources.own_latency()
    found["own_ms"] = [short(1000 * own[name], 2) for name in ("p50_s", "p99_s") if name in own]
    if engine is not None:
        found |= _of_engine(engine, sightings, ahead_s=ahead_s)
        found |= {"money": _money(engine, today), "caps": _caps(engine, ahead_s, runner)}
    plans = sources.plans()
    found["plans"] = [_plan_row(plan, ahead_s) for plan in plans[-PLANS_SHOWN:]]
    if plans:
        found["plan"] = plan_values.of(plans[-1], ahead_s)
    return {**found, **page_values(sources.shadow())}


def _state(runner: RunnerStatistics | None, sightings: Sightings, *, ready: bool) -> str:
    """Returns what keeps requests from being answered, in a few words; empty: nothing does."""
    if runner is not None and runner.draining:
        return "stopping"
    if not ready:
        return "starting"
    seen = sightings.seen.values()
    return "no backend answers" if seen and not any(each.up for each in seen) else ""


def slow_figures(sources: Sources) -> dict[str, Any]:
    """Returns the values that change in minutes."""
    state = sources.state()
    return {
        "kept": {name: state.get(name) for name in ("folder", "up", "message")},
        "servers": [[row["name"], row.get("server", ""), row.get("url", "")] for row in sources.edges()],
        "models": {
            model: {
                **{name: row.get(name) for name in ("identity", "places", "agree", "refused")},
                "profiles": {
                    edge: [profile.get(name, "") for name in ("source", "name", "date")]
                    for edge, profile in row.get("edge_profiles", {}).items()
                },
            }
            for model, row in sources.models().items()
        },
    }


class PlanValues:
    """The plan in force in the types of JSON, made once for each."""

    def __init__(self) -> None:
        """Has made none."""
        self._plan: Plan | None = None
        self._values: dict[str, Any] = {}

    def of(self, plan: Plan, ahead_s: float) -> dict[str, Any]:
        """Returns the same object as long as the plan is the same."""
        if plan is not self._plan:
            made_s = round(plan.made_at_s + ahead_s)
            self._plan = plan
            self._values = {"id": plan.plan_id, "made_s": made_s, "groups": jsonable(plan.groups)}
        return self._values


def _of_engine(engine: EngineStatistics, sightings: Sightings, *, ahead_s: float) -> dict[str, Any]:
    edges = {str(Place.edge(edge.name)): edge for edge in engine.edges}
    broken: dict[str, list[str]] = {place: [] for place in edges}
    for row in engine.models_up:
        for name, up in row.edges:
            if not up:
                broken.setdefault(str(Place.edge(name)), []).append(row.model)
    broken["function"] = [row.model for row in engine.models_up if row.function_up is False]
    places = []
    for place, seen in sightings.seen.items():
        edge = edges.get(place)
        flying = engine.function_batches_in_flight if edge is None else edge.batches_in_flight
        told = {"place": place, "up": seen.up, "since_s": round(seen.since_s), "why": seen.why, "in_flight": flying}
        places.append({**told, "parallel": edge.parallel if edge else None, "broken": broken.get(place, [])})
    bandwidth = engine.uplink_bytes_per_s
    return {
        "queue": [engine.queued_requests, engine.requests_in_flight, short(engine.expected_drain_s, 2)],
        "uplink": [None if bandwidth is None else short(bandwidth, 3), short(engine.uplink_rtt_s, 2)],
        "rates": {model: short(rate, 3) for model, rate in engine.rates_rps.items()},
        "paces": [[pace.model, pace.place, short(pace.times_profile, 3), pace.batches > 0] for pace in engine.paces],
        "places": places,
        "changes": [
            [round(change.at_s + ahead_s), change.cause, change.detail]
            for change in engine.changes.latest[-CHANGES_SHOWN:]
        ],
        "slower": [list(pair) for pair in engine.changes.slower],
        "quotas": jsonable(engine.quotas),
        "edge_limits": jsonable(engine.edge_limits),
        "shared": [_shared(each, ahead_s=ahead_s) for each in engine.shared_edges],
        "tenants": [
            [each.name, short(each.share), each.open_requests, short(each.edge_s, 3), short(each.spent, 3)]
            for each in engine.tenants
        ],
        "budgets": [
            [each.model, each.class_name, round(each.balance, 1), each.missed_on_purpose, short(each.saved, 3)]
            for each in engine.budgets
        ],
    }


def _shared(shared: SharedEdge, *, ahead_s: float) -> list[Any]:
    """Returns place, model, since when, the wait as learned and as observed (ms), and why it is not trusted."""
    waits_ms = [short(1000 * wait_s, 2) for wait_s in (shared.learned_s, shared.observed_s)]
    return [str(Place.edge(shared.edge)), shared.model, round(shared.since_s + ahead_s), *waits_ms, shared.doubt]


def _money(engine: EngineStatistics, today: Mapping[str, float]) -> dict[str, Any]:
    by: dict[tuple[str, str, str], float] = {}
    for row in engine.spending:
        key = (PARTS[row.what], row.tier, row.model)
        by[key] = by.get(key, 0.0) + row.amount
    return {
        "currency": engine.spending[0].currency if engine.spending else engine.plan.currency if engine.plan else "",
        "since_start": short(engine.spent, 4),
        "today": {name: short(amount, 4) for name, amount in sorted(today.items())},
        "by": [[*key, short(amount, 4)] for key, amount in sorted(by.items())],
    }


def _caps(engine: EngineStatistics, ahead_s: float, runner: RunnerStatistics | None) -> dict[str, Any]:
    opens_s = None
    if engine.opens_in_s is not None and runner is not None:
        opens_s = round(runner.now_s + ahead_s + engine.opens_in_s)
    caps = [[cap.window, short(cap.cap), short(cap.spent)] for cap in engine.caps]
    return {"caps": caps, "closed_by": engine.closed_by, "opens_s": opens_s}


def _plan_row(plan: Plan, ahead_s: float) -> list[Any]:
    return [plan.plan_id, round(plan.made_at_s + ahead_s), plan.cause, plan.detail]


def batch_row(number: int, record: BatchRecord, *, ahead_s: float) -> list[Any]:
    """Returns a batch as the page draws it: `strip.js` names the values."""
    batch, report = record.batch, record.report
    return [
        number,
        batch.batch_id,
        str(batch.place),
        batch.model,
        batch.items,
        round(batch.sent_at_s + ahead_s, 3),
        round(1000 * record.wait_max_s),
        None if report.service_s is None else short(1000 * report.service_s, 3),
        short(1000 * report.elapsed_s, 3),
        batch.why_left.value if batch.why_left else "",
        batch.reason.value if batch.reason else "",
        short(record.bill.total, 3),
        start_kind(report),
        record.error[:80],
        batch.request_ids[0] if batch.request_ids else None,
    ]

"""Results of a simulation: one summary, and one row for each request."""

import csv
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from scheduler.domain.errors import EdgeburstError, RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Backend, Place
from scheduler.simulator.bound_note import NotedBound
from scheduler.simulator.policies.daemons import dealt
from scheduler.simulator.scenario import Scenario
from scheduler.simulator.shell import TOLERANCE_S, Journal


@dataclass(frozen=True, slots=True)
class Row:
    """Result of one request. Times are in seconds.

    The fields `backend` to `cold_start`, and `edge`, are of the batch that answered it, or of the one that it was in
    when it was refused at its deadline; after any other refusal they stay empty.
    """

    request_id: int
    model: str
    class_name: str
    arrived_at_s: float
    deadline_s: float
    ended_at_s: float
    latency_s: float
    outcome: str
    within_slo: bool
    backend: str = ""
    tier: str = ""
    batch_id: int = 0
    batch_items: int = 0
    wait_s: float = 0.0
    cost: float = 0.0
    cold_start: bool = False
    tenant: str = ""
    reason: str = ""
    edge: str = ""
    """Name of the edge server; empty for a function."""


def rows(journal: Journal) -> Iterator[Row]:
    """Yields one row for each request, in the order of their ids."""
    last_batch = {
        request_id: batch_id for batch_id, sent in journal.batches.items() for request_id in sent.batch.request_ids
    }
    for request in journal.requests:
        ended_at_s = journal.ended_at_s[request.request_id]
        latency_s = ended_at_s - request.arrived_at_s
        in_time = ended_at_s <= request.deadline_s + request.reserve_s + TOLERANCE_S
        refusal = journal.refusals.get(request.request_id)
        batch_id = journal.answered_by.get(request.request_id) or last_batch.get(request.request_id)
        cancelled = request.request_id in journal.cancelled
        if cancelled or (refusal is not None and (batch_id is None or refusal.kind is not RefusalKind.NO_ANSWER)):
            yield Row(
                request.request_id,
                request.model,
                request.class_name,
                request.arrived_at_s,
                request.deadline_s,
                ended_at_s,
                latency_s,
                outcome="cancelled" if refusal is None else refusal.kind.value,
                within_slo=False,
                reason="" if refusal is None else refusal.message,
                tenant=request.tenant,
            )
            continue
        assert batch_id is not None, "a request that was answered was in a batch"
        sent = journal.batches[batch_id]
        yield Row(
            request.request_id,
            request.model,
            request.class_name,
            request.arrived_at_s,
            request.deadline_s,
            ended_at_s,
            latency_s,
            outcome="answered" if refusal is None else refusal.kind.value,
            within_slo=in_time and refusal is None,
            backend=sent.batch.backend.value,
            tier=sent.batch.tier,
            batch_id=batch_id,
            batch_items=sent.batch.items,
            wait_s=sent.batch.sent_at_s - request.arrived_at_s,
            cost=sent.outcome.cost * request.items / sent.batch.items,
            cold_start=sent.outcome.cold_start,
            reason="" if refusal is None else refusal.message,
            tenant=request.tenant,
            edge=sent.batch.place.name if sent.batch.backend is Backend.EDGE else "",
        )


def write_rows(journal: Journal, path: Path) -> None:
    """Writes one CSV row for each request.

    Raises:
        EdgeburstError: the file cannot be written.
    """
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            _write(file, rows(journal))
    except OSError as error:
        raise EdgeburstError(f"cannot write the rows to {path}: {error.strerror}") from error


def _write(file: TextIO, table: Iterator[Row]) -> None:
    writer = csv.writer(file)
    names = list(Row.__dataclass_fields__)
    writer.writerow(names)
    for row in table:
        writer.writerow([getattr(row, name) for name in names])


def summarise(
    journal: Journal,
    scenario: Scenario,
    *,
    wall_s: float,
    bound: NotedBound | None = None,
    limit: NotedBound | None = None,
) -> dict[str, object]:
    """Returns the summary of a run.

    Args:
        journal: of the run.
        scenario: of the run.
        wall_s: wall-clock seconds that the run took.
        bound: the clairvoyant bound, if it was computed.
        limit: the limit under noise, if it was computed.
    """
    requests, answered = len(journal.requests), len(journal.answered_by)
    latencies_s, within = _answers(journal)
    sent, counted = journal.batches, requests - len(journal.cancelled)
    backends = Counter([sent[batch_id].batch.backend for batch_id in journal.answered_by.values()])
    batches = Counter([one.batch.backend for one in sent.values() if not one.batch.warming])
    busy = busy_shares(journal, scenario)
    return {
        "policy": scenario.policy,
        "requests": requests,
        "answered": answered,
        "refused": counted - answered,
        "late": answered - within,
        "within_slo": within / counted if counted else 1.0,
        "edge": backends[Backend.EDGE],
        "function": backends[Backend.FUNCTION],
        "edge_batches": batches[Backend.EDGE],
        "edge_busy": sum(busy.values()) / len(busy),
        "function_batches": batches[Backend.FUNCTION],
        "cost_cny": journal.cost(),
        **({} if bound is None else {"bound_cny": bound.cny, "bound_note": bound.note}),
        **({} if limit is None else {"limit_cny": limit.cny, "limit_note": limit.note}),
        "all_function_cny": _all_function_cny(journal, scenario),
        "latency_s": _percentiles(latencies_s),
        "plans": len(journal.plans),
        "replan_causes": dict(Counter(plan.cause for plan in journal.plans[1:])),
        "wall_s": round(wall_s, 3),
        "seed": scenario.seed,
        **({"edges": by_edge(journal, scenario)} if scenario.edges else {}),
        **({"tenants": by_tenant(journal, scenario)} if scenario.tenants else {}),
        **({"daemons": by_daemon(journal, scenario)} if len(scenario.daemons) > 1 else {}),
        **journal.facts,
    }


def answered_rps(journal: Journal) -> float:
    """Returns the answers a second from the start to the last end; 0 without any."""
    return len(journal.answered_by) / max(journal.ended_at_s.values(), default=math.inf)


def _answers(journal: Journal) -> tuple[list[float], int]:
    """Returns the latency of every answer in seconds, and the number of answers in time; faster than `rows`."""
    ended_at_s, answered_by = journal.ended_at_s, journal.answered_by
    latencies_s, within = [], 0
    for request in journal.requests:
        if request.request_id in answered_by:
            at_s = ended_at_s[request.request_id]
            latencies_s.append(at_s - request.arrived_at_s)
            within += at_s <= request.deadline_s + request.reserve_s + TOLERANCE_S
    return latencies_s, within


def by_tenant(journal: Journal, scenario: Scenario) -> dict[str, dict[str, float]]:
    """Returns for each tenant its share, its requests, those answered in time, and its part of the cost."""
    tenants = {
        tenant.settings.name: {"share": tenant.settings.share, "requests": 0, "in_time": 0, "cost_cny": 0.0}
        for tenant in scenario.tenants
    }
    for row in rows(journal):
        figures = tenants[row.tenant]
        figures["requests"] += 1
        figures["in_time"] += row.within_slo
        figures["cost_cny"] += row.cost
    return tenants


def by_daemon(journal: Journal, scenario: Scenario) -> list[dict[str, float]]:
    """Returns for each daemon its requests, those answered in time and by an edge server, and its part of the cost."""
    found = [{"requests": 0, "in_time": 0, "edge": 0, "cost_cny": 0.0} for _ in scenario.daemons]
    number = dealt(scenario, journal.requests)
    for row in rows(journal):
        figures = found[number[row.request_id]]
        figures["requests"] += 1
        figures["in_time"] += row.within_slo
        figures["edge"] += row.outcome == "answered" and bool(row.edge)
        figures["cost_cny"] += row.cost
    return found


def by_edge(journal: Journal, scenario: Scenario) -> dict[str, dict[str, float]]:
    """Returns for each edge server its batches, the requests that they answered, and the share of time at work."""
    sent = journal.batches
    batches = Counter(one.batch.place.name for one in sent.values() if one.batch.backend is Backend.EDGE)
    places = Counter(sent[batch_id].batch.place for batch_id in journal.answered_by.values())
    return {
        name: {"batches": batches[name], "answered": places[Place.edge(name)], "busy": share}
        for name, share in busy_shares(journal, scenario).items()
    }


def busy_shares(journal: Journal, scenario: Scenario) -> dict[str, float]:
    """Returns for each edge server the share of the time until the last request ended for which its slots worked."""
    until_s = max(journal.ended_at_s.values(), default=0.0)
    worked_s = {server.name: 0.0 for server in scenario.edge_servers()}
    for one in journal.batches.values():
        if one.batch.backend is Backend.EDGE:
            worked_s[one.batch.place.name] += one.outcome.busy_s
    slots = {server.name: server.parallel for server in scenario.edge_servers()}
    return {name: seconds / (slots[name] * until_s) if until_s else 0.0 for name, seconds in worked_s.items()}


def within_slo(journal: Journal) -> float:
    """Returns the fraction of the requests that were answered in time; 1 if there were none.

    Those whose clients gave up do not count, as in a daemon.
    """
    counted = len(journal.requests) - len(journal.cancelled)
    return _answers(journal)[1] / counted if counted else 1.0


def _percentiles(latencies_s: list[float]) -> dict[str, float | None]:
    if not latencies_s:
        return {"p50": None, "p95": None, "p99": None}
    p50, p95, p99 = np.quantile(latencies_s, (0.5, 0.95, 0.99)).tolist()
    return {"p50": p50, "p95": p95, "p99": p99}


def _all_function_cny(journal: Journal, scenario: Scenario) -> float:
    """Returns the cost in CNY if every request used its cheapest function batch whose service is within the SLO."""
    counts = Counter((request.model, request.class_name) for request in journal.requests)
    return math.fsum(
        counts[model.name, kind.service_class.name]
        * cheapest_per_item(model.tiers, slo_s=kind.service_class.slo_s - scenario.rtt_s)
        for model in scenario.served()
        for kind in model.classes
    )


def cheapest_per_item(tiers: tuple[FunctionTier, ...], *, slo_s: float) -> float:
    """Returns the least cost an item over all batches that take at most `slo_s`; that of a single item if none does."""
    each = [(tier, items) for tier in tiers for items in range(1, tier.latency.max_batch + 1)]
    feasible = [(tier, items) for tier, items in each if tier.latency.predict_s(items) <= slo_s + TOLERANCE_S]
    choices = feasible or [(tier, 1) for tier in tiers]
    return min((tier.price.cost(tier.latency.predict_s(items)) / items for tier, items in choices), default=0.0)

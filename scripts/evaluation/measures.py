"""What the evaluation measures beyond the figures of `simulate --json`: around a change, on the link, under a cap."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from scheduler.domain.batches import Batch
from scheduler.domain.requests import Backend
from scheduler.simulator import report
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.shell import Journal
from scripts.evaluation.case import Case, Row, Timeline

AT_ONCE_S = 0.01
"""A refusal that comes so soon left the client time to go elsewhere."""
AFTER_CHANGE_S = 10.0
"""Requests that arrive so soon after a change are those that it hits."""
SETTLED_AFTER_S = 5.0
"""From here on the figures of a steady state are asked for again."""
BACK_S = 1.0
"""Requests that arrive later than this after the link is back must not suffer from its absence."""
_HOUR_S = 3600.0
_QUANTILES = np.linspace(0.0, 1.0, 201)


def split(rows: Sequence[report.Row]) -> Row:
    """Returns sizes of batches and whose fault lateness is."""
    answered = [row for row in rows if row.outcome == "answered"]
    return {
        "mean_edge_batch": _mean_batch(row for row in answered if row.backend == Backend.EDGE.value),
        "mean_function_batch": _mean_batch(row for row in answered if row.backend == Backend.FUNCTION.value),
        "edge_late": sum(row.backend == Backend.EDGE.value and not row.within_slo for row in answered),
        "function_late": sum(row.backend == Backend.FUNCTION.value and not row.within_slo for row in answered),
        "refused_at_once": sum(map(at_once, rows)),
    }


def _mean_batch(rows: Iterable[report.Row]) -> float:
    sizes = {row.batch_id: row.batch_items for row in rows}
    return sum(sizes.values()) / len(sizes) if sizes else 0.0


def at_once(row: report.Row) -> bool:
    """Whether a request was refused as soon as it came."""
    return row.outcome != "answered" and row.latency_s <= AT_ONCE_S


def around_change(rows: Sequence[report.Row], case: Case) -> Row:
    """Returns how many requests were outside the SLO among those that the change hit, and among those after that."""
    if case.change_at_s is None:
        return {}
    at_s = case.change_at_s
    hit = [row for row in rows if at_s <= row.arrived_at_s < at_s + AFTER_CHANGE_S]
    settled = [row for row in rows if at_s + SETTLED_AFTER_S <= row.arrived_at_s < case.settled_until_s]
    return {
        "change_at_s": at_s,
        "hit_requests": len(hit),
        "hit_outside": sum(not row.within_slo for row in hit),
        "hit_refused_at_once": sum(map(at_once, hit)),
        "settled_requests": len(settled),
        "settled_outside": sum(not row.within_slo for row in settled),
        "settled_refused_at_once": sum(map(at_once, settled)),
    }


def on_link(journal: Journal, rows: Sequence[report.Row], case: Case) -> Row:
    """Returns how many answered requests were late because of the link, and of those how many it cannot excuse.

    A request is late because of the link if it would have been in time had its batch been as long on the way as was
    predicted, or if the edge answered it after a function had not. Excused is who goes to a function and arrives
    while the link does not carry a single request within the SLO, or soon after. Of policies that predict nothing
    every late request that was on the way so long counts.
    """
    bandwidth = case.scenario.bandwidth
    if math.isinf(bandwidth.rates[0]):
        return {}
    late = [row for row in rows if row.outcome == "answered" and not row.within_slo]
    tried = {
        request_id
        for sent in journal.batches.values()
        if sent.batch.backend is Backend.FUNCTION
        for request_id in sent.batch.request_ids
    }
    start_s = case.scenario.cold_starts.start_s
    by_link = [row for row in late if _late_by_link(journal, row, tried, start_s)]
    slo_s = max(c.service_class.slo_s for c in case.scenario.classes)
    least = case.scenario.request_bytes / slo_s
    return {
        "late_by_link": len(by_link),
        "late_by_link_unexcused": sum(
            row.backend == Backend.EDGE.value or not _link_was_gone(bandwidth, row.arrived_at_s, least)
            for row in by_link
        ),
    }


def _late_by_link(journal: Journal, row: report.Row, tried: set[int], start_s: float) -> bool:
    if row.backend == Backend.EDGE.value:
        return row.request_id in tried
    return row.ended_at_s - row.deadline_s <= _way_excess_s(journal, row.batch_id, start_s)


def _way_excess_s(journal: Journal, batch_id: int, start_s: float) -> float:
    """Seconds that a function batch was longer on the way than predicted, a cold start left out."""
    sent = journal.batches[batch_id]
    way = sent.outcome.message.report
    waited_s = start_s if sent.outcome.cold_start else 0.0
    return way.elapsed_s - (way.service_s or 0.0) - waited_s - _predicted_way_s(sent.batch)


def _predicted_way_s(batch: Batch) -> float:
    return max(0.0, batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s)


def _link_was_gone(bandwidth: Bandwidth, at_s: float, least_bytes_per_s: float) -> bool:
    """Whether the link carried less than that at some time in the second before."""
    lap_s = at_s % bandwidth.period_s if math.isfinite(bandwidth.period_s) else at_s
    ends_s = (*bandwidth.starts_s[1:], bandwidth.period_s)
    return any(
        rate < least_bytes_per_s and start_s <= lap_s < end_s + BACK_S
        for start_s, end_s, rate in zip(bandwidth.starts_s, ends_s, bandwidth.rates, strict=True)
    )


def under_cap(journal: Journal, case: Case) -> Row:
    """Returns by how many of the dearest batches the hourly cap was exceeded in the worst hour."""
    cap_cny = case.scenario.caps.per_hour_cny
    if cap_cny is None:
        return {}
    spent = [(sent.batch.sent_at_s, sent.outcome.cost) for sent in journal.batches.values()]
    dearest_cny = max((cost for _, cost in spent), default=0.0)
    excess_cny = max(0.0, max_per_hour(spent) - cap_cny)
    return {"over_cap_batches": excess_cny / dearest_cny if dearest_cny else 0.0}


def max_per_hour(spent: Iterable[tuple[float, float]]) -> float:
    """Returns the most money in any hour.

    Args:
        spent: (second, money).
    """
    window: deque[tuple[float, float]] = deque()
    inside = highest = 0.0
    for at_s, cost in sorted(spent):
        window.append((at_s, cost))
        inside += cost
        while window[0][0] <= at_s - _HOUR_S:
            inside -= window.popleft()[1]
        highest = max(highest, inside)
    return highest


def quantiles_s(rows: Sequence[report.Row]) -> tuple[float, ...]:
    """Returns 201 quantiles of the latency of answered requests."""
    latencies_s = [row.latency_s for row in rows if row.outcome == "answered"]
    return tuple(np.quantile(latencies_s, _QUANTILES).tolist()) if latencies_s else ()


def timeline(journal: Journal, rows: Sequence[report.Row], *, bin_s: float = 0.5) -> Timeline:
    """Returns how a run went, in bins by arrival."""
    bins = int(max(row.arrived_at_s for row in rows) / bin_s) + 1

    def rps(chosen: Iterable[report.Row]) -> tuple[float, ...]:
        which = np.array([int(row.arrived_at_s / bin_s) for row in chosen], dtype=np.int64)
        return tuple((np.bincount(which, minlength=bins) / bin_s).tolist())

    return Timeline(
        starts_s=tuple(i * bin_s for i in range(bins)),
        arrived_rps=rps(rows),
        function_rps=rps(row for row in rows if row.backend == Backend.FUNCTION.value),
        outside_rps=rps(row for row in rows if not row.within_slo),
        plans=tuple((plan.made_at_s, plan.cause) for plan in journal.plans[1:]),
    )

"""Measures of the evaluation beyond `simulate --json`: around a change, on the uplink, under a spend cap."""

import math
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from scheduler.domain.batches import Batch
from scheduler.domain.messages import BatchFinished
from scheduler.domain.requests import Backend
from scheduler.simulator import report
from scheduler.simulator.network import Bandwidth
from scheduler.simulator.shell import Journal
from scripts.evaluation.case import Case, Row, Timeline

AT_ONCE_S = 0.01
"""Seconds: after a refusal within this time the client can still use another server."""
AFTER_CHANGE_S = 10.0
"""Seconds after a change in which an arriving request counts as hit by it."""
SETTLED_AFTER_S = 5.0
"""Seconds after a change from which the figures of a steady state are required again."""
BACK_S = 1.0
"""Seconds after the end of a link outage from which requests must not be late because of it."""
_HOUR_S = 3600.0
_QUANTILES = np.linspace(0.0, 1.0, 201)


def split(rows: Sequence[report.Row]) -> Row:
    """Returns mean batch sizes, and the late and the immediately refused requests.

    Late is also a request that was refused at its deadline because its batch had not come back.
    """
    answered = [row for row in rows if row.outcome == "answered"]
    return {
        "mean_edge_batch": _mean_batch(row for row in answered if row.backend == Backend.EDGE.value),
        "mean_function_batch": _mean_batch(row for row in answered if row.backend == Backend.FUNCTION.value),
        "edge_late": sum(row.backend == Backend.EDGE.value and not row.within_slo for row in rows),
        "function_late": sum(row.backend == Backend.FUNCTION.value and not row.within_slo for row in rows),
        "refused_at_once": sum(map(at_once, rows)),
    }


def _mean_batch(rows: Iterable[report.Row]) -> float:
    sizes = {row.batch_id: row.batch_items for row in rows}
    return sum(sizes.values()) / len(sizes) if sizes else 0.0


def at_once(row: report.Row) -> bool:
    """Returns whether a request was refused within `AT_ONCE_S`."""
    return row.outcome != "answered" and row.latency_s <= AT_ONCE_S


def by_class(rows: Sequence[report.Row], case: Case) -> Row:
    """Returns how far the worst class is above its percentile, below 0 if it misses it; nothing for a single class."""
    classes = {kind.service_class.name: kind.service_class.percentile for kind in case.scenario.classes}
    if len(classes) < 2:
        return {}
    within = {name: [row.within_slo for row in rows if row.class_name == name] for name in classes}
    return {"class_margin": min(sum(of) / max(1, len(of)) - classes[name] for name, of in within.items())}


def around_change(rows: Sequence[report.Row], case: Case) -> Row:
    """Returns the numbers of requests and of those outside the SLO, hit by the change and in the steady state after."""
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
    """Returns the number of requests that were late because of the link, and how many of them are not excused.

    A request that was refused because its batch was late counts like one that was answered late. An answer is late
    because of the link if it would have been in time with the predicted transfer time of its batch, or if the edge
    gave it after a function batch had failed. It is excused if a function gave it and the request arrived while the
    link could not carry a single request within the SLO, or shortly after. For policies without predictions, every
    answer that would have been in time without its transfer counts.
    """
    bandwidth = case.scenario.bandwidth
    if math.isinf(bandwidth.rates[0]):
        return {}
    late = [row for row in rows if row.backend and not row.within_slo and _came_back(journal, row.batch_id)]
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


def _came_back(journal: Journal, batch_id: int) -> bool:
    return isinstance(journal.batches[batch_id].outcome.message, BatchFinished)


def _late_by_link(journal: Journal, row: report.Row, tried: set[int], start_s: float) -> bool:
    if row.backend == Backend.EDGE.value:
        return row.request_id in tried
    back_s = journal.batches[row.batch_id].outcome.at_s
    return back_s - row.deadline_s <= _path_excess_s(journal, row.batch_id, start_s)


def _path_excess_s(journal: Journal, batch_id: int, start_s: float) -> float:
    """Returns the seconds by which the path of a function batch took longer than predicted, without a cold start."""
    sent = journal.batches[batch_id]
    measured = sent.outcome.message.report
    waited_s = start_s if sent.outcome.cold_start else 0.0
    return measured.elapsed_s - (measured.service_s or 0.0) - waited_s - _predicted_path_s(sent.batch)


def _predicted_path_s(batch: Batch) -> float:
    return max(0.0, batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s)


def _link_was_gone(bandwidth: Bandwidth, at_s: float, least_bytes_per_s: float) -> bool:
    """Returns whether the bandwidth was below a limit at some time in the second before."""
    lap_s = at_s % bandwidth.period_s if math.isfinite(bandwidth.period_s) else at_s
    ends_s = (*bandwidth.starts_s[1:], bandwidth.period_s)
    return any(
        rate < least_bytes_per_s and start_s <= lap_s < end_s + BACK_S
        for start_s, end_s, rate in zip(bandwidth.starts_s, ends_s, bandwidth.rates, strict=True)
    )


def under_cap(journal: Journal, case: Case) -> Row:
    """Returns by how much the hourly cap was exceeded in the worst hour, in units of the most expensive batch."""
    cap_cny = case.scenario.caps.per_hour_cny
    if cap_cny is None:
        return {}
    spent = [(sent.batch.sent_at_s, sent.outcome.cost) for sent in journal.batches.values()]
    max_cny = max((cost for _, cost in spent), default=0.0)
    excess_cny = max(0.0, max_per_hour(spent) - cap_cny)
    return {"over_cap_batches": excess_cny / max_cny if max_cny else 0.0}


def max_per_hour(spent: Iterable[tuple[float, float]]) -> float:
    """Returns the highest cost in any hour.

    Args:
        spent: (second, cost) of each batch.
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
    """Returns the timeline of a run, in bins of the arrival time."""
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

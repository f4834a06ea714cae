"""After the measured part: a burst that meets no warm instance, to show what a cold start costs in time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scheduler.domain.latency import LatencyModel
from scripts.demo.settings import Schedule, Settings
from scripts.demo.summary import ColdStart, Outcome
from scripts.demo.watch import Batch

BURST_S = 0.1
_SPILLED = 8
"""Requests beyond what the edge can take: enough for a few function batches, and a few processes to start."""


def burst(settings: Settings, *, edge_latency: LatencyModel, pictures: int) -> Schedule:
    """Draws requests that come nearly at once, a few more than the edge can answer within the SLO."""
    items = edge_latency.max_batch
    per_s = items / edge_latency.predict_s(items)
    requests = math.ceil(per_s * settings.slo_s) + _SPILLED
    rng = np.random.default_rng(settings.seed + 1)
    return Schedule(np.sort(rng.random(requests)) * BURST_S, rng.integers(pictures, size=requests))


def cold_start(outcomes: Sequence[Outcome], batches: Sequence[Batch], *, instances_started: int) -> ColdStart:
    """Returns what the burst showed.

    Args:
        outcomes: its requests.
        batches: its batches.
        instances_started: function processes that were started meanwhile.
    """
    cold = [batch for batch in batches if batch.start_kind == "cold" and not batch.error]
    slowest = max(cold, key=_elapsed_s, default=None)
    return ColdStart(
        requests=len(outcomes),
        answered=sum(outcome.answered for outcome in outcomes),
        cold_batches=len(cold),
        instances_started=instances_started,
        slowest_cold_batch_s=_elapsed_s(slowest) if slowest else None,
        service_s=slowest.service_s if slowest else None,
    )


def _elapsed_s(batch: Batch) -> float:
    return batch.finished_at_s - batch.sent_at_s

"""Burst after the measured part, without warm instances, to show the duration of a cold start."""

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
"""Requests beyond the capacity of the edge: enough for a few function batches and instances."""


def burst(settings: Settings, *, edge_latency: LatencyModel, pictures: int) -> Schedule:
    """Draws nearly simultaneous requests, a few more than the edge can answer within the SLO."""
    items = edge_latency.max_batch
    per_s = items / edge_latency.predict_s(items)
    requests = math.ceil(per_s * settings.slo_s) + _SPILLED
    rng = np.random.default_rng(settings.seed + 1)
    return Schedule(np.sort(rng.random(requests)) * BURST_S, rng.integers(pictures, size=requests))


def cold_start(
    outcomes: Sequence[Outcome],
    batches: Sequence[Batch],
    *,
    instances_started: int,
    metered_cny: float,
    booked_cny: float,
) -> ColdStart:
    """Returns the figures of the burst.

    Args:
        outcomes: outcomes of its requests.
        batches: its batches.
        instances_started: number of function processes started during the burst.
        metered_cny: cost of calls and starts, from the meter of the endpoint.
        booked_cny: what the daemon has booked for them.
    """
    cold = [batch for batch in batches if batch.start_kind == "cold" and not batch.error]
    slowest = max(cold, key=_elapsed_s, default=None)
    return ColdStart(
        requests=len(outcomes),
        answered=sum(outcome.answered for outcome in outcomes),
        cold_batches=len(cold),
        instances_started=instances_started,
        metered_cny=metered_cny,
        booked_cny=booked_cny,
        slowest_cold_batch_s=_elapsed_s(slowest) if slowest else None,
        service_s=slowest.service_s if slowest else None,
    )


def _elapsed_s(batch: Batch) -> float:
    return batch.finished_at_s - batch.sent_at_s

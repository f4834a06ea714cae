"""What warming calls are weighed with: the cold start that they prevent, and their price."""

import math
from dataclasses import dataclass

from scheduler.dispatch.forecast import UplinkOccupancy
from scheduler.dispatch.function_buffer import Buffer

WANTED_MEMORY_S = 2.0
"""Seconds after which it is forgotten that functions were wanted."""


@dataclass(frozen=True, slots=True)
class WarmingTerms:
    """What warming calls are weighed with.

    Parameters:
        batch_items: of a function batch as they are just now.
        spilled_rps: items a second that the functions were wanted for lately.
        service_s: of such a batch.
        call_cost: money for a warming call.
        lateness_cost: what a cold start weighs.
    """

    batch_items: int
    spilled_rps: float
    service_s: float
    call_cost: float
    lateness_cost: float


def warming_terms(buffer: Buffer, uplink: UplinkOccupancy) -> WarmingTerms:
    """Returns what a cold start would cost a buffer's batches in lateness, and what a call against it costs."""
    size = max(1, min(buffer.cheapest_size, buffer.most))
    slo_s = min(buffer.slos_s.values(), default=math.inf)
    slack_s = slo_s - uplink.idle_path_s(int(size * buffer.item_bytes)) - buffer.cold_start_s
    late = buffer.known_times.late(size, slack_s)
    return WarmingTerms(
        batch_items=size,
        spilled_rps=buffer.wanted_items / WANTED_MEMORY_S,
        service_s=buffer.known_times.median_s[size],
        call_cost=buffer.tier.price.cost(0.0),
        lateness_cost=size * buffer.lateness.highest_late_cost(buffer.slos_s) * late,
    )

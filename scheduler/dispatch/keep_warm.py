"""What warming calls are weighed with: the cold start that they prevent, and their price."""

import math
from dataclasses import dataclass

from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.uplink import UplinkOccupancy


@dataclass(frozen=True, slots=True)
class WarmingTerms:
    """What warming calls are weighed with.

    Attributes:
        batch_items: of a function batch as they are just now.
        demand_rps: items a second that the functions were wanted for lately.
        service_s: of such a batch.
        call_cost: money for a warming call.
        lateness_cost: expected lateness that a cold start causes, in money.
    """

    batch_items: int
    demand_rps: float
    service_s: float
    call_cost: float
    lateness_cost: float


def warming_terms(buffer: FunctionBuffer, uplink: UplinkOccupancy) -> WarmingTerms:
    """Returns what a cold start would cost a buffer's batches in lateness, and what a call against it costs."""
    size = max(1, min(buffer.prices.cheapest_size, buffer.max_items))
    slo_s = min(buffer.slos_s.values(), default=math.inf)
    time_left_s = slo_s - uplink.idle_path_s(int(size * buffer.item_bytes)) - buffer.cold_start_s
    late = buffer.known_times.late_probability(size, time_left_s)
    return WarmingTerms(
        batch_items=size,
        demand_rps=buffer.demand_rps,
        service_s=buffer.known_times.median_s[size],
        call_cost=buffer.tier.price.cost(0.0),
        lateness_cost=size * buffer.lateness.highest_late_cost(buffer.slos_s) * late,
    )

"""Warming calls: what they are weighed with, and sending those that pay."""

import math
from dataclasses import dataclass
from typing import Protocol

from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.plans import BufferPlan, GroupPlan


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
    slo_s = buffer.tightest_slo_s()
    time_left_s = slo_s - uplink.idle_path_s(int(size * buffer.item_bytes)) - buffer.cold_start_s
    late = buffer.known_times.late_probability(size, time_left_s)
    return WarmingTerms(
        batch_items=size,
        demand_rps=buffer.demand.rps,
        service_s=buffer.known_times.median_s[size],
        call_cost=buffer.tier.price.cost(0.0),
        lateness_cost=size * buffer.lateness.highest_late_cost(buffer.slos_s) * late,
    )


class WarmingPolicy(Protocol):
    """What decides how many warming calls pay."""

    def weighing_warmth(self, now_s: float) -> None:
        """Notes that warming calls are weighed now, for every buffer."""

    def warming_calls(self, plan: GroupPlan, buffer: BufferPlan, terms: WarmingTerms, now_s: float) -> int:
        """Returns how many warming calls pay for a buffer now."""


@dataclass(slots=True)
class KeepWarm:
    """Sends the warming calls whose price is below the lateness that they prevent."""

    lanes: Lanes
    sending: FunctionSending

    def send_calls(self, policy: WarmingPolicy, now_s: float) -> None:
        """Sends the calls that pay, as far as slots are free and the spend caps leave room after all that is held."""
        side = self.sending.side
        # Instances and demand are common to the lanes of a model: they are weighed with its usual batches.
        lanes = self.lanes.busiest() if self.lanes.several else self.lanes.all
        waiting = [(queues, buffer) for queues in lanes for buffer in queues.buffers if buffer.cap]
        if not waiting:
            return
        policy.weighing_warmth(now_s)
        # Over a link that is down a call would take for ever, and keep nothing warm.
        reached = math.isfinite(side.uplink.idle_path_s(1))
        for queues, buffer in waiting if reached else ():
            terms = warming_terms(buffer, side.uplink)
            for _ in range(policy.warming_calls(queues.plan, buffer.plan, terms, now_s)):
                if not (side.has_slot(buffer, now_s=now_s) and self._affords(buffer, now_s=now_s)):
                    break
                self.sending.warm_up(buffer, now_s=now_s)

    def _affords(self, buffer: FunctionBuffer, *, now_s: float) -> bool:
        """Whether the caps have room for a call after what is in flight and what all gathered batches will cost."""
        side = self.sending.side
        gathered = [side.max_cost_gathered(one) for queues in self.lanes.all for one in queues.buffers]
        return side.ledger.cap.allows(math.fsum(gathered) + side.max_cost(buffer, 1), now_s)

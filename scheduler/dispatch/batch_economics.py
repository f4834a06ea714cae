"""Weighs a function batch: its money and the lateness of its members, with one more or without."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.dispatch.forecast import UplinkOccupancy
from scheduler.dispatch.function_buffer import Buffer
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest

LOOK_S = 0.005
"""How far ahead it is looked to see what waiting costs."""
HALVINGS = 5
"""Of the time that a batch could be held at most: it closes up to a thirtieth of that too soon."""
SHARED_WAY = 0.2
"""Scatter of the way to the function that counts beside its service's."""
SIZES_TRIED = 24
"""Batch sizes looked at for the cheapest, spread over what the tier takes."""


@dataclass(slots=True)
class BatchEconomics:
    """The economics of the function batches behind one uplink.

    A member more makes a batch cheaper per request and later for everybody in it. It is worth it while it costs less,
    lateness included, than a fresh request costs on average: the marginal against the average.
    """

    uplink: UplinkOccupancy

    def _begins_s(self, buffer: Buffer, at_s: float, body_bytes: int) -> float:
        return self.uplink.begins_s(at_s, body_bytes, buffer.pool)

    def late(self, buffer: Buffer, items: int, slack_s: float) -> float:
        """Returns the probability that a function batch takes longer than `slack_s` once it has arrived."""
        warm = self._late_if_warm(buffer, items, slack_s)
        if buffer.cold <= 0.0:
            return warm
        return warm + buffer.cold * (self._late_if_warm(buffer, items, slack_s - buffer.cold_start_s) - warm)

    def _late_if_warm(self, buffer: Buffer, items: int, slack_s: float) -> float:
        times = buffer.known_times
        sigma_s = self.uplink.sigma_s
        median_s, scatter = times.median_s[items], times.scatter
        if slack_s <= 0 or sigma_s <= SHARED_WAY * scatter.sigma * median_s:
            return times.late(items, slack_s)
        sigma = math.hypot(scatter.sigma, sigma_s / median_s)
        return 0.5 * math.erfc((math.log(slack_s / median_s) - scatter.mean) / (sigma * math.sqrt(2.0)))

    def late_cost(self, buffer: Buffer, queued: QueuedRequest, items: int, begins_s: float) -> float:
        """Returns the money that one member's expected lateness weighs."""
        request = queued.request
        return buffer.lateness.late_cost(request.class_name) * self.late(buffer, items, request.deadline_s - begins_s)

    def cost(self, buffer: Buffer, members: Sequence[QueuedRequest], *, items: int, begins_s: float) -> float:
        """Returns money and weighed lateness of a batch whose `members`, by deadline, make up `items` items.

        The lateness of those between the first and the last is taken for the mean of the two.
        """
        first, last = members[0], members[-1]
        late = self.late_cost(buffer, first, items, begins_s)
        if last is not first:
            late = 0.5 * (late + self.late_cost(buffer, last, items, begins_s))
        return buffer.costs[items] + len(members) * late

    def joining(self, buffer: Buffer, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns what it would cost to add a request to the batch being gathered; inf if it does not fit."""
        spill, request = buffer.gathered, queued.request
        items = spill.items + request.items
        if items > buffer.most:
            return math.inf
        members = spill.members
        begins_s = self._begins_s(buffer, now_s, spill.body_bytes)
        later_s = self._begins_s(buffer, now_s, spill.body_bytes + request.body_bytes)
        without = self.cost(buffer, members, items=spill.items, begins_s=begins_s) if members else 0.0
        ordered = _with(members, queued)
        return self.cost(buffer, ordered, items=items, begins_s=later_s) - without

    def alone(self, buffer: Buffer, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns what this request costs in a batch of its own or its share of the cheapest one, if it waits not."""
        request = queued.request
        begins_s = self._begins_s(buffer, now_s, request.body_bytes)
        share = max(buffer.cheapest_size, request.items)
        sizes = (request.items, share) if share <= buffer.cap else (request.items,)
        return min(
            buffer.costs[size] * request.items / size + self.late_cost(buffer, queued, size, begins_s) for size in sizes
        )

    def closes_at_s(self, buffer: Buffer, *, now_s: float) -> float:
        """Returns when the batch being gathered must leave: waiting for another member does not pay any longer."""
        spill, times = buffer.gathered, buffer.known_times
        if buffer.follows_fixed_plan:
            return min(map(buffer.planned_leave_s, spill))
        start_s = self._begins_s(buffer, now_s, spill.body_bytes) - now_s
        items = min(spill.items, buffer.cap)
        last_s = min(spill.first.request.deadline_s - start_s - times.median_s[items], buffer.held_until_s())
        if last_s <= now_s or spill.items >= buffer.most or not self._pays(buffer, now_s):
            return min(last_s, now_s)
        pays_s, over_s = now_s, last_s
        for _ in range(HALVINGS):
            middle_s = 0.5 * (pays_s + over_s)
            if self._pays(buffer, middle_s):
                pays_s = middle_s
            else:
                over_s = middle_s
        return over_s

    def _pays(self, buffer: Buffer, at_s: float) -> bool:
        """Whether waiting a moment longer pays: for one more member, or for as many as make the cheapest batch."""
        spill = buffer.gathered
        members, items = spill.members, spill.items
        now_cost = self.cost(buffer, members, items=items, begins_s=self._begins_s(buffer, at_s, spill.body_bytes))
        gain = max(
            self._gain(buffer, size - items, at_s=at_s, now_cost=now_cost) / (size - items)
            for size in {items + 1, max(items + 1, buffer.cheapest_size)}
        )
        if gain <= 0:
            return False
        soon = self.cost(buffer, members, items=items, begins_s=self._begins_s(buffer, at_s + LOOK_S, spill.body_bytes))
        return buffer.rate_rps * gain * LOOK_S > soon - now_cost

    def _gain(self, buffer: Buffer, more: int, *, at_s: float, now_cost: float) -> float:
        """What `more` fresh members would save, if they came now."""
        spill = buffer.gathered
        last = spill.members[-1].request
        items = spill.items + more
        begins_s = self._begins_s(buffer, at_s, spill.body_bytes + more * last.body_bytes)
        with_them = self.cost(buffer, spill.members, items=items, begins_s=begins_s)
        fresh_s = last.deadline_s - last.arrived_at_s - (begins_s - at_s)
        newcomers = more * buffer.lateness.late_cost(last.class_name) * self.late(buffer, items, fresh_s)
        return more * buffer.spill_cost - (with_them + newcomers - now_cost)

    def cheapest_prefix(self, buffer: Buffer, members: Sequence[QueuedRequest], *, now_s: float) -> list[QueuedRequest]:
        """Returns those of the first `members` (one batch, by deadline) whose batch is the cheapest per item."""
        best, least, items, body_bytes = 1, math.inf, 0, 0
        for count, queued in enumerate(members, start=1):
            items += queued.request.items
            body_bytes += queued.request.body_bytes
            begins_s = self._begins_s(buffer, now_s, body_bytes)
            average = self.cost(buffer, members[:count], items=items, begins_s=begins_s) / items
            if average <= least:
                best, least = count, average
        return list(members[:best])

    def price(self, queues: ModelQueues) -> None:
        """Sets what follows from the service tables: costs by size, the cheapest request, a fresh one's spill."""
        open_buffers = [buffer for buffer in queues.buffers if buffer.times is not None]
        for buffer in open_buffers:
            buffer.costs = (0.0, *[buffer.tier.price.cost(median_s) for median_s in buffer.known_times.median_s[1:]])
        open_buffers = [buffer for buffer in open_buffers if buffer.cap]
        if not open_buffers:
            return
        # One unit for all: the same late answer weighs the same whichever buffer it comes from.
        queues.lateness.unit_cost = min(buffer.costs[n] / n for buffer in open_buffers for n in _sizes(buffer.cap))
        for buffer in open_buffers:
            self._price_a_fresh_one(buffer)
        shares = [buffer.plan.share for buffer in open_buffers]
        weights = shares if math.fsum(shares) > 0 else [1.0] * len(shares)
        spilled = math.fsum(w * buffer.spill_cost for w, buffer in zip(weights, open_buffers, strict=True))
        queues.lateness.spill_cost = spilled / math.fsum(weights)

    def _price_a_fresh_one(self, buffer: Buffer) -> None:
        slo_s = min(buffer.slos_s.values(), default=math.inf)
        late_cost = buffer.lateness.highest_late_cost(buffer.slos_s)
        buffer.spill_cost = math.inf
        for size in _sizes(buffer.cap):
            idle_path_s = self.uplink.idle_path_s(int(size * buffer.item_bytes))
            gathering_s = (size - 1) / buffer.rate_rps if buffer.rate_rps > 0 else math.inf if size > 1 else 0.0
            late = self.late(buffer, size, slo_s - idle_path_s - 0.5 * gathering_s) if gathering_s < slo_s else 1.0
            average = buffer.costs[size] / size + late_cost * late
            if average < buffer.spill_cost:
                buffer.spill_cost, buffer.cheapest_size = average, size


def _sizes(cap: int) -> list[int]:
    return sorted({1, cap, *(1 + round(i * (cap - 1) / SIZES_TRIED) for i in range(SIZES_TRIED))})


def _with(members: Sequence[QueuedRequest], queued: QueuedRequest) -> Sequence[QueuedRequest]:
    if not members:
        return (queued,)
    if queued.request.deadline_s >= members[-1].request.deadline_s:
        return (*members, queued)
    if queued.request.deadline_s < members[0].request.deadline_s:
        return (queued, *members)
    return (members[0], queued, *members[1:])

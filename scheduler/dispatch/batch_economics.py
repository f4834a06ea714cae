"""Weighs a function batch: its money and the lateness of its members, with one more or without."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from scheduler.dispatch.function_buffer import FEARED_COLD, FunctionBuffer, items_of
from scheduler.dispatch.lateness_price import BufferPrices, multiplier_at
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import WhyLeft
from scheduler.domain.requests import Request

LOOK_S = 0.005
"""How far ahead the cost of waiting is looked at. Judgement: halved or doubled, cost and lateness stay within noise."""
BISECTIONS = 5
"""Of the time that a batch could be held at most: it closes up to a thirtieth of that too soon. Judgement: halved or
doubled, cost and lateness stay within noise."""
MOMENTS = 12
"""Moments, evenly spread over the time that a batch could be held, at which it might leave where cold starts are
feared. Judgement: it leaves up to a twelfth of that too soon or too late."""
SERVICES = ((-math.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (math.sqrt(3.0), 1 / 6))
"""Services that stand for their distribution beside a cold start: distance from the middle in standard deviations, and
weight. Derived: with these three the moments up to the fifth are those of a normal distribution."""
SHARED_PATH = 0.2
"""Scatter of the path to the function that counts beside its service's, as a part of it. Judgement: halved, within
noise; doubled, cost -0.5 %, in time +0.0 points."""
ROOT_OF_2 = math.sqrt(2.0)
SIZES_TRIED = 24
"""Batch sizes looked at for the cheapest, spread over what the tier takes. All sizes up to 25 are looked at; of larger
tiers neighbours are 4 % of the largest size apart, where the cost per item is flat. No simulated tier is larger."""


class Closing(NamedTuple):
    """When a batch that is being gathered must leave, and why."""

    at_s: float
    why: WhyLeft


class Share(NamedTuple):
    """One request's part of a function batch."""

    items: int
    """Of the batch."""
    money: float
    late_probability: float
    total: float
    """Money and priced lateness."""


@dataclass(slots=True)
class BatchEconomics:
    """The economics of the function batches behind one uplink.

    A member more makes a batch cheaper per request and later for all members. It is worth it while it costs less,
    lateness included, than a fresh request costs on average: the marginal against the average.
    """

    uplink: UplinkOccupancy

    def late_probability(
        self, buffer: FunctionBuffer, items: int, time_left_s: float, *, cold: float | None = None
    ) -> float:
        """Returns the probability that a function batch takes longer than `time_left_s` once it has arrived.

        Args:
            buffer: of the batch.
            items: of the batch.
            time_left_s: from its arrival at the function.
            cold: probability that it meets a cold start; None: that of a batch that leaves now.
        """
        # Written out without calls: of all that is worked out for a function batch this is asked most often.
        times, sigma_s = buffer.times or buffer.known_times, self.uplink.estimate.sigma_s
        median_s, scatter = times.median_s[items], times.forecast
        if time_left_s <= 0:
            warm = 1.0
        elif sigma_s <= SHARED_PATH * scatter.sigma * median_s:
            warm = scatter.exceeds(math.log(time_left_s / median_s))
        else:
            sigma = math.hypot(scatter.sigma, sigma_s / median_s)
            warm = 0.5 * math.erfc((math.log(time_left_s / median_s) - scatter.mean) / (sigma * ROOT_OF_2))
        if cold is None:
            cold = buffer.cold
        if cold <= 0.0:
            return warm
        return warm + cold * (self._late_if_cold(buffer, items, time_left_s, cold) - warm)

    def _late_if_cold(self, buffer: FunctionBuffer, items: int, time_left_s: float, cold: float) -> float:
        if cold <= FEARED_COLD:
            return self.late_probability(buffer, items, time_left_s - buffer.cold_start_s, cold=0.0)
        # A start scatters by more than a service: of that, three values stand for all (Gauss and Hermite's rule).
        times, late = buffer.known_times, 0.0
        median_s, mean, sigma = times.median_s[items], times.forecast.mean, times.forecast.sigma
        starts, unit_s = buffer.starts
        # While no start is known their distribution is normal; written out, as this is asked very often then.
        width = 0.0 if starts.ordered else starts.sigma * ROOT_OF_2
        for sigmas, weight in SERVICES:
            left_s = time_left_s - median_s * math.exp(mean + sigmas * sigma)
            if left_s <= 0.0:
                late += weight
            elif width > 0.0:
                late += weight * (0.5 * math.erfc((math.log(left_s / unit_s) - starts.mean) / width))
            else:
                late += weight * starts.exceeds(math.log(left_s / unit_s))
        return late

    def cost(
        self,
        buffer: FunctionBuffer,
        members: Sequence[QueuedRequest],
        *,
        items: int,
        begins_s: float,
        cold: float | None = None,
    ) -> float:
        """Returns money and priced lateness of a batch whose `members`, by deadline, make up `items` items.

        The lateness of the members between the first and the last is taken for the mean of these two.
        """
        first, last, lateness = members[0], members[-1], buffer.lateness
        request = first.request
        probability = self.late_probability(buffer, items, request.deadline_s - begins_s, cold=cold)
        late = lateness.late_cost_at(request.class_name, probability) * probability
        if last is not first:
            request = last.request
            probability = self.late_probability(buffer, items, request.deadline_s - begins_s, cold=cold)
            late = 0.5 * (late + lateness.late_cost_at(request.class_name, probability) * probability)
        start = buffer.start_price * (buffer.cold if cold is None else cold)
        return buffer.prices.costs[items] + start + len(members) * late

    def joining(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns what it would cost to add a request to the batch being gathered; inf if it does not fit."""
        queue, request = buffer.queue, queued.request
        items = queue.items + request.items
        if items > buffer.max_items or queue.body_bytes + request.body_bytes > buffer.max_bytes:
            return math.inf
        members, begins_s = queue.members, self.uplink.begins_s
        without_s = begins_s(now_s, queue.body_bytes, buffer.pool)
        with_s = begins_s(now_s, queue.body_bytes + request.body_bytes, buffer.pool)
        without = self.cost(buffer, members, items=queue.items, begins_s=without_s) if members else 0.0
        return self.cost(buffer, _with(members, queued), items=items, begins_s=with_s) - without

    def alone(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> Share:
        """Returns this request's part of a batch of its own or of the cheapest one, whichever costs less, sent now."""
        request = queued.request
        begins_s = self.uplink.begins_s(now_s, request.body_bytes, buffer.pool)
        lateness_price = buffer.lateness.late_cost(request.class_name)
        return self.shares(buffer, queued, begins_s=begins_s, lateness_price=lateness_price)[1]

    def shares(
        self, buffer: FunctionBuffer, queued: QueuedRequest, *, begins_s: float, lateness_price: float
    ) -> tuple[Share, Share]:
        """Returns this request's batch of its own, and the better of it and of its part of the cheapest batch.

        Args:
            buffer: of the request.
            queued: the request.
            begins_s: when a function would begin with it if it left at once.
            lateness_price: money that answering it late costs.
        """
        request = queued.request
        own = best = self._share(buffer, request, request.items, begins_s, lateness_price)
        size = max(buffer.prices.cheapest_size, request.items)
        if size * request.body_bytes > buffer.max_bytes * request.items:
            size = max(buffer.max_bytes * request.items // request.body_bytes, request.items)
        if size <= buffer.cap and size != request.items:
            shared = self._share(buffer, request, size, begins_s, lateness_price)
            best = shared if shared.total < own.total else own
        return own, best

    def _share(
        self, buffer: FunctionBuffer, request: Request, size: int, begins_s: float, lateness_price: float
    ) -> Share:
        money = (buffer.prices.costs[size] + buffer.cold * buffer.start_price) * request.items / size
        late = self.late_probability(buffer, size, request.deadline_s - begins_s)
        return Share(size, money, late, money + lateness_price * late)

    def closes_at_s(self, buffer: FunctionBuffer, *, now_s: float) -> float:
        """Returns when the batch being gathered must leave."""
        return self.closes(buffer, now_s=now_s).at_s

    def closes(self, buffer: FunctionBuffer, *, now_s: float, ahead: int = 0) -> Closing:
        """Returns when the batch being gathered must leave, and why: at the latest when a further wait does not pay.

        Args:
            buffer: with the batch.
            now_s: the present.
            ahead: batches of other buffers that will leave for the same instances before this one does, if it waits.
        """
        queue, times = buffer.queue, buffer.known_times
        start_s = self.uplink.begins_s(now_s, queue.body_bytes, buffer.pool) - now_s
        last_s = queue.first.request.deadline_s - start_s - times.median_s[min(queue.items, buffer.cap)]
        if buffer.full:
            return Closing(min(last_s, now_s), WhyLeft.FULL)
        if buffer.follows_fixed_plan:
            return Closing(min(map(buffer.planned_leave_s, queue)), WhyLeft.TIMER)
        stalled = self.uplink.stalled_s(now_s, buffer.pool) > 0.0
        held_until_s, last_why = buffer.held_until_s(), WhyLeft.LINK if stalled else WhyLeft.DEADLINE
        if held_until_s < last_s:
            last_s, last_why = held_until_s, WhyLeft.TIMER
        if last_s <= now_s:
            return Closing(last_s, last_why)
        if self._start_matters(buffer, now_s=now_s, last_s=last_s, ahead=ahead):
            closes_s = self._closes_if_cold_s(buffer, now_s=now_s, last_s=last_s, ahead=ahead)
            return Closing(closes_s, last_why if closes_s == last_s else WhyLeft.PRICE)
        if not self._pays(buffer, now_s):
            return Closing(now_s, WhyLeft.PRICE)
        pays_s, over_s = now_s, last_s
        for _ in range(BISECTIONS):
            middle_s = 0.5 * (pays_s + over_s)
            if self._pays(buffer, middle_s):
                pays_s = middle_s
            else:
                over_s = middle_s
        closes_s = over_s
        if self._next_is_cold(buffer, now_s=now_s):
            # Of a batch that leaves too late a part stays, and that meets a cold start, which the whole would not.
            closes_s = min(over_s, max(pays_s, last_s - self._safety_s(buffer, queue.items)))
        return Closing(closes_s, last_why if closes_s == last_s else WhyLeft.PRICE)

    @staticmethod
    def _next_is_cold(buffer: FunctionBuffer, *, now_s: float) -> bool:
        """Whether one more batch, beside one that leaves now, may meet a cold start, and nothing soon comes back."""
        if not buffer.starts_seen or buffer.warm is None or buffer.warm.busy:
            return False
        return buffer.cold_at(now_s, now_s=now_s, behind=1) > FEARED_COLD

    def _start_matters(self, buffer: FunctionBuffer, *, now_s: float, last_s: float, ahead: int = 0) -> bool:
        """Whether a cold start makes one moment until `last_s` better than another.

        It does not where it is late whenever the batch leaves, unless an instance may be idle again before, or one that
        is idle now may be another batch's then.
        """
        cold = buffer.cold_at(last_s, now_s=now_s, behind=ahead)
        if max(buffer.cold, cold) <= FEARED_COLD:
            return False
        if ahead and cold > buffer.cold + FEARED_COLD:
            return True
        in_reach = last_s - buffer.shortest_start_s - self._safety_s(buffer, buffer.queue.items) > now_s
        return in_reach or (buffer.starts_seen and cold < buffer.cold - FEARED_COLD)

    def _closes_if_cold_s(self, buffer: FunctionBuffer, *, now_s: float, last_s: float, ahead: int) -> float:
        """Returns the moment until `last_s` at which a batch that may meet a cold start had best leave.

        A cold start makes a step in the lateness: on both sides of it waiting seems to cost nothing. So moments on both
        sides are compared as a whole: what members that join until then would save, against the lateness then, with the
        probability of a cold start then.
        """
        queue = buffer.queue
        members, items, costs = queue.members, queue.items, buffer.prices.costs
        saves = max(0.0, costs[1] - (costs[items + 1] - costs[items]))
        room, joining_rps = buffer.max_items - items, buffer.joining_rps

        def costs_at(at_s: float) -> float:
            begins_s = self.uplink.begins_s(at_s, queue.body_bytes, buffer.pool)
            # Now it has the first choice; those ahead leave at a time that is theirs to choose.
            cold = buffer.cold_at(at_s, now_s=now_s, behind=ahead if at_s > now_s else 0)
            saved = saves * min(joining_rps * (at_s - now_s), room)
            return self.cost(buffer, members, items=items, begins_s=begins_s, cold=cold) - saved

        # The last moments at which starts of these lengths are still over in time, and some between all of them.
        steps_s = [last_s - start_s - self._safety_s(buffer, items) for start_s in (0.0, *buffer.starts_s)]
        even_s = [now_s + (last_s - now_s) * part / MOMENTS for part in range(MOMENTS + 1)]
        return min([now_s, *sorted({at_s for at_s in (*steps_s, *even_s) if at_s > now_s})], key=costs_at)

    @staticmethod
    def _safety_s(buffer: FunctionBuffer, items: int) -> float:
        times = buffer.known_times
        return times.safe_s[items] - times.median_s[items]

    def _pays(self, buffer: FunctionBuffer, at_s: float) -> bool:
        """Whether waiting a moment longer pays: for one more member, or for as many as make the cheapest batch."""
        queue = buffer.queue
        members, items, begins_s = queue.members, queue.items, self.uplink.begins_s
        now_cost = self.cost(buffer, members, items=items, begins_s=begins_s(at_s, queue.body_bytes, buffer.pool))
        gain = self._gain(buffer, 1, at_s=at_s, now_cost=now_cost)
        more = buffer.prices.cheapest_size - items
        if more > 1 and (more := min(more, self._further(buffer))) > 1:
            gain = max(gain, self._gain(buffer, more, at_s=at_s, now_cost=now_cost) / more)
        if gain <= 0:
            return False
        soon_s = begins_s(at_s + LOOK_S, queue.body_bytes, buffer.pool)
        soon = self.cost(buffer, members, items=items, begins_s=soon_s)
        return buffer.rate_rps * gain * LOOK_S > soon - now_cost

    def _further(self, buffer: FunctionBuffer) -> int:
        """Returns how many more requests like its last one the batch that is being gathered has bytes for."""
        queue = buffer.queue
        return (buffer.max_bytes - queue.body_bytes) // max(1, queue.members[-1].request.body_bytes)

    def _gain(self, buffer: FunctionBuffer, more: int, *, at_s: float, now_cost: float) -> float:
        """Returns what `more` fresh members would save, if they came now."""
        queue = buffer.queue
        last = queue.members[-1].request
        items = queue.items + more
        begins_s = self.uplink.begins_s(at_s, queue.body_bytes + more * last.body_bytes, buffer.pool)
        with_them = self.cost(buffer, queue.members, items=items, begins_s=begins_s)
        fresh_s = last.deadline_s - last.arrived_at_s - (begins_s - at_s)
        newcomers = more * buffer.lateness.late_cost(last.class_name) * self.late_probability(buffer, items, fresh_s)
        fresh = buffer.prices.spill_cost + buffer.cold * buffer.start_price / max(1, buffer.prices.cheapest_size)
        return more * fresh - (with_them + newcomers - now_cost)

    def cheapest_prefix(
        self, buffer: FunctionBuffer, members: Sequence[QueuedRequest], *, now_s: float
    ) -> list[QueuedRequest]:
        """Returns those of the first `members` (one batch, by deadline) whose batch is the cheapest per item."""
        best, least, items, body_bytes = 1, math.inf, 0, 0
        for count, queued in enumerate(members, start=1):
            items += queued.request.items
            body_bytes += queued.request.body_bytes
            begins_s = self.uplink.begins_s(now_s, body_bytes, buffer.pool)
            average = self.cost(buffer, members[:count], items=items, begins_s=begins_s) / items
            if average <= least:
                best, least = count, average
        return list(members) if self._rest_is_cold(buffer, members, best, now_s=now_s) else list(members[:best])

    def _rest_is_cold(
        self, buffer: FunctionBuffer, members: Sequence[QueuedRequest], first: int, *, now_s: float
    ) -> bool:
        """Whether the members behind the first ones would meet a cold start, and had better leave with them."""
        if first == len(members) or not self._next_is_cold(buffer, now_s=now_s):
            return False
        rest_cold = buffer.cold_at(now_s, now_s=now_s, behind=1)

        def cost(part: Sequence[QueuedRequest], cold: float | None) -> float:
            body_bytes = sum([queued.request.body_bytes for queued in part])
            begins_s = self.uplink.begins_s(now_s, body_bytes, buffer.pool)
            return self.cost(buffer, part, items=items_of(part), begins_s=begins_s, cold=cold)

        return cost(members, None) <= cost(members[:first], None) + cost(members[first:], rest_cold)

    def price(
        self, buffer: FunctionBuffer, costs: tuple[float, ...], *, multiplier: float, unit: float
    ) -> BufferPrices:
        """Returns the prices of a buffer: the cheapest size and what a fresh request costs there.

        Args:
            buffer: with service tables.
            costs: as `batch_costs` gives them.
            multiplier: of the class that minds most.
            unit: money of a request in the cheapest batch.
        """
        cheapest, least = buffer.prices.cheapest_size, math.inf
        if not buffer.cap:
            return BufferPrices(costs, cheapest, buffer.prices.spill_cost)
        slo_s, rate_rps = buffer.tightest_slo_s(), buffer.rate_rps
        for size in sizes(buffer.cap):
            if size > 1 and size * buffer.item_bytes > buffer.max_bytes:
                break
            idle_path_s = self.uplink.idle_path_s(int(size * buffer.item_bytes))
            gathering_s = (size - 1) / rate_rps if rate_rps > 0 else math.inf if size > 1 else 0.0
            late = 1.0
            if gathering_s < slo_s:
                late = self.late_probability(buffer, size, slo_s - idle_path_s - 0.5 * gathering_s)
            average = costs[size] / size + unit * multiplier_at(multiplier, late) * late
            if average < least:
                cheapest, least = size, average
        return BufferPrices(costs, cheapest, least)


def batch_costs(buffer: FunctionBuffer) -> tuple[float, ...]:
    """Returns the money for a batch of 0, 1, 2, ... items by the service tables; empty while there are none."""
    if buffer.times is None:
        return ()
    return (0.0, *[buffer.tier.price.cost(median_s) for median_s in buffer.times.median_s[1:]])


def unit_cost(costs: Sequence[float], cap: int) -> float:
    """Returns the money for an item in the cheapest batch of at most `cap` (at least 1) items."""
    return min([costs[n] / n for n in sizes(cap)])


@lru_cache
def sizes(cap: int) -> tuple[int, ...]:
    """Returns the batch sizes that are looked at."""
    return tuple(sorted({1, cap, *(1 + round(i * (cap - 1) / SIZES_TRIED) for i in range(SIZES_TRIED))}))


def _with(members: Sequence[QueuedRequest], queued: QueuedRequest) -> Sequence[QueuedRequest]:
    if not members:
        return (queued,)
    if queued.request.deadline_s >= members[-1].request.deadline_s:
        return (*members, queued)
    if queued.request.deadline_s < members[0].request.deadline_s:
        return (queued, *members)
    return (members[0], queued, *members[1:])

"""The functions: which requests may go to one, whether they are in time there, and what the spend caps allow."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.batch_economics import BatchEconomics
from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.function_buffer import COLD_COUNTS, FunctionBuffer, WarmPool, items_of
from scheduler.dispatch.learned_quota import LearnedQuota
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.spend_cap import OPEN, Closed, OverCap, SpendVerdict, closed, share_of, verdict, without_money
from scheduler.dispatch.uplink import Slots, UplinkOccupancy
from scheduler.domain.decisions import Offer, Reason, impossible
from scheduler.domain.latency import Price
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import FUNCTIONS, Place
from scheduler.domain.scatter import Scatter

MAX_COST_PERCENTILE = 0.995
"""Percentile of the service that is held back from the spend caps until the bill is known. Judgement: halved or
doubled, cost and lateness stay within noise."""
MOST_OF_STARTS = 0.99
"""Percentile of a start's billed seconds that is held back from the spend caps. By definition: one start in a hundred
may cost more than was held back."""
HOPELESS = 0.98
"""Probability of being late from which on a request is refused: sent, it would cost money and most likely miss."""
NO_TIER = Place.function("")
"""Named where a model has no function."""
TRY_AGAIN_S = 1.0
"""Seconds between two trials of a function that seems too slow. Judgement: while functions take four times as long for
10 s, at an SLO of 0.3 s, halving it brings 1.8 points more in time at 12 % more cost, doubling it 2.7 points fewer at
16 % less; the suites have no such functions."""
TOO_COLD = 0.6
"""Probability of a cold start from which on one is expected. Judgement: above the prior of 0.5; below it (0.3) cost
changes by -9.5 % and the share in time by -1.9 points in simulations of 800 requests, by -1.9 % and -0.3 points in
those of 3,000. 0.8 is within noise there."""


@dataclass(slots=True)
class FunctionSide:
    """Which requests functions can take, in time and within the spend caps."""

    uplink: UplinkOccupancy
    circuit: Circuit
    ledger: Ledger
    economics: BatchEconomics
    max_in_flight: int
    over_cap: OverCap = OverCap.EDGE_ONLY
    quota: LearnedQuota = field(init=False)

    def __post_init__(self) -> None:
        """Starts without a known quota."""
        self.quota = LearnedQuota(self.uplink)

    def configure(self, *, max_in_flight: int, over_cap: OverCap) -> None:
        """Takes over reloaded settings."""
        self.max_in_flight, self.over_cap = max_in_flight, over_cap

    def usable(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether this request may go to a function at all."""
        return self.circuit.serves(queues.model.name) and allowed(queues, queued)

    def verdict(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> SpendVerdict:
        """Returns what the spend caps allow for this request, all that is gathered counted in."""
        cap = self.ledger.cap
        if not cap.capped and not self.ledger.tenants.capped:
            return SpendVerdict.FUNCTION
        # A request that may not go there, or fits into no batch, asks for no money.
        if not allowed(queues, queued):
            return SpendVerdict.FUNCTION
        cost, low_priority = self._asks_for(queues, queued)
        result = verdict(cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)
        if result is not SpendVerdict.FUNCTION:
            self.ledger.tenants.refused(queued, now_s)
        elif self._closed_to_tenant(queues, queued, now_s=now_s).window:
            return without_money(self.over_cap)
        return result

    def gives_way(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether a request without money is of low priority: the edge takes it only if it has room to spare."""
        return self.verdict(queues, queued, now_s=now_s) is SpendVerdict.EDGE_IF_IDLE

    def closed(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Closed:
        """Returns which cap forbids to send this request, which functions could take otherwise."""
        cost, low_priority = self._asks_for(queues, queued)
        if self.ledger.cap.allows(cost, now_s, share=share_of(self.over_cap, low_priority=low_priority)):
            return self._closed_to_tenant(queues, queued, now_s=now_s)
        return closed(self.ledger.cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)

    def _asks_for(self, queues: ModelQueues, queued: QueuedRequest) -> tuple[float, bool]:
        """Returns the money of all that is gathered, with this request, and whether it is of low priority."""
        own, cost = buffer_of(queues, queued), 0.0
        for buffer in queues.buffers:
            joining = queues.overdue.items + queued.request.items if buffer is own else 0
            if buffer.cap:
                cost += self._max_cost_of(buffer, buffer.queue.items + joining)
        return cost, queued.request.priority > queues.model.default_priority

    def max_cost_gathered(self, buffer: FunctionBuffer) -> float:
        """Returns the money of all that is gathered in a buffer, in batches as large as they may be."""
        return self._max_cost_of(buffer, buffer.queue.items) if buffer.cap else 0.0

    def _closed_to_tenant(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Closed:
        """Returns which cap of its tenant forbids this request, or which common one whose rest is kept for others."""
        tenants = self.ledger.tenants
        label, cost = tenants.tenants.label(queued), 0.0
        if label not in tenants.own:
            return OPEN
        own = buffer_of(queues, queued)
        for buffer in queues.buffers:
            waiting = (*buffer.queue, *queues.overdue, queued) if buffer is own else buffer.queue
            cost += self._max_cost_of(buffer, tenants.items_of(label, waiting)) if buffer.cap else 0.0
        return tenants.closed(label, self.ledger.cap, cost=cost, now_s=now_s)

    def within_means(
        self, buffer: FunctionBuffer, waiting: Iterable[QueuedRequest], *, now_s: float
    ) -> Iterable[QueuedRequest]:
        """Returns those whose tenants' own caps allow to send them with the ones before them."""
        tenants = self.ledger.tenants
        if not tenants.capped:
            return waiting
        paid, items = [], dict.fromkeys(tenants.own, 0)
        for queued in waiting:
            label = tenants.tenants.label(queued)
            size = items[label] + queued.request.items
            if not tenants.closed_by(label, self._max_cost_of(buffer, size), now_s):
                items[label] = size
                paid.append(queued)
        return paid

    def _max_cost_of(self, buffer: FunctionBuffer, items: int) -> float:
        full, rest = divmod(items, buffer.max_items)
        cost = full * self._max_call(buffer, buffer.max_items) + (self._max_call(buffer, rest) if rest else 0.0)
        return cost + most_for_starts(buffer, full + (rest > 0))

    def max_cost(self, buffer: FunctionBuffer, items: int) -> float:
        """Returns the money that such a batch is unlikely to exceed, with the start of its instance where possible."""
        return self._max_call(buffer, items) + most_for_starts(buffer, 1)

    def _max_call(self, buffer: FunctionBuffer, items: int) -> float:
        times = buffer.known_times
        return most_for_call(buffer.tier.price, times.median_s[items], times.scatter)

    def affords(self, buffer: FunctionBuffer, items: int, *, now_s: float) -> bool:
        """Whether the spend caps allow one more batch of so many items."""
        cap = self.ledger.cap
        if not cap.capped:
            return True
        return cap.allows(self.max_cost(buffer, items), now_s)

    def affords_gathered(self, buffer: FunctionBuffer, *, now_s: float) -> bool:
        """Whether they allow the next batch of the gathered requests."""
        if not self.ledger.cap.capped and not self.ledger.tenants.capped:
            return True
        largest = max(buffer.max_items, buffer.queue.first.request.items)
        if not self.affords(buffer, min(buffer.queue.items, largest, buffer.cap), now_s=now_s):
            return False
        if not self.ledger.tenants.capped:
            return True
        return sum(1 for _ in self.within_means(buffer, buffer.queue, now_s=now_s)) == len(buffer.queue)

    def affords_members(self, buffer: FunctionBuffer, members: Sequence[QueuedRequest], *, now_s: float) -> bool:
        """Whether the spend caps, those of their tenants included, allow a batch of these requests."""
        if not self.affords(buffer, items_of(members), now_s=now_s):
            return False
        return len(list(self.within_means(buffer, members, now_s=now_s))) == len(members)

    def refresh_cold_risk(self, buffer: FunctionBuffer, *, now_s: float) -> None:
        """Asks anew, every so often, how likely a cold start is, and what it may explain."""
        if buffer.cold_risk_due(now_s):
            overdue_s = max(self.uplink.oldest_overdue_s(buffer.pool), self.uplink.back_at_s)
            buffer.refresh_cold_risk(now_s=now_s, overdue_s=overdue_s)
            self.uplink.excuse(buffer.pool, buffer.cold_start_s if buffer.cold > COLD_COUNTS else 0.0)

    def takes_s(self, buffer: FunctionBuffer, *, items: int, body_bytes: int, now_s: float, safe: bool) -> float:
        """Returns the seconds from now to the answer of such a batch: slot, uplink, transfer, round trip, service.

        What is more than one batch, because no slot is free, waits for the slots of the batches before it.
        """
        times, cap = buffer.times or buffer.known_times, buffer.cap
        ahead, last = (0, items) if items <= cap else ((items - 1) // cap, cap)
        service_s = times.safe_s[last] + self.uplink.estimate.margin_s if safe else times.median_s[last]
        slots = self.slots(buffer, now_s=now_s)
        expected_path_s = self.uplink.expected_path_s(body_bytes, now_s=now_s, slots=slots, ahead=ahead)
        pause_s = self.circuit.not_before_s - now_s
        return (pause_s + expected_path_s if pause_s > 0.0 else expected_path_s) + service_s

    def gate(self, queues: ModelQueues, queued: QueuedRequest) -> Reason | None:
        """Returns why this request may not go to a function at all; None where it may."""
        if queued.request.class_name in queues.edge_only:
            return Reason.CLASS
        buffer = queues.buffer_of(queued)
        if buffer is None or not buffer.cap:
            return Reason.NO_BACKEND
        if queued.failed_on and FUNCTIONS in queued.failed_on:
            return queued.failed_for
        if queued.request.items > buffer.cap or queued.request.body_bytes > buffer.max_bytes:
            return Reason.TOO_LARGE
        return None if self.circuit.serves(queues.model.name) else Reason.CIRCUIT_OPEN

    def offer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float) -> Offer:
        """Offers a place in a function batch: this request's share of the cheapest batch, or a batch of its own."""
        gate, buffer = self.gate(queues, queued), queues.buffer_of(queued)
        if gate is not None or buffer is None:
            place = buffer.place if buffer is not None else NO_TIER
            return impossible(place, State.FUNCTION, gate or Reason.NO_BACKEND)
        request = queued.request
        finish_s = self.expected_finish_s(buffer, queued, now_s=now_s)
        begins_s = self.uplink.begins_s(now_s, request.body_bytes, buffer.pool)
        own, best = self.economics.shares(buffer, queued, begins_s=begins_s, lateness_price=lateness_price)
        if self.verdict(queues, queued, now_s=now_s) is not SpendVerdict.FUNCTION:
            gate = Reason.SPEND_CAP
        elif self.stuck(buffer, queued, now_s=now_s):
            gate = Reason.NO_SLOT
        elif self.too_cold(buffer, queued, now_s=now_s):
            gate = Reason.COLD
        elif finish_s > request.deadline_s:
            gate = Reason.LATE
        elif own.late_probability >= HOPELESS and not queues.serves_late(queued):
            gate = Reason.TOO_RISKY
        total = best.total if gate is None else math.inf
        if gate is None:
            # Of the batch that the other terms are of; a request that is late is late even alone.
            finish_s = begins_s + buffer.known_times.median_s[best.items]
        late, money = best.late_probability, best.money
        return Offer(buffer.place, State.FUNCTION, gate, begins_s, finish_s, best.items, late, money, 0.0, total)

    def worth_finding_out(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether to send a request that seems certain to be late, because nothing else would show that it is not.

        One at a time, now and then, and only where the profile says that it could be in time.
        """
        if not self.usable(queues, queued):
            return False
        buffer = buffer_of(queues, queued)
        known = len(buffer.queue) or self.uplink.in_pool[buffer.pool] or now_s < buffer.tried_at_s + TRY_AGAIN_S
        if known or not self.has_slot(buffer, now_s=now_s):
            return False
        request = queued.request
        begins_s = self.uplink.begins_s(now_s, request.body_bytes, buffer.pool)
        return begins_s + buffer.tier.latency.predict_s(request.items) <= request.deadline_s

    def too_cold(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request would most likely wait for an instance for too long.

        Only while something is under way that will tell: a risk that is never tried is never unlearned.
        """
        if buffer.cold <= TOO_COLD or buffer.warm is None or buffer.warm.busy == 0:
            return False
        leaves_s = self.hopeless_at_s(buffer, queued)
        if now_s + buffer.cold_start_s <= leaves_s:
            return False
        # An instance that is busy now may be back before this request has to leave.
        return buffer.cold_at(leaves_s, now_s=now_s) > TOO_COLD

    def in_time(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request, alone in a batch sent as soon as a slot is free, can be expected in time."""
        if not self.usable(queues, queued):
            return False
        buffer = buffer_of(queues, queued)
        if self.stuck(buffer, queued, now_s=now_s) or self.too_cold(buffer, queued, now_s=now_s):
            return False
        return self.expected_finish_s(buffer, queued, now_s=now_s) <= queued.request.deadline_s

    def expected_finish_s(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns when this request, alone in a batch behind the full ones that are gathered, would be answered."""
        request = queued.request
        full_batches = buffer.queue.items // buffer.cap * buffer.cap
        return now_s + self.takes_s(
            buffer, items=full_batches + request.items, body_bytes=request.body_bytes, now_s=now_s, safe=False
        )

    def latest_s(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns the last moment at which this request alone can leave for a function and be in time.

        Never for one that may not.
        """
        request, buffer, uplink = queued.request, queues.buffer_of(queued), self.uplink
        if buffer is None or not _may_join(queues, queued, buffer):
            return math.inf
        pool, free = buffer.pool, len(uplink.finishes_s) < self.max_in_flight
        if free and not self.quota.known and uplink.in_pool[pool] < buffer.tier.max_in_flight:
            # As `takes_s` and `expected_path_s` work it out where a slot is free: this is asked in each call.
            stalled_s = uplink.stalled_s(now_s, pool) if now_s > uplink.overdue_from_s else 0.0
            start_s = now_s if now_s > uplink.free_at_s else uplink.free_at_s
            path_s = start_s - now_s + stalled_s + uplink.idle_path_s(request.body_bytes)
            pause_s = self.circuit.not_before_s - now_s
            times = buffer.times or buffer.known_times
            service_s = times.safe_s[request.items] + uplink.estimate.margin_s
            return request.deadline_s - ((pause_s + path_s if pause_s > 0.0 else path_s) + service_s)
        return request.deadline_s - self.takes_s(
            buffer, items=request.items, body_bytes=request.body_bytes, now_s=now_s, safe=True
        )

    def hopeless_at_s(self, buffer: FunctionBuffer, queued: QueuedRequest) -> float:
        """Returns from when on this request is expected to be late even if it leaves alone on an idle path."""
        request = queued.request
        idle_path_s = self.uplink.transfer_s(request.body_bytes) + self.uplink.estimate.rtt_s
        return request.deadline_s - (buffer.times or buffer.known_times).median_s[request.items] - idle_path_s

    def stuck(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request waits for a slot that comes too late, if it comes at all."""
        if self.has_slot(buffer, now_s=now_s):
            return False
        return max(now_s, self.circuit.not_before_s) >= self.hopeless_at_s(buffer, queued)

    def has_slot(self, buffer: FunctionBuffer, *, now_s: float) -> bool:
        """Whether one more batch may be in flight now; not while money for it is being leased."""
        slots, cap = self.slots(buffer, now_s=now_s), self.ledger.cap
        usable = self.circuit.usable(now_s, buffer.model.name)
        return usable and self.uplink.has_slot(slots) and (cap.lease is None or cap.funded)

    def lost(self, buffer: FunctionBuffer, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request is expected to be late even alone."""
        request = queued.request
        takes_s = self.takes_s(buffer, items=request.items, body_bytes=request.body_bytes, now_s=now_s, safe=False)
        return now_s + takes_s > request.deadline_s

    def slots(self, buffer: FunctionBuffer, *, now_s: float) -> Slots:
        """Returns how many batches of a buffer's tier may be in flight."""
        slots = buffer.slots
        if slots.max_in_flight != self.max_in_flight:
            slots = buffer.slots = Slots(self.max_in_flight, buffer.pool, buffer.tier.max_in_flight)
        return self.quota.slots(slots, now_s=now_s) if self.quota.known else slots


def most_for_call(price: Price, median_s: float, scatter: Scatter) -> float:
    """Returns the money that a call is unlikely to exceed, without the start of its instance."""
    return price.cost(median_s * math.exp(scatter.quantile(MAX_COST_PERCENTILE)))


def most_for_start(price: Price, pool: WarmPool) -> float:
    """Returns the money that the start of one instance is unlikely to exceed."""
    return price.cost(pool.init_s(MOST_OF_STARTS))


def most_for_starts(buffer: FunctionBuffer, batches: int) -> float:
    """Returns the money that the starts of instances for a buffer's next batches are unlikely to exceed."""
    if buffer.warm is None:
        return 0.0
    starts = min(batches, max(0, buffer.warm.busy + batches - buffer.tier.provisioned))
    return starts * most_for_start(buffer.tier.price, buffer.warm) if starts else 0.0


def allowed(queues: ModelQueues, queued: QueuedRequest) -> bool:
    """Whether the request may leave the site for its buffer's functions, and fits."""
    buffer = queues.buffer_of(queued)
    return buffer is not None and _may_join(queues, queued, buffer)


def _may_join(queues: ModelQueues, queued: QueuedRequest, buffer: FunctionBuffer) -> bool:
    request, failed = queued.request, queued.failed_on
    if (failed and FUNCTIONS in failed) or request.class_name in queues.edge_only:
        return False
    return request.items <= buffer.cap and request.body_bytes <= buffer.max_bytes


def buffer_of(queues: ModelQueues, queued: QueuedRequest) -> FunctionBuffer:
    """Returns the buffer of a request that is allowed to have one; ValueError for any other."""
    buffer = queues.buffer_of(queued)
    if buffer is None:
        raise ValueError(f"model {queues.model.name!r} has no function")
    return buffer


def first_batch(buffer: FunctionBuffer, queues: ModelQueues, waiting: Iterable[QueuedRequest]) -> list[QueuedRequest]:
    """Returns the first of those waiting that fit in one batch of this buffer and may go to a function."""
    batch: list[QueuedRequest] = []
    items = body_bytes = 0
    for queued in waiting:
        if queues.buffer_of(queued) is not buffer or not allowed(queues, queued):
            continue
        items, body_bytes = items + queued.request.items, body_bytes + queued.request.body_bytes
        if items > (buffer.max_items if batch else buffer.cap) or body_bytes > buffer.max_bytes:
            break
        batch.append(queued)
    return batch

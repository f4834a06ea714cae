"""The functions: any number at once, each paid for, all behind one uplink."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.dispatch.circuit import Circuit
from scheduler.dispatch.forecast import ServiceTimes, UplinkOccupancy
from scheduler.dispatch.gathering import Gathering
from scheduler.dispatch.lane import Lane
from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.queue import Queued
from scheduler.dispatch.sender import Sender
from scheduler.dispatch.spend_cap import Closed, Course, OverCap, closed, course
from scheduler.domain.requests import Backend

AT_MOST = 0.995
"""Percentile of the service that is held back from the spend caps until the bill is known."""
REFUSAL_WEIGHT = 8.0
"""What a refusal weighs, in the cheapest requests: more than any function, less than a late answer that is one too
many."""
ALWAYS_TRIED = 0.08
"""Probability of being late up to which a request is sent whatever the weight: refused, it has no chance at all."""
COLD_LOOK_S = 0.1
COLD_COUNTS, TOO_COLD, SURELY_COLD = 0.05, 0.6, 0.95
"""Probabilities of a cold start: it may explain a late answer; it is expected; nothing else explains it."""
STALL_GRACE_S = 0.05
WANTED_MEMORY_S = 2.0
PATIENCE_S = 60.0
"""How long past its expected end an invocation is waited for where being late is better than nothing: a GPU function's
cold start takes 10 to 30 s."""
PATIENCE_FOR_DEADLINES_S = 10.0
"""The same where an answer after the deadline is of little use, counted from the last deadline. The shell holds the
connection longer, for the bill's sake: a client that hangs up cancels the run on the platform and pays for it."""


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


@dataclass(slots=True)
class FunctionSide:
    """Who shares a function batch, and when it must leave."""

    uplink: UplinkOccupancy
    circuit: Circuit
    sender: Sender
    ledger: Ledger
    gathering: Gathering
    max_in_flight: int
    over_cap: OverCap = OverCap.EDGE_ONLY

    def usable(self, lane: Lane, queued: Queued) -> bool:
        """Whether this request may go to a function at all."""
        return self.circuit.closed and _allowed(lane, queued)

    def allowed(self, lane: Lane, queued: Queued) -> bool:
        """Whether it may once the functions answer again."""
        return _allowed(lane, queued)

    def course(self, lane: Lane, queued: Queued, *, now_s: float) -> Course:
        """Returns what may be done with this request as far as money goes, all that is gathered counted in."""
        cap = self.ledger.cap
        if cap.per_hour is None and cap.per_day is None:
            return Course.FUNCTION
        # Whoever may not go there, or fits into no batch, asks for no money.
        if not _allowed(lane, queued):
            return Course.FUNCTION
        cost, low_priority = self._asks_for(lane, queued)
        return course(cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)

    def closed(self, lane: Lane, queued: Queued, *, now_s: float) -> Closed:
        """Returns which cap forbids to send this request, which may go to functions as far as money is not asked."""
        cost, low_priority = self._asks_for(lane, queued)
        return closed(self.ledger.cap, self.over_cap, cost=cost, now_s=now_s, low_priority=low_priority)

    def _asks_for(self, lane: Lane, queued: Queued) -> tuple[float, bool]:
        """The money of all that is gathered, with this request, and whether it is of low priority."""
        full, rest = divmod(lane.spill.items + lane.late.items + queued.request.items, lane.function_cap)
        cost = full * self.at_most(lane, lane.function_cap) + (self.at_most(lane, rest) if rest else 0.0)
        return cost, queued.request.priority > lane.model.default_priority

    def at_most(self, lane: Lane, items: int) -> float:
        """Returns what such a batch is unlikely to exceed."""
        return lane.tier.price.cost(_times(lane).median_s[items] * math.exp(_times(lane).scatter.quantile(AT_MOST)))

    def affords(self, lane: Lane, items: int, *, now_s: float) -> bool:
        """Whether the spend caps allow one more batch of so many items."""
        cap = self.ledger.cap
        if cap.per_hour is None and cap.per_day is None:
            return True
        return cap.allows(self.at_most(lane, items), now_s)

    def look_for_instances(self, lane: Lane, *, now_s: float) -> None:
        """Asks anew, every so often, how likely a cold start is."""
        if lane.warm is None or now_s < lane.cold_seen_s + COLD_LOOK_S:
            return
        lane.cold_seen_s = now_s
        lane.cold, lane.cold_start_s = lane.warm.cold_probability(now_s), lane.warm.start_s(0.5)
        self.uplink.grace_s = lane.cold_start_s if lane.cold > COLD_COUNTS else 0.0
        oldest_s = next(iter(self.uplink.overdue_s.values()), math.inf)
        if lane.cold > COLD_COUNTS and now_s > max(oldest_s, self.uplink.back_at_s):
            # Whoever was sent first should be back if it had met a warm instance.
            lane.cold = max(lane.cold, SURELY_COLD)

    def takes_s(self, lane: Lane, *, items: int, body_bytes: int, now_s: float, cautious: bool) -> float:
        """Returns the seconds from now to the answer of such a batch: slot, uplink, transfer, round trip, service.

        What is more than one batch, because no slot is free, waits for the slots of the batches before it.
        """
        times, cap = _times(lane), lane.function_cap
        ahead, last = (items - 1) // cap, min(items, cap)
        service_s = times.cautious_s[last] + self.uplink.slack_s if cautious else times.median_s[last]
        path_s = self.uplink.path_s(body_bytes, now_s=now_s, max_in_flight=self._slots(lane), ahead=ahead)
        return max(0.0, self.circuit.not_before_s - now_s) + path_s + service_s

    def worth_trying(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether being late is unlikely enough for this request to be better sent than refused.

        While the objective holds hardly anything is refused for this; once more are late than may be, who is likely to
        be late is told so at once.
        """
        if lane.serves_late(queued):
            return True
        request = queued.request
        begins_s = self.uplink.begins_s(now_s, request.body_bytes)
        late = self.gathering.late(lane, request.items, request.deadline_s - begins_s)
        late_cost = lane.stakes.late_cost(request.class_name)
        return late <= ALWAYS_TRIED or late_cost * late <= REFUSAL_WEIGHT * lane.stakes.unit_cost

    def too_cold(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether this request would most likely wait for an instance for too long.

        Only while something is under way that will tell: a risk that nobody tries is never unlearned.
        """
        if lane.cold <= TOO_COLD or lane.warm is None or lane.warm.busy == 0:
            return False
        return now_s + lane.cold_start_s > self.hopeless_at_s(lane, queued)

    def wanted(self, lane: Lane, items: int, *, now_s: float) -> None:
        """Counts items that the functions shall take or should have taken: what warming calls are sent for."""
        lane.wanted_items *= math.exp((lane.wanted_at_s - now_s) / WANTED_MEMORY_S)
        lane.wanted_items += items
        lane.wanted_at_s = now_s

    def in_time(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether this request, alone in a batch sent as soon as a slot is free, can be expected in time."""
        request = queued.request
        if not self.usable(lane, queued) or self.stuck(lane, queued, now_s=now_s):
            return False
        if lane.cold > TOO_COLD and self.too_cold(lane, queued, now_s=now_s):
            return False
        full_batches = lane.spill.items // lane.function_cap * lane.function_cap
        return request.deadline_s >= now_s + self.takes_s(
            lane,
            items=full_batches + request.items,
            body_bytes=request.body_bytes,
            now_s=now_s,
            cautious=False,
        )

    def latest_s(self, lane: Lane, queued: Queued, *, now_s: float) -> float:
        """Returns the last moment at which this request alone can leave for a function and be in time."""
        request = queued.request
        return request.deadline_s - self.takes_s(
            lane, items=request.items, body_bytes=request.body_bytes, now_s=now_s, cautious=True
        )

    def hopeless_at_s(self, lane: Lane, queued: Queued) -> float:
        """Returns from when on this request is expected to be late even if it leaves alone, at once, by an idle way."""
        request = queued.request
        least_s = _times(lane).median_s[request.items] + self.uplink.transfer_s(request.body_bytes) + self.uplink.rtt_s
        return request.deadline_s - least_s

    def stuck(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether this request waits for a slot that comes too late, if it comes at all."""
        start_s = max(now_s, self.circuit.not_before_s)
        return not self.has_slot(lane, now_s=now_s) and start_s >= self.hopeless_at_s(lane, queued)

    def join(self, lane: Lane, queued: Queued, *, now_s: float) -> None:
        """Adds a request to the batch being gathered; that batch leaves first if the two had better go apart."""
        spill, gathering = lane.spill, self.gathering
        if len(spill):
            alone = gathering.alone(lane, queued, now_s=now_s)
            if gathering.joining(lane, queued, now_s=now_s) > alone:
                self.flush(lane, now_s=now_s)
        if not len(spill):
            lane.spill_opened_at_s = now_s
        spill.add(queued)
        lane.spill_closes_at_s = None

    def closes_at_s(self, lane: Lane, *, now_s: float) -> float:
        """Returns when the batch being gathered must leave; worked out again when something in it has changed."""
        state = (lane.spill.items, lane.function_times, self.uplink.free_at_s, self.uplink.bytes_per_s)
        closes_at_s = lane.spill_closes_at_s
        if closes_at_s is None or state != lane.spill_seen:
            lane.spill_closes_at_s = closes_at_s = self.gathering.closes_at_s(lane, now_s=now_s)
            lane.spill_seen = state
        return closes_at_s

    def has_slot(self, lane: Lane, *, now_s: float) -> bool:
        """Whether one more batch may be in flight now."""
        return self.circuit.usable(now_s) and len(self.uplink.finishes_s) < self._slots(lane)

    def is_due(self, lane: Lane, *, now_s: float) -> bool:
        """Whether the batch being gathered should leave now and can."""
        if not len(lane.spill) or not self.has_slot(lane, now_s=now_s):
            return False
        if not self.affords(lane, min(lane.spill.items, lane.function_cap), now_s=now_s):
            return False
        return lane.spill.items >= lane.function_target_at_once or self.closes_at_s(lane, now_s=now_s) <= now_s

    def send_one(self, lane: Lane, *, now_s: float) -> None:
        """Sends the best batch of those who have gathered; whoever is not in it stays."""
        batch = self._best_batch(lane, now_s=now_s)
        lane.spill.remove_all(batch)
        lane.spill_closes_at_s = None
        self.send(batch, lane, now_s=now_s)

    def flush(self, lane: Lane, *, now_s: float) -> None:
        """Sends all that has gathered, as far as slots are free."""
        while len(lane.spill) and self.has_slot(lane, now_s=now_s):
            if not self.affords(lane, min(lane.spill.items, lane.function_cap), now_s=now_s):
                return
            self.send_one(lane, now_s=now_s)

    def _best_batch(self, lane: Lane, *, now_s: float) -> list[Queued]:
        """Returns the batch that is cheapest per item, lateness included.

        Slots that were all taken let more gather than one batch can carry in time. Whoever cannot be in time even
        alone leaves in a full batch when nobody else waits: it must not hold back those who still can.
        """
        savable = [q for q in lane.spill if not self._lost(lane, q, now_s=now_s)]
        full = self.first_batch(lane, savable or lane.spill)
        if not savable or not full:
            return full or list(lane.spill)[:1]
        return self.gathering.cheapest_prefix(lane, full, now_s=now_s)

    def _lost(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        request = queued.request
        takes_s = self.takes_s(lane, items=request.items, body_bytes=request.body_bytes, now_s=now_s, cautious=False)
        return now_s + takes_s > request.deadline_s

    def first_batch(self, lane: Lane, waiting: Iterable[Queued]) -> list[Queued]:
        """Returns the first of those waiting that fit in one batch and may go to a function."""
        batch, items = [], 0
        for queued in waiting:
            if not _allowed(lane, queued):
                continue
            if items + queued.request.items > lane.function_cap:
                break
            batch.append(queued)
            items += queued.request.items
        return batch

    def send(self, members: Sequence[Queued], lane: Lane, *, now_s: float) -> None:
        """Sends one batch."""
        assert not any(q.request.class_name in lane.edge_only for q in members), "edge-only data stays on the site"
        items = sum(q.request.items for q in members)
        body_bytes = sum(q.request.body_bytes for q in members)
        takes_s = self.takes_s(lane, items=items, body_bytes=body_bytes, now_s=now_s, cautious=False)
        service_s = _times(lane).median_s[items]
        cost = lane.tier.price.cost(service_s)
        batch = self.sender.send(
            members,
            backend=Backend.FUNCTION,
            now_s=now_s,
            finish_s=now_s + takes_s,
            service_s=service_s,
            give_up_at_s=_give_up_at_s(lane, members, finish_s=now_s + min(takes_s, PATIENCE_S)),
            expected_cost=cost,
            tier=lane.tier.name,
        )
        longest_s = service_s * (_times(lane).margin - 1.0) + self.uplink.slack_s + STALL_GRACE_S
        self.uplink.occupy(
            batch_id=batch.batch_id,
            body_bytes=body_bytes,
            now_s=now_s,
            finish_s=now_s + takes_s,
            overdue_s=now_s + takes_s + longest_s,
        )
        self._book(batch.batch_id, lane, cost=cost, at_most=self.at_most(lane, items), now_s=now_s)

    def warming_terms(self, lane: Lane) -> WarmingTerms:
        """Returns what a cold start would cost in lateness, and what a call against it costs."""
        size = max(1, min(lane.spill_size, lane.function_cap))
        slo_s = min((c.slo_s for c in lane.model.classes if not c.edge_only), default=math.inf)
        slack_s = slo_s - self.uplink.way_s(int(size * lane.item_bytes)) - lane.cold_start_s
        late = _times(lane).late(size, slack_s)
        return WarmingTerms(
            batch_items=size,
            spilled_rps=lane.wanted_items / WANTED_MEMORY_S,
            service_s=_times(lane).median_s[size],
            call_cost=lane.tier.price.cost(0.0),
            lateness_cost=size * lane.stakes.highest_late_cost * late,
        )

    def warm_up(self, lane: Lane, *, now_s: float) -> None:
        """Sends a warming call."""
        cost = lane.tier.price.cost(0.0)
        way_s = self.uplink.way_s(0) + lane.cold_start_s
        batch = self.sender.send_warming(
            model=lane.model.name,
            tier=lane.tier.name,
            now_s=now_s,
            finish_s=now_s + way_s,
            give_up_at_s=now_s + way_s + PATIENCE_S,
            cost=cost,
        )
        self.uplink.occupy(batch_id=batch.batch_id, body_bytes=0, now_s=now_s, finish_s=now_s + way_s)
        self._book(batch.batch_id, lane, cost=cost, at_most=self.at_most(lane, 1), now_s=now_s)

    def _book(self, batch_id: int, lane: Lane, *, cost: float, at_most: float, now_s: float) -> None:
        self.ledger.book(batch_id, price=lane.tier.price, expected_cost=cost, now_s=now_s, at_most=at_most)
        if lane.warm is not None:
            lane.warm.sent(batch_id, now_s=now_s)
            lane.cold_seen_s = -math.inf

    def _slots(self, lane: Lane) -> int:
        return min(self.max_in_flight, lane.tier.max_in_flight)


def _allowed(lane: Lane, queued: Queued) -> bool:
    """Whether the request may leave the site for this lane's functions, and fits."""
    return (
        queued.barred is not Backend.FUNCTION
        and queued.request.items <= lane.function_cap
        and queued.request.class_name not in lane.edge_only
    )


def _times(lane: Lane) -> ServiceTimes:
    if lane.function_times is None:
        raise ValueError(f"model {lane.model.name!r} has no function")
    return lane.function_times


def _give_up_at_s(lane: Lane, members: Sequence[Queued], *, finish_s: float) -> float:
    if any(lane.serves_late(queued) for queued in members):
        return finish_s + PATIENCE_S
    last_deadline_s = max(queued.request.deadline_s for queued in members)
    return max(finish_s, last_deadline_s) + PATIENCE_FOR_DEADLINES_S

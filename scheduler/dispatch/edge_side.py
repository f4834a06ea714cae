"""One slot of an edge server: one batch at a time, free, and worth filling well."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import Outbox, Sending
from scheduler.dispatch.pricing import BINDS_RARELY, edge_slope_s
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.tenants import Tenants
from scheduler.domain.batches import WhyLeft
from scheduler.domain.decisions import Offer, Reason, impossible
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place, Request
from scheduler.domain.service_times import ServiceTimes

PREDECESSOR = 0.5
"""Part of the scatter of the batch in flight that the next one is protected from: where it is late, the next can still
be cut at its fresh end. Judgement: in simulations of 3,000 requests halving it changes cost by +2.4 % (in time +0.3
points), doubling it by +2.6 %."""
TWO_OF_A_SIZE = math.sqrt(2.0) - 1.0
"""Part of a batch's scatter that comes to its own from a batch of the same size before it. Derived."""
OVERBOOKED = 0.5
"""Standard deviations by which fewer newcomers are counted on than are expected: too many are cut off again, fresh and
cheap to serve by function; too few leave the batch small. Judgement: in simulations of 3,000 requests halving it
changes cost by +1.1 % (in time +0.2 points), doubling it by +0.6 %."""
GIVE_UP_FACTOR = 3.0
"""Expected services that an edge batch may be late before it is given up. With its own that makes at least four: more
than five standard deviations of a scatter of 0.25. It guards an edge that hangs, which no simulation has."""
GIVE_UP_MIN_S = 1.0
"""Seconds that it may be late in any case, where a service is below a third of a second. Judgement: a packet that is
lost and sent again is no failure."""


@dataclass(slots=True)
class EdgeSide:
    """Which requests join the next batch of one slot of an edge server, and what that batch is when it becomes free.

    Slots of one server have the same tables, limits and circuit; each has its own batch in flight and next batch.
    """

    lanes: Lanes
    occupancy: EdgeOccupancy
    circuit: Circuit
    outbox: Outbox
    tenants: Tenants = field(default_factory=Tenants)
    place: Place = Place.edge()
    edge: int = 0
    """Number of the edge server."""
    number: int = 0
    """Of the slot among those of all edge servers."""
    order: Sequence["EdgeSide"] = ()
    """All slots in the order in which they will be free; empty where there is one slot."""
    moved: Callable[[], None] | None = None
    """Is told when a batch is sent, so that the order is found anew; None where there is one slot."""
    rank: int = 0
    """Its own place in that order."""
    grown_s: float = 0.0
    """Seconds by which next batches of all lanes have grown, all growth added up: see `resting`."""

    def usable(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether this request may go to the edge at all."""
        fits = queued.request.items <= queues.edges[self.edge].limit
        failed = queued.failed_on
        return (not failed or self.place not in failed) and fits and self.circuit.serves(queues.model.name)

    def gate(self, queues: ModelQueues, queued: QueuedRequest) -> Reason | None:
        """Returns why this request may not go to the edge at all; None where it may."""
        if queued.failed_on and self.place in queued.failed_on:
            return Reason.FAILED_THERE
        if queued.request.items > (limit := queues.edges[self.edge].limit):
            return Reason.TOO_LARGE if limit else Reason.NO_BACKEND
        return None if self.circuit.serves(queues.model.name) else Reason.CIRCUIT_OPEN

    def takes_half(self, queues: ModelQueues, half: Sequence[QueuedRequest]) -> bool:
        """Whether limit, labels and circuit let half a batch be sent here as it is."""
        fits = sum([q.request.items for q in half]) <= queues.edges[self.edge].limit
        return fits and all(self.usable(queues, q) for q in half)

    def offer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float) -> Offer:
        """Offers a place in the edge's next batch. Only that is promised: promising places further ahead collapses.

        The first member's deadline binds. With the newcomers that are expected until the edge is free, the batch misses
        it with probability r; then it is usually cut at its fresh end, and one batch in three is not. One request more
        delays all members by the edge's seconds for an item, which makes rate x seconds x r more of them late. As long
        as the first member is in time with the probability that the budget wants, that costs the others nothing.
        """
        gate = self.gate(queues, queued)
        if gate is not None:
            return impossible(self.place, State.EDGE_BATCH, gate)
        request, terms, batch = queued.request, queues.edges[self.edge], queues.next_batches[self.number]
        times = terms.times or terms.known_times
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        bind_s, late_gate, first = request.deadline_s, Reason.JOINS_LATE, None
        if batch.items:
            items = batch.items + request.items
            if items > terms.cap:
                return impossible(self.place, State.EDGE_BATCH, Reason.BATCH_FULL, start_s=start_s, items=items)
            if batch.members[0].request.deadline_s < bind_s:
                first = batch.members[0].request
                bind_s, late_gate = first.deadline_s, Reason.FIRST_DEADLINE
        else:
            items = self._items_at_start(queues, request, start_s, now_s)
        median_s = times.median_s[items]
        finish_s = start_s + median_s
        prices = queues.lateness.prices
        spread_s = math.hypot(median_s, PREDECESSOR * self.occupancy.service_s)
        safe_s = start_s + (median_s + max(0.0, times.margin - 1.0) * spread_s)
        # Without functions nothing has a price, and the planned percentile alone decides.
        if (finish_s if prices.unit_cost > 0 else safe_s) > bind_s:
            return impossible(self.place, State.EDGE_BATCH, late_gate, start_s=start_s, finish_s=finish_s, items=items)
        risk = times.scatter.exceeds(math.log1p((bind_s - finish_s) / spread_s)) / BINDS_RARELY
        late, own, binding = risk, lateness_price * risk, lateness_price
        if first is not None and risk > 0.0:
            late = times.scatter.exceeds(math.log1p((request.deadline_s - finish_s) / spread_s)) / BINDS_RARELY
            own, binding = 0.0, queues.late_cost(first)
        others = 0.0
        if safe_s > bind_s:
            lateness = queues.lateness
            delayed = queues.rate_rps * self.slope_s(queues) * lateness.highest_late_cost(lateness.budgets)
            others = risk * prices.risk_leverage * (binding + delayed) - own
        total = lateness_price * late + others
        return Offer(self.place, State.EDGE_BATCH, None, start_s, finish_s, items, late, 0.0, others, total)

    def later_offer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float) -> Offer:
        """Offers a place in an edge batch after the next, for a request that no other place takes.

        It takes the place of a fresh request there, which a function must serve instead.
        """
        gate = self.gate(queues, queued)
        if gate is not None:
            return impossible(self.place, State.EDGE_LATER, gate)
        request, times = queued.request, queues.edges[self.edge].known_times
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        finish_s = start_s + times.median_s[request.items]
        items = request.items
        if finish_s > request.deadline_s:
            return impossible(
                self.place, State.EDGE_LATER, Reason.LATE, start_s=start_s, finish_s=finish_s, items=items
            )
        late = times.late_probability(request.items, request.deadline_s - start_s)
        others = queues.lateness.prices.spill_cost * request.items
        total = lateness_price * late + others
        return Offer(self.place, State.EDGE_LATER, None, start_s, finish_s, request.items, late, 0.0, others, total)

    def staying_offer(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float
    ) -> Offer:
        """Offers the oldest member of a next batch that has become too large to stay in it.

        The batch is then cut at its other end, where a function takes fresh requests for less; but if the oldest leaves
        the next deadline binds, so that the batch gains the gap between the two besides. Either way the edge has the
        seconds of one item for others.
        """
        request, times, prices = queued.request, queues.edges[self.edge].known_times, queues.lateness.prices
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        left_s = request.deadline_s - start_s
        items = min(max(request.items, times.largest_within(left_s, safe=True)), times.max_batch)
        late = times.late_probability(items, left_s) / BINDS_RARELY
        # Of a table without a slope the batch need not shrink; without arrivals no deadline binds after this one.
        slope_s, gap_items = self.slope_s(queues), float(queues.edges[self.edge].cap)
        if queues.rate_rps > 0 and slope_s > 0:
            gap_items = min(gap_items, 1.0 / (queues.rate_rps * slope_s))
        others = prices.cut_cost * (1.0 + gap_items) + prices.seconds_worth
        finish_s, total = start_s + times.median_s[items], lateness_price * late + others
        return Offer(self.place, State.EDGE_BATCH, None, start_s, finish_s, items, late, 0.0, others, total)

    def start_s(self, queues: ModelQueues, *, now_s: float, deadline_s: float) -> float:
        """Returns when a batch of this model could start: after the one in flight and those of more urgent models."""
        start_s = self.occupancy.free_at_s(now_s)
        lanes = self.lanes.all
        if len(lanes) > 1:
            number, edge = self.number, self.edge
            for other in lanes:
                waiting = other.next_batches[number]
                if waiting.items and other is not queues and waiting.members[0].request.deadline_s < deadline_s:
                    terms = other.edges[edge]
                    times = terms.times or terms.known_times
                    start_s += times.median_s[min(waiting.items, terms.limit)]
        return start_s

    def has_room(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether the next batch can take this request and still be in time for its oldest member.

        The first member is the one whose deadline will bind: it is let in only if the batch that will have gathered
        by the time the edge is free still meets its deadline. Only the very next batch is forecast: promising places
        further ahead is what collapses under load.
        """
        if not self.usable(queues, queued):
            return False
        request, times = queued.request, queues.edges[self.edge].known_times
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        batch = queues.next_batches[self.number]
        if len(batch):
            items = batch.items + request.items
            if items > queues.edges[self.edge].cap:
                return False
            bind_s = min(batch.first.request.deadline_s, request.deadline_s)
        else:
            items = self._items_at_start(queues, request, start_s, now_s)
            bind_s = request.deadline_s
        return start_s + self._safe_s(times, items) <= bind_s

    def full(self, queues: ModelQueues, *, now_s: float) -> bool:
        """Whether the next batch has room for no request at all, however few its items and late its deadline."""
        batch = queues.next_batches[self.number]
        if not batch.items:
            return False
        start_s, items, first = self.occupancy.free_at_s(now_s), batch.items + 1, batch.first.request
        if items > queues.edges[self.edge].cap:
            return True
        return start_s + self._safe_s(queues.edges[self.edge].known_times, items) > first.deadline_s

    def _items_at_start(self, queues: ModelQueues, request: Request, start_s: float, now_s: float) -> int:
        """Returns the items of the batch that a first member opens, when the slot becomes free.

        Where that is more than the first member allows, the rest may find room in the slots that are free next.
        """
        items, cap, expected = request.items, queues.edges[self.edge].cap, queues.rate_rps * (start_s - now_s)
        newcomers = int(max(0.0, expected - OVERBOOKED * math.sqrt(expected)))
        joined = min(items + newcomers, cap)
        if self.order and newcomers:
            fits = min(cap, queues.edges[self.edge].known_times.largest_within(request.deadline_s - start_s, safe=True))
            if items <= fits < items + newcomers and self._others_take(queues, request, start_s, newcomers, fits):
                return fits
        return max(items, joined)

    def _others_take(self, queues: ModelQueues, request: Request, start_s: float, newcomers: int, fits: int) -> bool:
        """Whether the slots that are free next have room for the newcomers that do not fit into this one's batch.

        Each must also take those that come after its predecessor has left.

        Args:
            queues: of the request.
            request: the first member of this slot's next batch.
            start_s: when this slot is free.
            newcomers: that come until then.
            fits: items in this slot's batch at which its first member is still in time.
        """
        rate_rps, over, came = queues.rate_rps, float(newcomers + request.items - fits), fits
        for slot in islice(self.order, self.rank + 1, None):
            terms, batch, occupancy = queues.edges[slot.edge], queues.next_batches[slot.number], slot.occupancy
            if terms.times is None or (slot.edge != self.edge and not slot.circuit.serves(queues.model.name)):
                continue
            # Plain values, without what other models need of the slot: this is asked of several slots for each request.
            then_s = start_s if occupancy.batch_id is None else max(start_s, occupancy.next_at_s)
            bind_s = batch.members[0].request.deadline_s if batch.items else request.deadline_s + came / rate_rps
            room = min(terms.cap, bisect_right(terms.times.safe_s, bind_s - then_s) - 1) - batch.items
            fresh = rate_rps * (then_s - start_s)
            over += fresh - room
            if over <= 0.0:
                return True
            if fresh >= room:
                return False
            came, start_s = came + room, then_s
        return False

    def _safe_s(self, times: ServiceTimes, items: int) -> float:
        """Seconds that the next batch stays within: its own scatter, and that of the batch before it."""
        more, service_s = times.margin - 1.0, times.median_s[items]
        if more <= 0.0:
            return service_s
        return service_s + more * math.hypot(service_s, PREDECESSOR * self.occupancy.service_s)

    def unsure_s(self, queues: ModelQueues) -> float:
        """Returns the seconds that a batch sent ahead must have to spare, as the one in flight may end later."""
        terms = queues.edges[self.edge]
        margin = (terms.times or terms.known_times).margin
        return TWO_OF_A_SIZE * max(0.0, margin - 1.0) * self.occupancy.service_s

    def overflows(self, queues: ModelQueues, *, now_s: float) -> bool:
        """Whether more requests are expected for the next batch than can be in time with its first member."""
        batch, times = queues.next_batches[self.number], queues.edges[self.edge].known_times
        first = batch.first.request
        start_s = self.start_s(queues, now_s=now_s, deadline_s=first.deadline_s)
        expected = min(batch.items + math.ceil(queues.rate_rps * (start_s - now_s)), times.max_batch)
        return expected > queues.edges[self.edge].cap or start_s + self._safe_s(times, expected) > first.deadline_s

    def could_answer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether some edge batch, at its expected speed, could still answer this request in time."""
        if not self.usable(queues, queued):
            return False
        request, times = queued.request, queues.edges[self.edge].known_times
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        return start_s + times.median_s[request.items] <= request.deadline_s

    def may_answer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether the edge, were it this model's alone, could still answer this request in time."""
        request, terms = queued.request, queues.edges[self.edge]
        if request.items > terms.limit:
            return False
        return self.occupancy.free_at_s(now_s) + terms.known_times.median_s[request.items] <= request.deadline_s

    def is_held(self, queues: ModelQueues, now_s: float) -> bool:
        """Whether an idle slot waits for clients that are about to return; notes until when. Asked before `until_s`.

        It does not wait where a request waits that followed no answer, or anything but a next batch; where that batch
        is full; or where it could not take all that are missing and surely be in time with its first member.
        """
        terms, batch, returning = queues.edges[self.edge], queues.next_batches[self.number], queues.returning
        times = terms.times
        if self.moved is None:
            returning.held_s = now_s  # of several slots another one may hold its own batch
        if returning.missing <= 0 or returning.stranger_waits or times is None:
            return False
        if not 0 < batch.items < terms.cap or queues.any_bisected or queues.edge_later.items or queues.overdue.items:
            return False
        for buffer in queues.buffers:
            if buffer.queue.items:
                return False
        safe_s = times.safe_s[min(batch.items + returning.missing, terms.cap)]
        until_s = min(returning.until_s, batch.first.request.deadline_s - safe_s)
        if until_s > now_s:
            returning.held_s = min(returning.held_s, until_s) if returning.held_s > now_s else until_s
        return until_s > now_s

    def awaits_answer(self, queues: ModelQueues) -> bool:
        """Whether nothing is sent ahead because the clients of the batch in flight return, and all fit into the next.

        Two groups of clients would be served in turn, where one batch serves both.
        """
        terms, batch, share = queues.edges[self.edge], queues.next_batches[self.number], queues.returning.share
        sent = self.outbox.in_flight.get(self.occupancy.batch_id or 0)
        if (
            not share
            or sent is None
            or terms.times is None
            or not batch.items
            or self.lanes.of_batch(sent) is not queues
        ):
            return False
        items = batch.items + round(share * sent.batch.items)
        if items > terms.cap:
            return False
        return self.occupancy.predicted_finish_s + terms.times.safe_s[items] <= batch.first.request.deadline_s

    def send(
        self, members: Sequence[QueuedRequest], queues: ModelQueues, *, now_s: float, why: WhyLeft = WhyLeft.IDLE_EDGE
    ) -> None:
        """Sends a batch; the slot must take one now."""
        terms, items = queues.edges[self.edge], sum([q.request.items for q in members])
        times = terms.times or terms.known_times
        size = min(items, times.max_batch)
        service_s = times.median_s[size]
        if why is WhyLeft.IDLE_EDGE and items >= terms.cap:
            why = WhyLeft.FULL
        finish_s = self.occupancy.finish_s(now_s=now_s, service_s=service_s)
        patience_s = max(GIVE_UP_MIN_S, GIVE_UP_FACTOR * service_s)
        last_deadline_s = max([q.request.deadline_s for q in members])
        batch = self.outbox.send(
            members,
            Sending(
                place=self.place,
                now_s=now_s,
                finish_s=finish_s,
                service_s=service_s,
                give_up_at_s=min(max(finish_s, last_deadline_s), finish_s + patience_s) + patience_s,
                why_left=why,
                others_s=times.others_s(size),
            ),
        )
        self.tenants.charge(members, service_s)
        self.occupancy.occupy(batch_id=batch.batch_id, now_s=now_s, finish_s=finish_s)
        if self.moved is not None:
            self.moved()

    def slope_s(self, queues: ModelQueues) -> float:
        """Returns the edge's seconds for one item more."""
        return edge_slope_s(queues.edges[self.edge].known_times, max(1, queues.edges[self.edge].cap))

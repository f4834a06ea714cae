"""The dispatcher: which batches leave, and when something is to be decided.

Every request that is not in flight is in exactly one of its model's queues:

    edge-batch   the next batch of a slot of an edge, as forecast
    edge-later   the edge after that: only where no function can take it
    function     in one of the function buffers, until its batch leaves
    deferred     for an edge that has nothing else to do, as its class allows
    overdue      too late everywhere, served all the same because its class says so
    bisected     in half a batch whose content a backend refused, to be sent to it again

Decisions are made on arrival, when the edge becomes free, when a gathered batch must leave, and at the last moment at
which a request that the edge will not manage can still leave for a function.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice

from scheduler.dispatch.budget_memory import BudgetMemory
from scheduler.dispatch.edge_composing import by_urgency, compose, deferred_batch
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.ends_counted import EndsCounted
from scheduler.dispatch.function_buffer import FunctionBuffer, items_of
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import first_batch
from scheduler.dispatch.hedging import Hedging
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.next_in_line import next_in_line
from scheduler.dispatch.offers import Offers
from scheduler.dispatch.placing import Placing
from scheduler.dispatch.pricing import make_prices
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.refusals import Refusals
from scheduler.dispatch.request_table import RequestTable
from scheduler.dispatch.resting import Resting
from scheduler.dispatch.reviewing import Reviewing
from scheduler.dispatch.waiting_line import looked_at
from scheduler.domain.batches import WhyLeft
from scheduler.domain.decisions import Cause
from scheduler.domain.lifecycle import State
from scheduler.domain.memory import Remembered
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.requests import Backend

NEVER = math.inf
OVERDUE_HOLD_S = 0.25
"""How long overdue requests wait for other requests or for room on the edge before they go to a function. Judgement:
halved or doubled, cost and lateness stay within noise."""

WAITS_FOR_EDGE = 3.0
"""Objectives after its arrival until which a request that misses its own on purpose waits for room on the edge alone;
then a function may take it too. Judgement: it is to be late, not forgotten."""


@dataclass(slots=True)
class Dispatcher:
    """Sends batches, and has requests placed. Commands gather in the outbox."""

    lanes: Lanes
    edges: Edges
    function: FunctionSending
    table: RequestTable
    hedging: Hedging
    offers: Offers
    refusals: Refusals
    budgets: BudgetMemory = field(default_factory=BudgetMemory)
    placing: Placing = field(init=False)
    reviewing: Reviewing = field(init=False)
    resting: Resting = field(init=False)

    def __post_init__(self) -> None:
        """Makes the parts that place requests, and has the ends of requests counted."""
        edges, function, offers = self.edges, self.function, self.offers
        self.placing = Placing(self.lanes, edges, function, self.table, offers, self.refusals)
        self.reviewing = Reviewing(self.placing, edges, function, offers)
        self.resting = Resting(self.lanes, edges, function)
        self.table.counts = EndsCounted(self.lanes, self.edges, self.function.side)

    def dispatch(self, now_s: float) -> None:
        """Sends whatever should leave now. Called after every change."""
        self.hedging.watch()
        lanes, edges, slot = self.lanes.all, self.edges, self.edges.alone
        if len(lanes) == 1:
            self.reviewing.review(lanes[0], now_s=now_s)
        else:
            for queues, hurried in self.resting.awake(now_s, edges=True):
                self.reviewing.review(queues, now_s=now_s, edges=hurried)
        if slot is None:
            self._send_to_idle(now_s)
        elif (slot.occupancy.batch_id is None or edges.leading) and slot.circuit.usable(now_s):
            self._send_edge(slot, now_s)
        if self.hedging.look_at_s and now_s >= self.hedging.soonest_s:
            for queued, place in self.hedging.to_functions(now_s):
                self.placing.note_move(queued, Cause.HEDGE, place, State.FUNCTION, now_s=now_s)
        if len(lanes) == 1:
            queues = lanes[0]
            if queues.any_bisected or queues.overdue.items:
                self._send_to_functions(queues, now_s=now_s)
                return
            for buffer in queues.buffers:
                if buffer.queue.items:
                    self._send_gathered(buffer, queues, now_s=now_s)
        else:
            for queues, _ in self.resting.awake(now_s, edges=False):
                self._send_to_functions(queues, now_s=now_s)
                self.resting.settle(queues, now_s=now_s)

    def _send_to_functions(self, queues: ModelQueues, *, now_s: float) -> None:
        if queues.any_bisected:
            self._send_halves(queues, now_s=now_s)
        if queues.overdue.items:
            self._send_overdue(queues, now_s=now_s)
        for buffer in queues.buffers:
            if buffer.queue.items:
                self._send_gathered(buffer, queues, now_s=now_s)

    def price(self, queues: ModelQueues) -> None:
        """Makes new prices from what is known now."""
        queues.reprice(*make_prices(queues, self.function.side.economics))

    def next_wakeup_s(self, now_s: float) -> float:
        """Returns when a decision falls due if nothing happens before; inf for never."""
        self.hedging.watch()
        next_s = self.hedging.next_s(now_s)
        if self.edges.leading:
            next_s = min(next_s, self.edges.opens_at_s(now_s))
        lanes = self.lanes.all
        if len(lanes) == 1:
            for at_s in self._due_times_s(lanes[0], now_s):
                if now_s < at_s < next_s:
                    next_s = at_s
            return next_s
        return min(next_s, self.resting.due_s(self._due_times_s, now_s=now_s))

    def _due_times_s(self, queues: ModelQueues, now_s: float) -> list[float]:
        """Returns when decisions fall due. What is overdue waits for an answer, a free slot or its deadline."""
        side, has_functions = self.function.side, queues.has_functions
        due_s: list[float] = []
        for slot in self.edges.slots:
            batch, times = queues.next_batches[slot.number], queues.edges[slot.edge].times
            if batch.items and times is not None:
                first = batch.members[0]
                request = first.request
                due_s += (request.deadline_s - times.median_s[request.items], request.deadline_s)
                if has_functions:
                    due_s.append(side.latest_s(queues, first, now_s=now_s))
        if queues.edge_later.items:
            request = queues.edge_later.first.request
            for terms in queues.edges:
                if terms.times is not None:
                    due_s += (request.deadline_s - terms.times.median_s[request.items], request.deadline_s)
        if now_s < queues.returning.held_s:
            due_s.append(queues.returning.held_s)
        for buffer in queues.buffers:
            if buffer.queue.items:
                first = buffer.queue.members[0]
                due_s.append(self.function.closes_at_s(buffer, now_s=now_s))
                due_s += (side.hopeless_at_s(buffer, first), first.request.deadline_s)
        if queues.deferred.items:
            due_s.append(self.offers.deferred_until_s(queues, queues.deferred.first, now_s=now_s))
        if queues.overdue.items and has_functions:
            due_s.append(queues.overdue_opened_at_s + OVERDUE_HOLD_S)
            if queues.spending:
                due_s += map(_waits_for_edge_until_s, queues.waiting_for_edge())
        if queues.any_bisected:
            due_s += [queued.request.deadline_s for queued in queues.in_halves()]
        return due_s

    def remembered(self) -> Remembered:
        """Returns what the next process is told: the budgets of the classes."""
        return self.budgets.part(self.lanes.first)

    def follow(self, plan_id: int) -> None:
        """Notes which plan is in force, for the record; models that are new now get the budgets that they had."""
        self.placing.plan_id = plan_id
        self.budgets.take_up(self.lanes.first)

    def raise_caution(self) -> None:
        """Takes lateness seriously again, as after a change."""
        for queues in self.lanes.all:
            queues.lateness.raise_caution()

    def starved(self, now_s: float) -> bool:
        """Whether a request without room on the edge might have gone to a function lately."""
        return any([queues.starved(now_s) for queues in self.lanes.all])

    def flush(self, now_s: float) -> None:
        """Sends gathered function batches without waiting for other requests, as when the daemon drains."""
        for queues in self.lanes.all:
            for buffer in queues.buffers:
                self.function.flush(buffer, queues, now_s=now_s, why=WhyLeft.DRAIN)

    def reassign_all(self, cause: Cause, *, now_s: float) -> None:
        """Decides again for all requests that wait, as after a backend went down or limits changed."""
        for queues in self.lanes.all:
            self.placing.assign_all(queues.take_all(), cause, now_s=now_s)

    def withdraw_all(self) -> tuple[QueuedRequest, ...]:
        """Takes all waiting requests out of the queues, as before a plan is adopted."""
        return tuple(chain.from_iterable(queues.take_all() for queues in self.lanes.all))

    def follow_slots(self, *, now_s: float) -> None:
        """Follows a learned number of slots: what waits is placed again in those that there are."""
        waiting = self.withdraw_from(self.edges.settings)
        self.lanes.stand()
        self.placing.assign_all(waiting, Cause.LIMITS, now_s=now_s)

    def withdraw_from(self, edges: Sequence[EdgeSettings]) -> tuple[QueuedRequest, ...]:
        """Does the same, and follows which edge servers there are from now on; what is in flight there comes back."""
        waiting = self.withdraw_all()
        self.edges.configure(edges)
        return waiting

    def _send_to_idle(self, now_s: float) -> None:
        """Sends what is due to all slots that are idle, until none of them takes anything more."""
        for queues in self.lanes.all:
            queues.returning.held_s = now_s
        sent = True
        while sent:
            sent, quiet = False, set()
            for slot in self.edges.idle(now_s):
                # Slots of an edge differ by their next batches only; a trial may have taken one that was idle.
                busy = not slot.occupancy.takes(now_s)
                if busy or (slot.edge in quiet and not self.edges.has_next(slot)):
                    continue
                if self._send_edge(slot, now_s):
                    sent = True
                else:
                    quiet.add(slot.edge)

    def _send_edge(self, slot: EdgeSide, now_s: float) -> bool:
        """Sends a batch to a slot that is idle or takes one ahead; returns whether there was one."""
        held, lanes = False, self.lanes.all
        if slot.occupancy.batch_id is not None and (
            not slot.occupancy.takes(now_s) or any([slot.awaits_answer(queues) for queues in lanes])
        ):
            return False
        # One model alone needs no order: in a closed loop that is a tenth of the work.
        if len(lanes) == 1 and now_s < lanes[0].returning.until_s and slot.is_held(lanes[0], now_s):
            return False
        for queues in by_urgency(slot):
            if len(lanes) > 1 and now_s < queues.returning.until_s and slot.is_held(queues, now_s):
                held = True
                continue
            if self._send_edge_half(slot, queues, now_s=now_s) or self._send_edge_batch(slot, queues, now_s=now_s):
                return True
        if held or not slot.occupancy.idle:
            return False
        # No request waits: an idle edge takes up those that a slow function has in hand, or deferred ones.
        hedges = bool(self.hedging.look_at_s)
        for queues in lanes:
            if not hedges and not queues.deferred.items:
                continue
            hedged = self.hedging.for_edge(slot, queues, (), now_s=now_s)
            members = hedged or deferred_batch(slot, queues, now_s=now_s)
            if members:
                self._note_hedged(slot, hedged, now_s=now_s)
                queues.deferred.remove_all(q for q in members if q.state is State.DEFERRED)
                slot.send(members, queues, now_s=now_s, why=WhyLeft.HEDGE if hedged else WhyLeft.IDLE_EDGE)
                return True
        for queued in self.offers.trials.copies(slot, now_s=now_s) if slot.outbox.in_flight else ():
            self.placing.note_move(queued, Cause.TRIAL, slot.place, State.EDGE_BATCH, now_s=now_s)
            self.offers.trials.send(slot, self.lanes.of(queued.request), queued, now_s=now_s)
            return True
        return False

    def _send_edge_half(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> bool:
        halves = queues.bisected[Backend.EDGE]
        if not halves or (self.edges.alone is None and not slot.takes_half(queues, halves[0])):
            return False
        slot.send(queues.next_half(Backend.EDGE), queues, now_s=now_s, why=WhyLeft.HALF)
        return True

    def _send_edge_batch(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> bool:
        composition = compose(slot, queues, now_s=now_s)
        if composition.chosen:
            for queued in composition.piggybacked:
                self.placing.note_move(queued, Cause.PIGGYBACK, slot.place, State.EDGE_BATCH, now_s=now_s)
            hedged = []
            if self.hedging.look_at_s:
                hedged = self.hedging.for_edge(slot, queues, composition.chosen, now_s=now_s)
                self._note_hedged(slot, hedged, now_s=now_s)
            slot.send((*composition.chosen, *hedged), queues, now_s=now_s)
        # Placed after the send, when the edge's next free moment is known.
        if composition.dropped:
            self.placing.assign_all(composition.dropped, Cause.EDGE_SENT, now_s=now_s)
        if composition.left or queues.edge_later.items:
            self.placing.assign_all(
                next_in_line(queues, composition.left, slot, self.edges, self.function.side, now_s=now_s),
                Cause.EDGE_SENT,
                now_s=now_s,
            )
        if composition.chosen:
            queues.returning.stranger_waits = queues.promised_items > 0
            if queues.buffers:
                self._reclaim_gathered(queues, now_s=now_s)
        return bool(composition.chosen)

    def _note_hedged(self, slot: EdgeSide, hedged: Iterable[QueuedRequest], *, now_s: float) -> None:
        for queued in hedged:
            self.placing.note_move(queued, Cause.HEDGE, slot.place, State.EDGE_BATCH, now_s=now_s)

    def _reclaim_gathered(self, queues: ModelQueues, *, now_s: float) -> None:
        """Takes back from the function buffers the requests that the following edge batch has room for after all."""
        if not queues.has_edge:
            return
        for queued in tuple(islice(queues.gathered(), looked_at(queues.edge_cap))):
            if self.edges.all.full(queues, now_s=now_s):
                return
            slot = self.edges.room_for(queues, queued, now_s=now_s)
            if slot is not None:
                queues.leave_buffer(queued)
                self.placing.note_move(queued, Cause.RECLAIMED, slot.place, State.EDGE_BATCH, now_s=now_s)
                queues.next_batches[slot.number].add(queued)

    def _send_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        halves, side = queues.bisected[Backend.FUNCTION], self.function.side
        while halves:
            buffer = queues.buffer_of(halves[0][0])
            if buffer is not None and not side.has_slot(buffer, now_s=now_s):
                return
            half = queues.next_half(Backend.FUNCTION)
            fits = buffer is not None and items_of(half) <= buffer.cap
            if buffer is not None and fits and side.affords_members(buffer, half, now_s=now_s):
                self.function.send(half, buffer, queues, now_s=now_s, why=WhyLeft.HALF)
                continue
            self.placing.assign_all(half, Cause.LIMITS, now_s=now_s)

    def _send_gathered(self, buffer: FunctionBuffer, queues: ModelQueues, *, now_s: float) -> None:
        while (why := self.function.due_for(buffer, now_s=now_s)) is not None:
            gathered = len(buffer.queue)
            self._reclaim_gathered(queues, now_s=now_s)
            if len(buffer.queue):
                why = why if len(buffer.queue) == gathered else WhyLeft.REST
                self._top_up_from_edge(buffer, queues, now_s=now_s)
                self.function.send_best(buffer, queues, now_s=now_s, why=why)

    def _top_up_from_edge(self, buffer: FunctionBuffer, queues: ModelQueues, *, now_s: float) -> None:
        """A batch that leaves unfilled takes along members of an edge's next batch whose places others will fill.

        The oldest go: they bind the edge's batch, and the next deadline lets it be larger.
        """
        side, slot = self.function.side, self.edges.next_to_leave(queues, now_s=now_s)
        if slot is None:
            return
        batch = queues.next_batches[slot.number]
        while len(batch) and slot.overflows(queues, now_s=now_s):
            oldest = batch.first
            if queues.buffer_of(oldest) is not buffer or not side.usable(queues, oldest):
                return
            if not buffer.has_room(oldest):
                return
            if side.economics.joining(buffer, oldest, now_s=now_s) >= buffer.prices.spill_cost:
                return
            batch.remove(oldest)
            self.placing.note_move(oldest, Cause.TOP_UP, buffer.place, State.FUNCTION, now_s=now_s)
            buffer.top_up(oldest)

    def _send_overdue(self, queues: ModelQueues, *, now_s: float) -> None:
        """Overdue requests that the edge had no room for go to a function, in batches and before long."""
        side, overdue = self.function.side, queues.overdue
        for queued in queues.waiting_for_edge() if queues.spending else ():
            if now_s >= _waits_for_edge_until_s(queued):
                overdue.remove(queued)
                queued.stop_waiting_for_edge()
                queues.serve_overdue(queued, now_s=now_s)
        for buffer in queues.buffers:
            while overdue.items and buffer.cap and side.has_slot(buffer, now_s=now_s):
                batch = first_batch(buffer, queues, side.within_means(buffer, queues.overdue_for(buffer), now_s=now_s))
                full = items_of(batch) >= buffer.max_items
                if not batch or (not full and now_s < queues.overdue_opened_at_s + OVERDUE_HOLD_S):
                    break
                if not side.affords(buffer, items_of(batch), now_s=now_s):
                    self._no_longer_paid(queues, batch, now_s=now_s)
                    return
                overdue.remove_all(batch)
                for queued in batch:
                    self.placing.note_move(queued, Cause.OVERDUE_SENT, buffer.place, State.FUNCTION, now_s=now_s)
                why = WhyLeft.FULL if full else WhyLeft.TIMER
                self.function.send(batch, buffer, queues, now_s=now_s, why=why)

    def _no_longer_paid(self, queues: ModelQueues, batch: Sequence[QueuedRequest], *, now_s: float) -> None:
        """A request that the edge cannot take either ends: money that may come in an hour is not waited for."""
        for queued in batch:
            if not self.edges.all.usable(queues, queued):
                queues.overdue.remove(queued)
                self.placing.assign(queued, now_s, Cause.LIMITS)


def _waits_for_edge_until_s(queued: QueuedRequest) -> float:
    """Returns until when a request that misses its objective on purpose waits for room on the edge alone."""
    request = queued.request
    return request.arrived_at_s + WAITS_FOR_EDGE * (request.deadline_s - request.arrived_at_s)

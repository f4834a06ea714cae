"""The dispatcher: where each request goes, when batches leave, and what happens where no place is in time.

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
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from scheduler.dispatch.budget_memory import BudgetMemory
from scheduler.dispatch.choice import Choice
from scheduler.dispatch.edge_composing import by_urgency, compose, deferred_batch
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.ends_counted import EndsCounted
from scheduler.dispatch.function_buffer import FunctionBuffer, items_of
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import buffer_of, first_batch
from scheduler.dispatch.hedging import Hedging
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.next_in_line import next_in_line
from scheduler.dispatch.offers import IN_DEMAND, NOT_ALLOWED, Offers
from scheduler.dispatch.pricing import make_prices
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.refusals import Refusals
from scheduler.dispatch.request_table import RequestTable
from scheduler.dispatch.waiting_line import looked_at
from scheduler.domain.batches import WhyLeft
from scheduler.domain.decisions import NO_CHOICE, Cause, Decision, Offer, move
from scheduler.domain.errors import Refusal
from scheduler.domain.lifecycle import State
from scheduler.domain.memory import Remembered
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.requests import Backend, Place

NEVER = math.inf
OVERDUE_HOLD_S = 0.25
"""How long overdue requests wait for other requests or for room on the edge before they go to a function. Judgement:
halved or doubled, cost and lateness stay within noise."""

WAITS_FOR_EDGE = 3.0
"""Objectives after its arrival until which a request that misses its own on purpose waits for room on the edge alone;
then a function may take it too. Judgement: it is to be late, not forgotten."""


@dataclass(slots=True)
class Dispatcher:
    """Places requests and sends batches. Commands gather in the outbox."""

    lanes: Lanes
    edges: Edges
    function: FunctionSending
    table: RequestTable
    hedging: Hedging
    offers: Offers
    refusals: Refusals
    plan_id: int = 0
    budgets: BudgetMemory = field(default_factory=BudgetMemory)

    def __post_init__(self) -> None:
        """Has the ends of the requests counted."""
        self.table.counts = EndsCounted(self.lanes, self.edges, self.function.side)

    def assign(self, queued: QueuedRequest, now_s: float, cause: Cause = Cause.ARRIVAL) -> None:
        """Puts a request that is in no queue where it costs least in all, or ends it.

        Args:
            queued: in no queue and in no batch.
            now_s: the present.
            cause: why now, for the record.
        """
        request, lanes = queued.request, self.lanes
        if lanes.several:
            self.edges.changed()
        queues = lanes.of(request) if request.shape_id else lanes.first[request.model]
        if cause is Cause.ARRIVAL:
            if now_s <= queues.returning.open_until_s:
                queues.returning.arrived(request.items, now_s)
            else:
                queues.returning.stranger_waits = True
        price = queues.late_cost(queued.request)
        choice = self.offers.compare(queues, queued, now_s=now_s, lateness_price=price)
        if choice.no_room_for is not None:
            self._note_demand(queues, queued, choice.no_room_for, now_s=now_s)
        if choice.trial:
            cause = Cause.TRIAL
        self._note(queued, cause, choice.offers, choice.chosen, now_s=now_s, lateness_price=price)
        slot = choice.slot
        if choice.trial and slot is not None:
            self.offers.trials.send(slot, queues, queued, now_s=now_s)
            return
        if choice.saved is not None:
            queues.lateness.spend(request.class_name, saved=choice.saved, now_s=now_s)
            queued.spend()
        if choice.chosen < 0:
            self._refuse(queues, queued, choice.offers, now_s=now_s)
            return
        if choice.displaced is not None and slot is not None:
            self._displace(slot, queues, choice, queued, now_s=now_s)
        match choice.offers[choice.chosen].queue:
            case State.EDGE_BATCH:
                assert slot is not None, "an edge's offer is one of a slot's"
                queues.next_batches[slot.number].add(queued)
            case State.FUNCTION:
                join = self.function.try_out if choice.trial else self.function.join
                join(queues, queued, now_s=now_s)
            case State.EDGE_LATER:
                queues.edge_later.add(queued)
            case State.OVERDUE:
                queues.serve_overdue(queued, now_s=now_s)
            case _:
                queues.defer(queued)

    def _note_demand(self, queues: ModelQueues, queued: QueuedRequest, by_function: Offer, *, now_s: float) -> None:
        """Counts a request that the edge's next batch has no room for: the link is watched, instances kept warm."""
        if by_function.reason in NOT_ALLOWED:
            return
        queues.note_starved(now_s=now_s)
        if by_function.reason in IN_DEMAND:
            buffer_of(queues, queued).demand.note(queued.request.items, now_s=now_s)

    def give_up(self, queued: QueuedRequest, refusal: Refusal, now_s: float, cause: Cause) -> None:
        """Refuses a request after a failure; the record holds why neither side takes it."""
        queues = self.lanes.of(queued.request)
        price = queues.late_cost(queued.request)
        offers = self.offers.after_failure(queues, queued, now_s=now_s, lateness_price=price)
        self._note(queued, cause, offers, -1, now_s=now_s, lateness_price=price)
        self.table.refuse(queued, replace(refusal, reason=queued.reason.value))

    def _refuse(self, queues: ModelQueues, queued: QueuedRequest, offers: tuple[Offer, ...], *, now_s: float) -> None:
        refusal = self.refusals.refusal(queues, queued, offers, now_s=now_s)
        self.table.refuse(queued, replace(refusal, reason=queued.reason.value))

    def _displace(
        self, slot: EdgeSide, queues: ModelQueues, choice: Choice, by: QueuedRequest, *, now_s: float
    ) -> None:
        """Places a member of a slot's next batch again: it finds its place taken; or lets it miss on purpose."""
        other, batch = choice.displaced, queues.next_batches[slot.number]
        assert other is not None
        batch.remove(other)
        batch.add(by)
        if choice.given_way is None:
            self.assign(other, now_s, Cause.DISPLACED)
        else:
            self._give_way(queues, other, now_s=now_s, saved=choice.given_way)
        batch.remove(by)

    def _give_way(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, saved: float) -> None:
        """Lets a request whose place another has taken miss its objective on purpose."""
        if self.lanes.several:
            self.edges.changed()
        price = queues.late_cost(queued.request)
        choice = self.offers.on_purpose.of_member(queues, queued, now_s=now_s, saved=saved)
        self._note(queued, Cause.DISPLACED, choice.offers, choice.chosen, now_s=now_s, lateness_price=price)
        queues.lateness.spend(queued.request.class_name, saved=saved, now_s=now_s)
        queued.spend()
        if choice.chosen < 0:
            self._refuse(queues, queued, choice.offers, now_s=now_s)
        else:
            queues.serve_overdue(queued, now_s=now_s)

    def _note(
        self,
        queued: QueuedRequest,
        cause: Cause,
        offers: tuple[Offer, ...],
        chosen: int,
        *,
        now_s: float,
        lateness_price: float,
    ) -> None:
        """Records a decision: the offers, the choice and the cause."""
        compared = cause not in NO_CHOICE
        decision = Decision(queued.request, now_s, cause, self.plan_id, lateness_price, compared, offers, chosen)
        queued.note(decision.reason)
        self.table.outbox.ring.note(decision)

    def _note_move(self, queued: QueuedRequest, cause: Cause, place: Place, queue: State, *, now_s: float) -> None:
        """Records a move that is no choice."""
        decision = Decision(queued.request, now_s, cause, self.plan_id, 0.0, False, move(place, queue, now_s=now_s), 0)
        queued.note(decision.reason)
        self.table.outbox.ring.note(decision)

    def dispatch(self, now_s: float) -> None:
        """Sends whatever should leave now. Called after every change."""
        self.hedging.watch()
        several, edges = self.lanes.several, self.edges
        if several:
            edges.sum_up()
        for queues in self.lanes.all:
            self._review(queues, now_s=now_s)
        if several:
            edges.changed()
        if edges.alone is None:
            self._send_to_idle(now_s)
        elif edges.alone.occupancy.batch_id is None and edges.alone.circuit.usable(now_s):
            self._send_edge(edges.alone, now_s)
        for queued, place in self.hedging.to_functions(now_s):
            self._note_move(queued, Cause.HEDGE, place, State.FUNCTION, now_s=now_s)
        for queues in self.lanes.all:
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
        for queues in self.lanes.all:
            for at_s in self._due_times_s(queues, now_s=now_s):
                if now_s < at_s < next_s:
                    next_s = at_s
        return next_s

    def _due_times_s(self, queues: ModelQueues, *, now_s: float) -> list[float]:
        """Returns when decisions fall due. What is overdue waits for an answer, a free slot or its deadline."""
        side, has_functions = self.function.side, queues.has_functions
        due_s: list[float] = []
        for slot in self.edges.slots:
            batch, times = queues.next_batches[slot.number], queues.edges[slot.edge].times
            if batch.items and times is not None:
                request = batch.first.request
                due_s += (request.deadline_s - times.median_s[request.items], request.deadline_s)
                if has_functions:
                    due_s.append(side.latest_s(queues, batch.first, now_s=now_s))
        if queues.edge_later.items:
            request = queues.edge_later.first.request
            for terms in queues.edges:
                if terms.times is not None:
                    due_s += (request.deadline_s - terms.times.median_s[request.items], request.deadline_s)
        if now_s < queues.returning.held_s:
            due_s.append(queues.returning.held_s)
        for buffer in queues.buffers:
            if buffer.queue.items:
                first = buffer.queue.first
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
        self.plan_id = plan_id
        self.budgets.take_up(self.lanes.first)

    def raise_caution(self) -> None:
        """Takes lateness seriously again, as after a change."""
        for queues in self.lanes.all:
            queues.lateness.raise_caution()

    def starved(self, now_s: float) -> bool:
        """Whether a request without room on the edge might have gone to a function lately."""
        return any(queues.starved(now_s) for queues in self.lanes.all)

    def flush(self, now_s: float) -> None:
        """Sends gathered function batches without waiting for other requests, as when the daemon drains."""
        for queues in self.lanes.all:
            for buffer in queues.buffers:
                self.function.flush(buffer, queues, now_s=now_s, why=WhyLeft.DRAIN)

    def reassign_all(self, cause: Cause, *, now_s: float) -> None:
        """Decides again for all requests that wait, as after a backend went down or limits changed."""
        for queues in self.lanes.all:
            self.assign_all(queues.take_all(), cause, now_s=now_s)

    def withdraw_all(self) -> tuple[QueuedRequest, ...]:
        """Takes all waiting requests out of the queues, as before a plan is adopted."""
        return tuple(chain.from_iterable(queues.take_all() for queues in self.lanes.all))

    def follow_slots(self, *, now_s: float) -> None:
        """Follows a learned number of slots: what waits is placed again in those that there are."""
        waiting = self.withdraw_from(self.edges.settings)
        self.lanes.stand()
        self.assign_all(waiting, Cause.LIMITS, now_s=now_s)

    def withdraw_from(self, edges: Sequence[EdgeSettings]) -> tuple[QueuedRequest, ...]:
        """Does the same, and follows which edge servers there are from now on; what is in flight there comes back."""
        waiting = self.withdraw_all()
        self.edges.configure(edges)
        return waiting

    def assign_all(self, waiting: Iterable[QueuedRequest], cause: Cause, *, now_s: float) -> None:
        """Places requests that are in no queue."""
        for queued in waiting:
            self.assign(queued, now_s, cause)

    def _send_to_idle(self, now_s: float) -> None:
        """Sends what is due to all slots that are idle, until none of them takes anything more."""
        sent = True
        while sent:
            sent, quiet = False, set()
            for slot in self.edges.idle(now_s):
                # Slots of an edge differ by their next batches only.
                if slot.edge in quiet and not self.edges.has_next(slot):
                    continue
                if self._send_edge(slot, now_s):
                    sent = True
                else:
                    quiet.add(slot.edge)

    def _send_edge(self, slot: EdgeSide, now_s: float) -> bool:
        """Sends a batch to a slot that is idle; returns whether there was one."""
        held, lanes = False, self.lanes.all
        # One model alone needs no order: in a closed loop that is a tenth of the work.
        if len(lanes) == 1 and now_s < lanes[0].returning.until_s and slot.is_held(lanes[0], now_s):
            return False
        for queues in by_urgency(slot):
            if len(lanes) > 1 and now_s < queues.returning.until_s and slot.is_held(queues, now_s):
                held = True
                continue
            if self._send_edge_half(slot, queues, now_s=now_s) or self._send_edge_batch(slot, queues, now_s=now_s):
                return True
        if held:
            return False
        # No request waits: an idle edge takes up those that a slow function has in hand, or deferred ones.
        for queues in self.lanes.all:
            hedged = self.hedging.for_edge(slot, queues, (), now_s=now_s)
            members = hedged or deferred_batch(slot, queues, now_s=now_s)
            if members:
                self._note_hedged(slot, hedged, now_s=now_s)
                queues.deferred.remove_all(q for q in members if q.state is State.DEFERRED)
                slot.send(members, queues, now_s=now_s, why=WhyLeft.HEDGE if hedged else WhyLeft.IDLE_EDGE)
                return True
        for queued in self.offers.trials.copies(slot, now_s=now_s) if slot.outbox.in_flight else ():
            self._note_move(queued, Cause.TRIAL, slot.place, State.EDGE_BATCH, now_s=now_s)
            self.offers.trials.send(slot, self.lanes.of(queued.request), queued, now_s=now_s)
            return True
        return False

    def _send_edge_half(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> bool:
        halves = queues.bisected[Backend.EDGE]
        if not halves or not slot.takes_half(queues, halves[0]):
            return False
        slot.send(queues.next_half(Backend.EDGE), queues, now_s=now_s, why=WhyLeft.HALF)
        return True

    def _send_edge_batch(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> bool:
        composition = compose(slot, queues, now_s=now_s)
        if composition.chosen:
            for queued in composition.piggybacked:
                self._note_move(queued, Cause.PIGGYBACK, slot.place, State.EDGE_BATCH, now_s=now_s)
            hedged = self.hedging.for_edge(slot, queues, composition.chosen, now_s=now_s)
            self._note_hedged(slot, hedged, now_s=now_s)
            slot.send((*composition.chosen, *hedged), queues, now_s=now_s)
        # Placed after the send, when the edge's next free moment is known.
        self.assign_all(composition.dropped, Cause.EDGE_SENT, now_s=now_s)
        self.assign_all(
            next_in_line(queues, composition.left, slot, self.edges, self.function.side, now_s=now_s),
            Cause.EDGE_SENT,
            now_s=now_s,
        )
        if composition.chosen:
            queues.returning.stranger_waits = queues.promised_items > 0
            self._reclaim_gathered(queues, now_s=now_s)
        return bool(composition.chosen)

    def _note_hedged(self, slot: EdgeSide, hedged: Iterable[QueuedRequest], *, now_s: float) -> None:
        for queued in hedged:
            self._note_move(queued, Cause.HEDGE, slot.place, State.EDGE_BATCH, now_s=now_s)

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
                self._note_move(queued, Cause.RECLAIMED, slot.place, State.EDGE_BATCH, now_s=now_s)
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
            self.assign_all(half, Cause.LIMITS, now_s=now_s)

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
            self._note_move(oldest, Cause.TOP_UP, buffer.place, State.FUNCTION, now_s=now_s)
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
                    self._note_move(queued, Cause.OVERDUE_SENT, buffer.place, State.FUNCTION, now_s=now_s)
                why = WhyLeft.FULL if full else WhyLeft.TIMER
                self.function.send(batch, buffer, queues, now_s=now_s, why=why)

    def _no_longer_paid(self, queues: ModelQueues, batch: Sequence[QueuedRequest], *, now_s: float) -> None:
        """A request that the edge cannot take either ends: money that may come in an hour is not waited for."""
        for queued in batch:
            if not self.edges.all.usable(queues, queued):
                queues.overdue.remove(queued)
                self.assign(queued, now_s, Cause.LIMITS)

    def _review(self, queues: ModelQueues, *, now_s: float) -> None:
        """Moves requests whose place can no longer serve them while another still can."""
        if queues.any_bisected:
            self._review_halves(queues, now_s=now_s)
        for slot in self.edges.slots:
            if queues.next_batches[slot.number].items:
                self._review_next_batch(slot, queues, now_s=now_s)
        if queues.edge_later.items:
            self._review_later(queues, now_s=now_s)
        for buffer in queues.buffers:
            if buffer.queue.items:
                self._review_gathered(buffer, now_s=now_s)
        if queues.deferred.items:
            self._review_deferred(queues, now_s=now_s)

    def _review_later(self, queues: ModelQueues, *, now_s: float) -> None:
        while queues.edge_later.items:
            queued = queues.edge_later.first
            if self.edges.all.could_answer(queues, queued, now_s=now_s):
                return
            queues.edge_later.remove(queued)
            self.assign(queued, now_s, Cause.EDGE_DELAYED)
            if queued.state is State.EDGE_LATER:
                return

    def _review_deferred(self, queues: ModelQueues, *, now_s: float) -> None:
        deferred = queues.deferred
        while len(deferred) and now_s >= self.offers.deferred_until_s(queues, deferred.first, now_s=now_s):
            # Those that are due soon come along: together they cost less than one by one.
            own = queues.buffer_of(deferred.first)
            for queued in deferred.members[: 1 if own is None else max(1, own.prices.cheapest_size)]:
                deferred.remove(queued)
                queued.stop_deferring()
                self.assign(queued, now_s, Cause.DEFERRAL_OVER)

    def _review_gathered(self, buffer: FunctionBuffer, *, now_s: float) -> None:
        side = self.function.side
        while buffer.queue.items:
            queued = buffer.queue.first
            if queued.request.deadline_s > now_s and not side.stuck(buffer, queued, now_s=now_s):
                break
            buffer.leave(queued)
            self.assign(queued, now_s, Cause.NO_SLOT)
            if queued.state is State.FUNCTION:
                break
        if len(buffer.queue) and not side.affords_gathered(buffer, now_s=now_s):
            self.assign_all(buffer.queue.take_all(), Cause.SPEND_CAP, now_s=now_s)

    def _review_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        # Those that may be late stay in their halves: together again, they would be refused again, without end.
        over = (q for q in queues.in_halves() if q.request.deadline_s <= now_s)
        late = [q for q in over if not (q.late_allowed or queues.serves_late(q))]
        if late:
            queues.keep_bisected(lambda queued: queued not in late)
        for queued in late:
            self.assign(queued, now_s, Cause.BISECTED)

    def _review_next_batch(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> None:
        """The oldest leave for a function if the edge is delayed and this is their last chance; or give up."""
        terms, batch = queues.edges[slot.edge], queues.next_batches[slot.number]
        times = terms.times
        while batch.items and times is not None:
            oldest = batch.first
            deadline_s = oldest.request.deadline_s
            start_s = slot.start_s(queues, now_s=now_s, deadline_s=deadline_s)
            if start_s + times.safe_s[min(batch.items, terms.limit)] <= deadline_s:
                return
            hopeless = start_s + times.median_s[min(oldest.request.items, times.max_batch)] > deadline_s
            if self._moves_to_another_slot(slot, queues, oldest, now_s=now_s):
                continue
            if self._leaves_for_function(slot, queues, oldest, now_s=now_s):
                slot.ahead = None
                batch.remove(oldest)
                self.function.join(queues, oldest, now_s=now_s)
            elif hopeless:
                batch.remove(oldest)
                self.assign(oldest, now_s, Cause.EDGE_DELAYED)
            else:
                return

    def _moves_to_another_slot(
        self, slot: EdgeSide, queues: ModelQueues, oldest: QueuedRequest, *, now_s: float
    ) -> bool:
        """Whether another slot's next batch takes the oldest member in time; moves it then."""
        if self.edges.alone is not None:
            return False
        other = self.edges.room_for(queues, oldest, now_s=now_s)
        if other is None or other is slot:
            return False
        price = queues.late_cost(oldest.request)
        offer = other.offer(queues, oldest, now_s=now_s, lateness_price=price)
        if offer.reason is not None:
            return False
        self._note(oldest, Cause.EDGE_DELAYED, (offer,), 0, now_s=now_s, lateness_price=price)
        queues.next_batches[slot.number].remove(oldest)
        queues.next_batches[other.number].add(oldest)
        return True

    def _leaves_for_function(self, slot: EdgeSide, queues: ModelQueues, oldest: QueuedRequest, *, now_s: float) -> bool:
        """Whether a function's offer to the oldest member costs less than to keep it; notes it then."""
        price = queues.late_cost(oldest.request)
        by_function = self.function.side.offer(queues, oldest, now_s=now_s, lateness_price=price)
        if not by_function.possible:
            return False
        offers = (slot.staying_offer(queues, oldest, now_s=now_s, lateness_price=price), by_function)
        if offers[0].total <= by_function.total:
            return False
        self._note(oldest, Cause.EDGE_DELAYED, offers, 1, now_s=now_s, lateness_price=price)
        return True


def _waits_for_edge_until_s(queued: QueuedRequest) -> float:
    """Returns until when a request that misses its objective on purpose waits for room on the edge alone."""
    request = queued.request
    return request.arrived_at_s + WAITS_FOR_EDGE * (request.deadline_s - request.arrived_at_s)

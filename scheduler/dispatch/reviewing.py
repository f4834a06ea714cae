"""The review: requests that wait where they can no longer be served in time are moved while another place still can."""

from dataclasses import dataclass

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.offers import Offers
from scheduler.dispatch.placing import Placing
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.decisions import Cause
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Backend


@dataclass(slots=True)
class Reviewing:
    """Looks at all queues of a model, whenever something may have changed."""

    placing: Placing
    edges: Edges
    function: FunctionSending
    offers: Offers

    def review(self, queues: ModelQueues, *, now_s: float, edges: bool = True) -> None:
        """Moves requests whose place can no longer serve them while another still can.

        Args:
            queues: of a lane.
            now_s: the present.
            edges: whether its next batches, and what waits behind them, are looked at too.
        """
        if queues.any_bisected:
            self._review_halves(queues, now_s=now_s)
        for slot in self.edges.slots if edges else ():
            if queues.next_batches[slot.number].items:
                self._review_next_batch(slot, queues, now_s=now_s)
        if edges and queues.edge_later.items:
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
            self.placing.assign(queued, now_s, Cause.EDGE_DELAYED)
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
                self.placing.assign(queued, now_s, Cause.DEFERRAL_OVER)

    def _review_gathered(self, buffer: FunctionBuffer, *, now_s: float) -> None:
        side = self.function.side
        while buffer.queue.items:
            queued = buffer.queue.members[0]
            if queued.request.deadline_s > now_s and not side.stuck(buffer, queued, now_s=now_s):
                break
            buffer.leave(queued)
            self.placing.assign(queued, now_s, Cause.NO_SLOT)
            if queued.state is State.FUNCTION:
                break
        if buffer.queue.items and not side.affords_gathered(buffer, now_s=now_s):
            self.placing.assign_all(buffer.queue.take_all(), Cause.SPEND_CAP, now_s=now_s)

    def _review_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        # Those that may be late stay in their halves: together again, they would be refused again, without end.
        over = (q for q in queues.in_halves() if q.request.deadline_s <= now_s)
        late = [q for q in over if not (q.late_allowed or queues.serves_late(q))]
        if late:
            queues.keep_bisected(lambda queued: queued not in late)
        for queued in late:
            self.placing.assign(queued, now_s, Cause.BISECTED)
        if self.edges.alone is None:
            self._place_members_of_halves(queues, now_s=now_s)

    def _place_members_of_halves(self, queues: ModelQueues, *, now_s: float) -> None:
        """Places one by one the members of halves that no edge server takes as they are: a limit has become lower."""
        halves = queues.bisected[Backend.EDGE]
        over = {id(q) for half in halves if not self.edges.takes_half(queues, half) for q in half}
        if over:
            members = [q for half in halves for q in half if id(q) in over]
            queues.keep_bisected(lambda queued: id(queued) not in over)
            self.placing.assign_all(members, Cause.BISECTED, now_s=now_s)

    def _review_next_batch(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> None:
        """The oldest leave for a function if the edge is delayed and this is their last chance; or give up."""
        terms, batch = queues.edges[slot.edge], queues.next_batches[slot.number]
        times = terms.times
        while batch.items and times is not None:
            oldest = batch.members[0]
            deadline_s = oldest.request.deadline_s
            start_s = slot.start_s(queues, now_s=now_s, deadline_s=deadline_s)
            if start_s + times.safe_s[min(batch.items, terms.limit)] <= deadline_s:
                return
            hopeless = start_s + times.median_s[min(oldest.request.items, times.max_batch)] > deadline_s
            if self._moves_to_another_slot(slot, queues, oldest, now_s=now_s):
                continue
            if self._leaves_for_function(slot, queues, oldest, now_s=now_s):
                batch.remove(oldest)
                self.function.join(queues, oldest, now_s=now_s)
            elif hopeless:
                batch.remove(oldest)
                self.placing.assign(oldest, now_s, Cause.EDGE_DELAYED)
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
        self.placing.note(oldest, Cause.EDGE_DELAYED, (offer,), 0, now_s=now_s, lateness_price=price)
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
        self.placing.note(oldest, Cause.EDGE_DELAYED, offers, 1, now_s=now_s, lateness_price=price)
        return True

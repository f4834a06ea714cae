"""Placing: each request goes where its offers' total is least, and what was decided is recorded."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from scheduler.dispatch.choice import Choice
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import buffer_of
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.offers import IN_DEMAND, NOT_ALLOWED, Offers
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.refusals import Refusals
from scheduler.dispatch.request_table import RequestTable
from scheduler.domain.decisions import NO_CHOICE, Cause, Decision, Offer, Reason, move
from scheduler.domain.errors import Refusal
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place


@dataclass(slots=True)
class Placing:
    """Puts requests into queues, or ends them; records why."""

    lanes: Lanes
    edges: Edges
    function: FunctionSending
    table: RequestTable
    offers: Offers
    refusals: Refusals
    plan_id: int = 0
    """Of the plan in force, for the record."""

    def assign(self, queued: QueuedRequest, now_s: float, cause: Cause = Cause.ARRIVAL) -> None:
        """Puts a request that is in no queue where it costs least in all, or ends it.

        Args:
            queued: in no queue and in no batch.
            now_s: the present.
            cause: why now, for the record.
        """
        request, lanes = queued.request, self.lanes
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
        self.note(queued, cause, choice.offers, choice.chosen, now_s=now_s, lateness_price=price)
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

    def assign_all(self, waiting: Iterable[QueuedRequest], cause: Cause, *, now_s: float) -> None:
        """Places requests that are in no queue."""
        for queued in waiting:
            self.assign(queued, now_s, cause)

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
        self.note(queued, cause, offers, -1, now_s=now_s, lateness_price=price)
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
        price = queues.late_cost(queued.request)
        choice = self.offers.on_purpose.of_member(queues, queued, now_s=now_s, saved=saved)
        self.note(queued, Cause.DISPLACED, choice.offers, choice.chosen, now_s=now_s, lateness_price=price)
        queues.lateness.spend(queued.request.class_name, saved=saved, now_s=now_s)
        queued.spend()
        if choice.chosen < 0:
            self._refuse(queues, queued, choice.offers, now_s=now_s)
        else:
            queues.serve_overdue(queued, now_s=now_s)

    def note(
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
        request = queued.placed() if queued.attempts else queued.request
        decision = Decision(request, now_s, cause, self.plan_id, lateness_price, compared, offers, chosen)
        # Of an offer without a rival it is known, and most requests have had no other reason.
        reason = Reason.LEAST_TOTAL if chosen == 0 and len(offers) == 1 else decision.reason
        if reason is not queued.reason:
            queued.note(reason)
        self.table.outbox.ring.note(decision)

    def note_move(self, queued: QueuedRequest, cause: Cause, place: Place, queue: State, *, now_s: float) -> None:
        """Records a move that is no choice."""
        moved = move(place, queue, now_s=now_s)
        decision = Decision(queued.placed(), now_s, cause, self.plan_id, 0.0, False, moved, 0)
        queued.note(decision.reason)
        self.table.outbox.ring.note(decision)

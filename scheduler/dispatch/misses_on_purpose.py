"""Misses on purpose: where being in time costs more than a miss, the class whose lateness is cheapest gives way."""

import math
from dataclasses import dataclass

from scheduler.dispatch.choice import Choice
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.decisions import Offer, Reason
from scheduler.domain.lifecycle import State


@dataclass(slots=True)
class MissesOnPurpose:
    """Finds what misses its objective where a class spends its budget: the request itself, or a member in its way."""

    edges: Edges
    function: FunctionSide

    def choice(
        self,
        queues: ModelQueues,
        queued: QueuedRequest,
        offers: tuple[Offer, ...],
        *,
        now_s: float,
        lateness_price: float,
    ) -> Choice | None:
        """Returns the choice by which a request misses on purpose; None where all are to be in time.

        A miss is worth it where it costs less than all offers, and only what a class has saved is spent. If another
        class misses for less than this one, the first member of that class leaves the edge's next batch for this
        request.

        Args:
            queues: of its model, with a class that spends.
            queued: without a place.
            offers: those of the edge servers, and the function's.
            now_s: the present.
            lateness_price: of the request's class.
        """
        least = min(offers, key=lambda offer: offer.total)
        if queued.spent or least.total == math.inf:
            return None
        own = least.total
        if self._may_miss(queues, queued):
            own = min(own, self._price(queues, queued, lateness_price))
        found = self._in_the_way(queues, queued, below=own, now_s=now_s, lateness_price=lateness_price)
        if found is not None:
            slot, offer, member = found
            return Choice((*offers, offer), len(offers), slot, offers[-1], member, given_way=least.money)
        if own >= least.total:
            return None
        return self.miss(queues, queued, offers, saved=least.money, lateness_price=lateness_price)

    def of_member(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, saved: float) -> Choice:
        """Returns the choice of a request that has just left the edge's next batch to miss for another."""
        price = queues.late_cost(queued.request)
        by_edges = [offer for offer, _ in self.edges.offers(queues, queued, now_s=now_s, lateness_price=price)]
        by_function = self.function.offer(queues, queued, now_s=now_s, lateness_price=price)
        return self.miss(queues, queued, (*by_edges, by_function), saved=saved, lateness_price=price)

    def miss(
        self,
        queues: ModelQueues,
        queued: QueuedRequest,
        offers: tuple[Offer, ...],
        *,
        saved: float,
        lateness_price: float,
    ) -> Choice:
        """Returns the choice of a request that misses on purpose.

        A class that is served late waits for room on the edge, whose seconds others could use; any other is told at
        once.
        """
        closed = tuple(map(_closed_by_budget, offers))
        if not queues.serves_late(queued):
            return Choice(closed, -1, no_room_for=closed[-1], saved=saved)
        late = self.waiting_for_edge(queues, queued, lateness_price=lateness_price)
        least = min(offer.total for offer in offers)
        others = offers if late.total < least else closed
        return Choice((*others, late), len(offers), no_room_for=offers[-1], saved=saved)

    def waiting_for_edge(self, queues: ModelQueues, queued: QueuedRequest, *, lateness_price: float) -> Offer:
        """Returns the offer to be answered late, by the edge, when all that can be in time have been served."""
        place, items = self.edges.first.place, queued.request.items
        others = queues.lateness.prices.seconds_worth * items
        total = lateness_price + others
        return Offer(place, State.OVERDUE, None, math.inf, math.inf, items, 1.0, 0.0, others, total)

    def _may_miss(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether a request may miss now: its class has saved for it, and one that is served late waits for an edge."""
        name = queued.request.class_name
        if queued.spent or name not in queues.spending or not queues.lateness.affords_miss(name):
            return False
        return not queues.serves_late(queued) or self.edges.all.usable(queues, queued)

    def _price(self, queues: ModelQueues, queued: QueuedRequest, late_cost: float) -> float:
        """Returns what it costs that a request misses: its lateness, and the edge's seconds if it is served late."""
        if not queues.serves_late(queued):
            return late_cost
        return late_cost + queues.lateness.prices.seconds_worth * queued.request.items

    def _in_the_way(
        self, queues: ModelQueues, queued: QueuedRequest, *, below: float, now_s: float, lateness_price: float
    ) -> tuple[EdgeSide, Offer, QueuedRequest] | None:
        """Returns a slot, its offer for the place of a member that misses for less than others, and that member.

        Of each class the first of a batch is asked: its deadline leaves the batch the least room.
        """
        found: tuple[EdgeSide, Offer, QueuedRequest] | None = None
        if queues.spending <= {queued.request.class_name}:
            return None  # no member of another class may miss
        for slot in self.edges.slots:
            if slot.gate(queues, queued) is not None:
                continue
            batch, seen = queues.next_batches[slot.number], {queued.request.class_name}
            for member in tuple(batch.members):
                request = member.request
                if request.class_name in seen:
                    continue
                seen.add(request.class_name)
                price = self._price(queues, member, queues.late_cost(request))
                if price >= below or not self._may_miss(queues, member):
                    continue
                batch.remove(member)
                offer = slot.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
                batch.add(member)
                others = offer.cost_to_others + price
                total = offer.money + lateness_price * offer.late_probability + others
                if offer.reason is None and total < below:
                    below, offer = total, offer._replace(displaces=request.request_id)
                    found = slot, offer._replace(cost_to_others=others, total=total), member
        return found


def _closed_by_budget(offer: Offer) -> Offer:
    """Returns an offer with the gate that its class rather misses than takes it; one that has a gate keeps it."""
    return offer if offer.reason else offer._replace(reason=Reason.BUDGET, cost_to_others=0.0, total=math.inf)

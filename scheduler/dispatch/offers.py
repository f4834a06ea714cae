"""Asks the places for their offers for one request, and compares the totals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.choice import Choice
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edge_trials import EdgeTrials
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide, allowed
from scheduler.dispatch.misses_on_purpose import MissesOnPurpose
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.spend_cap import OverCap
from scheduler.domain.decisions import Offer, Reason, impossible
from scheduler.domain.lifecycle import State

MAX_ASKED = 16
"""Members of a slot's next batch that are asked to make room. Bounds the work of a decision. Judgement: with 1 cost
stays within 0.05 %."""
DEFERRAL_RESERVE = 1.5
"""So many times what a deferrable request needs at the end is kept for it. Judgement: in simulations of 3,000 requests
halving it changes cost within noise, doubling it by +0.6 % (in time -0.1 points)."""


NOT_ALLOWED = frozenset(
    {
        *(Reason.CLASS, Reason.NO_BACKEND, Reason.FAILED_THERE),
        *(Reason.QUOTA, Reason.TOO_LARGE, Reason.CIRCUIT_OPEN),
    }
)
"""Gates of a function that is not there for a request, whatever its load."""
IN_DEMAND = (None, Reason.TOO_RISKY, Reason.COLD)
"""Gates (None: none) of functions that take a request or should have taken it."""


@dataclass(slots=True)
class Offers:
    """Asks the places for their offers. At equal totals the one that was asked first is chosen: the edge."""

    edges: Edges
    function: FunctionSide
    trials: EdgeTrials = field(init=False)
    on_purpose: MissesOnPurpose = field(init=False)

    def __post_init__(self) -> None:
        """Starts without trials."""
        self.trials = EdgeTrials(self.edges)
        self.on_purpose = MissesOnPurpose(self.edges, self.function)

    def compare(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float) -> Choice:
        """Returns the offers for a request and the choice.

        The edge is asked first; a function only where it could cost less. Where neither is possible, the places of last
        resort are asked: that of another request, a later edge batch, and in the end to be answered late.
        """
        if queues.deferrable and self.may_defer(queues, queued, now_s=now_s):
            return Choice((self._deferral(),), 0)
        if queued.only_edge and self.edges.all.usable(queues, queued):
            return Choice((self.on_purpose.waiting_for_edge(queues, queued, lateness_price=lateness_price),), 0)
        alone = self.edges.alone
        if alone is None:
            return self._compare_all(queues, queued, now_s=now_s, lateness_price=lateness_price)
        by_edge = alone.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
        if by_edge.total <= queues.lateness.prices.min_money * queued.request.items:
            return Choice((by_edge,), 0, alone)
        by_function = self.function.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
        return self._choose(queues, queued, (by_edge,), by_function, alone, now_s=now_s, lateness_price=lateness_price)

    def _compare_all(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float
    ) -> Choice:
        """Returns the choice where there are several slots: each edge server makes one offer."""
        found = self.edges.offers(queues, queued, now_s=now_s, lateness_price=lateness_price)
        by_edges, least = tuple([offer for offer, _ in found]), self.edges.least(queues, found)
        if by_edges[least].total <= queues.lateness.prices.min_money * queued.request.items:
            return Choice(by_edges, least, found[least][1])
        by_function = self.function.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
        slot = found[least][1]
        return self._choose(queues, queued, by_edges, by_function, slot, now_s=now_s, lateness_price=lateness_price)

    def _choose(
        self,
        queues: ModelQueues,
        queued: QueuedRequest,
        by_edges: tuple[Offer, ...],
        by_function: Offer,
        slot: EdgeSide,
        *,
        now_s: float,
        lateness_price: float,
    ) -> Choice:
        """Returns the choice between the edge servers' offers, of which that of `slot` is the least, and functions."""
        offers, least = (*by_edges, by_function), slot.edge if len(by_edges) > 1 else 0
        by_edge = by_edges[least]
        if queues.spending:
            found = self.on_purpose.choice(queues, queued, offers, now_s=now_s, lateness_price=lateness_price)
            if found is not None:
                return found
        if by_edge.reason is None and by_edge.total <= by_function.total:
            return Choice(offers, least, slot)
        if by_function.reason is None:
            return Choice(offers, len(by_edges), no_room_for=by_function)
        return self._last_resort(queues, queued, offers, now_s=now_s, lateness_price=lateness_price)

    def after_failure(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float
    ) -> tuple[Offer, ...]:
        """Returns the offers for a request that a side has failed and that the other side cannot answer in time.

        A request changes sides once: a side that it was on before, or that failed it, is closed to it.
        """
        found = self.edges.offers(queues, queued, now_s=now_s, lateness_price=lateness_price)
        by_function = self.function.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
        tried = {attempt.endpoint for attempt in queued.attempts}
        return tuple(
            impossible(offer.place, offer.queue, offer.reason if offer.reason is Reason.QUOTA else Reason.FAILED_THERE)
            if offer.place.endpoint in tried
            else offer
            for offer in (*[offer for offer, _ in found], by_function)
        )

    def _deferral(self) -> Offer:
        """Returns the offer to wait for an idle edge; when that will be is not forecast."""
        return Offer(self.edges.first.place, State.DEFERRED, None, math.inf, math.inf, 0, 0.0, 0.0, 0.0, 0.0)

    def _last_resort(
        self,
        queues: ModelQueues,
        queued: QueuedRequest,
        offers: tuple[Offer, ...],
        *,
        now_s: float,
        lateness_price: float,
    ) -> Choice:
        # Asked here what is cheap to know, as many requests come here while the edge is busy.
        alone, by_function = self.edges.alone, offers[-1]
        if alone is None or alone.occupancy.batch_id is None:
            trial = self.trials.worth(queues, queued, now_s=now_s)
            if trial is not None:
                return Choice(offers, trial.edge, trial, trial=True)
        gives_way = by_function.reason is Reason.SPEND_CAP and self.function.gives_way(queues, queued, now_s=now_s)
        if gives_way:
            # What the edge has left is kept for requests of higher priority.
            kept = impossible(self.edges.first.place, State.EDGE_LATER, Reason.GIVES_WAY)
            return Choice((*offers, kept), -1, no_room_for=by_function)
        slot, in_place_of, displaced = self._displacing(queues, queued, now_s=now_s, lateness_price=lateness_price)
        later = self._later(queues, queued, now_s=now_s, lateness_price=lateness_price)
        asked, offers = len(offers), (*offers, in_place_of, later)
        if in_place_of.reason is None and in_place_of.total <= later.total:
            return Choice(offers, asked, slot, by_function, displaced)
        if later.reason is None:
            return Choice(offers, asked + 1, no_room_for=by_function)
        if self._worth_a_trial(queues, queued, by_function, now_s=now_s):
            return Choice(offers, asked - 1, no_room_for=by_function, trial=True)
        late = self._late_offer(queues, queued, by_function, lateness_price=lateness_price)
        return Choice((*offers, late), asked + 2 if late.reason is None else -1, no_room_for=by_function)

    def _later(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float) -> Offer:
        """Returns the least offer of a place in an edge batch after the next ones."""
        if self.edges.alone is not None:
            return self.edges.alone.later_offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
        offers = [
            slot.later_offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
            for slot in self.edges.soonest(now_s)
        ]
        return min(offers, key=lambda offer: offer.total)

    def _displacing(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float
    ) -> tuple[EdgeSide | None, Offer, QueuedRequest | None]:
        """Returns the slot, its offer if a member of its next batch leaves, and that member.

        A member that a function can still serve costs what it costs there; one of lower priority gives way at no cost.
        """
        none, asked = None, MAX_ASKED
        for slot in self.edges.slots if self.edges.alone is not None else self.edges.in_order(now_s):
            gate = slot.gate(queues, queued)
            if gate is not None:
                none = none or impossible(slot.place, State.EDGE_BATCH, gate)
                continue
            if asked <= 0:
                break
            members = queues.next_batches[slot.number].members[: -asked - 1 : -1]
            asked -= len(members)
            found = self._in_place_of(slot, members, queues, queued, now_s=now_s, lateness_price=lateness_price)
            if found is not None:
                return slot, *found
            none = impossible(slot.place, State.EDGE_BATCH, Reason.NO_PLACE_GIVEN_UP)
        assert none is not None, "there is a slot"
        return None, none, None

    def _in_place_of(
        self,
        slot: EdgeSide,
        members: Sequence[QueuedRequest],
        queues: ModelQueues,
        queued: QueuedRequest,
        *,
        now_s: float,
        lateness_price: float,
    ) -> tuple[Offer, QueuedRequest] | None:
        """Returns a slot's offer if one of these members of its next batch leaves, and that member."""
        batch = queues.next_batches[slot.number]
        stay: set[tuple[object, ...]] = set()
        for other in members:
            request = other.request
            gives_way, kind = request.priority > queued.request.priority, _kind(other)
            # Of two that a function sees alike the one with the earlier deadline has less of a chance there.
            if kind in stay and not gives_way:
                continue
            elsewhere = self.function.offer(queues, other, now_s=now_s, lateness_price=queues.late_cost(request))
            if elsewhere.reason is not None:
                stay.add(kind)
                if not gives_way:
                    continue
            batch.remove(other)
            offer = slot.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
            batch.add(other)
            if offer.reason is not None:
                continue
            moved = elsewhere.total if elsewhere.reason is None else 0.0
            others = offer.cost_to_others + moved
            offer = offer._replace(
                cost_to_others=others,
                total=offer.money + lateness_price * offer.late_probability + others,
                displaces=other.request.request_id,
            )
            return offer, other
        return None

    def _worth_a_trial(self, queues: ModelQueues, queued: QueuedRequest, by_function: Offer, *, now_s: float) -> bool:
        """Whether a request that is certain to be late is sent all the same, to learn from it."""
        paid = by_function.reason is not Reason.SPEND_CAP
        return paid and self.function.worth_finding_out(queues, queued, now_s=now_s)

    def _late_offer(
        self, queues: ModelQueues, queued: QueuedRequest, by_function: Offer, *, lateness_price: float
    ) -> Offer:
        """Returns the offer to be answered after the deadline, where the class or the spend cap's rule says so."""
        edges, function = self.edges, self.function
        by_edge = edges.all.usable(queues, queued)
        over_cap = by_function.reason is Reason.SPEND_CAP
        paid_for = function.usable(queues, queued) and not over_cap
        place = edges.first.place if by_edge or not paid_for else by_function.place
        served = queues.serves_late(queued) and (by_edge or paid_for or self._may_come_back(queues, queued))
        if not served and not (over_cap and by_edge and function.over_cap is OverCap.SERVE_LATE):
            return impossible(place, State.OVERDUE, Reason.NOT_SERVED_LATE)
        others = queues.lateness.prices.spill_cost * queued.request.items
        total = lateness_price + others
        return Offer(place, State.OVERDUE, None, math.inf, math.inf, queued.request.items, 1.0, 0.0, others, total)

    def _may_come_back(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether no place answers just now, but one that is being probed could take this request when it is back."""
        model = queues.model.name
        edge_up, functions_up = self.edges.serves(model), self.function.circuit.serves(model)
        if not queued.kept and (edge_up or functions_up):
            return False
        away = [slot for slot in self.edges.ever_for(queues, queued) if not slot.circuit.serves(model)]
        return bool(away) or (allowed(queues, queued) and not functions_up)

    def may_defer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether a deferrable request still has time to wait for an idle edge."""
        if queued.request.class_name not in queues.deferrable or not queued.defers:
            return False
        if queued.failed_on and not self.edges.ever_for(queues, queued):
            return False
        return queued.request.items <= queues.edge_limit and now_s < self.deferred_until_s(queues, queued, now_s=now_s)

    def deferred_until_s(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> float:
        """Returns the moment from when on a deferrable request is placed like any other.

        The edge may then need a full batch's service before this request's own; a function its whole path, a cold start
        included.
        """
        function, request, needs_s = self.function, queued.request, math.inf
        for own in self.edges.of_edge:
            terms = queues.edges[own[0].edge]
            if terms.times is not None and own[0].usable(queues, queued):
                full_s = terms.times.median_s[max(1, terms.cap)]
                needs_s = min(needs_s, terms.times.safe_s[request.items] + full_s)
        needs_s = needs_s if math.isfinite(needs_s) else 0.0
        buffer = queues.buffer_of(queued)
        if buffer is not None and function.usable(queues, queued):
            items = min(max(buffer.prices.cheapest_size, request.items), buffer.cap)
            body_bytes = items * request.body_bytes // request.items
            takes_s = function.takes_s(buffer, items=items, body_bytes=body_bytes, now_s=now_s, safe=True)
            slo_s = request.deadline_s - request.arrived_at_s
            needs_s = max(needs_s, min(takes_s, slo_s) + buffer.cold * buffer.cold_start_s)
        return request.deadline_s - DEFERRAL_RESERVE * needs_s


def _kind(queued: QueuedRequest) -> tuple[object, ...]:
    """Returns all by which functions tell requests apart, but for the deadline."""
    request = queued.request
    return request.class_name, request.priority, request.items, request.body_bytes, queued.failed_on

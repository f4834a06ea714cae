"""The slots of all edge servers, in the order in which they will be free: what the rest of the data plane asks.

Each slot serves one batch at a time and has a next batch of its own. Anonymous slots, with one next batch for all, lose
near saturation to as many separate engines; so a newcomer joins the first slot, in the order of their free times, whose
next batch it does not break.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from scheduler.dispatch.circuit_breaker import Circuits
from scheduler.dispatch.edge_ahead import AheadOfEdges
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.edge_returns import take_over
from scheduler.dispatch.edge_sharing import EdgeSharing
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.learned_parallel import LearnedParallel
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import Outbox
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.tenants import Tenants
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Offer, Reason
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.plans import EdgeSettings
from scheduler.domain.requests import Backend, Place
from scheduler.domain.service_times import ServiceTimes

BelievedTimes = Callable[[str, float, float, str], "ServiceTimes | None"]
"""Returns service tables, of a model, a percentile, the present and an edge server."""
FULL = frozenset({Reason.BATCH_FULL, Reason.FIRST_DEADLINE})
"""Gates of a next batch that no other request of so many items or more passes either."""
COMPARED = 2
"""Slots of one edge whose next batches could take a request, of which the better is chosen. Bounds the work of a
decision: a third would start later still."""
NEAR = 0.01
"""Part of the money of the cheapest request within which totals count as equal: the slot that is free first wins."""


@dataclass(slots=True)
class Edges:
    """All slots of all edge servers."""

    lanes: Lanes
    circuits: Circuits
    first: EdgeSide
    """The first server's first slot; all others are made like it."""
    settings: tuple[EdgeSettings, ...] = ()
    learned: LearnedParallel = field(default_factory=LearnedParallel)
    """How many slots the edge servers have of which the settings do not say it."""
    leads: AheadOfEdges = field(default_factory=AheadOfEdges)
    """How long before the end of a batch the next one leaves."""
    sharing: EdgeSharing = field(default_factory=EdgeSharing)
    """What batches waited for those of other daemons."""
    leading: bool = False
    """Whether it leaves before that end on some edge server."""
    slots: tuple[EdgeSide, ...] = field(init=False)
    alone: EdgeSide | None = field(init=False)
    """The slot where there is one; None where there are several."""
    all: "EdgeSide | Edges" = field(init=False)
    """What is asked for all slots together: the slot itself where there is one, as that takes a call less."""
    of_edge: tuple[tuple[EdgeSide, ...], ...] = field(init=False)
    """By number of the edge server: its slots."""
    _order: list[EdgeSide] = field(default_factory=list)
    """The slots in the order in which they will be free, as found last."""
    _ordered_until_s: float = -math.inf
    """Until when that holds if no batch leaves or comes back."""
    _ordered_from_s: float = math.inf
    _behind_s: float = 0.0
    """Of the batch released last: seconds for which it was in flight behind another one."""
    _waited_s: float = 0.0
    """The part of them in which it waited for the device."""

    def __post_init__(self) -> None:
        """Starts with one slot."""
        self.slots, self.alone, self.of_edge = (self.first,), self.first, ((self.first,),)
        self.all = self.first

    def configure(self, settings: Sequence[EdgeSettings]) -> None:
        """Takes over which edge servers there are, and how many slots each has. No next batch may hold a request."""
        self.settings = settings = tuple(settings)
        self.leads.configure(settings)
        of_edge: list[tuple[EdgeSide, ...]] = []
        number, slots = 0, self.learned.slots(settings)
        for edge, server in enumerate(settings):
            place, circuit = Place.edge(server.name), self.circuits.edges[server.name]
            own, wanted = [slot for slot in self.slots if slot.place == place], slots[server.name]
            if len(own) > wanted:
                # Those stay that are busy longest: what the others have in flight comes back before they are free.
                own = sorted(own, key=lambda slot: slot.occupancy.free_at_s(0.0), reverse=True)[:wanted]
            while len(own) < wanted:
                own.append(replace(self.first, occupancy=EdgeOccupancy()))
            for slot in own:
                slot.place, slot.circuit, slot.edge, slot.number = place, circuit, edge, number
                slot.occupancy.lead(self.leads.lead_s(server.name), measures_next=slot.occupancy.measures_next)
                number += 1
            of_edge.append(tuple(own))
        self.of_edge = tuple(of_edge)
        self.slots = tuple([slot for own in of_edge for slot in own])
        self.first, self.alone = self.slots[0], self.slots[0] if number == 1 else None
        for slot in self.slots:
            slot.order, slot.moved = (), None if self.alone else self.moved
        self.moved()
        self.all, self.leading = self.alone or self, any([slot.occupancy.lead_s for slot in self.slots])
        self.circuits.suspicion.slots = {own[0].place.name: [slot.occupancy for slot in own] for own in of_edge}
        self.lanes.edges = {own[0].place.name: len(own) for own in of_edge}

    @classmethod
    def of(
        cls,
        settings: Sequence[EdgeSettings],
        lanes: Lanes,
        circuits: Circuits,
        outbox: Outbox,
        tenants: Tenants,
    ) -> "Edges":
        """Returns the slots of the edge servers that the settings name, all idle."""
        made = cls(lanes, circuits, EdgeSide(lanes, EdgeOccupancy(), circuits.edge, outbox, tenants))
        made.configure(settings)
        made.learned.listener = lambda: made.configure(made.settings)
        return made

    def moved(self) -> None:
        """Notes that a batch left or came back: the order of the slots is to be found anew."""
        self._ordered_until_s = -math.inf

    def in_order(self, now_s: float) -> Sequence[EdgeSide]:
        """Returns the slots in the order in which they are expected to be free."""
        if self.alone is not None:
            return self.slots
        if self._ordered_from_s <= now_s <= self._ordered_until_s:
            return self._order
        at_s: list[tuple[float, float, int]] = []
        until_s = math.inf
        for slot in self.slots:
            occupancy = slot.occupancy
            if occupancy.batch_id is None:
                at_s.append((now_s, 0.0, slot.number))
                continue
            finish_s = occupancy.predicted_finish_s
            until_s = min(until_s, finish_s)
            if occupancy.lead_s or occupancy.ahead_id is not None:
                # Beside an idle slot, one whose batch may be sent ahead comes second.
                at_s.append((occupancy.free_at_s(now_s), finish_s, slot.number))
                continue
            # As `EdgeOccupancy.free_at_s` says, of all slots in each call.
            at_s.append((max(finish_s, now_s + (now_s - finish_s)), 0.0, slot.number))
        at_s.sort()
        slots = self.slots
        self._order = order = [slots[number] for _, _, number in at_s]
        for rank, slot in enumerate(order):
            slot.order, slot.rank = order, rank
        # Of a batch that is overdue the free time moves with the present.
        self._ordered_from_s, self._ordered_until_s = now_s, max(now_s, until_s)
        return order

    def offers(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, lateness_price: float
    ) -> list[tuple[Offer, EdgeSide]]:
        """Returns the offer of each edge server, with its slot: the first one whose next batch the request joins.

        Where the batch of an earlier slot would cost the others much, a later one is asked too. A slot that was found
        full is asked only where no other is there; one without a next batch, where none before it refused to open one.
        """
        near, batches = NEAR * queues.lateness.prices.min_money, queues.next_batches
        best: list[tuple[Offer, EdgeSide] | None] = [None] * len(self.of_edge)
        closed, possible = [False] * len(best), [0] * len(best)
        order, marks = self.in_order(now_s), len(self.lanes.all) == 1 and queued.request.items == 1
        for slot in order:
            edge, batch = slot.edge, batches[slot.number]
            known = best[edge]
            if possible[edge] >= COMPARED or (known is not None and known[0].total <= near):
                continue
            if batch.full or (closed[edge] and not batch.items):
                continue
            offer = slot.offer(queues, queued, now_s=now_s, lateness_price=lateness_price)
            if known is None or offer.total < known[0].total - near:
                best[edge] = (offer, slot)
            if offer.reason is None:
                possible[edge] += 1
            else:
                if not batch.items:
                    closed[edge] = True
                elif marks and offer.reason in FULL:
                    batch.full = True
        for edge, found in enumerate(best):
            if found is None:
                slot = next(slot for slot in order if slot.edge == edge)
                best[edge] = slot.offer(queues, queued, now_s=now_s, lateness_price=lateness_price), slot
        return [found for found in best if found is not None]

    def least(self, queues: ModelQueues, found: Sequence[tuple[Offer, EdgeSide]]) -> int:
        """Returns the index of the least of the edge servers' offers; of those near it, the one that starts first."""
        if len(found) == 1:
            return 0
        limit = min([offer.total for offer, _ in found]) + NEAR * queues.lateness.prices.min_money
        near = [i for i, (offer, _) in enumerate(found) if offer.total <= limit]
        return min(near, key=lambda i: found[i][0].start_s)

    @staticmethod
    def tables(believed: BelievedTimes, queues: ModelQueues, now_s: float) -> list[ServiceTimes | None]:
        """Returns what is believed of each edge server's services, at the percentile that the prices ask for."""
        percentile = queues.lateness.prices.edge_percentile
        return [believed(queues.model.name, percentile, now_s, terms.name) for terms in queues.edges]

    def word(self, slot: EdgeSide) -> str:
        """Returns what the slot's edge server is called where clients are told of it."""
        return "edge" if len(self.of_edge) == 1 else f"edge {slot.place.name!r}"

    def serves(self, model: str) -> bool:
        """Whether some edge server is believed to answer with this model."""
        return any([own[0].circuit.serves(model) for own in self.of_edge])

    def ever_for(self, queues: ModelQueues, queued: QueuedRequest) -> list[EdgeSide]:
        """Returns a slot of each edge server that may take this request, whether it answers at present or not."""
        items, failed = queued.request.items, queued.failed_on
        first = [own[0] for own in self.of_edge]
        return [slot for slot in first if items <= queues.edges[slot.edge].limit and slot.place not in failed]

    def usable(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether this request may go to some edge server at all."""
        return any([own[0].usable(queues, queued) for own in self.of_edge])

    def takes_half(self, queues: ModelQueues, half: Sequence[QueuedRequest]) -> bool:
        """Whether some edge server takes half a batch as it is."""
        return any([own[0].takes_half(queues, half) for own in self.of_edge])

    def room_for(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> EdgeSide | None:
        """Returns the first slot whose next batch can take this request and still be in time; None if there is none."""
        batches, closed = queues.next_batches, [False] * len(self.of_edge)
        for slot in self.slots if self.alone is not None else self.in_order(now_s):
            batch = batches[slot.number]
            if batch.full or (closed[slot.edge] and not batch.items):
                continue
            if slot.has_room(queues, queued, now_s=now_s):
                return slot
            closed[slot.edge] = closed[slot.edge] or not batch.items
        return None

    def opens_for(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether this request could open the next batch of a slot that has none yet, and be in time."""
        batches = queues.next_batches
        empty = (slot for slot in self.slots if not batches[slot.number].items)
        return any(slot.has_room(queues, queued, now_s=now_s) for slot in empty)

    def deadline_does_not_count(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether each next batch is too full for this request, or has a member whose earlier deadline binds."""
        request = queued.request
        for slot in self.slots:
            batch = queues.next_batches[slot.number]
            if batch.items + request.items <= queues.edges[slot.edge].cap and (
                not batch.items or batch.first.request.deadline_s > request.deadline_s
            ):
                return False
        return True

    def full(self, queues: ModelQueues, *, now_s: float) -> bool:
        """Whether no slot's next batch has room for any request."""
        asked = (slot for slot in self.slots if queues.edges[slot.edge].limit)
        return all(slot.full(queues, now_s=now_s) for slot in asked)

    def could_answer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether some edge batch, at its expected speed, could still answer this request in time."""
        return any(slot.could_answer(queues, queued, now_s=now_s) for slot in self.soonest(now_s))

    def may_answer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether some edge, were it this model's alone, could still answer this request in time."""
        return any(slot.may_answer(queues, queued, now_s=now_s) for slot in self.soonest(now_s))

    def soonest(self, now_s: float) -> list[EdgeSide]:
        """Returns of each edge server the slot that will be free first."""
        order = self.in_order(now_s)
        if len(self.of_edge) == 1:
            return [order[0]]
        found: dict[int, EdgeSide] = {}
        for slot in order:
            found.setdefault(slot.edge, slot)
        return list(found.values())

    def idle(self, now_s: float) -> list[EdgeSide]:
        """Returns the slots that may be sent a batch now."""
        leading = self.leading
        return [
            slot
            for slot in self.slots
            if (slot.occupancy.batch_id is None or (leading and slot.occupancy.takes(now_s)))
            and slot.circuit.usable(now_s)
        ]

    def opens_at_s(self, now_s: float) -> float:
        """Returns when the next batch may be sent ahead, after the present; inf for never."""
        opens = [at_s for slot in self.slots if (at_s := slot.occupancy.opens_at_s) > now_s]
        return min(opens, default=math.inf)

    def next_to_leave(self, queues: ModelQueues, *, now_s: float) -> EdgeSide | None:
        """Returns, of the slots in whose next batches requests of a model wait, the one that is free first."""
        batches = queues.next_batches
        return next((slot for slot in self.in_order(now_s) if batches[slot.number].items), None)

    def has_next(self, slot: EdgeSide) -> bool:
        """Whether requests wait in a slot's next batches."""
        return any([lane.next_batches[slot.number].items for lane in self.lanes.all])

    def release(self, batch_id: int, *, now_s: float) -> None:
        """Notes that a batch came back; one that was given up before is ignored."""
        if self.alone is not None:
            self._behind_s = self.alone.occupancy.release(batch_id, now_s=now_s)
            return
        self._behind_s = 0.0
        for slot in self.slots:
            occupancy = slot.occupancy
            if batch_id in (occupancy.batch_id, occupancy.ahead_id):
                if occupancy.batch_id == batch_id and occupancy.ahead_id is None:
                    take_over(slot, self.of_edge[slot.edge], now_s=now_s)
                self._behind_s = occupancy.release(batch_id, now_s=now_s)
                self.moved()

    def learn(self, batch: Batch, report: BatchReport, *, now_s: float) -> BatchReport:
        """Learns from the batch released last whether one is sent ahead; returns its report without own waits."""
        self._waited_s, place = 0.0, batch.place
        known = self.leads.known.get(place.name) if place.backend is Backend.EDGE else None
        if known is not None:
            self._waited_s, changed = known.answered(report, behind_s=self._behind_s, now_s=now_s)
            if changed:
                self._lead(place.name)
        clear = place.name not in self.learned.open or self.lanes.edges.get(place.name) == 1
        return self.sharing.without_own_waits(batch, report, waited_s=self._waited_s, clear=clear)

    def too_many(self, batch: Batch, kind: FailureKind, *, now_s: float) -> bool:
        """Whether an edge refused a batch that was sent ahead because it has another: it is sent none for a while."""
        self.sharing.failed(batch, kind, slots=self.lanes.edges.get(batch.place.name, 1))
        if kind is not FailureKind.THROTTLED or batch.backend is not Backend.EDGE:
            return False
        if not any([slot.occupancy.was_sent_ahead(batch.batch_id) for slot in self.slots]):
            return False
        self.leads.refused(batch.place.name, now_s)
        self._lead(batch.place.name)
        return True

    def _lead(self, edge: str) -> None:
        # After a reload nothing may be sent ahead to it any more, while a batch still is.
        known = self.leads.known.get(edge)
        lead_s, measures_next = (0.0, False) if known is None else (known.used_lead_s, known.measures_next)
        for slot in self.slots:
            if slot.place.name == edge:
                slot.occupancy.lead(lead_s, measures_next=measures_next)
        self.leading = any([slot.occupancy.lead_s for slot in self.slots])
        self.moved()

    def answered(self, batch: Batch, now_s: float) -> bool:
        """Learns from a batch that is back how many its edge serves at once; returns whether it is now another number.

        Only one beside which all its other slots are busy tells anything.
        """
        edge = batch.place.name
        if edge not in self.learned.open:
            return False
        own: Sequence[EdgeSide] = ()
        for slots in self.of_edge:
            if slots[0].place.name == edge:
                own = slots
                break
        if len(own) > 1 and sum([slot.occupancy.batch_id is not None for slot in own]) < len(own) - 1:
            return False
        lanes = self.lanes.all
        ahead = any([slot.occupancy.behind_s > 0.0 for slot in own if not slot.occupancy.idle])
        needed = ahead or any([lane.next_batches[slot.number].items for lane in lanes for slot in own])
        times = next((lane.times_of(batch) for lane in lanes if lane.model.name == batch.model), None)
        known = self.learned.of(edge)
        if times is not None:
            known.answered(batch, times, needed=needed, now_s=now_s, waited_s=self._waited_s)
        return known.wanted != len(own)

    def refused(self, batch: Batch, now_s: float) -> bool:
        """Does the same for a batch that its edge refused as one too many."""
        if batch.place.name not in self.learned.open:
            return False
        self.learned.refused(batch, now_s)
        return self.learned.of(batch.place.name).wanted != self.lanes.edges.get(batch.place.name)

    def said(self, probe: ProbeMeasured) -> bool:
        """Notes how many batches at once an edge server says that it serves; returns whether it is another number."""
        edge = probe.place.name
        if probe.parallel is None or edge not in self.learned.open:
            return False
        self.learned.said(edge, probe.parallel)
        return self.learned.of(edge).wanted != self.lanes.edges.get(edge)

    def not_before_s(self) -> float:
        """Returns when the first edge server gets batches again that takes none now."""
        return min([own[0].circuit.not_before_s for own in self.of_edge])

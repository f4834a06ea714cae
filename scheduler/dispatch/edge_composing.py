"""What a slot of an edge server sends when it is free: which model's batch, and which requests make it up."""

import math
from collections.abc import Sequence
from itertools import islice

from scheduler.dispatch.edge_batch import Composition, fill_up
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.shared_batch import compose_shared, in_turn
from scheduler.dispatch.waiting_line import NO_RANK, Rank, in_order, looked_at
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Backend

PENALTY_WITH_FUNCTION = 5.0
"""Items an edge batch must gain to be worth one late request: a request that is left over can still pay for a function.
Judgement: halving it or a million instead changes no simulation, 0 changes cost by +0.7 %."""
PENALTY_EDGE_ONLY = 1.0
"""Without a function a request that is left over may be lost too, so a served item weighs as much as one given up.
Judgement: for an edge alone at 80 to 120 requests a second and SLOs of 0.4 to 1 s (the suites have none that is so
tight), 1.0 points more are in time with half of it, 2.0 points fewer with twice as much."""
PENALTY_OVERLOADED = 0.0
"""With more arriving than the edge can serve and no function to take it, some are lost anyway: goodput is all.
Judgement: with 1 instead cost is 3.9 % more, and 0.7 points fewer are in time."""
DEFERRED_SHARE = 0.25
"""Part of the tightest objective that an edge batch of deferrable requests may take: newcomers wait for it. Judgement:
halved or doubled, cost and lateness stay within noise."""


def by_urgency(slot: EdgeSide) -> list[ModelQueues]:
    """Returns the models with candidates for an edge batch, the earliest deadline first.

    Halves of a refused batch come before everything: their requests have waited longest.
    """
    if len(slot.lanes.all) == 1:
        queues = slot.lanes.all[0]
        return [queues] if _has_candidates(slot, queues) and slot.circuit.serves(queues.model.name) else []
    models = [
        queues for queues in slot.lanes.all if _has_candidates(slot, queues) and slot.circuit.serves(queues.model.name)
    ]
    if len(models) > 1:
        models.sort(key=lambda queues: _urgency_s(slot, queues))
    if len(models) > 1 and slot.tenants.shares and models[0].edge_later.items:
        # The backlog of one model is always the most urgent: whose tenants had least of the edge goes first.
        models.sort(key=lambda queues: _least_level_s(slot, queues))
    return models


def compose(slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> Composition:
    """Chooses the batch that leaves now, and takes its members out of the model's queues.

    Where tenants are told apart and there is a backlog, those that are behind in their use of the edge have their turn
    wherever their requests wait.

    Requests that are in neither `chosen` nor the queues any more are in `dropped` or `left`; the caller places them
    again.
    """
    terms, line = queues.edges[slot.edge], queues.edge_later
    times, cap = terms.times or terms.known_times, terms.cap
    now_s += slot.unsure_s(queues)
    counted_on = queues.next_batches[slot.number].take_all()
    if len(counted_on) == 1 and not line.items and not queues.overdue.items and not _gathers(queues):
        # One request waits: it is sent where it can be in time, as the search below would find.
        items, left_s = counted_on[0].request.items, counted_on[0].request.deadline_s - now_s
        if items <= times.largest_within(left_s, safe=True) or items <= times.largest_within(left_s, safe=False):
            return Composition(counted_on)
        return Composition((), (), counted_on)
    penalty, look, tenants = _drop_penalty(slot, queues), looked_at(cap), slot.tenants
    behind = _behind_elsewhere(slot, queues, counted_on, look=look) if tenants.shares and line.items else []
    others = list(in_order([counted_on, behind])) if behind else counted_on
    shared = tenants.several(line.kinds(), others)
    ranks = line.ranks(others, has_functions=queues.has_functions, stuck=shared, there=slot.place)
    first, *following = ranks or [NO_RANK]
    result = compose_shared(tenants, first, times, now_s=now_s, cap=cap, drop_penalty=penalty)
    if not result.chosen:
        result = compose_shared(tenants, first, times, now_s=now_s, cap=cap, drop_penalty=penalty, safe=False)
    chosen, dropped = list(result.chosen), list(result.dropped)
    for rank in following:
        if chosen:
            # Requests of a lower rank that make no member late.
            candidates = in_turn(tenants, rank.kinds(), rank.others, per_item_s=_per_item_s(slot, queues))
            chosen += fill_up(chosen, candidates, times, now_s=now_s, cap=cap, look=look)
            continue
        result = compose_shared(tenants, rank, times, now_s=now_s, cap=cap, drop_penalty=penalty)
        chosen, dropped = list(result.chosen), dropped + list(result.dropped)
    line.remove_all([q for q in (*chosen, *dropped) if q.state is State.EDGE_LATER])
    taken = []
    if behind:
        # What is not taken waits for its function call as before.
        waits = set(map(id, behind))
        taken, dropped = [q for q in chosen if id(q) in waits], [q for q in dropped if id(q) not in waits]
        for queued in taken:
            queues.leave_buffer(queued)
    gone = {id(q) for q in (*chosen, *dropped)}
    left = [q for q in counted_on if id(q) not in gone]
    # A request that was gathered for a function and has not left yet joins at no cost where the batch has room.
    gathered = (q for q in queues.gathered() if not q.failed_on or slot.place not in q.failed_on)
    joining = fill_up(chosen, gathered, times, now_s=now_s, cap=cap, look=look)
    for queued in joining:
        queues.leave_buffer(queued)
    overdue = _overdue_with(slot, queues, (*chosen, *joining), now_s=now_s)
    queues.overdue.remove_all(overdue)
    return Composition((*chosen, *joining, *overdue), dropped, left, (*taken, *joining, *overdue))


def _behind_elsewhere(
    slot: EdgeSide, queues: ModelQueues, counted_on: Sequence[QueuedRequest], *, look: int
) -> list[QueuedRequest]:
    """Returns requests gathered for functions whose tenants are behind others that have a backlog here.

    A function's price and the cost to others sent them there, where they wait behind the same backlog: without it they
    would have the edge.
    """
    tenants = slot.tenants
    labels = tenants.labels(queues.edge_later.kinds(), counted_on)
    ahead_s = max((tenants.levels_s[label] for label in labels), default=0.0)
    found = (
        queued
        for queued in queues.gathered()
        if tenants.levels_s[tenants.label(queued)] < ahead_s and slot.usable(queues, queued)
    )
    return list(islice(found, look))


def deferred_batch(slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> list[QueuedRequest]:
    """Returns deferrable requests for an edge that would be idle, few enough to be out of the way soon."""
    times, deferred = queues.edges[slot.edge].times, queues.deferred
    if times is None or not deferred.items:
        return []
    # The next newcomer may be of any model.
    others = slot.lanes.all
    urgent_s = [c.slo_s for other in others for c in other.model.classes if c.name not in other.deferrable]
    max_s = DEFERRED_SHARE * min(urgent_s, default=math.inf)
    cap = max(1, min(queues.edges[slot.edge].cap, times.largest_within(max_s, safe=False)))
    rank = Rank(False, [q for q in deferred if slot.usable(queues, q)], ())
    return list(compose_shared(slot.tenants, rank, times, now_s=now_s, cap=cap, drop_penalty=0.0).chosen)


def _per_item_s(slot: EdgeSide, queues: ModelQueues) -> float:
    cap = max(1, queues.edges[slot.edge].cap)
    return queues.edges[slot.edge].known_times.median_s[cap] / cap


def _drop_penalty(slot: EdgeSide, queues: ModelQueues) -> float:
    terms = queues.edges[slot.edge]
    times = terms.times or terms.known_times
    slots = sum([each.parallel for each in queues.edges if each.times is not None])
    if queues.edge_later.items and queues.rate_rps * times.median_s[terms.cap] > terms.cap * slots:
        return PENALTY_OVERLOADED
    return PENALTY_WITH_FUNCTION if queues.has_functions else PENALTY_EDGE_ONLY


def _overdue_with(
    slot: EdgeSide, queues: ModelQueues, chosen: Sequence[QueuedRequest], *, now_s: float
) -> list[QueuedRequest]:
    """Returns the overdue requests that fit into a batch of `chosen` without making it late."""
    if not queues.overdue.items:
        return []
    terms, items = queues.edges[slot.edge], sum([q.request.items for q in chosen])
    times, cap = terms.times or terms.known_times, terms.cap
    bind_s = min([q.request.deadline_s for q in chosen], default=math.inf)
    taken: list[QueuedRequest] = []
    look = looked_at(cap)
    for queued in in_turn(slot.tenants, queues.overdue.kinds(), (), per_item_s=_per_item_s(slot, queues)):
        if look <= 0 or (items and (items >= cap or now_s + times.safe_s[items + 1] > bind_s)):
            break
        size = items + queued.request.items
        fits = size <= max(cap, queued.request.items)
        if not fits or not slot.usable(queues, queued) or now_s + times.safe_s[size] > bind_s:
            look -= 1
            continue
        taken.append(queued)
        items = size
    return taken


def _has_candidates(slot: EdgeSide, queues: ModelQueues) -> bool:
    if not queues.edges[slot.edge].cap:
        return False
    if queues.next_batches[slot.number].items or queues.edge_later.items or queues.overdue.items:
        return True
    return bool(queues.bisected[Backend.EDGE]) or _gathers(queues)


def _gathers(queues: ModelQueues) -> bool:
    """Whether requests are gathered for functions."""
    return any([buffer.queue.items for buffer in queues.buffers]) if queues.buffers else False


def _urgency_s(slot: EdgeSide, queues: ModelQueues) -> float:
    if queues.bisected[Backend.EDGE]:
        return -math.inf
    return min([order.first.request.deadline_s for order in queues.hurried(slot.number) if order.items])


def _least_level_s(slot: EdgeSide, queues: ModelQueues) -> float:
    return slot.tenants.least_level_s(queues.edge_later.kinds(), queues.next_batches[slot.number])

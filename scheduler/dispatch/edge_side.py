"""The edge: one batch at a time, free, and worth filling well."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.edge_batch import Composition, compose, fill_up
from scheduler.dispatch.forecast import EdgeOccupancy, ServiceTimes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import DeadlineOrder, QueuedRequest
from scheduler.dispatch.request_table import Sender
from scheduler.domain.requests import Backend

PENALTY_WITH_FUNCTION = 5.0
"""Items an edge batch must gain to be worth one late request: whoever is left over can still pay for a function."""
PENALTY_EDGE_ONLY = 1.0
"""Without a function whoever is left over may be lost too, so a served item weighs as much as one given up."""
PENALTY_OVERLOADED = 0.0
"""With more arriving than the edge can serve and nobody else to take it, some are lost anyway: goodput is all."""
UNSATURATED = 0.9
"""Load up to which the edge's time is worth nothing: it will be idle."""
LEAST_LATE, MOST_LATE = 0.002, 0.5
"""Bounds of the probability with which the member that binds may be late."""
WORTH_NEW_TABLES = 0.15

PREDECESSOR = 0.5
"""Part of the scatter of the batch in flight that the next one is protected from: where it is late, the next can still
be cut at its fresh end."""
OVERBOOKED = 0.5
"""Standard deviations by which fewer newcomers are counted on than are expected: too many are cut off again, fresh and
cheap to spill; too few leave the batch small."""
BINDS_RARELY = 3.0
"""A batch's first deadline binds in about one batch of so many."""
DEFERRED_SHARE = 0.25
"""Part of the tightest objective that an edge batch of deferrable requests may take: newcomers wait for it."""
GIVE_UP_FACTOR = 3.0
GIVE_UP_AT_LEAST_S = 1.0


@dataclass(slots=True)
class EdgeSide:
    """Who joins the edge's next batch, and what that batch is when the edge becomes free."""

    all_queues: Mapping[str, ModelQueues]
    occupancy: EdgeOccupancy
    circuit: Circuit
    sender: Sender

    def usable(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether this request may go to the edge at all."""
        return (
            queued.failed_on is not Backend.EDGE and queued.request.items <= queues.edge_limit and self.circuit.closed
        )

    def start_s(self, queues: ModelQueues, *, now_s: float, deadline_s: float) -> float:
        """Returns when a batch of this model could start: after the one in flight and those of more urgent models."""
        start_s = self.occupancy.free_at_s(now_s)
        for other in self.all_queues.values():
            if other is not queues and len(other.next_batch) and other.next_batch.first.request.deadline_s < deadline_s:
                start_s += _times(other).median_s[min(other.next_batch.items, other.edge_limit)]
        return start_s

    def has_room(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether the next batch can take this request and still be in time for its oldest member.

        The first member is the one whose deadline will bind: it is let in only if the batch that will have gathered
        by the time the edge is free still meets its deadline. Only the very next batch is forecast: promising places
        further ahead is what collapses under load.
        """
        if not self.usable(queues, queued):
            return False
        request, times = queued.request, _times(queues)
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        if len(queues.next_batch):
            items = queues.next_batch.items + request.items
            if items > queues.edge_cap:
                return False
            bind_s = min(queues.next_batch.first.request.deadline_s, request.deadline_s)
        else:
            expected = queues.rate_rps * (start_s - now_s)
            joined = min(request.items + int(max(0.0, expected - OVERBOOKED * math.sqrt(expected))), queues.edge_cap)
            items, bind_s = max(request.items, joined), request.deadline_s
        return start_s + self._cautious_s(times, items) <= bind_s

    def _cautious_s(self, times: ServiceTimes, items: int) -> float:
        """Seconds that the next batch stays within: its own scatter, and that of the batch before it."""
        more = times.margin - 1.0
        if more <= 0.0:
            return times.median_s[items]
        service_s = times.median_s[items]
        return service_s + more * math.hypot(service_s, PREDECESSOR * self.occupancy.service_s)

    def overflows(self, queues: ModelQueues, *, now_s: float) -> bool:
        """Whether more requests are expected for the next batch than can be in time with its first member."""
        first, times = queues.next_batch.first.request, _times(queues)
        start_s = self.start_s(queues, now_s=now_s, deadline_s=first.deadline_s)
        expected = min(queues.next_batch.items + math.ceil(queues.rate_rps * (start_s - now_s)), times.max_batch)
        return expected > queues.edge_cap or start_s + self._cautious_s(times, expected) > first.deadline_s

    def could_answer(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether some edge batch, at its expected speed, could still answer this request in time."""
        if not self.usable(queues, queued):
            return False
        request, times = queued.request, _times(queues)
        start_s = self.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
        return start_s + times.median_s[request.items] <= request.deadline_s

    def by_urgency(self) -> list[ModelQueues]:
        """Returns the all_queues with candidates for an edge batch, the earliest deadline first.

        Halves of a refused batch come before everything: their requests have waited longest.
        """
        return sorted((queues for queues in self.all_queues.values() if _has_candidates(queues)), key=_urgency_s)

    def compose(self, queues: ModelQueues, *, now_s: float) -> Composition:
        """Chooses who is in the batch that starts now, and takes them out of the queues's queues.

        Whoever was counted on for this batch and is in neither `chosen` nor the queues any more is in `dropped`
        or `left`; the caller finds them another place.
        """
        times, cap = _times(queues), queues.edge_cap
        penalty = self._drop_penalty(queues)
        expected = _by_deadline((*queues.next_batch.take_all(), *queues.waiting.take_all()))
        first, *others = _by_rank(queues, expected)
        result = compose(first, times, now_s=now_s, cap=cap, drop_penalty=penalty)
        if not result.chosen:
            result = compose(first, times, now_s=now_s, cap=cap, drop_penalty=penalty, cautious=False)
        for rank in others:
            result = _filled_up(result, rank, times, now_s=now_s, cap=cap, drop_penalty=penalty)
        spilled = [q for q in queues.spilled() if q.failed_on is not Backend.EDGE]
        # Whoever was to be spilled but has not left yet rides along for nothing where the batch has room.
        free_riders = fill_up(result.chosen, spilled, times, now_s=now_s, cap=cap)
        for queued in free_riders:
            queues.take_back(queued)
        chosen = (*result.chosen, *free_riders)
        late = self._late_with(queues, chosen, now_s=now_s)
        queues.late.remove_all(late)
        return Composition((*chosen, *late), result.dropped, result.left, (*free_riders, *late))

    def deferred_batch(self, queues: ModelQueues, *, now_s: float) -> list[QueuedRequest]:
        """Returns deferrable requests for an edge that would be idle, few enough to be out of the way soon."""
        times, waiting = queues.edge_times, [q for q in queues.deferred if self.usable(queues, q)]
        if times is None or not waiting:
            return []
        # The next newcomer may be of any model.
        all_queues = self.all_queues.values()
        urgent_s = [c.slo_s for other in all_queues for c in other.model.classes if c.name not in other.deferrable]
        most_s = DEFERRED_SHARE * min(urgent_s, default=math.inf)
        cap = max(1, min(queues.edge_cap, times.largest_within(most_s, cautious=False)))
        return list(compose(waiting, times, now_s=now_s, cap=cap, drop_penalty=0.0).chosen)

    def send(self, members: Sequence[QueuedRequest], queues: ModelQueues, *, now_s: float) -> None:
        """Sends a batch; the edge must be idle."""
        service_s = _times(queues).median_s[min(sum(q.request.items for q in members), _times(queues).max_batch)]
        finish_s = now_s + service_s
        patience_s = max(GIVE_UP_AT_LEAST_S, GIVE_UP_FACTOR * service_s)
        last_deadline_s = max(q.request.deadline_s for q in members)
        batch = self.sender.send(
            members,
            backend=Backend.EDGE,
            now_s=now_s,
            finish_s=finish_s,
            service_s=service_s,
            give_up_at_s=min(max(finish_s, last_deadline_s), finish_s + patience_s) + patience_s,
        )
        self.occupancy.occupy(batch_id=batch.batch_id, now_s=now_s, finish_s=finish_s)

    def slope_s(self, queues: ModelQueues) -> float:
        """Returns the edge's seconds for one item more."""
        times, cap = _times(queues), max(1, queues.edge_cap)
        return (times.median_s[cap] - times.median_s[1]) / (cap - 1) if cap > 1 else times.median_s[1]

    def price(self, queues: ModelQueues) -> None:
        """Sets how cautious the edge is: as far as a request more in its batch is worth what it adds in lateness.

        Whoever is bound by its deadline is late with probability r; a newcomer delays everybody by the edge's seconds
        an item, which makes rate x seconds-an-item x r more of them late. While the edge is saturated its time is
        worth what it saves elsewhere, and most of what a request saves is what its seconds would save anyway.
        """
        lateness, times, cap = queues.lateness, _times(queues), queues.edge_cap
        late_cost = lateness.highest_late_cost(lateness.budgets)
        if late_cost <= 0 or not math.isfinite(lateness.spill_cost) or cap < 1:
            lateness.edge_percentile = queues.plan.percentile
            return
        items = _gathered(queues, times, cap)
        slope_s = self.slope_s(queues)
        load = queues.rate_rps * times.median_s[items] / items
        saturated = min(max((load - UNSATURATED) / (1.0 - UNSATURATED), 0.0), 1.0)
        part = slope_s * items / times.median_s[items]
        lateness.seconds_worth = lateness.spill_cost * saturated * part
        lateness.cut_cost = lateness.spill_cost * (1.0 - part)
        late = (lateness.spill_cost - lateness.seconds_worth) / (late_cost * (1.0 + queues.rate_rps * slope_s))
        wanted = 1.0 - min(max(BINDS_RARELY * late, LEAST_LATE), MOST_LATE)
        if abs(math.log((1.0 - wanted) / (1.0 - lateness.edge_percentile))) > WORTH_NEW_TABLES:
            lateness.edge_percentile = wanted

    def _drop_penalty(self, queues: ModelQueues) -> float:
        times = _times(queues)
        if len(queues.waiting) and queues.rate_rps * times.median_s[queues.edge_cap] > queues.edge_cap:
            return PENALTY_OVERLOADED
        return PENALTY_WITH_FUNCTION if queues.spills else PENALTY_EDGE_ONLY

    def _late_with(
        self, queues: ModelQueues, chosen: Sequence[QueuedRequest], *, now_s: float
    ) -> tuple[QueuedRequest, ...]:
        times, items = _times(queues), sum(q.request.items for q in chosen)
        bind_s = min((q.request.deadline_s for q in chosen), default=float("inf"))
        taken = []
        for queued in queues.late:
            size = items + queued.request.items
            fits = size <= max(queues.edge_cap, queued.request.items)
            if not fits or not self.usable(queues, queued) or now_s + times.safe_s[size] > bind_s:
                continue
            taken.append(queued)
            items = size
        return tuple(taken)


def _by_rank(queues: ModelQueues, expected: Sequence[QueuedRequest]) -> list[Sequence[QueuedRequest]]:
    """Splits those who wait, by deadline, into ranks: whom nobody else may serve first, then by priority."""
    ranks: dict[tuple[bool, int], list[QueuedRequest]] = {}
    for queued in expected:
        stays = not queues.spills or queued.failed_on is Backend.FUNCTION
        may_leave = not (stays or queued.request.class_name in queues.edge_only)
        ranks.setdefault((may_leave, queued.request.priority), []).append(queued)
    return [ranks[rank] for rank in sorted(ranks)] or [()]


def _filled_up(
    result: Composition,
    rank: Sequence[QueuedRequest],
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    drop_penalty: float,
) -> Composition:
    """Adds those of a lower rank who make nobody late; where nobody is chosen yet, the best of them."""
    if not result.chosen:
        more = compose(rank, times, now_s=now_s, cap=cap, drop_penalty=drop_penalty)
        return Composition(more.chosen, (*result.dropped, *more.dropped), (*result.left, *more.left))
    riders = fill_up(result.chosen, rank, times, now_s=now_s, cap=cap)
    riding = set(map(id, riders))
    left = [q for q in rank if id(q) not in riding]
    return Composition((*result.chosen, *riders), result.dropped, (*result.left, *left))


def _gathered(queues: ModelQueues, times: ServiceTimes, cap: int) -> int:
    """Items in a batch of a saturated edge: as many as arrive in what the deadline leaves beside their service."""
    slo_s = min(c.slo_s for c in queues.model.classes)
    if queues.rate_rps <= 0:
        return 1
    return max(1, bisect_right(range(1, cap + 1), slo_s, key=lambda n: times.median_s[n] + n / queues.rate_rps))


def _has_candidates(queues: ModelQueues) -> bool:
    return queues.edge_cap > 0 and (bool(queues.halves[Backend.EDGE]) or any(map(len, _hurried(queues))))


def _urgency_s(queues: ModelQueues) -> float:
    if queues.halves[Backend.EDGE]:
        return float("-inf")
    return min(order.first.request.deadline_s for order in _hurried(queues) if len(order))


def _hurried(queues: ModelQueues) -> tuple[DeadlineOrder, ...]:
    """All who wait but the deferrable, who give way to everybody."""
    return queues.next_batch, queues.waiting, *[buffer.gathered for buffer in queues.buffers], queues.late


def _times(queues: ModelQueues) -> ServiceTimes:
    if queues.edge_times is None:
        raise ValueError(f"model {queues.model.name!r} has no edge")
    return queues.edge_times


def _by_deadline(queued: Iterable[QueuedRequest]) -> tuple[QueuedRequest, ...]:
    return tuple(sorted(queued, key=lambda q: (q.request.deadline_s, q.request.priority, q.request.request_id)))

"""The edge: one batch at a time, free, and worth filling well."""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.edge_batch import Composition, compose, fill_up
from scheduler.dispatch.forecast import EdgeOccupancy, ServiceTimes
from scheduler.dispatch.model_queues import Lane
from scheduler.dispatch.queue import DeadlineOrder, Queued
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

    lanes: Mapping[str, Lane]
    occupancy: EdgeOccupancy
    circuit: Circuit
    sender: Sender

    def usable(self, lane: Lane, queued: Queued) -> bool:
        """Whether this request may go to the edge at all."""
        return queued.barred is not Backend.EDGE and queued.request.items <= lane.edge_limit and self.circuit.closed

    def start_s(self, lane: Lane, *, now_s: float, deadline_s: float) -> float:
        """Returns when a batch of this lane could start: after the one in flight and those of more urgent lanes."""
        start_s = self.occupancy.free_at_s(now_s)
        for other in self.lanes.values():
            if other is not lane and len(other.next_batch) and other.next_batch.first.request.deadline_s < deadline_s:
                start_s += _times(other).median_s[min(other.next_batch.items, other.edge_limit)]
        return start_s

    def has_room(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether the next batch can take this request and still be in time for its oldest member.

        The first member is the one whose deadline will bind: it is let in only if the batch that will have gathered
        by the time the edge is free still meets its deadline. Only the very next batch is forecast: promising places
        further ahead is what collapses under load.
        """
        if not self.usable(lane, queued):
            return False
        request, times = queued.request, _times(lane)
        start_s = self.start_s(lane, now_s=now_s, deadline_s=request.deadline_s)
        if len(lane.next_batch):
            items = lane.next_batch.items + request.items
            if items > lane.edge_cap:
                return False
            bind_s = min(lane.next_batch.first.request.deadline_s, request.deadline_s)
        else:
            expected = lane.rate_rps * (start_s - now_s)
            joined = min(request.items + int(max(0.0, expected - OVERBOOKED * math.sqrt(expected))), lane.edge_cap)
            items, bind_s = max(request.items, joined), request.deadline_s
        return start_s + self._cautious_s(times, items) <= bind_s

    def _cautious_s(self, times: ServiceTimes, items: int) -> float:
        """Seconds that the next batch stays within: its own scatter, and that of the batch before it."""
        more = times.margin - 1.0
        if more <= 0.0:
            return times.median_s[items]
        service_s = times.median_s[items]
        return service_s + more * math.hypot(service_s, PREDECESSOR * self.occupancy.service_s)

    def overflows(self, lane: Lane, *, now_s: float) -> bool:
        """Whether more requests are expected for the next batch than can be in time with its first member."""
        first, times = lane.next_batch.first.request, _times(lane)
        start_s = self.start_s(lane, now_s=now_s, deadline_s=first.deadline_s)
        expected = min(lane.next_batch.items + math.ceil(lane.rate_rps * (start_s - now_s)), times.max_batch)
        return expected > lane.edge_cap or start_s + self._cautious_s(times, expected) > first.deadline_s

    def could_answer(self, lane: Lane, queued: Queued, *, now_s: float) -> bool:
        """Whether some edge batch, at its expected speed, could still answer this request in time."""
        if not self.usable(lane, queued):
            return False
        request, times = queued.request, _times(lane)
        start_s = self.start_s(lane, now_s=now_s, deadline_s=request.deadline_s)
        return start_s + times.median_s[request.items] <= request.deadline_s

    def by_urgency(self) -> list[Lane]:
        """Returns the lanes with candidates for an edge batch, the earliest deadline first.

        Halves of a refused batch come before everything: their requests have waited longest.
        """
        return sorted((lane for lane in self.lanes.values() if _has_candidates(lane)), key=_urgency_s)

    def compose(self, lane: Lane, *, now_s: float) -> Composition:
        """Chooses who is in the batch that starts now, and takes them out of the lane's queues.

        Whoever was counted on for this batch and is in neither `chosen` nor the queues any more is in `dropped`
        or `left`; the caller finds them another place.
        """
        times, cap = _times(lane), lane.edge_cap
        penalty = self._drop_penalty(lane)
        expected = _by_deadline((*lane.next_batch.take_all(), *lane.waiting.take_all()))
        first, *others = _by_rank(lane, expected)
        result = compose(first, times, now_s=now_s, cap=cap, drop_penalty=penalty)
        if not result.chosen:
            result = compose(first, times, now_s=now_s, cap=cap, drop_penalty=penalty, cautious=False)
        for rank in others:
            result = _filled_up(result, rank, times, now_s=now_s, cap=cap, drop_penalty=penalty)
        spilled = [q for q in lane.spilled() if q.barred is not Backend.EDGE]
        # Whoever was to be spilled but has not left yet rides along for nothing where the batch has room.
        free_riders = fill_up(result.chosen, spilled, times, now_s=now_s, cap=cap)
        for queued in free_riders:
            lane.take_back(queued)
        chosen = (*result.chosen, *free_riders)
        late = self._late_with(lane, chosen, now_s=now_s)
        lane.late.remove_all(late)
        return Composition((*chosen, *late), result.dropped, result.left, (*free_riders, *late))

    def deferred_batch(self, lane: Lane, *, now_s: float) -> list[Queued]:
        """Returns deferrable requests for an edge that would be idle, few enough to be out of the way soon."""
        times, waiting = lane.edge_times, [q for q in lane.deferred if self.usable(lane, q)]
        if times is None or not waiting:
            return []
        # The next newcomer may be of any model.
        lanes = self.lanes.values()
        urgent_s = [c.slo_s for other in lanes for c in other.model.classes if c.name not in other.deferrable]
        most_s = DEFERRED_SHARE * min(urgent_s, default=math.inf)
        cap = max(1, min(lane.edge_cap, times.largest_within(most_s, cautious=False)))
        return list(compose(waiting, times, now_s=now_s, cap=cap, drop_penalty=0.0).chosen)

    def send(self, members: Sequence[Queued], lane: Lane, *, now_s: float) -> None:
        """Sends a batch; the edge must be idle."""
        service_s = _times(lane).median_s[min(sum(q.request.items for q in members), _times(lane).max_batch)]
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

    def slope_s(self, lane: Lane) -> float:
        """Returns the edge's seconds for one item more."""
        times, cap = _times(lane), max(1, lane.edge_cap)
        return (times.median_s[cap] - times.median_s[1]) / (cap - 1) if cap > 1 else times.median_s[1]

    def price(self, lane: Lane) -> None:
        """Sets how cautious the edge is: as far as a request more in its batch is worth what it adds in lateness.

        Whoever is bound by its deadline is late with probability r; a newcomer delays everybody by the edge's seconds
        an item, which makes rate x seconds-an-item x r more of them late. While the edge is saturated its time is
        worth what it saves elsewhere, and most of what a request saves is what its seconds would save anyway.
        """
        stakes, times, cap = lane.stakes, _times(lane), lane.edge_cap
        late_cost = stakes.highest_late_cost(stakes.budgets)
        if late_cost <= 0 or not math.isfinite(stakes.spill_cost) or cap < 1:
            stakes.edge_percentile = lane.plan.percentile
            return
        items = _gathered(lane, times, cap)
        slope_s = self.slope_s(lane)
        load = lane.rate_rps * times.median_s[items] / items
        saturated = min(max((load - UNSATURATED) / (1.0 - UNSATURATED), 0.0), 1.0)
        part = slope_s * items / times.median_s[items]
        stakes.seconds_worth = stakes.spill_cost * saturated * part
        stakes.cut_cost = stakes.spill_cost * (1.0 - part)
        late = (stakes.spill_cost - stakes.seconds_worth) / (late_cost * (1.0 + lane.rate_rps * slope_s))
        wanted = 1.0 - min(max(BINDS_RARELY * late, LEAST_LATE), MOST_LATE)
        if abs(math.log((1.0 - wanted) / (1.0 - stakes.edge_percentile))) > WORTH_NEW_TABLES:
            stakes.edge_percentile = wanted

    def _drop_penalty(self, lane: Lane) -> float:
        times = _times(lane)
        if len(lane.waiting) and lane.rate_rps * times.median_s[lane.edge_cap] > lane.edge_cap:
            return PENALTY_OVERLOADED
        return PENALTY_WITH_FUNCTION if lane.spills else PENALTY_EDGE_ONLY

    def _late_with(self, lane: Lane, chosen: Sequence[Queued], *, now_s: float) -> tuple[Queued, ...]:
        times, items = _times(lane), sum(q.request.items for q in chosen)
        bind_s = min((q.request.deadline_s for q in chosen), default=float("inf"))
        taken = []
        for queued in lane.late:
            size = items + queued.request.items
            fits = size <= max(lane.edge_cap, queued.request.items)
            if not fits or not self.usable(lane, queued) or now_s + times.cautious_s[size] > bind_s:
                continue
            taken.append(queued)
            items = size
        return tuple(taken)


def _by_rank(lane: Lane, expected: Sequence[Queued]) -> list[Sequence[Queued]]:
    """Splits those who wait, by deadline, into ranks: whom nobody else may serve first, then by priority."""
    ranks: dict[tuple[bool, int], list[Queued]] = {}
    for queued in expected:
        stays = not lane.spills or queued.barred is Backend.FUNCTION
        may_leave = not (stays or queued.request.class_name in lane.edge_only)
        ranks.setdefault((may_leave, queued.request.priority), []).append(queued)
    return [ranks[rank] for rank in sorted(ranks)] or [()]


def _filled_up(
    result: Composition, rank: Sequence[Queued], times: ServiceTimes, *, now_s: float, cap: int, drop_penalty: float
) -> Composition:
    """Adds those of a lower rank who make nobody late; where nobody is chosen yet, the best of them."""
    if not result.chosen:
        more = compose(rank, times, now_s=now_s, cap=cap, drop_penalty=drop_penalty)
        return Composition(more.chosen, (*result.dropped, *more.dropped), (*result.left, *more.left))
    riders = fill_up(result.chosen, rank, times, now_s=now_s, cap=cap)
    riding = set(map(id, riders))
    left = [q for q in rank if id(q) not in riding]
    return Composition((*result.chosen, *riders), result.dropped, (*result.left, *left))


def _gathered(lane: Lane, times: ServiceTimes, cap: int) -> int:
    """Items in a batch of a saturated edge: as many as arrive in what the deadline leaves beside their service."""
    slo_s = min(c.slo_s for c in lane.model.classes)
    if lane.rate_rps <= 0:
        return 1
    return max(1, bisect_right(range(1, cap + 1), slo_s, key=lambda n: times.median_s[n] + n / lane.rate_rps))


def _has_candidates(lane: Lane) -> bool:
    return lane.edge_cap > 0 and (bool(lane.halves[Backend.EDGE]) or any(map(len, _hurried(lane))))


def _urgency_s(lane: Lane) -> float:
    if lane.halves[Backend.EDGE]:
        return float("-inf")
    return min(order.first.request.deadline_s for order in _hurried(lane) if len(order))


def _hurried(lane: Lane) -> tuple[DeadlineOrder, ...]:
    """All who wait but the deferrable, who give way to everybody."""
    return lane.next_batch, lane.waiting, *[buffer.gathered for buffer in lane.buffers], lane.late


def _times(lane: Lane) -> ServiceTimes:
    if lane.edge_times is None:
        raise ValueError(f"model {lane.model.name!r} has no edge")
    return lane.edge_times


def _by_deadline(queued: Iterable[Queued]) -> tuple[Queued, ...]:
    return tuple(sorted(queued, key=lambda q: (q.request.deadline_s, q.request.priority, q.request.request_id)))

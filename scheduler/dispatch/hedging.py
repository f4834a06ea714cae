"""Sends a second copy of a request that is about to be late on one side to the other, once, if that still helps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_buffer import items_of
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import first_batch
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import InFlightBatch, Outbox
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.spend_cap import SpendVerdict
from scheduler.domain.batches import WhyLeft
from scheduler.domain.decisions import Reason
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Backend, Place
from scheduler.domain.service_times import ServiceTimes

OVERDUE = 0.98
"""Percentile of its service beyond which a batch in flight is looked at. Judgement: in simulations of 3,000 requests
halving it or its distance to 1 changes cost within noise (in time +0.1 points)."""
LOOK_AGAIN = 0.1
"""Part of its service after which it is looked at again. Judgement: halved or doubled, cost and lateness stay within
noise."""
LOOK_AGAIN_MIN_S = 0.005
"""The same at least, so that a fast model is not looked at in each call. It bounds work; no simulation feels it."""
LIKELY = 0.5
"""Probability of being late from which on a request is hedged where nothing has a price, as without functions.
Judgement: the other edge is idle, or has room."""
SURELY = 1e-9
"""A service so improbable is no service: the backend hangs. Judgement: halved or doubled, cost and lateness stay within
noise."""


@dataclass(slots=True)
class Hedging:
    """Watches the batches in flight. The first answer counts; what the other costs is booked like any batch."""

    lanes: Lanes
    function: FunctionSending
    outbox: Outbox
    look_at_s: dict[int, float] = field(default_factory=dict)
    """By batch in flight: when it is overdue, and then when to look again."""
    soonest_s: float = -math.inf
    """No batch is looked at before; in the past where that is to be found out."""

    def watch(self) -> None:
        """Takes up batches sent since the last call, and forgets those that are back."""
        in_flight = self.outbox.in_flight
        if not in_flight and not self.look_at_s:
            return
        if len(self.look_at_s) == len(in_flight) and self.outbox.next_batch_id - 1 in self.look_at_s:
            return
        self.soonest_s = -math.inf
        self.look_at_s = {
            batch_id: self.look_at_s[batch_id] if batch_id in self.look_at_s else self._overdue_s(sent)
            for batch_id, sent in in_flight.items()
        }

    def next_s(self, now_s: float) -> float:
        """Returns when a batch in flight becomes overdue; inf for never. What only a free edge could take up waits."""
        next_s = soonest_s = math.inf
        for at_s in self.look_at_s.values():
            if at_s < soonest_s:
                soonest_s = at_s
            if now_s < at_s < next_s:
                next_s = at_s
        self.soonest_s = soonest_s
        return next_s

    def to_functions(self, now_s: float) -> list[tuple[QueuedRequest, Place]]:
        """Sends to functions the requests that an overdue edge will not answer in time; returns them and where."""
        hedged: list[tuple[QueuedRequest, Place]] = []
        for batch_id, look_at_s in self.look_at_s.items():
            if look_at_s > now_s:
                continue
            sent = self.outbox.in_flight[batch_id]
            if not any(may_be_hedged(q) and q.request.deadline_s > now_s for q in sent.members):
                self.look_at_s[batch_id] = math.inf  # it may hang for a minute; there is nothing left to hedge
                continue
            self.look_at_s[batch_id] = now_s + max(LOOK_AGAIN * sent.batch.predicted_service_s, LOOK_AGAIN_MIN_S)
            queues = self.lanes.of_batch(sent)
            if sent.batch.backend is Backend.EDGE and queues is not None and queues.has_functions:
                better = [q for q in sent.members if self._better_by_function(queues, q, sent, now_s)]
                hedged += self._send(better, queues, now_s)
        return hedged

    def for_edge(
        self, slot: EdgeSide, queues: ModelQueues, chosen: Sequence[QueuedRequest], *, now_s: float
    ) -> list[QueuedRequest]:
        """Returns requests of overdue batches elsewhere that a batch of `chosen`, starting now, takes in time."""
        times, cap = queues.edges[slot.edge].times, queues.edges[slot.edge].cap
        if times is None or not self.look_at_s or now_s < self.soonest_s:
            return []
        items = items_of(chosen)
        bind_s = min((q.request.deadline_s for q in chosen), default=math.inf)
        taken: list[QueuedRequest] = []
        for batch_id, look_at_s in self.look_at_s.items():
            sent = self.outbox.in_flight.get(batch_id)
            if look_at_s > now_s or sent is None or sent.batch.place == slot.place:
                continue
            if self.lanes.of_batch(sent) is not queues:
                continue
            there = queues.times_of(sent.batch)
            for queued in sent.members:
                size = items + queued.request.items
                if size > cap or not may_be_hedged(queued) or not slot.usable(queues, queued):
                    continue
                if now_s + times.safe_s[size] > min(bind_s, queued.request.deadline_s):
                    continue
                late, prices = _late_probability(sent, queued, there, now_s), queues.lateness.prices
                priced = prices.unit_cost > 0
                if queues.late_cost(queued.request) * late > prices.seconds_worth if priced else late > LIKELY:
                    taken.append(queued)
                    items, bind_s = size, min(bind_s, queued.request.deadline_s)
        return taken

    def _better_by_function(
        self, queues: ModelQueues, queued: QueuedRequest, sent: InFlightBatch, now_s: float
    ) -> bool:
        buffer, side = queues.buffer_of(queued), self.function.side
        if buffer is None or not may_be_hedged(queued) or not side.in_time(queues, queued, now_s=now_s):
            return False
        if side.verdict(queues, queued, now_s=now_s) is not SpendVerdict.FUNCTION:
            return False
        late = _late_probability(sent, queued, queues.times_of(sent.batch), now_s)
        return side.economics.alone(buffer, queued, now_s=now_s).total < queues.late_cost(queued.request) * late

    def _send(
        self, hedged: list[QueuedRequest], queues: ModelQueues, now_s: float
    ) -> list[tuple[QueuedRequest, Place]]:
        """Sends those for which there are slots and money, and returns them."""
        gone: list[tuple[QueuedRequest, Place]] = []
        side = self.function.side
        for buffer in queues.buffers if hedged else ():
            while hedged and side.has_slot(buffer, now_s=now_s):
                full = first_batch(buffer, queues, side.within_means(buffer, hedged, now_s=now_s))
                batch = side.economics.cheapest_prefix(buffer, full, now_s=now_s) if full else []
                # Where the money is not enough for all, it is enough for some.
                while batch and not side.affords(buffer, items_of(batch), now_s=now_s):
                    batch.pop()
                if not batch:
                    break
                for queued in batch:
                    queued.note(Reason.LEAST_TOTAL)
                self.function.send(batch, buffer, queues, now_s=now_s, why=WhyLeft.HEDGE)
                gone += [(q, buffer.place) for q in batch]
                hedged = [q for q in hedged if q not in batch]
        return gone

    def _overdue_s(self, sent: InFlightBatch) -> float:
        batch, queues = sent.batch, self.lanes.of_batch(sent)
        times = None if queues is None else queues.times_of(batch)
        if queues is None or times is None or batch.warming or not math.isfinite(batch.predicted_finish_s):
            return math.inf
        if batch.backend is Backend.FUNCTION and not queues.has_edge:
            return math.inf  # no other side to hedge it to
        longer_s = batch.predicted_service_s * (math.exp(max(0.0, times.scatter.quantile(OVERDUE))) - 1.0)
        return batch.predicted_finish_s + longer_s


def may_be_hedged(queued: QueuedRequest) -> bool:
    """Whether this request is still in flight and was neither hedged nor sent again."""
    return (
        queued.state is State.IN_FLIGHT
        and queued.copies == 1
        and not queued.cancelled
        and not queued.failed_on
        and len(queued.attempts) == 1
    )


def _late_probability(sent: InFlightBatch, queued: QueuedRequest, times: ServiceTimes | None, now_s: float) -> float:
    """Returns the probability that a batch that has not come back yet comes after this request's deadline."""
    if times is None:
        return 1.0
    batch = sent.batch
    expected_path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
    began_s = batch.sent_at_s + (expected_path_s if math.isfinite(expected_path_s) else 0.0)
    items = min(max(batch.items, 1), times.max_batch)
    still = times.late_probability(items, now_s - began_s)
    if still < SURELY:
        return 1.0
    return min(1.0, times.late_probability(items, queued.request.deadline_s - began_s) / still)

"""Sends a request that is about to be late on one side to the other, once, if that still helps."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.forecast import ServiceTimes
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import Place, QueuedRequest
from scheduler.dispatch.request_table import Sender, Sent
from scheduler.dispatch.spend_cap import SpendVerdict
from scheduler.domain.requests import Backend

OVERDUE = 0.98
"""Percentile of its service beyond which a batch in flight is looked at."""
LOOK_AGAIN = 0.1
"""Part of its service after which it is looked at again."""
SURELY = 1e-9
"""A service so improbable is no service: the backend hangs."""


@dataclass(slots=True)
class Hedging:
    """Watches the batches in flight. The first answer counts; what the other costs is booked like any batch."""

    all_queues: Mapping[str, ModelQueues]
    edge: EdgeSide
    function: FunctionSide
    sender: Sender
    look_at_s: dict[int, float] = field(default_factory=dict)
    """By batch in flight: when it is overdue, and then when to look again."""

    def watch(self) -> None:
        """Takes up batches sent since the last call, and lets go those that are back."""
        in_flight = self.sender.in_flight
        if len(self.look_at_s) == len(in_flight) and self.sender.next_batch_id - 1 in self.look_at_s:
            return
        self.look_at_s = {
            batch_id: self.look_at_s[batch_id] if batch_id in self.look_at_s else self._overdue_s(sent)
            for batch_id, sent in in_flight.items()
        }

    def next_s(self, now_s: float) -> float:
        """Returns when a batch in flight becomes overdue; inf for never. What only a free edge could take up waits."""
        return min((at_s for at_s in self.look_at_s.values() if at_s > now_s), default=math.inf)

    def to_functions(self, now_s: float) -> list[tuple[ModelQueues, QueuedRequest]]:
        """Sends to functions whom an overdue edge will not answer in time, and returns them."""
        hedged: list[tuple[ModelQueues, QueuedRequest]] = []
        for batch_id, look_at_s in self.look_at_s.items():
            if look_at_s > now_s:
                continue
            sent = self.sender.in_flight[batch_id]
            self.look_at_s[batch_id] = now_s + max(LOOK_AGAIN * sent.batch.predicted_service_s, 0.005)
            queues = self.all_queues.get(sent.batch.model)
            if sent.batch.backend is Backend.EDGE and queues is not None and queues.spills:
                better = [q for q in sent.members if self._better_by_function(queues, q, sent, now_s)]
                hedged += [(queues, q) for q in self._send(better, queues, now_s)]
        return hedged

    def riders(self, queues: ModelQueues, chosen: Sequence[QueuedRequest], *, now_s: float) -> list[QueuedRequest]:
        """Returns those of overdue function batches whom an edge batch of `chosen`, starting now, can take in time."""
        times = queues.edge_times
        if times is None:
            return []
        items = sum(q.request.items for q in chosen)
        bind_s = min((q.request.deadline_s for q in chosen), default=math.inf)
        taken: list[QueuedRequest] = []
        for batch_id, look_at_s in self.look_at_s.items():
            sent = self.sender.in_flight.get(batch_id)
            if look_at_s > now_s or sent is None or sent.batch.model != queues.model.name:
                continue
            if sent.batch.backend is Backend.EDGE:
                continue
            by_function = queues.times_of(sent.batch)
            for queued in sent.members:
                size = items + queued.request.items
                if size > queues.edge_cap or not self._open(queued) or not self.edge.usable(queues, queued):
                    continue
                if now_s + times.safe_s[size] > min(bind_s, queued.request.deadline_s):
                    continue
                late_cost = queues.lateness.late_cost(queued.request.class_name)
                if late_cost * self._late(sent, queued, by_function, now_s) > queues.lateness.seconds_worth:
                    taken.append(queued)
                    items, bind_s = size, min(bind_s, queued.request.deadline_s)
        return taken

    def _open(self, queued: QueuedRequest) -> bool:
        """Whether this request is still in flight and was neither hedged nor sent again."""
        return (
            queued.place is Place.IN_FLIGHT
            and queued.copies == 1
            and not queued.cancelled
            and queued.failed_on is None
            and len(queued.request.attempts) == 1
        )

    def _better_by_function(self, queues: ModelQueues, queued: QueuedRequest, sent: Sent, now_s: float) -> bool:
        buffer = queues.buffer_of(queued)
        if buffer is None or not self._open(queued) or not self.function.in_time(queues, queued, now_s=now_s):
            return False
        if self.function.course(queues, queued, now_s=now_s) is not SpendVerdict.FUNCTION:
            return False
        late = self._late(sent, queued, queues.edge_times, now_s)
        weighed = queues.lateness.late_cost(queued.request.class_name) * late
        return self.function.gathering.alone(buffer, queued, now_s=now_s) < weighed

    def _send(self, hedged: list[QueuedRequest], queues: ModelQueues, now_s: float) -> list[QueuedRequest]:
        """Sends those for whom there are slots and money, and returns them."""
        gone: list[QueuedRequest] = []
        for buffer in queues.buffers if hedged else ():
            while hedged and self.function.has_slot(buffer, now_s=now_s):
                full = self.function.first_batch(buffer, queues, hedged)
                batch = self.function.gathering.cheapest_prefix(buffer, full, now_s=now_s) if full else []
                # Where the money does not reach for all, it reaches for some.
                while batch and not self.function.affords(buffer, sum(q.request.items for q in batch), now_s=now_s):
                    batch.pop()
                if not batch:
                    break
                self.function.send(batch, buffer, queues, now_s=now_s)
                gone += batch
                hedged = [q for q in hedged if q not in batch]
        return gone

    def _late(self, sent: Sent, queued: QueuedRequest, times: ServiceTimes | None, now_s: float) -> float:
        """Probability that a batch that has not come back yet comes after this request's deadline."""
        if times is None:
            return 1.0
        batch = sent.batch
        expected_path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
        began_s = batch.sent_at_s + (expected_path_s if math.isfinite(expected_path_s) else 0.0)
        items = min(max(batch.items, 1), times.max_batch)
        still = times.late(items, now_s - began_s)
        return 1.0 if still < SURELY else min(1.0, times.late(items, queued.request.deadline_s - began_s) / still)

    def _overdue_s(self, sent: Sent) -> float:
        batch, queues = sent.batch, self.all_queues.get(sent.batch.model)
        times = None if queues is None else queues.times_of(batch)
        if times is None or batch.warming or not math.isfinite(batch.predicted_finish_s):
            return math.inf
        longer_s = batch.predicted_service_s * (math.exp(max(0.0, times.scatter.quantile(OVERDUE))) - 1.0)
        return batch.predicted_finish_s + longer_s

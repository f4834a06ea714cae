"""Trials of an edge that is believed to be too slow: nothing else would show that it is fast again."""

import math
from dataclasses import dataclass, field

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.hedging import may_be_hedged
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import InFlightBatch
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.batches import WhyLeft
from scheduler.domain.requests import Backend

TRY_AGAIN_S = 1.0
"""Seconds between two trials of a model on the edge, at least. Judgement: as for functions."""
EDGE_SHARE = 0.1
"""Part of the edge's seconds that trials may take as long as it is as slow as believed. Judgement: others of its models
may need it; a request that is tried has no other place, or is in flight elsewhere."""
SLOWER = 1.1
"""Times the seconds of its profile from which on an edge counts as slow. Judgement: within that it is as fast as said,
and no request would be looked at for a trial in vain.
"""
FASTER = 0.5
"""Part of the believed seconds within which a batch must be back for the next trial to follow at once. Judgement:
chance seldom halves a service."""


@dataclass(slots=True)
class EdgeTrials:
    """Which requests are sent to an idle edge although it is believed to be too slow for them.

    One at a time, now and then, and only where the profile says that it could be in time.
    """

    edges: Edges
    tried_at_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """By edge server and model: when a batch was last sent for this; it is forgotten when one comes back far sooner
    than believed."""

    def worth(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> EdgeSide | None:
        """Returns the idle slot that a request is worth to be sent to now, although its edge is believed too slow."""
        for slot in self.edges.slots:
            if slot.occupancy.batch_id is not None or not self._due(slot, queues, now_s=now_s):
                continue
            if not self._tells(slot, queues, queued, now_s=now_s):
                continue
            number = slot.number
            if not any(lane.next_batches[number].items or lane.edge_later.items for lane in self.edges.lanes.all):
                return slot
        return None

    def copies(self, slot: EdgeSide, *, now_s: float) -> list[QueuedRequest]:
        """Returns a request, or none, that a function has in hand and of which a slot without work may try a copy."""
        if not any(self._due(slot, queues, now_s=now_s) for queues in slot.lanes.all):
            return []
        for sent in slot.outbox.in_flight.values():
            queues = slot.lanes.of_batch(sent)
            if sent.batch.backend is Backend.EDGE or queues is None or not self._due(slot, queues, now_s=now_s):
                continue
            for queued in sent.members:
                if may_be_hedged(queued) and self._tells(slot, queues, queued, now_s=now_s):
                    return [queued]
        return []

    def send(self, slot: EdgeSide, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> None:
        """Sends a request, or a copy of it, to a slot, which must be idle."""
        self.tried_at_s[slot.place.name, queues.model.name] = now_s
        slot.send((queued,), queues, now_s=now_s, why=WhyLeft.TRIAL)

    def answered(self, sent: InFlightBatch, *, now_s: float) -> None:
        """Notes that a batch came back: one that was far faster than believed asks for more of them."""
        batch = sent.batch
        if batch.backend is Backend.EDGE and now_s - batch.sent_at_s < FASTER * batch.predicted_service_s:
            self.tried_at_s.pop((batch.place.name, batch.model), None)

    def _due(self, slot: EdgeSide, queues: ModelQueues, *, now_s: float) -> bool:
        edge, name = slot.place.name, queues.model.name
        times, profile = queues.edges[slot.edge].times, queues.model.edge_latency_on(edge)
        if times is None or profile is None or times.median_s[1] <= SLOWER * profile.predict_s(1):
            return False
        pause_s = max(TRY_AGAIN_S, times.median_s[1] / EDGE_SHARE)
        due = now_s >= self.tried_at_s.get((edge, name), -math.inf) + pause_s
        return due and slot.occupancy.idle and slot.circuit.usable(now_s, name)

    def _tells(self, slot: EdgeSide, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> bool:
        """Whether the edge is believed to be too slow for a request that it could answer by its profile."""
        times, profile = queues.edges[slot.edge].times, queues.model.edge_latency_on(slot.place.name)
        if times is None or profile is None or not slot.usable(queues, queued):
            return False
        left_s = queued.request.deadline_s - now_s
        return profile.predict_s(queued.request.items) <= left_s < times.median_s[queued.request.items]

"""Batches that should be back: edge servers that may be silent, and functions that hang."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import Batch
from scheduler.domain.requests import Backend

HUNG_S = 2.0
"""A function is not thought to hang before. Derived: a stall is noticed within so long, or within its quantile."""
HUNG_PERCENTILE = 0.999
"""Of the service: what takes longer hangs, unless others of its kind came back meanwhile."""
SILENT_S = 0.95
"""How long nothing may come back from an edge that has a batch before it is asked whether it is still there. Derived:
with the limit of the question, a silent edge is noticed within 2 s."""

MISTAKEN = 3
"""Batches that an edge answered after all, while it did not answer whether it is there, after which it is not asked any
more: it answers one thing at a time. Judgement: one that was stopped and goes on does the same now and then."""


Slots = Mapping[str, Sequence[EdgeOccupancy]]
"""By edge server: the batches that it serves at once, one a slot."""


@dataclass(slots=True)
class Silence:
    """One edge server that has batches and may not be there any more."""

    asked_at_s: float = -math.inf
    """When it was last asked because of a batch that it has."""
    asked_for: int | None = None
    """The batch beside which it did not answer: the one that it has had longest."""
    mistaken: int = 0
    """How often such a batch was answered after all."""

    def answered(self, batch_id: int) -> None:
        """Notes an answer to a batch."""
        if batch_id == self.asked_for:
            self.mistaken += 1

    def due_s(self, slots: Sequence[EdgeOccupancy]) -> float:
        """Returns when it is to be asked whether it is still there; inf for never."""
        sent_at_s = math.inf
        for slot in slots if self.mistaken < MISTAKEN else ():
            if slot.batch_id is not None and slot.sent_at_s < sent_at_s:
                sent_at_s = slot.sent_at_s
        return max(sent_at_s, self.asked_at_s) + SILENT_S

    def unanswered(self, slots: Sequence[EdgeOccupancy]) -> None:
        """Notes that it did not answer whether it is there."""
        busy = [slot for slot in slots if not slot.idle]
        oldest = min(busy, key=lambda slot: slot.sent_at_s, default=None)
        self.asked_for = None if oldest is None else oldest.batch_id


@dataclass(slots=True)
class Suspicion:
    """What is in flight for too long."""

    slots: Slots
    uplink: UplinkOccupancy
    edges: dict[str, Silence] = field(default_factory=dict)
    """By edge server."""
    settled_at_s: dict[str, float] = field(default_factory=dict)
    """By model: when the last function batch was sent that came back, or when one was thought to hang. What was sent
    before tells no more: either its functions answer, or it is known that they do not."""
    _hung_s: float = math.inf
    """When the next function batch is thought to hang, as worked out last."""
    _seen: int = -1
    """The uplink's changes then; -1: to be worked out anew."""

    def answered(self, batch: Batch) -> None:
        """Notes an answer to a batch."""
        if batch.backend is Backend.FUNCTION:
            self._seen = -1
            self.settled_at_s[batch.model] = max(batch.sent_at_s, self.settled_at_s.get(batch.model, -math.inf))
        elif batch.place.name in self.edges:
            self.edges[batch.place.name].answered(batch.batch_id)

    def knew(self, batch: Batch) -> bool:
        """Whether it is known of a function batch that it hangs, or that those sent after it do not."""
        return batch.backend is Backend.FUNCTION and batch.sent_at_s <= self.settled_at_s.get(batch.model, -math.inf)

    def hung(self, now_s: float) -> set[str]:
        """Returns the models of which function batches hang, each once."""
        models = {model for model, at_s in self._hung_at_s().items() if at_s <= now_s}
        self.settled_at_s.update(dict.fromkeys(models, now_s))
        self._seen = -1
        return models

    def hung_at_s(self) -> float:
        """Returns when the next function batch is thought to hang; inf for never."""
        if self._seen != self.uplink.changes:
            self._seen = self.uplink.changes
            self._hung_s = min(self._hung_at_s().values(), default=math.inf) if self.uplink.overdue else math.inf
        return self._hung_s

    def _hung_at_s(self) -> dict[str, float]:
        first: dict[str, float] = {}
        for sent in self.uplink.overdue.values():
            model, _ = sent.pool
            if sent.sent_at_s > self.settled_at_s.get(model, -math.inf):
                first.setdefault(model, max(sent.hung_at_s, sent.sent_at_s + HUNG_S))
        return first

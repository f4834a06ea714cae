"""Batches that should be back: an edge that may be silent, and functions that hang."""

import math
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


@dataclass(slots=True)
class Suspicion:
    """What is in flight for too long."""

    occupancy: EdgeOccupancy
    uplink: UplinkOccupancy
    asked_at_s: float = -math.inf
    """When the edge was last asked because of the batch that it has."""
    asked_for: int | None = None
    """The batch beside which it did not answer."""
    mistaken: int = 0
    """How often such a batch was answered after all."""
    settled_at_s: dict[str, float] = field(default_factory=dict)
    """By model: when the last function batch was sent that came back, or when one was thought to hang. What was sent
    before tells no more: either its functions answer, or it is known that they do not."""

    def answered(self, batch: Batch) -> None:
        """Notes an answer to a batch."""
        if batch.backend is Backend.FUNCTION:
            self.settled_at_s[batch.model] = max(batch.sent_at_s, self.settled_at_s.get(batch.model, -math.inf))
        elif batch.batch_id == self.asked_for:
            self.mistaken += 1

    def knew(self, batch: Batch) -> bool:
        """Whether it is known of a function batch that it hangs, or that those sent after it do not."""
        return batch.backend is Backend.FUNCTION and batch.sent_at_s <= self.settled_at_s.get(batch.model, -math.inf)

    def edge_due_s(self) -> float:
        """Returns when the edge is to be asked whether it is still there; inf for never."""
        if self.occupancy.batch_id is None or self.mistaken >= MISTAKEN:
            return math.inf
        return max(self.occupancy.sent_at_s, self.asked_at_s) + SILENT_S

    def hung(self, now_s: float) -> set[str]:
        """Returns the models of which function batches hang, each once."""
        models = {model for model, at_s in self._hung_at_s().items() if at_s <= now_s}
        self.settled_at_s.update(dict.fromkeys(models, now_s))
        return models

    def hung_at_s(self) -> float:
        """Returns when the next function batch is thought to hang; inf for never."""
        return min(self._hung_at_s().values(), default=math.inf) if self.uplink.overdue else math.inf

    def _hung_at_s(self) -> dict[str, float]:
        first: dict[str, float] = {}
        for sent in self.uplink.overdue.values():
            model, _ = sent.pool
            if sent.sent_at_s > self.settled_at_s.get(model, -math.inf):
                first.setdefault(model, max(sent.hung_at_s, sent.sent_at_s + HUNG_S))
        return first

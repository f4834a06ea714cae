"""When a slot of an edge may be sent a batch: it serves one, and another one may be in flight before that one ends."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scheduler.domain.statistics import EdgeStatistics


@dataclass(slots=True)
class EdgeOccupancy:
    """The batch that a slot serves, and the one that is sent ahead, so that the device need not wait for it."""

    batch_id: int | None = None
    sent_at_s: float = 0.0
    predicted_finish_s: float = 0.0
    lead_s: float = 0.0
    """Seconds that a batch takes besides the device: so much before the one in flight ends the next may leave. 0: none
    leaves before an answer is back."""
    used_lead_s: float = 0.0
    """The same, also while one batch is not sent ahead, so that it is measured."""
    ahead_id: int | None = None
    """The batch that was sent ahead and is not served yet."""
    ahead_sent_at_s: float = 0.0
    ahead_at_device_s: float = 0.0
    """When that batch can be served, if the device is free."""
    ahead_work_s: float = 0.0
    """Its seconds on the device."""
    measures_next: bool = False
    """Whether the batch after the one that is sent ahead next is not sent ahead."""
    behind_s: float = 0.0
    """Seconds for which the batch in flight was behind the one before it; 0: it was not sent ahead."""

    def lead(self, lead_s: float, *, measures_next: bool) -> None:
        """Takes over how long before the end of a batch the next one leaves.

        Where one is to be measured, from the next send on: what was promised for the next batch holds.
        """
        if not (measures_next and self.measures_next and not self.lead_s):
            self.lead_s = lead_s
        self.used_lead_s = lead_s
        self.measures_next = measures_next

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return self.batch_id is None

    @property
    def batches(self) -> int:
        """Batches in flight."""
        return (self.batch_id is not None) + (self.ahead_id is not None)

    @property
    def opens_at_s(self) -> float:
        """When a batch may be sent ahead, if none is; inf where none may."""
        if self.batch_id is None or self.ahead_id is not None or not self.lead_s:
            return math.inf
        return self.predicted_finish_s - self.lead_s

    @property
    def next_at_s(self) -> float:
        """When the next batch was expected to leave at the send of those in flight; -inf where there is none."""
        if self.batch_id is None:
            return -math.inf
        if not self.lead_s and self.ahead_id is None:
            return self.predicted_finish_s
        return self._finish_s(self.predicted_finish_s) - self.lead_s

    def takes(self, now_s: float) -> bool:
        """Whether a batch may be sent now: nothing is in flight, or one that ends soon.

        One that is overdue by more than the lead is expected to need as long again.
        """
        if self.batch_id is None:
            return True
        return self.opens_at_s <= now_s <= self.predicted_finish_s + self.lead_s

    def free_at_s(self, now_s: float) -> float:
        """Returns when the next batch is expected to leave.

        A batch that is overdue is taken to need as long again as it is overdue already: without a model of what
        went wrong, the time spent so far is the best guess of the time that remains.
        """
        if self.batch_id is None:
            return now_s
        finish_s = max(self.predicted_finish_s, now_s + (now_s - self.predicted_finish_s))
        if not self.lead_s and self.ahead_id is None:
            return finish_s
        return max(now_s, self._finish_s(finish_s) - self.lead_s)

    @property
    def service_s(self) -> float:
        """Expected seconds of the batch in flight, of two the one that scatters as both; 0 if idle."""
        if self.batch_id is None:
            return 0.0
        first_s = self.predicted_finish_s - self.sent_at_s
        return first_s if self.ahead_id is None else math.hypot(first_s, self.ahead_work_s)

    def finish_s(self, *, now_s: float, service_s: float) -> float:
        """Returns when a batch that leaves now and takes so many seconds is expected back."""
        if self.batch_id is None or not self.lead_s:
            return now_s + service_s
        in_flight_s = max(self.predicted_finish_s, now_s + (now_s - self.predicted_finish_s))
        lead_s = min(self.lead_s, service_s)
        return max(now_s + lead_s, in_flight_s) + service_s - lead_s

    def occupy(self, *, batch_id: int, now_s: float, finish_s: float) -> None:
        """Notes that a batch was sent."""
        if self.batch_id is None:
            self.batch_id, self.sent_at_s, self.predicted_finish_s, self.behind_s = batch_id, now_s, finish_s, 0.0
            return
        self.ahead_id, self.ahead_sent_at_s = batch_id, now_s
        self.ahead_at_device_s = min(now_s + self.lead_s, finish_s)
        self.ahead_work_s = max(0.0, finish_s - max(self.ahead_at_device_s, self.predicted_finish_s))
        if self.measures_next:
            self.lead_s = 0.0

    def was_sent_ahead(self, batch_id: int) -> bool:
        """Whether a batch in flight left before the one on the device was back, which may have come back since."""
        return batch_id == self.ahead_id or (batch_id == self.batch_id and self.behind_s > 0.0)

    def release(self, batch_id: int, *, now_s: float) -> float:
        """Notes that a batch came back; one that was given up before is ignored.

        Returns:
            Seconds for which it was in flight behind another one.
        """
        if batch_id == self.ahead_id:
            self.ahead_id = None
            return now_s - self.ahead_sent_at_s
        if batch_id != self.batch_id:
            return 0.0
        behind_s, self.batch_id, self.ahead_id = self.behind_s, self.ahead_id, None
        if self.batch_id is not None:
            at_device_s = max(now_s, self.ahead_at_device_s)
            self.predicted_finish_s = at_device_s + self.ahead_work_s
            self.sent_at_s = max(self.ahead_sent_at_s, at_device_s - self.lead_s)
            self.behind_s = now_s - self.ahead_sent_at_s
        return behind_s

    def take_ahead(self, other: "EdgeOccupancy") -> None:
        """Takes over what another slot of the same edge was sent ahead."""
        self.ahead_id, other.ahead_id = other.ahead_id, None
        self.ahead_sent_at_s, self.ahead_at_device_s = other.ahead_sent_at_s, other.ahead_at_device_s
        self.ahead_work_s = other.ahead_work_s

    def _finish_s(self, finish_s: float) -> float:
        """Returns when the last batch in flight ends, if the first one does at that time."""
        return finish_s if self.ahead_id is None else max(finish_s, self.ahead_at_device_s) + self.ahead_work_s


def edge_statistics(name: str, up: bool, slots: Sequence[EdgeOccupancy]) -> EdgeStatistics:
    """Returns the state of an edge server in numbers.

    Args:
        name: its name.
        up: whether it is used.
        slots: the batches that it serves at once.
    """
    return EdgeStatistics(
        name,
        up=up,
        batches_in_flight=sum([slot.batches for slot in slots]),
        parallel=len(slots),
        ahead_s=max([slot.used_lead_s for slot in slots], default=0.0),
    )

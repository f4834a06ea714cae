"""When the edge will be free."""

from dataclasses import dataclass


@dataclass(slots=True)
class EdgeOccupancy:
    """The batch that the edge serves: one at a time."""

    batch_id: int | None = None
    sent_at_s: float = 0.0
    predicted_finish_s: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return self.batch_id is None

    def free_at_s(self, now_s: float) -> float:
        """Returns when the edge is expected to be free.

        A batch that is overdue is taken to need as long again as it is overdue already: without a model of what
        went wrong, the time spent so far is the best guess of the time that remains.
        """
        if self.batch_id is None:
            return now_s
        return max(self.predicted_finish_s, now_s + (now_s - self.predicted_finish_s))

    @property
    def service_s(self) -> float:
        """Expected seconds of the batch in flight; 0 if idle."""
        return 0.0 if self.batch_id is None else self.predicted_finish_s - self.sent_at_s

    def occupy(self, *, batch_id: int, now_s: float, finish_s: float) -> None:
        """Notes that a batch was sent."""
        self.batch_id, self.sent_at_s, self.predicted_finish_s = batch_id, now_s, finish_s

    def release(self, batch_id: int) -> None:
        """Notes that a batch came back; one that was given up before is ignored."""
        if self.batch_id == batch_id:
            self.batch_id = None

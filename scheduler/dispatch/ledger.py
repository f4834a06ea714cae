"""The one place where money is counted: expected at the send, corrected by the answer."""

from dataclasses import dataclass, field

from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.laws import Price

NOT_BILLED = frozenset(
    {
        FailureKind.UNREACHABLE,
        FailureKind.THROTTLED,
        FailureKind.REJECTED,
        FailureKind.SERVER,
        FailureKind.FORBIDDEN,
    }
)
"""Failures that the provider does not charge for (403, 429, 5xx and what never arrived); the others may have run."""


def batch_cost(price: Price, report: BatchReport, *, expected_cost: float, failure: FailureKind | None) -> float:
    """Returns a function batch's money, in the price's currency.

    Args:
        price: of the tier that it was sent to.
        report: what came back.
        expected_cost: as booked at the send. A run of unknown length (timed out, broken off) counts so: it may have
            been billed.
        failure: why the batch failed; None where it was answered.
    """
    # A duration measured in the container is a run, and is billed, even where it ended in a refusal of its content.
    if report.billed_duration_s is not None:
        return price.cost(report.billed_duration_s)
    return 0.0 if failure in NOT_BILLED else expected_cost


@dataclass(slots=True)
class Ledger:
    """Money spent on functions, in one currency."""

    settled: float = 0.0
    """For batches that are back."""
    booked: dict[int, tuple[Price, float]] = field(default_factory=dict)
    """Batch in flight -> its price and expected cost."""

    @property
    def spent(self) -> float:
        """Settled money and what the batches in flight are expected to cost."""
        return self.settled + sum(cost for _, cost in self.booked.values())

    def book(self, batch_id: int, *, price: Price, expected_cost: float) -> None:
        """Books a batch when it is sent."""
        self.booked[batch_id] = (price, expected_cost)

    def settle(self, batch_id: int, report: BatchReport, *, failure: FailureKind | None = None) -> float:
        """Corrects a batch by what came back.

        Returns:
            What the batch cost; 0.0 for a batch that was never booked, as on the edge.
        """
        entry = self.booked.pop(batch_id, None)
        if entry is None:
            return 0.0
        price, expected_cost = entry
        cost = batch_cost(price, report, expected_cost=expected_cost, failure=failure)
        self.settled += cost
        return cost

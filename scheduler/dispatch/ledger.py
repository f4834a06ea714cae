"""Counts money, and no other file does: expected at the send, corrected by the answer or by a bill that comes late."""

from dataclasses import dataclass, field, replace

from scheduler.dispatch.spend_cap import SpendCap
from scheduler.dispatch.tenant_money import Parts, TenantMoney
from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.latency import Price
from scheduler.domain.tenants import TenantStatistics

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

MOST_UNBILLED = 4096
"""Failed batches whose bill is still waited for; beyond that the oldest stays at what it was expected to cost. A bound
of memory."""


def batch_cost(price: Price, report: BatchReport, *, expected_cost: float, failure: FailureKind | None) -> float:
    """Returns the cost of a function batch, in the price's currency.

    Args:
        price: of the tier that it was sent to.
        report: what came back.
        expected_cost: as booked at the send; it is used for a run of unknown length (timed out, broken off), which may
            have been billed.
        failure: why the batch failed; None where it was answered.
    """
    # A duration measured in the container is a run, and is billed, even where it ended in a refusal of its content.
    if report.billed_duration_s is not None:
        return price.cost(report.billed_duration_s)
    return 0.0 if failure in NOT_BILLED else expected_cost


@dataclass(frozen=True, slots=True)
class Booking:
    """The booked cost of one batch."""

    price: Price
    cost: float
    """Expected cost, until the real one is known."""
    held: float
    """Amount that counts against the caps: what it is unlikely to exceed, until its bill is known."""
    at_s: float | None
    """When it was sent; None: it does not count against the caps."""
    parts: Parts = ()
    """Whose it is."""


@dataclass(slots=True)
class Ledger:
    """Ledger of the money spent on functions, in one currency."""

    cap: SpendCap = field(default_factory=SpendCap)
    tenants: TenantMoney = field(default_factory=TenantMoney)
    settled: float = 0.0
    """Cost of the batches that have ended."""
    booked: dict[int, Booking] = field(default_factory=dict)
    """By batch in flight."""
    unbilled: dict[int, Booking] = field(default_factory=dict)
    """By batch that failed and may have run, oldest first: its bill may still arrive."""

    @property
    def spent(self) -> float:
        """Settled cost, and the expected cost of the batches in flight."""
        return self.settled + sum(booking.cost for booking in self.booked.values())

    def by_tenant(self, now_s: float) -> tuple[TenantStatistics, ...]:
        """Returns what each tenant holds and has used; empty without tenants."""
        in_flight = [(booking.parts, booking.cost) for booking in self.booked.values()]
        return self.tenants.statistics(in_flight, now_s)

    def book(
        self,
        batch_id: int,
        *,
        price: Price,
        expected_cost: float,
        now_s: float | None = None,
        max_cost: float | None = None,
        parts: Parts = (),
    ) -> None:
        """Books a batch when it is sent.

        Args:
            batch_id: of the batch.
            price: of the tier that it is sent to.
            expected_cost: what it is expected to cost.
            now_s: the present; None: the batch does not count against the caps.
            max_cost: cost that it is unlikely to exceed; it counts against the caps until the bill is known. None: the
                expected cost.
            parts: whose it is; empty: tenants are not told apart.
        """
        held = expected_cost if max_cost is None else max(expected_cost, max_cost)
        self.booked[batch_id] = Booking(price, expected_cost, held, now_s, parts)
        if now_s is not None:
            self.cap.book(held, at_s=now_s)
            self.tenants.book(parts, held, now_s=now_s)

    def settle(self, batch_id: int, report: BatchReport, *, failure: FailureKind | None = None) -> float:
        """Corrects the cost of a batch by its outcome.

        Returns:
            The cost of the batch; 0.0 for a batch that was never booked, as on the edge.
        """
        booking = self.booked.pop(batch_id, None)
        if booking is None:
            return 0.0
        cost = batch_cost(booking.price, report, expected_cost=booking.cost, failure=failure)
        self.settled += cost
        self.tenants.settle(booking.parts, cost)
        if failure is None or failure in NOT_BILLED or report.billed_duration_s is not None:
            self._release(booking, cost)
        else:
            self._await_bill(batch_id, replace(booking, cost=cost))
        return cost

    def bill(self, batch_id: int, billed_duration_s: float) -> float:
        """Corrects the cost of a batch that was given up, by a bill that arrived later.

        Args:
            batch_id: of the batch.
            billed_duration_s: as measured in the container.

        Returns:
            How much more it cost than was counted; 0.0 for a batch whose bill is not awaited.
        """
        booking = self.unbilled.pop(batch_id, None)
        if booking is None:
            return 0.0
        cost = booking.price.cost(billed_duration_s)
        self.settled += cost - booking.cost
        self.tenants.settle(booking.parts, cost - booking.cost)
        self._release(booking, cost)
        return cost - booking.cost

    def _release(self, booking: Booking, cost: float) -> None:
        """Counts the batch against the caps with its real cost from now on."""
        if booking.at_s is not None:
            self.cap.correct(cost - booking.held, booked_at_s=booking.at_s)
            self.tenants.correct(booking.parts, cost - booking.held, booked_at_s=booking.at_s)

    def _await_bill(self, batch_id: int, booking: Booking) -> None:
        if len(self.unbilled) >= MOST_UNBILLED:
            del self.unbilled[next(iter(self.unbilled))]
        self.unbilled[batch_id] = booking

"""Counts money, and no other file does: expected at the send, corrected by the answer or by a bill that comes late."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from scheduler.dispatch.provisioned_idle import ProvisionedIdle
from scheduler.dispatch.spend_cap import SpendCap
from scheduler.dispatch.tenant_money import Parts, TenantMoney
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.bills import BILL_MAY_COME, Bill, Purpose, Spent, bill_of, expected_bill, purpose_of
from scheduler.domain.latency import Price
from scheduler.domain.messages import BillCorrected
from scheduler.domain.plans import EngineSettings
from scheduler.domain.tenants import OTHER, TenantStatistics

MOST_UNBILLED = 4096
"""Failed batches whose bill is still waited for; beyond that the oldest stays at what it was expected to cost. The same
for the estimates of starts that an answer may still report. A bound of memory."""


class Account(NamedTuple):
    """One sum of money."""

    what: Purpose
    tier: str
    model: str
    tenant: str
    currency: str


@dataclass(frozen=True, slots=True)
class Booking:
    """The booked cost of one batch."""

    batch: Batch
    price: Price
    parts: Parts
    """Whose it is; empty: tenants are not told apart."""
    bill: Bill
    """As expected, until the real one is known."""
    held: float
    """Amount that counts against the caps: what it is unlikely to exceed, until its bill is known."""
    at_s: float | None
    """When it was sent; None: it does not count against the caps."""
    on_provisioned: bool
    """Whether it was sent to an instance that is billed while idle too."""


@dataclass(slots=True)
class Ledger:
    """Ledger of the money spent on functions, in the currencies of the tiers' prices."""

    cap: SpendCap = field(default_factory=SpendCap)
    tenants: TenantMoney = field(default_factory=TenantMoney)
    accounts: dict[Account, float] = field(default_factory=dict)
    """What has ended; what provisioned instances cost idle is apart."""
    booked: dict[int, Booking] = field(default_factory=dict)
    """By batch in flight."""
    unbilled: dict[int, Booking] = field(default_factory=dict)
    """By batch that failed and may have run, oldest first: its bill may still arrive."""
    lost_starts: dict[tuple[str, str], deque[Booking]] = field(default_factory=dict)
    """By model and tier: batches whose start is an estimate, and whose instance may live and report it with a later
    answer; oldest first."""
    currency: str = ""
    """Of the prices; empty without functions."""
    idle: ProvisionedIdle = field(default_factory=ProvisionedIdle)
    listener: Callable[[BillCorrected], None] | None = None
    """Told when a batch that has ended is found to have cost otherwise than its own outcome says."""

    def configure(self, settings: EngineSettings) -> None:
        """Takes over caps and provisioned instances; what those cost idle comes off the caps first."""
        self.idle.configure(settings.models)
        self.currency = next((tier.price.currency for model in settings.models for tier in model.tiers), "")
        self.cap.configure(
            per_hour=settings.spend_per_hour,
            per_day=settings.spend_per_day,
            leased=settings.spend_leased,
            idle_per_s=self.idle.cost_per_s,
        )

    @property
    def settled(self) -> float:
        """Cost of the batches that have ended."""
        return sum(self.accounts.values())

    @property
    def spent(self) -> float:
        """Settled cost, idle instances' cost, and the expected cost of the batches in flight."""
        in_flight = sum(booking.bill.total for booking in self.booked.values())
        return self.settled + in_flight + self.idle.total

    def spending(self) -> tuple[Spent, ...]:
        """Returns what is settled, by purpose, tier, model and tenant."""
        idle = [
            Spent(Purpose.IDLE, tier.name, model, OTHER, tier.price.currency, amount)
            for model, tier, amount in self.idle.amounts()
        ]
        return (*[Spent(*account, amount) for account, amount in sorted(self.accounts.items())], *idle)

    def by_tenant(self, now_s: float) -> tuple[TenantStatistics, ...]:
        """Returns what each tenant holds and has used; empty without tenants."""
        in_flight = [(booking.parts, booking.bill.total) for booking in self.booked.values()]
        return self.tenants.statistics(in_flight, now_s)

    def book(
        self,
        batch: Batch,
        price: Price,
        *,
        now_s: float | None = None,
        max_cost: float | None = None,
        parts: Parts = (),
        on_provisioned: bool = False,
    ) -> None:
        """Books a batch when it is sent.

        Args:
            batch: with the cost that is expected of it.
            price: of the tier that it is sent to.
            now_s: the present; None: the batch does not count against the caps.
            max_cost: cost that it is unlikely to exceed; it counts against the caps until the bill is known. None: the
                expected cost.
            parts: whose it is; empty: tenants are not told apart.
            on_provisioned: whether an instance serves it that is billed while idle too.
        """
        bill = expected_bill(batch, price)
        held = bill.total if max_cost is None else max(bill.total, max_cost)
        self.booked[batch.batch_id] = Booking(batch, price, parts, bill, held, now_s, on_provisioned)
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
        bill = bill_of(booking.batch, booking.price, report, failure)
        ended = replace(booking, bill=bill)
        self._add(ended, bill, 1.0)
        self._note_run(ended, report)
        lost = failure in BILL_MAY_COME and report.billed_duration_s is None
        if lost:
            self._await_bill(batch_id, ended)
        else:
            self._release(booking, bill.total)
        self._find_start(ended, lost=lost)
        return bill.total

    def bill(self, batch_id: int, report: BatchReport, *, failure: FailureKind | None = None) -> float:
        """Corrects the cost of a batch that was given up, by a bill that arrived later.

        Args:
            batch_id: of the batch.
            report: what came back; without a billed duration the run is taken to have lasted to its end.
            failure: how the wait for the answer ended; None: with an answer.

        Returns:
            How much more it cost than was counted; 0.0 for a batch whose bill is not awaited.
        """
        booking = self.unbilled.pop(batch_id, None)
        if booking is None:
            return 0.0
        bill = bill_of(booking.batch, booking.price, report, failure or FailureKind.TIMEOUT, final=True)
        self.lost_starts = {
            pool: deque([lost for lost in starts if lost.batch.batch_id != batch_id], MOST_UNBILLED)
            for pool, starts in self.lost_starts.items()
        }
        self._add(booking, booking.bill, -1.0)
        ended = replace(booking, bill=bill)
        self._add(ended, bill, 1.0)
        self._note_run(ended, report)
        self._release(booking, bill.total)
        # Its start may have been found elsewhere, which its own outcome does not know.
        self._tell(batch_id, bill)
        self._find_start(ended, lost=report.billed_duration_s is None)
        return bill.total - booking.bill.total

    def _add(self, booking: Booking, bill: Bill, sign: float) -> None:
        """Adds a bill to the accounts, or takes it off, split between the tenants of its requests."""
        what, batch = purpose_of(booking.batch), booking.batch
        purposes = (
            (what, bill.call),
            (Purpose.START, bill.start),
            (Purpose.START_ESTIMATE, bill.start_estimate),
            (Purpose.PROVISIONING, bill.provisioning),
        )
        for purpose, amount in purposes:
            if not amount:
                continue
            for tenant, share in _tenants(booking.parts).items():
                account = Account(purpose, batch.tier, batch.model, tenant, booking.price.currency)
                self.accounts[account] = self.accounts.get(account, 0.0) + sign * share * amount
            self.tenants.settle(booking.parts, sign * amount)

    def _note_run(self, booking: Booking, report: BatchReport) -> None:
        if booking.on_provisioned and report.billed_duration_s is not None:
            self.idle.served(booking.batch.model, booking.batch.tier, report.billed_duration_s)

    def _find_start(self, ended: Booking, *, lost: bool) -> None:
        """Keeps an estimated start whose instance may live, or replaces the oldest one by a start reported later.

        An instance whose first answer is not its first call's was provisioned, or started for a call that was given up.
        """
        pool, bill = (ended.batch.model, ended.batch.tier), ended.bill
        starts = self.lost_starts.setdefault(pool, deque(maxlen=MOST_UNBILLED))
        if bill.start_estimate and lost:
            starts.append(ended)
        if not bill.provisioning or not starts:
            return
        self._replace_estimate(starts.popleft(), ended)

    def _replace_estimate(self, lost: Booking, ended: Booking) -> None:
        """Replaces an estimated start by what an answer that was no cold start reports."""
        estimate, reported = lost.bill.start_estimate, ended.bill.provisioning
        self._add(lost, Bill(start_estimate=estimate), -1.0)
        self._add(ended, Bill(provisioning=reported), -1.0)
        self._add(ended, Bill(start=reported), 1.0)
        self._tell(lost.batch.batch_id, replace(lost.bill, start_estimate=0.0))
        self._tell(ended.batch.batch_id, replace(ended.bill, start=reported, provisioning=0.0))
        waiting = self.unbilled.get(lost.batch.batch_id)
        if waiting is not None:
            batch, bill = replace(waiting.batch, cold_risk=0.0), replace(waiting.bill, start_estimate=0.0)
            self.unbilled[batch.batch_id] = replace(waiting, batch=batch, bill=bill)
        elif lost.at_s is not None:
            self.cap.correct(-estimate, booked_at_s=lost.at_s)
            self.tenants.correct(lost.parts, -estimate, booked_at_s=lost.at_s)

    def _tell(self, batch_id: int, bill: Bill) -> None:
        if self.listener is not None:
            self.listener(BillCorrected(batch_id, bill))

    def _release(self, booking: Booking, cost: float) -> None:
        """Counts the batch against the caps with its real cost from now on."""
        if booking.at_s is not None:
            self.cap.correct(cost - booking.held, booked_at_s=booking.at_s)
            self.tenants.correct(booking.parts, cost - booking.held, booked_at_s=booking.at_s)

    def _await_bill(self, batch_id: int, booking: Booking) -> None:
        if len(self.unbilled) >= MOST_UNBILLED:
            del self.unbilled[next(iter(self.unbilled))]
        self.unbilled[batch_id] = booking


def _tenants(parts: Parts) -> dict[str, float]:
    """Returns the share of each tenant's label; all others' where tenants are not told apart."""
    shares: dict[str, float] = {}
    for (label, _, _), part in parts:
        shares[label] = shares.get(label, 0.0) + part
    return shares or {OTHER: 1.0}

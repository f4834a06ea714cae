"""Asks the ledger that outlives the process for money ahead of use, so that no batch waits for a disk."""

import math
from dataclasses import dataclass, field
from typing import TypedDict

from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.outbox import Outbox
from scheduler.dispatch.spend_cap import STATE, Lease, OverCap
from scheduler.domain.bills import Spent
from scheduler.domain.messages import RequestSpend, ReturnSpend, SpendGranted
from scheduler.domain.plans import EngineSettings
from scheduler.domain.statistics import BudgetStatistics, CapStatistics
from scheduler.domain.tenants import TenantStatistics

SLICE = 0.01
"""Part of a cap that is leased at a time: what a process that is killed may lose of it."""
LOOK_S = 0.25
"""How often the cost of the dearest batch is worked out anew. Judgement: services change in minutes."""
ANSWER_LIMIT_S = 1.0
"""A ledger that has not answered by then cannot be written, as far as requests go. A lease takes milliseconds."""
KEPT_SLICES = 3.0
"""Slices above the threshold from which on money is given back: bills below what was held back release much at once."""


class MoneyFigures(TypedDict):
    """The fields of the engine's statistics that are about money."""

    spent: float
    leased: float | None
    spending: tuple[Spent, ...]
    tenants: tuple[TenantStatistics, ...]
    budgets: tuple[BudgetStatistics, ...]
    caps: tuple[CapStatistics, ...]
    closed_by: str
    opens_in_s: float | None


@dataclass(slots=True)
class Spending:
    """Keeps so much leased that the next batches can be sent, and gives back what is not needed."""

    side: FunctionSide
    lanes: Lanes
    outbox: Outbox
    asked_at_s: float = math.inf
    """When the request was made that is not answered yet; inf: none is."""
    again_at_s: float = -math.inf
    """When a ledger that gave less than was asked for is asked again."""
    _looked_at_s: float = -math.inf
    _overdue: bool = False
    """Whether the answer has become overdue in the call before."""
    _caps: tuple[float | None, float | None] = field(default=(None, None))

    def __post_init__(self) -> None:
        """Has the shell told of bills that are corrected later."""
        self.side.ledger.listener = self.outbox.command

    @property
    def left(self) -> float | None:
        """Money leased and not spent; None where none is leased."""
        lease = self.side.ledger.cap.lease
        return None if lease is None else lease.left

    def figures(self, now_s: float) -> MoneyFigures:
        """Returns what was spent up to now, as the engine's statistics show it."""
        ledger = self.side.ledger
        ledger.idle.pass_time(now_s)
        planned = [self.side.max_cost(b, b.target) for q in self.lanes.all for b in q.buffers if b.cap]
        closed_by, opens_in_s = ledger.cap.closing(min(planned, default=0.0), now_s)
        return {
            "spent": ledger.spent,
            "leased": self.left,
            "spending": ledger.spending(),
            "tenants": ledger.by_tenant(now_s),
            "caps": ledger.cap.figures(now_s),
            "closed_by": closed_by,
            "opens_in_s": opens_in_s,
            "budgets": tuple(b for name, queues in self.lanes.first.items() for b in queues.lateness.figures(name)),
        }

    def configure(self, settings: EngineSettings) -> None:
        """Takes over reloaded settings; under other caps the ledger may give more, so it is asked at once."""
        self.side.ledger.configure(settings)
        self.side.quota.configure(settings)
        self.side.configure(max_in_flight=settings.max_function_in_flight, over_cap=OverCap(settings.over_cap))
        cap = self.side.ledger.cap
        caps = cap.per_hour, cap.per_day
        if caps != self._caps:
            self._caps, self.again_at_s = caps, -math.inf

    def granted(self, grant: SpendGranted, *, now_s: float) -> None:
        """Takes up money that the ledger has leased."""
        cap = self.side.ledger.cap
        if cap.lease is None:
            return
        cap.remember(grant.before, now_s=now_s)
        opens_at_s = now_s + grant.opens_in_s if grant.closed_by else 0.0
        cap.lease.grant(grant.amount, closed_by=grant.closed_by, opens_at_s=opens_at_s)
        self.asked_at_s, self.again_at_s = math.inf, opens_at_s

    def ask(self, now_s: float) -> None:
        """Asks for more, or gives back, where that is due. Called after everything else that a call decides."""
        cap = self.side.ledger.cap
        lease = cap.lease
        if lease is None or not cap.capped:
            return
        if self.asked_at_s < math.inf:
            self._overdue = now_s >= self.asked_at_s + ANSWER_LIMIT_S and not lease.dry
            if self._overdue:
                lease.grant(0.0, closed_by=lease.ledger, opens_at_s=now_s + ANSWER_LIMIT_S)
            return
        self._overdue = False
        self._look(lease, now_s)
        a_slice = max(SLICE * min(c for c in self._caps if c is not None), lease.batch_cost)
        if a_slice <= 0:
            return
        gathered = sum(self.side.max_cost_gathered(b) for q in self.lanes.all for b in q.buffers)
        enough = max(a_slice / 2, lease.batch_cost) + gathered
        if lease.left >= enough and lease.closed_by != STATE:
            lease.closed_by = ""
            self._give_back(lease, enough, a_slice)
        elif now_s >= self.again_at_s:
            self.asked_at_s = now_s
            per_hour, per_day = self._caps
            self.outbox.command(RequestSpend(max(0.0, enough + a_slice - lease.left), lease.left, per_hour, per_day))

    def next_s(self) -> float:
        """Returns when the ledger is to be asked again, or its answer is overdue; inf for never."""
        cap = self.side.ledger.cap
        if cap.lease is None or not cap.capped:
            return math.inf
        if self.asked_at_s < math.inf:
            # Once it is overdue, the requests that wait for it are placed again, at once.
            return math.inf if cap.lease.dry and not self._overdue else self.asked_at_s + ANSWER_LIMIT_S
        return self.again_at_s if cap.lease.dry and self.again_at_s > 0 else math.inf

    def _look(self, lease: Lease, now_s: float) -> None:
        """Works out what the dearest batch costs."""
        if now_s < self._looked_at_s + LOOK_S:
            return
        self._looked_at_s = now_s
        buffers = [buffer for queues in self.lanes.all for buffer in queues.buffers if buffer.cap]
        lease.batch_cost = max([self.side.max_cost(buffer, buffer.cap) for buffer in buffers], default=0.0)

    def _give_back(self, lease: Lease, enough: float, a_slice: float) -> None:
        if lease.left > enough + KEPT_SLICES * a_slice:
            amount = lease.left - enough - a_slice
            lease.left -= amount
            self.outbox.command(ReturnSpend(amount))

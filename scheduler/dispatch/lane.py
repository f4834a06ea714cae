"""One model's lane: its queues, and the plan as the dispatcher reads it."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Protocol

from scheduler.dispatch.forecast import ServiceTimes
from scheduler.dispatch.queue import DeadlineOrder, Place, Queued
from scheduler.dispatch.stakes import Stakes
from scheduler.domain.laws import FunctionTier
from scheduler.domain.plans import GroupPlan, Limits, ModelSettings
from scheduler.domain.requests import Backend

STEP = 0.2
"""A weight or a rate that moves by less than this part is not worth new prices."""


class WarmPool(Protocol):
    """What dispatching needs to know of a tier's instances."""

    @property
    def busy(self) -> int:
        """Batches in flight, each on an instance of its own."""

    def cold_probability(self, at_s: float) -> float:
        """Returns the probability that a batch sent at that time would meet a cold start."""

    def start_s(self, percentile: float) -> float:
        """Returns the seconds within which a cold start is over with this probability."""

    def sent(self, batch_id: int, *, now_s: float) -> None:
        """Notes that a batch, or a warming call, was sent."""


def _order_at(place: Place) -> DeadlineOrder:
    return DeadlineOrder(place)


@dataclass(slots=True, eq=False)
class Lane:
    """Requests of one model and the terms on which they leave."""

    model: ModelSettings
    plan: GroupPlan
    limits: Limits = field(default_factory=Limits)
    edge_cap: int = 0
    """Most items in an edge batch; 0 without an edge."""
    edge_limit: int = 0
    """Most items in one request that the edge can take; 0 without an edge. A request may be larger than the planned
    batches: its own deadline may be later than its class's."""
    function_cap: int = 0
    """Most items in a function batch; 0 without a function."""
    function_target_at_once: int = 1
    """Items at which a gathered batch leaves without another look: it is full, or the operator wants no wait."""
    edge_only: frozenset[str] = frozenset()
    """Classes whose data never leaves the site."""
    deferrable: frozenset[str] = frozenset()
    """Classes that wait for an idle edge."""
    served_late: frozenset[str] = frozenset()
    warm: WarmPool | None = None
    """What is known of the planned tier's instances; None without functions."""
    cold: float = 0.0
    """Probability that a function batch sent now meets a cold start."""
    cold_start_s: float = 0.0
    """Typical seconds of one."""
    starved_at_s: float = float("-inf")
    """When a request last had no room on the edge and might have gone to a function."""
    wanted_items: float = 0.0
    """Items that functions were wanted for lately; what is older counts less and less."""
    wanted_at_s: float = 0.0
    cold_seen_s: float = float("-inf")
    """When that was looked at."""
    edge_times: ServiceTimes | None = None
    """None: no edge for this model."""
    function_times: ServiceTimes | None = None
    """Of the planned tier; None: no function for this model."""
    stakes: Stakes = field(default_factory=Stakes)
    costs: tuple[float, ...] = ()
    """Money for a batch of 0, 1, 2, ... items on the planned tier."""
    priced_from: tuple[object, ...] = ()
    priced_weight: float = 0.0
    priced_rps: float = 0.0
    spill_size: int = 1
    """Items at which a function batch is cheapest per request, lateness included."""
    item_bytes: float = 0.0
    rate_rps: float = 0.0
    """Items a second just now: who else will join the next batch."""
    next_batch: DeadlineOrder = field(default_factory=lambda: _order_at(Place.EDGE))
    waiting: DeadlineOrder = field(default_factory=lambda: _order_at(Place.WAITING))
    spill: DeadlineOrder = field(default_factory=lambda: _order_at(Place.SPILL))
    late: DeadlineOrder = field(default_factory=lambda: _order_at(Place.LATE))
    deferred: DeadlineOrder = field(default_factory=lambda: _order_at(Place.DEFERRED))
    halves: dict[Backend, deque[tuple[Queued, ...]]] = field(default_factory=lambda: {b: deque() for b in Backend})
    """Halves of batches whose content a backend refused: sent to it again, as they are."""
    spill_opened_at_s: float = 0.0
    spill_closes_at_s: float | None = None
    """When the batch being gathered must leave; None: to be worked out."""
    spill_seen: tuple[object, ...] = ()
    """What that was worked out from."""
    late_opened_at_s: float = 0.0

    @property
    def orders(self) -> tuple[DeadlineOrder, ...]:
        """All queues of the lane."""
        return self.next_batch, self.waiting, self.spill, self.late, self.deferred

    def recap(self) -> None:
        """Works out the most items of a batch, after tables, plan or limits have changed."""
        limits, plan = self.limits, self.plan
        self.edge_cap = self.edge_limit = self.function_cap = 0
        if self.edge_times is not None:
            most = self.edge_times.max_batch if limits.edge_batch_cap is None else limits.edge_batch_cap
            most = min(most, self.edge_times.max_batch)
            self.edge_cap = min(plan.edge_batch_cap, most)
            self.edge_limit = most if self.edge_cap else 0
        if self.function_times is not None:
            most = min(self.function_times.max_batch, self.model.max_items)
            self.function_cap = most if limits.function_batch_cap is None else min(most, limits.function_batch_cap)
        self.function_target_at_once = 1 if limits.window_s == 0 else max(1, self.function_cap)

    @property
    def function_target(self) -> int:
        """Items at which a gathered function batch leaves at once."""
        if self.limits.window_s == 0:
            return 1
        return max(1, min(self.plan.function_target_batch, self.function_cap))

    @property
    def tier(self) -> FunctionTier:
        """The planned function tier; KeyError where there is none."""
        return self.model.tier(self.plan.function_tier)

    def needs_pricing(self) -> bool:
        """Whether what prices were made from has moved far enough."""
        state = (self.edge_times, self.function_times, self.limits, self.plan)
        weight = max((b.log_weight for b in self.stakes.budgets.values()), default=0.0)
        rate_rps = self.rate_rps
        moved = abs(weight - self.priced_weight) > STEP or abs(rate_rps - self.priced_rps) > STEP * self.priced_rps
        if not moved and state == self.priced_from:
            return False
        self.priced_from, self.priced_weight, self.priced_rps = state, weight, rate_rps
        return True

    def hold_s(self, queued: Queued) -> float:
        """Returns the longest this request may wait for company in a function batch."""
        hold_s = self.plan.timeouts_s.get(queued.request.class_name, float("inf"))
        return hold_s if self.limits.window_s is None else min(hold_s, self.limits.window_s)

    def adopt(self, model: ModelSettings, plan: GroupPlan) -> None:
        """Follows a new plan, and settings that may have changed with it."""
        self.model, self.plan = model, plan
        self.recap()
        self.stakes.adopt(model.classes)
        self.edge_only = frozenset(c.name for c in model.classes if c.edge_only)
        self.deferrable = frozenset(c.name for c in model.classes if c.deferrable)
        self.served_late = frozenset(c.name for c in model.classes if c.serve_late)

    def serves_late(self, queued: Queued) -> bool:
        """Whether this request is sent even when its deadline cannot be met; no, if its class was reloaded away."""
        return queued.request.class_name in self.served_late

    def order(self, place: str) -> DeadlineOrder:
        """Returns the queue of a place, by its word; KeyError for one that is no queue."""
        for order in self.orders:
            if order.place.value == place:
                return order
        raise KeyError(place)

    def remove(self, queued: Queued) -> None:
        """Takes a waiting request out of whichever queue it is in."""
        for order in self.orders:
            if order.place is queued.place:
                order.remove(queued)
                return
        self.keep_in_halves(lambda other: other is not queued)

    def keep_in_halves(self, keep: Callable[[Queued], bool]) -> None:
        """Takes everybody else out of the halves; no half is left empty."""
        for backend, halves in self.halves.items():
            kept = (tuple(filter(keep, half)) for half in halves)
            self.halves[backend] = deque(half for half in kept if half)

    def halved(self) -> Iterator[Queued]:
        """Iterates over those who wait in halves."""
        return chain.from_iterable(chain.from_iterable(self.halves.values()))

    def take_all(self) -> tuple[Queued, ...]:
        """Empties every queue of the lane and returns who was waiting."""
        halved = tuple(self.halved())
        self.keep_in_halves(lambda _: False)
        return (*halved, *chain.from_iterable(order.take_all() for order in self.orders))

"""One model's queues: its queues, and the plan as the dispatcher reads it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from scheduler.dispatch.forecast import ServiceTimes
from scheduler.dispatch.function_buffer import Buffer, Routes
from scheduler.dispatch.lateness_price import LatenessPrice
from scheduler.dispatch.queue import DeadlineOrder, Place, QueuedRequest, deadline_order
from scheduler.domain.batches import Batch
from scheduler.domain.plans import BufferPlan, GroupPlan, Limits, ModelSettings
from scheduler.domain.requests import Backend

STEP = 0.2
"""A weight or a rate that moves by less than this part is not worth new prices."""


def _order_at(place: Place) -> DeadlineOrder:
    return DeadlineOrder(place)


@dataclass(slots=True, eq=False)
class ModelQueues:
    """Requests of one model and the terms on which they leave."""

    model: ModelSettings
    plan: GroupPlan
    limits: Limits = field(default_factory=Limits)
    edge_cap: int = 0
    """Most items in an edge batch; 0 without an edge."""
    edge_limit: int = 0
    """Most items in one request that the edge can take; 0 without an edge. A request may be larger than the planned
    batches: its own deadline may be later than its class's."""
    buffers: tuple[Buffer, ...] = ()
    """Where requests are gathered for function batches; empty without functions."""
    routes: Routes = field(default_factory=lambda: Routes(()))
    edge_only: frozenset[str] = frozenset()
    """Classes whose data never leaves the site."""
    deferrable: frozenset[str] = frozenset()
    """Classes that wait for an idle edge."""
    served_late: frozenset[str] = frozenset()
    starved_at_s: float = float("-inf")
    """When a request last had no room on the edge and might have gone to a function."""
    edge_times: ServiceTimes | None = None
    """None: no edge for this model."""
    lateness: LatenessPrice = field(default_factory=LatenessPrice)
    priced_from: tuple[object, ...] = ()
    priced_log_multiplier: float = 0.0
    priced_rps: float = 0.0
    rate_rps: float = 0.0
    """Items a second just now: who else will join the next batch."""
    item_bytes: float = 0.0
    next_batch: DeadlineOrder = field(default_factory=lambda: _order_at(Place.EDGE))
    waiting: DeadlineOrder = field(default_factory=lambda: _order_at(Place.WAITING))
    late: DeadlineOrder = field(default_factory=lambda: _order_at(Place.LATE))
    deferred: DeadlineOrder = field(default_factory=lambda: _order_at(Place.DEFERRED))
    halves: dict[Backend, deque[tuple[QueuedRequest, ...]]] = field(
        default_factory=lambda: {b: deque() for b in Backend}
    )
    """Halves of batches whose content a backend refused: sent to it again, as they are."""
    late_opened_at_s: float = 0.0

    @property
    def orders(self) -> tuple[DeadlineOrder, ...]:
        """All queues of the queues."""
        gathered = (buffer.gathered for buffer in self.buffers)
        return self.next_batch, self.waiting, *gathered, self.late, self.deferred

    @property
    def spills(self) -> bool:
        """Whether there is a function that takes batches at all."""
        return any(buffer.cap for buffer in self.buffers)

    @property
    def spilled_items(self) -> int:
        """Items that are gathered for functions."""
        return sum(buffer.gathered.items for buffer in self.buffers)

    def spilled(self) -> Sequence[QueuedRequest]:
        """Returns those who are gathered for functions, earliest deadline first; not to be changed."""
        if len(self.buffers) == 1:
            return self.buffers[0].gathered.members
        return sorted(chain.from_iterable(buffer.gathered for buffer in self.buffers), key=deadline_order)

    def buffer_of(self, queued: QueuedRequest) -> Buffer | None:
        """Returns the buffer that a request belongs to, whether it may go there or not; None without functions."""
        return self.routes.find(queued)

    def times_of(self, batch: Batch) -> ServiceTimes | None:
        """Returns the service tables of the side that a batch was sent to; None where they are not kept any more."""
        if batch.backend is Backend.EDGE:
            return self.edge_times
        of_tier = [buffer for buffer in self.buffers if buffer.tier.name == batch.tier]
        same = (buffer.times for buffer in of_tier if buffer.plan.size_factor == batch.size_factor)
        return next(same, of_tier[0].times if of_tier else None)

    def recap(self) -> None:
        """Works out the most items of a batch, after tables, plan or limits have changed."""
        limits, plan = self.limits, self.plan
        self.edge_cap = self.edge_limit = 0
        if self.edge_times is not None:
            most = self.edge_times.max_batch if limits.edge_batch_cap is None else limits.edge_batch_cap
            most = min(most, self.edge_times.max_batch)
            self.edge_cap = min(plan.edge_batch_cap, most)
            self.edge_limit = most if self.edge_cap else 0
        for buffer in self.buffers:
            buffer.limits = limits
            buffer.recap()

    def learn(self, edge_times: ServiceTimes | None, function_times: Sequence[ServiceTimes | None]) -> None:
        """Takes over service tables, one for each buffer."""
        moved = edge_times is not self.edge_times
        self.edge_times = edge_times
        for buffer, times in zip(self.buffers, function_times, strict=True):
            moved = moved or times is not buffer.times
            buffer.times = times
        if moved:
            self.recap()

    def arrives(self, *, rate_rps: float, item_bytes: float) -> None:
        """Notes how many items a second arrive just now, and of what size."""
        self.rate_rps, self.item_bytes = rate_rps, item_bytes
        for buffer in self.buffers:
            plan = buffer.plan
            buffer.rate_rps = rate_rps * plan.share
            buffer.item_bytes = item_bytes if plan.item_bytes is None else plan.item_bytes

    def needs_pricing(self) -> bool:
        """Whether what prices were made from has moved far enough."""
        state = (self.edge_times, *[buffer.times for buffer in self.buffers], self.limits, self.plan)
        weight = max((b.log_multiplier for b in self.lateness.budgets.values()), default=0.0)
        rate_rps = self.rate_rps
        moved = (
            abs(weight - self.priced_log_multiplier) > STEP or abs(rate_rps - self.priced_rps) > STEP * self.priced_rps
        )
        if not moved and state == self.priced_from:
            return False
        self.priced_from, self.priced_log_multiplier, self.priced_rps = state, weight, rate_rps
        return True

    def adopt(self, model: ModelSettings, plan: GroupPlan) -> None:
        """Follows a new plan, and settings that may have changed with it. Nobody may wait in the buffers."""
        assert not self.spilled_items, "whoever is gathered is placed anew under the new plan"
        self.model, self.plan = model, plan
        self.lateness.adopt(model.classes)
        self.buffers = tuple(self._buffer(buffer_plan) for buffer_plan in plan.buffers)
        self.routes = Routes(self.buffers)
        self.arrives(rate_rps=self.rate_rps, item_bytes=self.item_bytes)
        self.recap()
        self.edge_only = frozenset(c.name for c in model.classes if c.edge_only)
        self.deferrable = frozenset(c.name for c in model.classes if c.deferrable)
        self.served_late = frozenset(c.name for c in model.classes if c.serve_late)

    def _buffer(self, plan: BufferPlan) -> Buffer:
        """A buffer for a plan; what is known of the tier's warmth and of its use stays."""
        tier = self.model.tier(plan.tier)
        slos_s = {c.name: c.slo_s for c in self.model.classes if c.name in plan.classes}
        buffer = Buffer(self.model, plan, tier, self.lateness, slos_s=slos_s)
        for before in self.buffers:
            ours, theirs = ((p.tier, p.classes, p.up_to_bytes) for p in (plan, before.plan))
            if ours == theirs:
                buffer.times, buffer.costs = before.times, before.costs
                buffer.cheapest_size, buffer.spill_cost = before.cheapest_size, before.spill_cost
                buffer.wanted_items, buffer.wanted_at_s = before.wanted_items, before.wanted_at_s
        return buffer

    def serves_late(self, queued: QueuedRequest) -> bool:
        """Whether this request is sent even when its deadline cannot be met; no, if its class was reloaded away."""
        return queued.request.class_name in self.served_late

    def order(self, place: str) -> DeadlineOrder:
        """Returns the queue of a place, by its word; KeyError for one that is no queue."""
        for order in self.orders:
            if order.place.value == place:
                return order
        raise KeyError(place)

    def remove(self, queued: QueuedRequest) -> None:
        """Takes a waiting request out of whichever queue it is in."""
        if queued.place is Place.SPILL:
            self.take_back(queued)
            return
        for order in self.orders:
            if order.place is queued.place:
                order.remove(queued)
                return
        self.keep_in_halves(lambda other: other is not queued)

    def take_back(self, queued: QueuedRequest) -> None:
        """Takes a request out of the buffer in which it is gathered."""
        buffer = self.buffer_of(queued)
        assert buffer is not None
        buffer.gathered.remove(queued)
        buffer.closes_at_s = None

    def keep_in_halves(self, keep: Callable[[QueuedRequest], bool]) -> None:
        """Takes everybody else out of the halves; no half is left empty."""
        for backend, halves in self.halves.items():
            kept = (tuple(filter(keep, half)) for half in halves)
            self.halves[backend] = deque(half for half in kept if half)

    def halved(self) -> Iterator[QueuedRequest]:
        """Iterates over those who wait in halves."""
        return chain.from_iterable(chain.from_iterable(self.halves.values()))

    def take_all(self) -> tuple[QueuedRequest, ...]:
        """Empties every queue of the queues and returns who was waiting."""
        halved = tuple(self.halved())
        self.keep_in_halves(lambda _: False)
        return (*halved, *chain.from_iterable(order.take_all() for order in self.orders))

"""One function buffer: the requests gathered for a batch of one tier, and what decides when the batch leaves."""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scheduler.dispatch.demand import Demand
from scheduler.dispatch.lateness_price import BufferPrices, LatenessPrice
from scheduler.dispatch.queue import Changes, DeadlineOrder, QueuedRequest
from scheduler.dispatch.uplink import Slots
from scheduler.domain.batches import WhyLeft
from scheduler.domain.latency import FunctionTier
from scheduler.domain.lifecycle import State
from scheduler.domain.plans import BufferPlan, Limits, ModelSettings
from scheduler.domain.requests import Place
from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import ServiceTimes

COLD_LOOK_S = 0.1
"""How often the risk of a cold start is looked at anew. Judgement: in simulations of 3,000 requests halving or doubling
it changes cost within noise."""
COLD_COUNTS = 0.05
"""Probability of a cold start from which on it may explain a late answer. Judgement: halved or doubled, cost and
lateness stay within noise."""
FEARED_COLD = 0.01
"""Probability of a cold start from which on a batch's leaving is searched on both sides of the step that the start
makes in the lateness. Derived: below it a percentile of 0.99 holds even where every cold start is late."""
START_PERCENTILES = (0.25, 0.5, 0.9, 0.99)
"""Where a batch might leave: while starts so long are still over in time. Judgement: typical ones, and the tail that a
percentile of 0.99 is about."""
JOINS = 4
"""Members that joined last, whose distances say how soon the next one will. Judgement: a burst is known after four, and
a lone request is no burst."""
SURE = Scatter(sigma=0.0), 1.0
"""Of cold starts of which nothing is known: each takes a second. No forecast is made before the pool is looked at."""
SURELY_COLD = 0.95
"""Probability of a cold start where nothing else explains a late answer. Judgement: in simulations of 3,000 requests
halving it changes cost within noise."""


class WarmPool(Protocol):
    """What dispatching needs to know of a tier's instances."""

    @property
    def busy(self) -> int:
        """Batches in flight, each on an instance of its own."""

    @property
    def changes(self) -> int:
        """Counts what happened to the pool: as long as it is the same, so is every forecast."""

    def cold_probability(self, at_s: float, *, now_s: float | None = None, behind: int = 0) -> float:
        """Returns the probability that a batch sent at that time, as foreseen now, would meet a cold start.

        `behind`: batches that are sent just before it.
        """

    @property
    def starts_seen(self) -> int:
        """Cold starts whose seconds are known."""

    def start_s(self, percentile: float) -> float:
        """Returns the seconds within which a cold start is over with this probability."""

    def start_quantiles_s(self, percentiles: tuple[float, ...]) -> tuple[float, ...]:
        """Returns the seconds within which a cold start is over with each of these probabilities."""

    def starts(self) -> tuple[Scatter, float]:
        """Returns the distribution of the logarithm of a cold start's seconds, and the seconds whose logarithm is 0."""

    def init_s(self, percentile: float) -> float:
        """Returns the seconds within which the billed part of a start, the initializer, is over with a probability."""

    def sent(self, batch_id: int, *, now_s: float, back_s: float) -> None:
        """Notes that a batch, or a warming call, was sent, and when it is back at the latest from a warm instance."""


@dataclass(slots=True, eq=False)
class FunctionBuffer:
    """Requests of one model that share function batches, and the terms on which those leave.

    Attributes:
        model: the settings.
        plan: which classes, which tier, how large, how long.
        tier: the planned one.
        lateness: the model's budgets, which all its buffers share.
    """

    model: ModelSettings
    plan: BufferPlan
    tier: FunctionTier
    lateness: LatenessPrice
    limits: Limits = field(default_factory=Limits)
    slos_s: dict[str, float] = field(default_factory=dict)
    """By class of the plan."""
    warm: WarmPool | None = None
    """What is known of the tier's instances; None: nothing."""
    times: ServiceTimes | None = None
    """Service tables of the tier; None until they are known."""
    prices: BufferPrices = BufferPrices()
    cap: int = 0
    """Most items in a batch; 0 while no batch can be sent."""
    at_once: int = 1
    """Items at which a batch leaves without another look: it is full, or the operator wants no wait."""
    changes: Changes = field(default_factory=Changes)
    """Those of its lane."""
    queue: DeadlineOrder = field(init=False)
    opened_at_s: float = 0.0
    rate_rps: float = 0.0
    """Items a second of its classes just now."""
    item_bytes: float = 0.0
    demand: Demand = field(default_factory=Demand)
    """Items that functions are wanted for; common to the buffers of all lanes."""
    cold: float = 0.0
    """Probability that a batch sent now meets a cold start."""
    cold_start_s: float = 0.0
    """Median seconds of one."""
    starts_s: tuple[float, ...] = ()
    """The seconds of one at `START_PERCENTILES`."""
    starts: tuple[Scatter, float] = SURE
    """The distribution of the logarithm of its seconds, and the seconds whose logarithm is 0."""
    start_price: float = 0.0
    """Money for the start of an instance, should a batch meet one; 0 where none can."""
    tried_at_s: float = -math.inf
    """When a request was last sent only to find out whether the tier is still as slow as it seems."""
    beside: tuple["FunctionBuffer", ...] = ()
    """All buffers of its pool, this one included, where there are several: see `shared_pool`."""
    _start_price: float = 0.0
    """What `start_price` is where one can."""
    _cold_seen_s: float = -math.inf
    _cold_seen_changes: int = 0
    _cold_factor: float = 1.0
    """On the pool's forecasts: a batch that is overdue says more than they know."""
    _joined_s: deque[float] = field(default_factory=lambda: deque(maxlen=JOINS))
    closes_for: WhyLeft = WhyLeft.PRICE
    """Why it must leave when it must."""
    _closes_at_s: float | None = None
    """When the batch must leave; None: to be worked out."""
    _closing_seen: tuple[object, ...] = ()
    """What that was worked out from."""
    pool: tuple[str, str] = field(init=False)
    """The instances that its batches run on: those of a model and tier."""
    slots: Slots = field(init=False)
    place: Place = field(init=False)
    max_bytes: int = field(init=False)
    """Most bytes of the requests of one batch."""

    def __post_init__(self) -> None:
        """Derives what its tier says."""
        self.queue = DeadlineOrder(State.FUNCTION, self.changes)
        self.max_bytes = self.tier.max_body_bytes
        self.pool = self.model.name, self.tier.name
        self.place = Place.function(self.tier.name)
        self.slots = Slots(0, self.pool, self.tier.max_in_flight)

    @property
    def known_times(self) -> ServiceTimes:
        """The service tables; ValueError while there are none."""
        if self.times is None:
            raise ValueError(f"nothing is known of tier {self.tier.name!r} of model {self.model.name!r}")
        return self.times

    @property
    def target(self) -> int:
        """Items at which a batch is expected to leave."""
        if self.limits.window_s == 0:
            return 1
        return max(1, min(self.plan.target_batch, self.cap))

    @property
    def follows_fixed_plan(self) -> bool:
        """Whether batches leave just as a loaded plan says.

        A percentile is a budget: once more are late than may be, the plan was made from what does not hold, and batches
        are weighed like any other until the budget is kept again.
        """
        return self.plan.fixed and not self.lateness.exceeded(self.slos_s)

    @property
    def max_items(self) -> int:
        """Most items that are sent together, unless one request has more."""
        return self.target if self.plan.fixed else self.cap

    @property
    def full(self) -> bool:
        """Whether the batch that is being gathered (not empty) takes no further request like its last one."""
        queue = self.queue
        items_full = queue.items >= self.max_items
        return items_full or queue.body_bytes + queue.members[-1].request.body_bytes > self.max_bytes

    def filled_by(self, batch: Sequence[QueuedRequest]) -> bool:
        """Whether a batch (not empty) takes no further request like its last one."""
        last, items = batch[-1].request, items_of(batch)
        body_bytes = sum([q.request.body_bytes for q in batch])
        return items + last.items > self.max_items or body_bytes + last.body_bytes > self.max_bytes

    def inherit(self, before: "FunctionBuffer") -> None:
        """Takes over tables, prices and demand from the buffer of an earlier plan for the same requests."""
        self.times, self.prices, self.demand = before.times, before.prices, before.demand
        self._joined_s = before._joined_s

    def stand_beside(self, first: "FunctionBuffer") -> None:
        """Begins with what is known of the buffer of the model's first lane, for the same plan."""
        self.demand = first.demand
        if self.times is None:
            self.times = first.times
            self.follow(first)

    def follow(self, first: "FunctionBuffer") -> None:
        """Takes over prices, and what is known of cold starts, from the buffer of the model's first lane."""
        self.prices, self.cold, self.cold_start_s = first.prices, first.cold, first.cold_start_s
        self.starts_s, self.start_price, self._cold_factor = first.starts_s, first.start_price, first._cold_factor
        self.starts = first.starts

    def learn(self, times: ServiceTimes | None) -> bool:
        """Takes over service tables; returns whether they are others than before."""
        moved = times is not self.times
        self.times = times
        return moved

    def limit(self, limits: Limits) -> None:
        """Works out the most items of a batch, after tables, plan or limits have changed."""
        self.limits = limits
        self.cap = 0
        if self.times is not None:
            largest = min(self.times.max_batch, self.model.max_items)
            self.cap = largest if limits.function_batch_cap is None else min(largest, limits.function_batch_cap)
        full = self.target if self.plan.fixed else max(1, self.cap)
        self.at_once = 1 if limits.window_s == 0 else full

    def has_room(self, queued: QueuedRequest) -> bool:
        """Whether this request fits into the batch that is being gathered, beside its members."""
        queue, request = self.queue, queued.request
        if not queue.items:
            return True
        fits = queue.items + request.items <= self.max_items
        return fits and queue.body_bytes + request.body_bytes <= self.max_bytes

    def join(self, queued: QueuedRequest, *, now_s: float) -> None:
        """Adds a request to the batch that is being gathered."""
        if not len(self.queue):
            self.opened_at_s = now_s
        self._joined_s.append(now_s)
        self.queue.add(queued)
        self._closes_at_s = None

    def top_up(self, queued: QueuedRequest) -> None:
        """Adds a request to a batch that leaves at once."""
        self.queue.add(queued)

    def leave(self, queued: QueuedRequest) -> None:
        """Takes a request out of the batch that is being gathered."""
        self.queue.remove(queued)
        self._closes_at_s = None

    def take(self, batch: Sequence[QueuedRequest]) -> None:
        """Takes out the members of a batch that leaves."""
        self.queue.remove_all(batch)
        self._closes_at_s = None

    def closes_at_s(self, state: tuple[object, ...]) -> float | None:
        """Returns when the batch must leave, as worked out before from the same state; None: to be worked out."""
        return self._closes_at_s if state == self._closing_seen else None

    def close_at(self, at_s: float, why: WhyLeft, state: tuple[object, ...]) -> None:
        """Notes when the batch must leave and why, and what that was worked out from."""
        self._closes_at_s, self.closes_for, self._closing_seen = at_s, why, state

    def hold_s(self, queued: QueuedRequest) -> float:
        """Returns the longest time that this request may wait for others."""
        hold_s = self.plan.timeouts_s.get(queued.request.class_name, math.inf)
        return hold_s if self.limits.window_s is None else min(hold_s, self.limits.window_s)

    def held_until_s(self) -> float:
        """Returns when the first member has waited as long as it may, counted from when it joined.

        A request that arrived before the buffer opened had been in another queue until then.
        """
        return min(max(q.request.arrived_at_s, self.opened_at_s) + self.hold_s(q) for q in self.queue)

    def planned_leave_s(self, queued: QueuedRequest) -> float:
        """Returns when the batch must leave for this member's sake, as planned for its class's SLO.

        A request with less time than its class's SLO waits so much less.
        """
        request = queued.request
        own_s = request.deadline_s - request.arrived_at_s
        missing_s = max(0.0, self.slos_s.get(request.class_name, own_s) - own_s)
        # A request whose class a reload took away waits as little as the strictest class.
        hold_s = min(self.plan.timeouts_s.values()) if request.class_name not in self.slos_s else self.hold_s(queued)
        return request.arrived_at_s + hold_s - missing_s

    def tightest_slo_s(self) -> float:
        """Returns the shortest SLO of its classes that can be kept, or of all where there is none; inf without any."""
        return min([self.slos_s[name] for name in self.lateness.that_count(self.slos_s)], default=math.inf)

    @property
    def joining_rps(self) -> float:
        """Members a second that are to be expected, as lately: a lone request is none, however short the look."""
        lasted_s = self._joined_s[-1] - self._joined_s[0] if self._joined_s else 0.0
        return min(self.rate_rps, (len(self._joined_s) - 1) / lasted_s) if lasted_s > 0.0 else 0.0

    def cold_risk_due(self, now_s: float) -> bool:
        """Whether to ask anew how likely a cold start is: the pool has changed, or it is time."""
        warm = self.warm
        return warm is not None and (
            now_s >= self._cold_seen_s + COLD_LOOK_S or warm.changes != self._cold_seen_changes
        )

    def refresh_cold_risk(self, *, now_s: float, overdue_s: float) -> None:
        """Asks anew how likely a cold start is.

        Args:
            now_s: the present.
            overdue_s: since when the oldest batch of its pool is overdue if none was cold; inf for none.
        """
        if self.warm is None:
            return
        before = self._cold_seen_changes, self._cold_factor
        if self.warm.changes != self._cold_seen_changes or not self.starts_s:
            self.cold_start_s, self.starts_s = self.warm.start_s(0.5), self.warm.start_quantiles_s(START_PERCENTILES)
            self.starts = self.warm.starts()
            self._start_price = self.tier.price.cost(self.warm.init_s(0.5))
        self._cold_seen_s, self._cold_seen_changes = now_s, self.warm.changes
        forecast = self.cold = self.warm.cold_probability(now_s)
        if self.cold > COLD_COUNTS and now_s > overdue_s:
            # The batch that was sent first should be back if it had met a warm instance.
            self.cold = max(self.cold, SURELY_COLD)
        self.start_price = self._start_price if self.may_start else 0.0
        self._cold_factor = self.cold / forecast if forecast > 0.0 else 1.0
        if (self._cold_seen_changes, self._cold_factor) != before:
            self.changes.count += 1

    @property
    def may_start(self) -> bool:
        """Whether the next batch could meet a cold start at all: no instance is deployed that always is there for it.

        What is merely learned of warm instances is no promise.
        """
        return self.warm is not None and self.warm.busy >= self.tier.provisioned

    def cold_at(self, at_s: float, *, now_s: float, behind: int = 0) -> float:
        """Returns the probability that a batch that leaves at a time, as foreseen now, meets a cold start.

        Args:
            at_s: when it leaves.
            now_s: the present.
            behind: batches that leave just before it.
        """
        if self.warm is None:
            return 0.0
        return min(1.0, self._cold_factor * self.warm.cold_probability(at_s, now_s=now_s, behind=behind))

    @property
    def shortest_start_s(self) -> float:
        """Seconds that most cold starts take at least."""
        return self.starts_s[0] if self.starts_s else 0.0

    @property
    def starts_seen(self) -> bool:
        """Whether a batch of its pool is known to have met a cold start."""
        return self.warm is not None and self.warm.starts_seen > 0

    @property
    def pool_state(self) -> tuple[int, float]:
        """What forecasts of cold starts are made from, where there are any: as long as it is the same, so are they."""
        warm = self.warm
        return (warm.changes, self._cold_factor) if warm is not None and warm.starts_seen else (0, 1.0)


class Routes:
    """Which buffer a request belongs to: by its class, and by the size of its items where that is planned."""

    def __init__(self, buffers: tuple[FunctionBuffer, ...]) -> None:
        """Stores the buffers, those of a class by ascending size."""
        self.first = buffers[0] if buffers else None
        self.alone = len(buffers) == 1
        """Whether all requests belong to the first."""
        self._by_class: dict[str, tuple[FunctionBuffer, ...]] = {}
        for buffer in buffers:
            for name in buffer.plan.classes:
                self._by_class[name] = (*self._by_class.get(name, ()), buffer)

    def find(self, queued: QueuedRequest) -> FunctionBuffer | None:
        """Returns a request's buffer; None without functions. A class that the plan does not know goes to the first."""
        if self.alone or self.first is None:
            return self.first
        request = queued.request
        buffers = self._by_class.get(request.class_name, (self.first,))
        for buffer in buffers[:-1]:
            if buffer.plan.up_to_bytes is None or request.body_bytes <= buffer.plan.up_to_bytes * request.items:
                return buffer
        return buffers[-1]


def items_of(members: Iterable[QueuedRequest]) -> int:
    """Returns the items of a batch of these requests."""
    return sum([q.request.items for q in members])

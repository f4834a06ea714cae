"""One function buffer: who is gathered for a batch, of which tier, and what decides when it leaves."""

from dataclasses import dataclass, field
from typing import Protocol

from scheduler.dispatch.forecast import ServiceTimes
from scheduler.dispatch.lateness_price import LatenessPrice
from scheduler.dispatch.queue import DeadlineOrder, Place, QueuedRequest
from scheduler.domain.latency import FunctionTier
from scheduler.domain.plans import BufferPlan, Limits, ModelSettings


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


@dataclass(slots=True, eq=False)
class Buffer:
    """Requests of one model that share function batches, and the terms on which those leave.

    Parameters:
        model: the settings.
        plan: which classes, which tier, how large, how long.
        tier: the planned one.
        lateness: the queues's, which all its buffers share.
    """

    model: ModelSettings
    plan: BufferPlan
    tier: FunctionTier
    lateness: LatenessPrice
    limits: Limits = field(default_factory=Limits)
    slos_s: dict[str, float] = field(default_factory=dict)
    """By class of the plan."""
    times: ServiceTimes | None = None
    """Service tables of the tier; None until they are known."""
    cap: int = 0
    """Most items in a batch; 0 while there is nobody to send one to."""
    at_once: int = 1
    """Items at which a batch leaves without another look: it is full, or the operator wants no wait."""
    gathered: DeadlineOrder = field(default_factory=lambda: DeadlineOrder(Place.SPILL))
    opened_at_s: float = 0.0
    closes_at_s: float | None = None
    """When what is gathered must leave; None: to be worked out."""
    closing_seen: tuple[object, ...] = ()
    """What that was worked out from."""
    rate_rps: float = 0.0
    """Items a second of its classes just now."""
    item_bytes: float = 0.0
    costs: tuple[float, ...] = ()
    """Money for a batch of 0, 1, 2, ... items."""
    cheapest_size: int = 1
    """Items at which a batch is cheapest per request, lateness included."""
    spill_cost: float = 0.0
    """Money, lateness included, of a fresh request in such a batch."""
    warm: WarmPool | None = None
    """What is known of the tier's instances; None: nothing."""
    cold: float = 0.0
    """Probability that a batch sent now meets a cold start."""
    cold_start_s: float = 0.0
    """Typical seconds of one."""
    cold_seen_s: float = float("-inf")
    """When that was looked at."""
    tried_at_s: float = float("-inf")
    """When a request was last sent only to find out whether the tier is still as slow as it seems."""
    wanted_items: float = 0.0
    """Items that functions were wanted for lately; what is older counts less and less."""
    wanted_at_s: float = 0.0

    @property
    def pool(self) -> tuple[str, str]:
        """Whose instances its batches run on: those of a model and tier."""
        return self.model.name, self.tier.name

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

    def recap(self) -> None:
        """Works out the most items of a batch, after tables, plan or limits have changed."""
        limits = self.limits
        self.cap = 0
        if self.times is not None:
            most = min(self.times.max_batch, self.model.max_items)
            self.cap = most if limits.function_batch_cap is None else min(most, limits.function_batch_cap)
        full = self.target if self.plan.fixed else max(1, self.cap)
        self.at_once = 1 if limits.window_s == 0 else full

    def hold_s(self, queued: QueuedRequest) -> float:
        """Returns the longest this request may wait for company."""
        hold_s = self.plan.timeouts_s.get(queued.request.class_name, float("inf"))
        return hold_s if self.limits.window_s is None else min(hold_s, self.limits.window_s)

    def held_until_s(self) -> float:
        """Returns when the first of those who are gathered has waited as long as it may, counted from when it joined.

        Whoever arrived before the buffer opened had been somewhere else until then.
        """
        return min(max(q.request.arrived_at_s, self.opened_at_s) + self.hold_s(q) for q in self.gathered)

    def planned_leave_s(self, queued: QueuedRequest) -> float:
        """Returns when the batch must leave for this member's sake, as planned for its class's SLO.

        Whoever has less time than that waits so much less.
        """
        request = queued.request
        own_s = request.deadline_s - request.arrived_at_s
        missing_s = max(0.0, self.slos_s.get(request.class_name, own_s) - own_s)
        # One whose class a reload took away waits as little as the strictest.
        hold_s = min(self.plan.timeouts_s.values()) if request.class_name not in self.slos_s else self.hold_s(queued)
        return request.arrived_at_s + hold_s - missing_s

    @property
    def follows_fixed_plan(self) -> bool:
        """Whether batches leave just as a loaded plan says.

        A percentile is a budget: once more are late than may be, the plan was made from what does not hold, and batches
        are weighed like any other until the budget is kept again.
        """
        return self.plan.fixed and not self.lateness.exceeded(self.slos_s)

    @property
    def most(self) -> int:
        """Most items that are sent together, unless one request has more."""
        return self.target if self.plan.fixed else self.cap

    def has_room(self, queued: QueuedRequest) -> bool:
        """Whether this request fits into the batch that is being gathered, beside those who are in it."""
        return not len(self.gathered) or self.gathered.items + queued.request.items <= self.most


class Routes:
    """Which buffer a request belongs to: by its class, and by the size of its items where that is planned."""

    def __init__(self, buffers: tuple[Buffer, ...]) -> None:
        """Stores the buffers, those of a class by ascending size."""
        self._first = buffers[0] if buffers else None
        self._alone = len(buffers) == 1
        self._by_class: dict[str, tuple[Buffer, ...]] = {}
        for buffer in buffers:
            for name in buffer.plan.classes:
                self._by_class[name] = (*self._by_class.get(name, ()), buffer)

    def find(self, queued: QueuedRequest) -> Buffer | None:
        """Returns a request's buffer; None without functions. A class that the plan does not know goes to the first."""
        if self._alone or self._first is None:
            return self._first
        request = queued.request
        buffers = self._by_class.get(request.class_name, (self._first,))
        for buffer in buffers[:-1]:
            if buffer.plan.up_to_bytes is None or request.body_bytes <= buffer.plan.up_to_bytes * request.items:
                return buffer
        return buffers[-1]

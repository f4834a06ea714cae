"""One model's queues, and the plan and prices as the dispatcher reads them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from scheduler.dispatch.edge_terms import EdgeTerms
from scheduler.dispatch.function_buffer import FunctionBuffer, Routes, WarmPool
from scheduler.dispatch.lateness_price import BufferPrices, LatenessPrice, Prices
from scheduler.dispatch.queue import Changes, DeadlineOrder, QueuedRequest
from scheduler.dispatch.rest import Rest
from scheduler.dispatch.returning import Returning
from scheduler.dispatch.slo_budget import FIRST_MULTIPLIER
from scheduler.dispatch.tenants import Tenants
from scheduler.dispatch.waiting_line import Key, WaitingLine, in_order
from scheduler.domain.batches import Batch
from scheduler.domain.lifecycle import State
from scheduler.domain.plans import BufferPlan, GroupPlan, Limits, ModelSettings
from scheduler.domain.requests import FUNCTIONS, Backend, Request
from scheduler.domain.service_times import ServiceTimes

STEP = 0.2
"""A multiplier or a rate that moves by less than this part is not worth new prices. Judgement: in simulations of 3,000
requests halving it changes cost by +1.8 % (in time +0.2 points), doubling it within noise."""
STARVED_S = 1.0
"""How long a request that might have gone to a function keeps the link under watch. Judgement: halved or doubled, cost
and lateness stay within noise."""


def _halves() -> dict[Backend, deque[tuple[QueuedRequest, ...]]]:
    return {backend: deque() for backend in Backend}


@dataclass(slots=True, eq=False)
class ModelQueues:
    """Requests of one model and the terms on which they leave."""

    model: ModelSettings
    plan: GroupPlan
    limits: Limits = field(default_factory=Limits)
    edges: tuple[EdgeTerms, ...] = field(default_factory=lambda: (EdgeTerms(),))
    """The terms of each edge server."""
    edge_cap: int = 0
    """Most items in a batch of some edge; 0 without an edge."""
    edge_limit: int = 0
    """Most items in one request that some edge can take; 0 without an edge."""
    buffers: tuple[FunctionBuffer, ...] = ()
    """Where requests are gathered for function batches; empty without functions."""
    edge_only: frozenset[str] = frozenset()
    """Classes whose data never leaves the site."""
    deferrable: frozenset[str] = frozenset()
    """Classes that wait for an idle edge."""
    served_late: frozenset[str] = frozenset()
    spending: frozenset[str] = frozenset()
    """Classes that may miss their objectives on purpose."""
    has_edge: bool = False
    """Whether some edge server serves the model."""
    has_functions: bool = False
    """Whether there is a function that takes batches at all."""
    lateness: LatenessPrice = field(default_factory=LatenessPrice)
    rate_rps: float = 0.0
    """Items a second just now: what else will join the next batch."""
    item_bytes: float = 0.0
    changes: Changes = field(default_factory=Changes)
    rest: Rest = field(default_factory=Rest)
    next_batches: list[DeadlineOrder] = field(init=False)
    """By slot of the edges: its next batch."""
    returning: Returning = field(default_factory=Returning)
    tenants: Tenants = field(default_factory=Tenants)
    edge_later: WaitingLine = field(init=False)
    """By whether a function may take a request, priority, class and tenant."""
    overdue: WaitingLine = field(init=False)
    """By the buffer that may take a request, and tenant; those that only wait for the edge also by class."""
    deferred: DeadlineOrder = field(init=False)
    bisected: dict[Backend, deque[tuple[QueuedRequest, ...]]] = field(default_factory=_halves)
    """Halves of batches whose content a backend refused: sent to it again, as they are."""
    any_bisected: bool = False
    """Whether there are any."""
    overdue_opened_at_s: float = 0.0
    _starved_at_s: float = float("-inf")
    """When a request last had no room on the edge and might have gone to a function."""
    _routes: Routes = field(default_factory=lambda: Routes(()))
    learned_at: int | None = None
    """What was believed of the model when its tables were made, as a number; None: they are to be made anew."""
    _priced: bool = False
    """Whether the prices are those of the present tables, limits and plan."""
    _priced_log_multiplier: float = 0.0
    _priced_rps: float = 0.0

    def __post_init__(self) -> None:
        """Makes the queues."""
        self.next_batches = [DeadlineOrder(State.EDGE_BATCH, self.changes)]
        self.edge_later = WaitingLine(State.EDGE_LATER, self._rank_of, self.changes)
        self.overdue = WaitingLine(State.OVERDUE, self._taken_by, self.changes)
        self.deferred = DeadlineOrder(State.DEFERRED, self.changes)

    @property
    def orders(self) -> tuple[DeadlineOrder | WaitingLine, ...]:
        """All queues of the model."""
        gathered = (buffer.queue for buffer in self.buffers)
        return *self.next_batches, self.edge_later, *gathered, self.overdue, self.deferred

    def hurried(self, slot: int) -> tuple[DeadlineOrder | WaitingLine, ...]:
        """The queues that a slot's batch is made of, but that of deferrable requests, which give way to all others."""
        gathered = [buffer.queue for buffer in self.buffers]
        return self.next_batches[slot], self.edge_later, *gathered, self.overdue

    @property
    def promised_items(self) -> int:
        """Items in the next batches of all slots."""
        batches = self.next_batches
        return batches[0].items if len(batches) == 1 else sum([batch.items for batch in batches])

    @property
    def waits(self) -> bool:
        """Whether any request waits."""
        return self.any_bisected or any(order.items for order in self.orders)

    @property
    def gathered_items(self) -> int:
        """Items that are gathered for functions."""
        return sum(buffer.queue.items for buffer in self.buffers)

    def gathered(self) -> Iterator[QueuedRequest]:
        """Iterates over the requests gathered for functions, by deadline; the queues must not change meanwhile."""
        return in_order([buffer.queue.members for buffer in self.buffers])

    def overdue_for(self, buffer: FunctionBuffer) -> Iterable[QueuedRequest]:
        """Returns the overdue requests that a buffer may take, earliest deadline first."""
        return self.overdue.of(True, self.buffers.index(buffer))

    def waiting_for_edge(self) -> Iterable[QueuedRequest]:
        """Returns, of each class, the first of those that miss on purpose and wait for room on the edge."""
        return [members[0] for members in self.overdue.kinds() if members and members[0].only_edge]

    def _rank_of(self, queued: QueuedRequest) -> Key:
        request = queued.request
        may_leave = FUNCTIONS not in queued.failed_on and request.class_name not in self.edge_only
        label = self.tenants.label(queued) if self.tenants.shares else ""
        return may_leave, request.priority, request.class_name, label, queued.failed_on

    def _taken_by(self, queued: QueuedRequest) -> Key:
        buffer = self.buffer_of(queued)
        if queued.only_edge:
            return False, -2, queued.request.class_name, self.tenants.label(queued), queued.failed_on
        if buffer is None or FUNCTIONS in queued.failed_on or queued.request.class_name in self.edge_only:
            return False, -1, "", self.tenants.label(queued), queued.failed_on
        return True, self.buffers.index(buffer), "", self.tenants.label(queued), queued.failed_on

    def buffer_of(self, queued: QueuedRequest) -> FunctionBuffer | None:
        """Returns the buffer that a request belongs to, whether it may go there or not; None without functions."""
        routes = self._routes
        return routes.first if routes.alone else routes.find(queued)

    def times_of(self, batch: Batch) -> ServiceTimes | None:
        """Returns the service tables of the place that a batch was sent to; None where they are not kept any more."""
        if batch.backend is Backend.EDGE:
            name = batch.place.name
            for terms in self.edges:
                if terms.name == name:
                    return terms.times
            return None
        of_tier = [buffer for buffer in self.buffers if buffer.tier.name == batch.tier]
        same = (buffer.times for buffer in of_tier if buffer.plan.size_factor == batch.size_factor)
        return next(same, of_tier[0].times if of_tier else None)

    def serves_late(self, queued: QueuedRequest) -> bool:
        """Whether this request is sent even when its deadline cannot be met; no, if its class was reloaded away."""
        return queued.request.class_name in self.served_late

    def tightest_slo_s(self) -> float:
        """Returns the shortest SLO of the classes that can be kept, or of all where there is none."""
        slos_s = {c.name: c.slo_s for c in self.model.classes}
        return min(map(slos_s.__getitem__, self.lateness.that_count(slos_s)))

    def late_cost(self, request: Request) -> float:
        """Returns the price of answering this request late, in money."""
        lateness = self.lateness
        budget = lateness.budgets.get(request.class_name)
        return lateness.prices.unit_cost * (FIRST_MULTIPLIER if budget is None else budget.multiplier)

    def limit(self, limits: Limits) -> None:
        """Follows an operator's limits: works out the most items of a batch."""
        self.limits, self._priced = limits, False
        self.changes.count += 1
        for terms in self.edges:
            terms.follow(limits, self.plan)
        for batch in self.next_batches:
            batch.full = False
        self.edge_cap = max([terms.cap for terms in self.edges])
        self.edge_limit = max([terms.limit for terms in self.edges])
        for buffer in self.buffers:
            buffer.limit(limits)
        self.has_functions = any([buffer.cap for buffer in self.buffers])

    def stand_at(self, edges: Mapping[str, int]) -> None:
        """Follows which edge servers there are, and how many slots each has. No next batch may hold a request.

        What is known of servers that stay is kept.
        """
        known, slots = {terms.name: terms for terms in self.edges}, sum(edges.values())
        self.edges = tuple([known.get(name) or EdgeTerms(name) for name in edges])
        for terms in self.edges:
            terms.parallel = edges[terms.name]
        if len(self.next_batches) != slots:
            assert not self.promised_items, "what waits is withdrawn, and placed again in the slots that there are"
            self.next_batches = [DeadlineOrder(State.EDGE_BATCH, self.changes) for _ in range(slots)]
            self.rest = Rest()

    def learn(self, edge_times: Sequence[ServiceTimes | None], function_times: Sequence[ServiceTimes | None]) -> None:
        """Takes over service tables, one for each edge server and one for each buffer."""
        moved = False
        for terms, times in zip(self.edges, edge_times, strict=True):
            if times is not terms.times:
                terms.times, moved = times, True
        for buffer, times in zip(self.buffers, function_times, strict=True):
            moved = buffer.learn(times) or moved
        if moved:
            self.has_edge = any([terms.times is not None for terms in self.edges])
            self.limit(self.limits)

    def follow(self, first: "ModelQueues") -> None:
        """Takes over tables and prices of the model's first lane, as a lane of a rare shape does."""
        self.learn([terms.times for terms in first.edges], [buffer.times for buffer in first.buffers])
        self.lateness.reprice(first.lateness.prices)
        self._priced = False
        for buffer, theirs in zip(self.buffers, first.buffers, strict=True):
            buffer.follow(theirs)

    def expect(self, *, rate_rps: float, item_bytes: float) -> None:
        """Notes how many items a second arrive just now, and of what size."""
        self.rate_rps, self.item_bytes = rate_rps, item_bytes
        for buffer in self.buffers:
            plan = buffer.plan
            buffer.rate_rps = rate_rps * plan.share
            buffer.item_bytes = item_bytes if plan.item_bytes is None else plan.item_bytes

    def needs_pricing(self) -> bool:
        """Whether what prices were made from has moved far enough; notes that they are made now."""
        log_multiplier, rate_rps = self.lateness.log_multiplier, self.rate_rps
        priced_rps = self._priced_rps
        if (
            self._priced
            and abs(rate_rps - priced_rps) <= STEP * priced_rps
            and abs(log_multiplier - self._priced_log_multiplier) <= STEP
        ):
            return False
        self._priced, self._priced_log_multiplier, self._priced_rps = True, log_multiplier, rate_rps
        return True

    def reprice(self, prices: Prices, buffer_prices: Sequence[BufferPrices]) -> None:
        """Takes over new prices, the model's and those of each buffer."""
        self.lateness.reprice(prices)
        for buffer, own in zip(self.buffers, buffer_prices, strict=True):
            buffer.prices = own

    def adopt(
        self,
        model: ModelSettings,
        plan: GroupPlan,
        warm_pool: Callable[[str], WarmPool | None],
        *,
        beside: "ModelQueues | None" = None,
    ) -> None:
        """Follows a new plan, and settings that may have changed with it. No request may be waiting.

        Args:
            model: the settings.
            plan: the new plan.
            warm_pool: returns what is known of a tier's instances.
            beside: the model's first lane, which has adopted the plan; None: this is it.
        """
        waits = self.gathered_items or self.edge_later.items or self.overdue.items
        assert not waits, "what waits is withdrawn, and placed again under the new plan"
        self.model, self.plan = model, plan
        if beside is None:
            self.lateness.adopt(model.classes, plan.expected_spill_fraction, plan.outlooks)
        else:
            self.lateness.share(beside.lateness)
        self.buffers = tuple([self._buffer(buffer_plan, warm_pool(buffer_plan.tier)) for buffer_plan in plan.buffers])
        self._routes = Routes(self.buffers)
        if beside is not None:
            self.has_edge = beside.has_edge
            for terms, theirs in zip(self.edges, beside.edges, strict=True):
                terms.times = theirs.times
            for buffer, first in zip(self.buffers, beside.buffers, strict=True):
                buffer.stand_beside(first)
        self.expect(rate_rps=self.rate_rps, item_bytes=self.item_bytes)
        self.limit(self.limits)
        self.edge_only = frozenset(c.name for c in model.classes if c.edge_only)
        self.deferrable = frozenset(c.name for c in model.classes if c.deferrable)
        self.served_late = frozenset(c.name for c in model.classes if c.serve_late)
        self.spending = frozenset(c.name for c in model.classes if c.spends)

    def _buffer(self, plan: BufferPlan, warm: WarmPool | None) -> FunctionBuffer:
        """Returns a buffer for a plan; what is known of its tier and of its use is kept."""
        tier = self.model.tier(plan.tier)
        slos_s = {c.name: c.slo_s for c in self.model.classes if c.name in plan.classes}
        buffer = FunctionBuffer(self.model, plan, tier, self.lateness, slos_s=slos_s, warm=warm, changes=self.changes)
        for before in self.buffers:
            ours, theirs = ((p.tier, p.classes, p.up_to_bytes) for p in (plan, before.plan))
            if ours == theirs:
                buffer.inherit(before)
        return buffer

    def note_starved(self, *, now_s: float) -> None:
        """Notes that a request had no room on the edge and might have gone to a function."""
        self._starved_at_s = now_s

    def starved(self, now_s: float) -> bool:
        """Whether that happened lately."""
        return now_s - self._starved_at_s < STARVED_S

    def defer(self, queued: QueuedRequest) -> None:
        """Lets a request wait for an idle edge."""
        self.deferred.add(queued)

    def serve_overdue(self, queued: QueuedRequest, *, now_s: float) -> None:
        """Queues a request that will be answered late."""
        if not self.overdue.items:
            self.overdue_opened_at_s = now_s
        queued.allow_late()
        self.overdue.add(queued)

    def remove(self, queued: QueuedRequest) -> None:
        """Takes a waiting request out of whichever queue it is in."""
        match queued.state:
            case State.FUNCTION:
                self.leave_buffer(queued)
            case State.BISECTED:
                self.keep_bisected(lambda other: other is not queued)
            case State.EDGE_BATCH:
                next(batch for batch in self.next_batches if queued in batch).remove(queued)
            case state:
                next(order for order in self.orders if order.state is state).remove(queued)

    def leave_buffer(self, queued: QueuedRequest) -> None:
        """Takes a request out of the buffer in which it is gathered."""
        buffer = self.buffer_of(queued)
        assert buffer is not None
        buffer.leave(queued)

    def bisect(self, backend: Backend, half: tuple[QueuedRequest, ...]) -> None:
        """Queues one half of a batch whose content a backend refused, to be sent to it again as it is."""
        for queued in half:
            queued.enter(State.BISECTED)
        self.bisected[backend].append(half)
        self.any_bisected = True
        self.changes.count += 1

    def next_half(self, backend: Backend) -> tuple[QueuedRequest, ...]:
        """Takes out the half that has waited longest for a backend; IndexError if there is none."""
        half = self.bisected[backend].popleft()
        self.any_bisected = any(self.bisected.values())
        for queued in half:
            queued.enter(State.NEW)
        return half

    def keep_bisected(self, keep: Callable[[QueuedRequest], bool]) -> None:
        """Takes all other requests out of the halves; no half is left empty."""
        for backend, halves in self.bisected.items():
            kept = deque(half for half in (tuple(filter(keep, half)) for half in halves) if half)
            staying = set(map(id, chain.from_iterable(kept)))
            for queued in chain.from_iterable(halves):
                if id(queued) not in staying:
                    queued.enter(State.NEW)
            self.bisected[backend] = kept
        self.any_bisected = any(self.bisected.values())

    def in_halves(self) -> Iterator[QueuedRequest]:
        """Iterates over the requests that wait in halves."""
        return chain.from_iterable(chain.from_iterable(self.bisected.values()))

    def take_all(self) -> tuple[QueuedRequest, ...]:
        """Empties every queue of the model and returns the requests that waited."""
        halved = tuple(self.in_halves()) if self.any_bisected else ()
        if halved:
            self.keep_bisected(lambda _: False)
        return (*halved, *chain.from_iterable(order.take_all() for order in self.orders))

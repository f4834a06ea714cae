"""The queues of all models, with a lane for each shape of items: requests of unlike shapes never share a batch.

A lane is to the dispatcher what another model is: it has queues, function buffers, rates and prices of its own, and
takes turns with the others on the edge by urgency. What is known of the model (service tables, SLO budgets, warm
instances, the plan, demand for functions) is common to its lanes. A model whose requests all have one shape has one
lane, and nothing is decided otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from scheduler.dispatch.function_buffer import WarmPool
from scheduler.dispatch.lateness_price import LatenessPrice
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.outbox import InFlightBatch
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.shared_pool import share_pools
from scheduler.dispatch.tenants import Tenants
from scheduler.domain.plans import GroupPlan, Limits, ModelSettings
from scheduler.domain.requests import EDGE_NAME, Request

MEMORY_ITEMS = 200.0
"""Items of a model after which the shares of its shapes are forgotten. Judgement: a few batches' worth."""
KEPT = 16
"""Lanes of a model beside its first that are kept although nothing waits in them, and lanes that have prices and tables
of their own: those with at least so small a part of the items. The others have the first lane's. Judgement: a bound of
the work of each call; a lane that is opened again knows all but its rate."""
EVERY = 16
"""Arrivals after which the rates of all lanes are noted where there are more than KEPT. Judgement: a bound of work; a
lane's own arrivals are noted at once."""


@dataclass(slots=True)
class ShapeMix:
    """The shares of a model's shapes among its last items.

    >>> mix = ShapeMix()
    >>> for shape_id in (0, 0, 0, 7) * 500:
    ...     mix.arrived(shape_id, 1)
    >>> round(mix.share(0), 2), round(mix.share(7), 2), mix.share(8)
    (0.75, 0.25, 0.0)
    """

    weights: dict[int, float] = field(default_factory=lambda: {0: 1.0})
    """By shape: its items, in a unit that grows, so that older ones count less and less. All items before the second
    shape came were of the first."""
    total: float = 1.0

    def arrived(self, shape_id: int, items: int) -> None:
        """Counts the items of an arrival."""
        if self.total > 1e100:
            self.weights = {known: weight / self.total for known, weight in self.weights.items()}
            self.total = sum(self.weights.values())
        weight = self.total * items / MEMORY_ITEMS
        self.weights[shape_id] = self.weights.get(shape_id, 0.0) + weight
        self.total += weight

    def share(self, shape_id: int) -> float:
        """Returns the share of a shape."""
        return self.weights.get(shape_id, 0.0) / self.total

    def forget(self, shape_id: int) -> None:
        """Drops a shape; the others share what was its part."""
        self.weights.pop(shape_id, None)
        self.total = sum(self.weights.values())


@dataclass(slots=True, eq=False)
class Lanes:
    """Owns the queues of all models; opens a lane when the first request of its shape asks for it."""

    first: dict[str, ModelQueues] = field(default_factory=dict)
    """By model, the lane of shape 0: it is there as long as the model is served."""
    all: tuple[ModelQueues, ...] = ()
    """Every lane of every model."""
    several: bool = False
    """Whether a model has more than one lane."""
    priced: tuple[ModelQueues, ...] = ()
    """The lanes that have prices and tables of their own."""
    edges: dict[str, int] = field(default_factory=lambda: {EDGE_NAME: 1})
    """By edge server, how many batches it serves at once."""
    _others: dict[str, dict[int, ModelQueues]] = field(default_factory=dict)
    """By model and shape, the lanes beside the first."""
    _mixes: dict[str, ShapeMix] = field(default_factory=dict)
    """Of the models that had requests of several shapes."""
    _unnoted: int = 0
    """Arrivals since the rates of all lanes were noted."""

    def __contains__(self, model: str) -> bool:
        """Whether a model is served."""
        return model in self.first

    def __iter__(self) -> Iterator[str]:
        """Iterates over the names of the models."""
        return iter(self.first)

    def __getitem__(self, model: str) -> ModelQueues:
        """Returns the first lane of a model; KeyError if it is not served."""
        return self.first[model]

    def of(self, request: Request) -> ModelQueues:
        """Returns the lane of a request, which is opened if need be; KeyError if its model is not served."""
        if not request.shape_id:
            return self.first[request.model]
        lane = self._others[request.model].get(request.shape_id)
        return self._open(request) if lane is None else lane

    def get(self, request: Request) -> ModelQueues | None:
        """Returns the lane of a request; None if its model is not served any more."""
        return self.of(request) if request.model in self.first else None

    def of_batch(self, sent: InFlightBatch) -> ModelQueues | None:
        """Returns the lane of a batch in flight (a warming call is of the first); None if its model is not served."""
        return self.get(sent.members[0].request) if sent.members else self.first.get(sent.batch.model)

    def of_model(self, model: str) -> Iterator[ModelQueues]:
        """Iterates over the lanes of a model that is served, the first one first."""
        yield self.first[model]
        yield from self._others[model].values()

    def busiest(self) -> Sequence[ModelQueues]:
        """Returns of each model the lane with the most arrivals just now."""
        return [max(self.of_model(model), key=lambda lane: lane.rate_rps) for model in self.first]

    def adopt(
        self,
        model: ModelSettings,
        plan: GroupPlan,
        warm_pool: Callable[[str], WarmPool | None],
        *,
        limits: Limits,
        tenants: Tenants,
    ) -> None:
        """Follows a model's new plan in all its lanes. No request of it may be waiting.

        Args:
            model: the settings; a model that is new gets its first lane.
            plan: the new plan.
            warm_pool: returns what is known of a tier's instances.
            limits: what an operator set, for a model that is new.
            tenants: their shares and levels, for a model that is new.
        """
        if model.name not in self.first:
            self.first[model.name] = ModelQueues(model, plan, limits, tenants=tenants)
            self._others[model.name] = {}
            self._list()
        first = self.first[model.name]
        first.stand_at(self.edges)
        first.adopt(model, plan, warm_pool)
        for lane in self._others[model.name].values():
            lane.stand_at(self.edges)
            lane.adopt(model, plan, warm_pool, beside=first)
        self._share_pools(model.name)

    def stand(self) -> None:
        """Follows the number of slots in all lanes. No next batch may hold a request."""
        for lane in self.all:
            lane.stand_at(self.edges)
            lane.limit(lane.limits)

    def drop(self, served: set[str]) -> list[QueuedRequest]:
        """Drops the models that are not served any more, and returns the requests that waited for them."""
        waiting: list[QueuedRequest] = []
        for model in [model for model in self.first if model not in served]:
            for lane in self.of_model(model):
                waiting += lane.take_all()
            del self.first[model], self._others[model]
            self._mixes.pop(model, None)
        self._list()
        return waiting

    def arrived(self, request: Request, *, rate_rps: float, item_bytes: float) -> None:
        """Notes how many items a second of a model arrive just now, and of what size, with one of its requests."""
        model = request.model
        if not request.shape_id and not self._others[model]:
            self.first[model].expect(rate_rps=rate_rps, item_bytes=item_bytes)
            return
        self._close_quiet(model)
        own, mix = self.of(request), self._mixes.setdefault(model, ShapeMix())
        mix.arrived(request.shape_id, request.items)
        self._unnoted += 1
        if len(self._others[model]) > KEPT and self._unnoted < EVERY:
            own.expect(rate_rps=rate_rps * mix.share(request.shape_id), item_bytes=item_bytes)
            return
        self._unnoted = 0
        for shape_id, lane in ((0, self.first[model]), *self._others[model].items()):
            lane.expect(rate_rps=rate_rps * mix.share(shape_id), item_bytes=item_bytes)
        self._list()

    def follow_first(self) -> None:
        """Gives the lanes of rare shapes the tables and prices of their models' first lanes."""
        priced = set(map(id, self.priced))
        for model, others in self._others.items():
            first = self.first[model]
            for lane in others.values():
                if id(lane) not in priced:
                    lane.follow(first)

    def _open(self, request: Request) -> ModelQueues:
        first = self.first[request.model]
        lateness = LatenessPrice(first.lateness.budgets, first.lateness.prices)
        lane = ModelQueues(first.model, first.plan, first.limits, lateness=lateness, tenants=first.tenants)
        lane.stand_at(self.edges)
        lane.adopt(first.model, first.plan, {b.tier.name: b.warm for b in first.buffers}.get, beside=first)
        self._others[request.model][request.shape_id] = lane
        self._share_pools(request.model)
        self._list()
        return lane

    def _close_quiet(self, model: str) -> None:
        """Closes lanes in which nothing waits, those with the fewest arrivals, while there are too many."""
        others = self._others[model]
        if len(others) <= KEPT:
            return
        quiet = [shape_id for shape_id, lane in others.items() if not lane.waits]
        for shape_id in sorted(quiet, key=lambda shape_id: others[shape_id].rate_rps)[: len(others) - KEPT]:
            del others[shape_id]
            self._mixes[model].forget(shape_id)
        self._share_pools(model)
        self._list()

    def _share_pools(self, model: str) -> None:
        share_pools(buffer for lane in self.of_model(model) for buffer in lane.buffers)

    def _list(self) -> None:
        beside: list[ModelQueues] = []
        frequent: list[ModelQueues] = []
        for model, others in self._others.items():
            mix = self._mixes.get(model)
            beside += others.values()
            if mix is not None:
                frequent += [lane for shape_id, lane in others.items() if mix.share(shape_id) * KEPT >= 1.0]
        self.all, self.several = (*self.first.values(), *beside), bool(beside)
        self.priced = (*self.first.values(), *frequent)

"""Size and timeout on both sides, with the best static parameters that hindsight finds.

Queue and batch parameters set once, as operators of model servers do (NVIDIA Triton's dynamic batcher: preferred size,
queue delay and queue size, with overflow to another place): a request joins the edge's queue while that is short
enough, else the buffer of the functions. The edge takes up to a batch whenever it is free and a batch is full or its
oldest has waited long enough; the buffer leaves by size or timeout. No deadline is looked at: what keeps them is the
choice of the parameters, found by simulating the very same requests and noise (search.py).
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace

from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import TimedBuffer
from scheduler.simulator.policies.search import Trial, descend, refine
from scheduler.simulator.policies.site import Site

_BATCH_FACTORS = (0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)
"""Of the largest edge batch that takes half the SLO: two such batches in a row just keep the deadline."""
_QUEUE_FACTORS = (0.4, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25)
"""Of the edge batch."""
_WAIT_FACTORS = (0.0, 0.1, 0.25)
"""Of the SLO."""
_SLACK_FACTORS = (1.0, 0.8, 0.5, 0.2)
"""Of the time that a function batch leaves to gather in."""


@dataclass(frozen=True, slots=True)
class StaticParameters:
    """What is set once.

    Attributes:
        edge_batch: most requests in an edge batch.
        edge_timeout_s: how long the oldest waits for a batch that is not full.
        edge_queue: waiting requests at which the next goes to the functions.
        tier: where function batches go.
        function_batch: requests at which one leaves.
        function_timeout_s: the longest that its first request waits.
    """

    edge_batch: int
    edge_timeout_s: float
    edge_queue: int
    tier: FunctionTier
    function_batch: int
    function_timeout_s: float

    def shown(self) -> dict[str, object]:
        """Returns them as the report shows them."""
        return {**asdict(self), "tier": self.tier.name}


class Static(Baseline):
    """Two queues, four numbers each."""

    def __init__(self, site: Site, parameters: StaticParameters) -> None:
        """Stores its parts."""
        super().__init__(site)
        self._set = parameters
        self._queue: deque[Request] = deque()
        self._buffer = TimedBuffer(
            self, parameters.tier, size=parameters.function_batch, timeout_s=parameters.function_timeout_s
        )

    def arrived(self, request: Request, now_s: float) -> None:
        """Lets it join one of the two."""
        if len(self._queue) < self._set.edge_queue or request.class_name in self.site.stays:
            self._queue.append(request)
        else:
            self._buffer.add(request, now_s)

    def decide(self, now_s: float) -> None:
        """Fills the edge if it is free, and sends what has waited long enough."""
        self._buffer.leave_if_due(now_s)
        queue = self._queue
        if self.edge_batches or not queue:
            return
        if len(queue) >= self._set.edge_batch or queue[0].arrived_at_s + self._set.edge_timeout_s <= now_s:
            self.send_edge([queue.popleft() for _ in range(min(self._set.edge_batch, len(queue)))], now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the earlier of the two timeouts."""
        if self.edge_batches or not self._queue:
            return earliest(self._buffer.due_s)
        return earliest(self._buffer.due_s, self._queue[0].arrived_at_s + self._set.edge_timeout_s)


def best_static(site: Site, trial: Trial[StaticParameters]) -> StaticParameters:
    """Returns the parameters that hindsight finds: cheapest within the site's percentile."""
    half = site.largest_edge_batch(site.slo_s / 2)
    choices = list(_function_choices(site))
    tier, size, timeout_s = choices[0]
    start = StaticParameters(half, 0.0, half, tier, size, timeout_s)
    queue_axis = [
        {"edge_batch": batch, "edge_queue": max(1, round(batch * factor))}
        for batch in _batches(half)
        for factor in _QUEUE_FACTORS
    ]
    function_axis = [{"tier": t, "function_batch": items, "function_timeout_s": s} for t, items, s in choices]
    wait_axis: list[Mapping[str, object]] = [{"edge_timeout_s": site.slo_s * factor} for factor in _WAIT_FACTORS]
    found = descend(start, [queue_axis, function_axis, wait_axis], trial, target=site.percentile)
    return refine(found, lambda parameters: _neighbours(parameters, site), trial, target=site.percentile)


def _neighbours(at: StaticParameters, site: Site) -> Iterator[StaticParameters]:
    """One step, or three, in each number that the grid leaves gaps in."""
    for step in (-3, -1, 1, 3):
        batch, queue = max(1, at.edge_batch + step), max(1, at.edge_queue + step)
        batch = min(batch, len(site.edge_s) - 1)
        yield replace(at, edge_batch=batch, edge_queue=queue)
        yield replace(at, edge_batch=batch)
        yield replace(at, edge_queue=queue)
    for factor in (0.8, 1.25) if at.function_timeout_s else ():
        yield replace(at, function_timeout_s=at.function_timeout_s * factor)


def _batches(half: int) -> list[int]:
    return sorted({max(1, round(half * factor)) for factor in _BATCH_FACTORS})


def _function_choices(site: Site) -> Iterator[tuple[FunctionTier, int, float]]:
    """Cheapest first, so that the search starts there."""
    cheapest = site.cheapest_function(site.slo_s)
    every = [(tier, items) for tier in site.model.tiers for items in range(1, site.function_items(tier) + 1)]
    for tier, items in sorted(every, key=lambda choice: choice != cheapest):
        slack_s = site.slo_s - tier.latency.predict_s(items) - site.rtt_s
        if slack_s >= 0 or (tier, items) == cheapest:
            for factor in _SLACK_FACTORS if items > 1 else (0.0,):
                yield tier, items, max(0.0, slack_s) * factor

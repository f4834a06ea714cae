"""Static batch sizes and timeouts for edge and functions, with the best parameters that hindsight finds.

Queue and batch parameters are set once, as operators of model servers do (NVIDIA Triton's dynamic batcher: preferred
size, queue delay and queue size, with overflow to another server). A request joins the edge's queue while this queue is
short enough, otherwise the buffer for functions. Whenever the edge is free, it gets a batch if the batch is full or its
oldest request has waited long enough. The buffer sends its batch by size or timeout. The policy ignores deadlines; the
choice of its parameters, by simulating the same requests and noise (search.py), has to keep them.
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
"""Factors on the largest edge batch that takes half the SLO: two such batches in sequence just keep the deadline."""
_QUEUE_FACTORS = (0.4, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25)
"""Factors on the edge batch."""
_WAIT_FACTORS = (0.0, 0.1, 0.25)
"""Fractions of the SLO."""
_SLACK_FACTORS = (1.0, 0.8, 0.5, 0.2)
"""Fractions of the time within the SLO that the service of a function batch leaves for filling it."""


@dataclass(frozen=True, slots=True)
class StaticParameters:
    """Parameters of the policy.

    Attributes:
        edge_batch: the largest number of requests in an edge batch.
        edge_timeout_s: the longest wait of the oldest request for a full edge batch, seconds.
        edge_queue: number of waiting requests at which the next request goes to the functions.
        tier: tier of the function batches.
        function_batch: number of requests at which a function batch is sent.
        function_timeout_s: the longest wait of the first request of a function batch, seconds.
    """

    edge_batch: int
    edge_timeout_s: float
    edge_queue: int
    tier: FunctionTier
    function_batch: int
    function_timeout_s: float

    def shown(self) -> dict[str, object]:
        """Returns the parameters as entries for the report."""
        return {**asdict(self), "tier": self.tier.name}


class Static(Baseline):
    """Policy with a queue for the edge and a buffer for functions, both with static parameters."""

    def __init__(self, site: Site, parameters: StaticParameters) -> None:
        """Creates an empty queue and an empty buffer."""
        super().__init__(site)
        self._set = parameters
        self._queue: deque[Request] = deque()
        self._buffer = TimedBuffer(
            self, parameters.tier, size=parameters.function_batch, timeout_s=parameters.function_timeout_s
        )

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to the queue or to the buffer."""
        if len(self._queue) < self._set.edge_queue or request.class_name in self.site.stays:
            self._queue.append(request)
        else:
            self._buffer.add(request, now_s)

    def decide(self, now_s: float) -> None:
        """Sends a function batch after its timeout, and an edge batch if the edge is free and the batch is due."""
        self._buffer.send_if_due(now_s)
        queue = self._queue
        if self.edge_batches or not queue:
            return
        if len(queue) >= self._set.edge_batch or queue[0].arrived_at_s + self._set.edge_timeout_s <= now_s:
            self.send_edge([queue.popleft() for _ in range(min(self._set.edge_batch, len(queue)))], now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the earlier of the two timeouts; None if there is none."""
        if self.edge_batches or not self._queue:
            return earliest(self._buffer.due_s)
        return earliest(self._buffer.due_s, self._queue[0].arrived_at_s + self._set.edge_timeout_s)


def best_static(site: Site, trial: Trial[StaticParameters]) -> StaticParameters:
    """Returns the parameters that a search with hindsight finds: the cheapest within the site's percentile."""
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
    """Yields parameters one and three steps away, in the numbers of which the search tried only some values."""
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
    """Yields tier, size and timeout of function batches, the cheapest first, since the search starts there."""
    cheapest = site.cheapest_function(site.slo_s)
    every = [(tier, items) for tier in site.model.tiers for items in range(1, site.function_items(tier) + 1)]
    for tier, items in sorted(every, key=lambda choice: choice != cheapest):
        time_left_s = site.slo_s - tier.latency.predict_s(items) - site.rtt_s
        if time_left_s >= 0 or (tier, items) == cheapest:
            for factor in _SLACK_FACTORS if items > 1 else (0.0,):
                yield tier, items, max(0.0, time_left_s) * factor

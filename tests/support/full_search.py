"""The engine as it was before it looked only at the first of those that wait: everything is looked at, each time."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from unittest.mock import patch

from scheduler.dispatch import dispatcher, shared_batch, waiting_line
from scheduler.dispatch.edge_batch import Bounds, Composition
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.function_sending import FunctionSending
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.lifecycle import State
from scheduler.domain.service_times import ServiceTimes


def compose_of_all(
    waiting: Iterable[QueuedRequest],
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    drop_penalty: float,
    safe: bool = True,
    bounds: Bounds | None = None,
) -> Composition:
    """Chooses the edge's batch after trying every number of oldest requests to give up."""
    waiting = list(waiting)
    sums = [0, *accumulate(q.request.items for q in waiting)]
    best, best_score = (0, 0), float("-inf")
    for k, oldest in enumerate(waiting):
        most = max(cap, oldest.request.items)
        room = min(most, times.largest_within(oldest.request.deadline_s - now_s, safe=safe))
        end = k
        while end < len(waiting) and sums[end + 1] - sums[k] <= room:
            end += 1
        if end > k:
            items = sums[end] - sums[k]
            score = (items - drop_penalty * sums[k]) / times.median_s[items]
            if score > best_score:
                best, best_score = (k, end), score
            if end == len(waiting):
                break
    k, end = best
    return Composition(waiting[k:end], waiting[:k])


def all_in_line(
    queues: ModelQueues,
    left: Sequence[QueuedRequest],
    slot: EdgeSide,
    edges: Edges,
    side: FunctionSide,
    *,
    now_s: float,
) -> Iterator[QueuedRequest]:
    """Places all again that wait behind the edge's next batch."""
    line = queues.edge_later
    ranks = [list(rank) for rank in line.ranks(left, has_functions=queues.has_functions)]
    for queued in [queued for rank in ranks for queued in rank]:
        if queued.state is State.EDGE_LATER:
            line.remove(queued)
        yield queued


def _savable(self: FunctionSending, buffer: FunctionBuffer, *, now_s: float) -> Iterator[QueuedRequest]:
    return iter([q for q in buffer.queue if not self.side.lost(buffer, q, now_s=now_s)])


@contextmanager
def everything_is_looked_at() -> Iterator[None]:
    """Makes engines search everything while it lasts."""
    with (
        patch.object(shared_batch, "compose", compose_of_all),
        patch.object(waiting_line, "LOOK_LEAST", 10**6),
        patch.object(dispatcher, "next_in_line", all_in_line),
        patch.object(EdgeSide, "full", lambda *_, **__: False),
        patch.object(FunctionSending, "_savable", _savable),
    ):
        yield

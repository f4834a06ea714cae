"""When decisions about a queues fall due, if nothing happens before."""

from collections.abc import Iterator

from scheduler.dispatch.deferring import deferred_until_s
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues

LATE_HOLD_S = 0.25
"""How long those who are late already wait for company or for room on the edge before they go to a function."""


def due_times_s(edge: EdgeSide, function: FunctionSide, queues: ModelQueues, *, now_s: float) -> Iterator[float]:
    """Yields when decisions fall due. What is overdue waits for an answer, a free slot or its deadline."""
    for order in (queues.next_batch, queues.waiting):
        if len(order) and queues.edge_times is not None:
            request = order.first.request
            yield request.deadline_s - queues.edge_times.median_s[request.items]
            yield request.deadline_s
    if len(queues.next_batch) and queues.spills:
        yield function.latest_s(queues, queues.next_batch.first, now_s=now_s)
    for buffer in queues.buffers:
        if len(buffer.gathered):
            yield function.closes_at_s(buffer, now_s=now_s)
            yield function.hopeless_at_s(buffer, buffer.gathered.first)
            yield buffer.gathered.first.request.deadline_s
    if len(queues.deferred):
        yield deferred_until_s(edge, function, queues, queues.deferred.first, now_s=now_s)
    if len(queues.late) and queues.spills:
        yield queues.late_opened_at_s + LATE_HOLD_S
    yield from (queued.request.deadline_s for queued in queues.halved())

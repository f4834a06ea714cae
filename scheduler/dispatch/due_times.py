"""When decisions about a lane fall due, if nothing happens before."""

from collections.abc import Iterator

from scheduler.dispatch.deferring import deferred_until_s
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import Lane

LATE_HOLD_S = 0.25
"""How long those who are late already wait for company or for room on the edge before they go to a function."""


def due_times_s(edge: EdgeSide, function: FunctionSide, lane: Lane, *, now_s: float) -> Iterator[float]:
    """Yields when decisions fall due. What is overdue waits for an answer, a free slot or its deadline."""
    for order in (lane.next_batch, lane.waiting):
        if len(order) and lane.edge_times is not None:
            request = order.first.request
            yield request.deadline_s - lane.edge_times.median_s[request.items]
            yield request.deadline_s
    if len(lane.next_batch) and lane.spills:
        yield function.latest_s(lane, lane.next_batch.first, now_s=now_s)
    for buffer in lane.buffers:
        if len(buffer.gathered):
            yield function.closes_at_s(buffer, now_s=now_s)
            yield function.hopeless_at_s(buffer, buffer.gathered.first)
            yield buffer.gathered.first.request.deadline_s
    if len(lane.deferred):
        yield deferred_until_s(edge, function, lane, lane.deferred.first, now_s=now_s)
    if len(lane.late) and lane.spills:
        yield lane.late_opened_at_s + LATE_HOLD_S
    yield from (queued.request.deadline_s for queued in lane.halved())

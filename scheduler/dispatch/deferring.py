"""How long a deferrable request may wait for an edge that has nothing else to do."""

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest

RESERVE = 1.5
"""So many times what it needs at the end is kept for it."""


def deferred_until_s(
    edge: EdgeSide, function: FunctionSide, queues: ModelQueues, queued: QueuedRequest, *, now_s: float
) -> float:
    """Returns the moment from when on a deferrable request is placed like any other.

    Args:
        edge: may then need a full batch's service before this request's own.
        function: may then need its whole way, a cold start included.
        queues: of the request.
        queued: the request.
        now_s: the present.
    """
    request, needs_s = queued.request, 0.0
    if queues.edge_times is not None and edge.usable(queues, queued):
        needs_s = queues.edge_times.safe_s[request.items] + queues.edge_times.median_s[max(1, queues.edge_cap)]
    buffer = queues.buffer_of(queued)
    if buffer is not None and function.usable(queues, queued):
        items = min(max(buffer.cheapest_size, request.items), buffer.cap)
        body_bytes = items * request.body_bytes // request.items
        takes_s = function.takes_s(buffer, items=items, body_bytes=body_bytes, now_s=now_s, cautious=True)
        slo_s = request.deadline_s - request.arrived_at_s
        needs_s = max(needs_s, min(takes_s, slo_s) + buffer.cold * buffer.cold_start_s)
    return request.deadline_s - RESERVE * needs_s

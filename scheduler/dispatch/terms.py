"""The terms of both sides at the moment of a decision, as numbers for the record."""

import math

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.decisions import Decision

_NO_EDGE = (math.inf, 0, math.inf, 1.0)
_NO_FUNCTION = (math.inf, 0.0, 0, math.inf, 1.0, 0.0)


def decision(
    edge: EdgeSide,
    function: FunctionSide,
    queues: ModelQueues,
    queued: QueuedRequest,
    *,
    place: str,
    cause: str,
    plan_id: int,
    now_s: float,
) -> Decision:
    """Returns the record of a placing that is about to be carried out.

    Args:
        edge: the edge as it looks.
        function: the functions as they look.
        queues: of the request.
        queued: the request, in no queue.
        place: where it goes.
        cause: why it is placed now.
        plan_id: of the plan that is obeyed.
        now_s: the present.
    """
    request = queued.request
    on_edge = _edge_terms(edge, queues, queued, now_s) if edge.usable(queues, queued) else _NO_EDGE
    by_function = _function_terms(function, queues, queued, now_s) if function.usable(queues, queued) else _NO_FUNCTION
    start_s, items, finish_s, late = on_edge
    head = (request.request_id, now_s, place, cause, plan_id, request.deadline_s)
    return Decision(*head, start_s, items, finish_s, late, *by_function)


def _edge_terms(
    edge: EdgeSide, queues: ModelQueues, queued: QueuedRequest, now_s: float
) -> tuple[float, int, float, float]:
    times, request = queues.edge_times, queued.request
    if times is None:
        return _NO_EDGE
    start_s = edge.start_s(queues, now_s=now_s, deadline_s=request.deadline_s)
    items = min(queues.next_batch.items + request.items, times.max_batch)
    late = times.late(items, request.deadline_s - start_s)
    return start_s, items, start_s + times.median_s[items], late


def _function_terms(
    function: FunctionSide, queues: ModelQueues, queued: QueuedRequest, now_s: float
) -> tuple[float, float, int, float, float, float]:
    buffer, request = queues.buffer_of(queued), queued.request
    if buffer is None or buffer.times is None:
        return _NO_FUNCTION
    items = min(max(buffer.gathered.items + request.items, buffer.cheapest_size, request.items), buffer.cap)
    leaves_s = now_s
    if buffer.follows_fixed_plan and buffer.gathered.items + request.items < buffer.target:
        # It waits for others as planned, unless enough of them come before.
        leaves_s = max(now_s, min(map(buffer.planned_leave_s, (queued, *buffer.gathered))))
    expected_path_s = function.uplink.begins_s(leaves_s, request.body_bytes, buffer.pool) - now_s
    cold_s = buffer.cold * buffer.cold_start_s
    late = function.gathering.late(buffer, items, request.deadline_s - now_s - expected_path_s)
    finish_s = now_s + expected_path_s + cold_s + buffer.times.median_s[items]
    cost = buffer.costs[items] * request.items / items if len(buffer.costs) > items else 0.0
    return expected_path_s, cold_s, items, finish_s, late, cost

"""What a client is told who is not let in, and when to come again."""

from collections.abc import Iterable, Sequence

from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import Admission
from scheduler.domain.errors import Refusal, RefusalKind

NO_ROOM_RETRY_AFTER_S = 1.0
"""Told where nothing is known yet about how fast the queue drains."""


def no_room(admission: Admission, drain_s: float) -> Refusal:
    """Returns what is told when the queue is full.

    Args:
        admission: with the refused request counted in.
        drain_s: seconds in which the queue is expected to be worked off.
    """
    message = (
        f"the queue is full ({admission.requests - 1} requests, {admission.body_bytes} bytes with this one); "
        "retry after the time in Retry-After"
    )
    return Refusal(RefusalKind.QUEUE_FULL, message, drain_s if drain_s > 0 else NO_ROOM_RETRY_AFTER_S)


def expected_drain_s(all_queues: Iterable[ModelQueues], max_function_in_flight: int) -> float:
    """Returns what waits, divided by what the backends serve a second at full batches."""
    drain_s = 0.0
    for queues in all_queues:
        items = sum(order.items for order in queues.orders)
        items_per_s = 0.0
        if queues.edge_times is not None and queues.edge_cap > 0:
            items_per_s += queues.edge_cap / queues.edge_times.median_s[queues.edge_cap]
        # All share the slots: the slowest says least.
        batches = [(b.target, b.known_times.median_s[b.target]) for b in queues.buffers if b.cap]
        items_per_s += max_function_in_flight * min((items / takes_s for items, takes_s in batches), default=0.0)
        if items and items_per_s > 0:
            drain_s += items / items_per_s
    return drain_s


def not_served(model: str) -> Refusal:
    """Returns what is told when a reload took the model away."""
    return Refusal(RefusalKind.NO_BACKEND, f"model {model!r} is not served any more: it left the configuration")


def too_late(*, left_s: float, down: Sequence[str]) -> Refusal:
    """Returns what is told when nobody can answer in time.

    Args:
        left_s: seconds until the deadline.
        down: backends that do not answer at present.
    """
    reason = f"; not answering: {', '.join(down)}" if down else ""
    # No figure that differs from request to request: whoever counts errors groups them by their sentence.
    if left_s > 0:
        message = f"no backend can answer within the request's deadline{reason}"
    else:
        message = f"the request's deadline passed before any backend was free{reason}"
    return Refusal(RefusalKind.DEADLINE, message)

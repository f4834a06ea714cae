"""What the client of a refused request is told, and when to come again."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import Admission, QueuedRequest
from scheduler.dispatch.spend_cap import LENDER, STATE
from scheduler.domain.batches import Failure, FailureKind
from scheduler.domain.decisions import Offer, Reason
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.failures import HANDLING
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Backend, Request

RETRY_AFTER_S = 1.0
"""Told where nothing is known yet about how fast the queue drains, and while the daemon stops. Judgement: only clients
read it."""

ON_PURPOSE = (
    'the edge has no room within the request\'s deadline, and its class, with `budget = "spend"`, misses now '
    "rather than pay for a function"
)


_LEDGERS = {STATE: "the daemon's state folder", LENDER: "the daemon that this one borrows from"}


@dataclass(slots=True)
class Refusals:
    """Words the refusals of requests that no place can answer."""

    edges: Edges
    function: FunctionSide

    def refusal(self, queues: ModelQueues, queued: QueuedRequest, offers: Sequence[Offer], *, now_s: float) -> Refusal:
        """Returns what the client of a request is told for which none of the offers is possible."""
        if any(offer.reason is Reason.BUDGET for offer in offers):
            return Refusal(RefusalKind.DEADLINE, ON_PURPOSE)
        if any(offer.reason is Reason.SPEND_CAP for offer in offers):
            return self._no_money(queues, queued, now_s=now_s)
        return self._too_late(queues, queued, now_s=now_s)

    def no_answer(self, queues: ModelQueues | None, queued: QueuedRequest, *, now_s: float) -> Refusal:
        """Returns what the client is told of a request whose deadline has passed.

        Args:
            queues: of its model; None where a reload took the model away.
            queued: it waits, or its batches are in flight.
            now_s: the present.
        """
        if queued.state is not State.IN_FLIGHT and queues is not None:
            return self._too_late(queues, queued, now_s=now_s)
        sides = dict.fromkeys(attempt.backend.value for attempt in queued.attempts[-queued.copies :])
        message = f"the {' and the '.join(sides)} had not answered by the request's deadline"
        retry_s = None if queues is None else self._changes_in_s(queues, queued, now_s=now_s)
        return Refusal(RefusalKind.NO_ANSWER, message, retry_s)

    def failed(
        self, queues: ModelQueues, queued: QueuedRequest, side: Backend, failure: Failure, *, now_s: float
    ) -> Refusal:
        """Returns what the client is told of a request that a side has failed and no other can answer in time."""
        retry_s = self._changes_in_s(queues, queued, now_s=now_s)
        elsewhere = f"({failure.message}) and no other place can answer within the deadline"
        if side is Backend.FUNCTION and failure.kind is FailureKind.THROTTLED:
            if retry_s is None:  # there is room again when a call is back
                back_s = min(self.function.uplink.finishes_s.values(), default=math.inf)
                retry_s = max(0.0, back_s - now_s) if math.isfinite(back_s) else RETRY_AFTER_S
            return Refusal(RefusalKind.QUOTA, f"the functions' quota refused it {elsewhere}", retry_s)
        if failure.kind is FailureKind.THROTTLED:
            told = HANDLING[failure.kind].told
            return Refusal(told, f"the {side.value} is overloaded {elsewhere}", retry_s or RETRY_AFTER_S)
        return Refusal(RefusalKind.BACKEND, f"the {side.value} failed {elsewhere}", retry_s)

    def draining(self) -> Refusal:
        """Returns what is told when the daemon stops: another takes its place, as after an update."""
        return Refusal(RefusalKind.DRAINING, "the daemon is shutting down; send it elsewhere", RETRY_AFTER_S)

    def _too_late(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Refusal:
        down = [side for side, circuit in self._sides(queues) if not circuit.serves(queues.model.name)]
        edge_only = queued.request.class_name in queues.edge_only
        buffer, edge_limit = queues.buffer_of(queued), queues.edge_limit
        if 0 < edge_limit < queued.request.items and (edge_only or not queues.has_functions):
            return too_many_items(queued.request, edge_limit)
        if not queues.has_edge and buffer is not None and queued.request.body_bytes > buffer.max_bytes:
            return _too_large(buffer.max_bytes)
        refusal = too_late(left_s=queued.request.deadline_s - now_s, down=down, edge_only=edge_only)
        return replace(refusal, retry_after_s=self._changes_in_s(queues, queued, now_s=now_s))

    def _sides(self, queues: ModelQueues) -> Iterator[tuple[str, Circuit]]:
        """Yields the words for the edge servers and the functions that serve the model, with their circuits."""
        for own in self.edges.of_edge:
            if queues.edges[own[0].edge].times is not None:
                yield self.edges.word(own[0]), own[0].circuit
        if queues.buffers:
            yield Backend.FUNCTION.value, self.function.circuit

    def _changes_in_s(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> float | None:
        """Returns the seconds until a side that gets no batches now may get them; None where all get them."""
        edge_only, function = queued.request.class_name in queues.edge_only, self.function.circuit
        asked = [circuit for _, circuit in self._sides(queues) if circuit is not function or not edge_only]
        changes_s = [circuit.changes_in_s(now_s, queues.model.name) for circuit in asked]
        return min((at_s for at_s in changes_s if at_s is not None), default=None)

    def _no_money(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Refusal:
        """Returns what is told when only a function could answer and a spend cap forbids it."""
        closed = self.function.closed(queues, queued, now_s=now_s)
        message = f"the spend cap per {closed.window} is reached and the edge cannot answer within the deadline"
        if closed.window in _LEDGERS:
            message = (
                f"{_LEDGERS[closed.window]} leases no money, without which a spend cap could not be kept, and the edge "
                "cannot answer within the deadline"
            )
        elif closed.own:
            message = (
                f"the spend cap per {closed.window} of tenant {closed.tenant!r} is reached and the edge cannot answer "
                "within the deadline"
            )
        elif closed.tenant:
            message = (
                f"tenant {closed.tenant!r} has used its share of the spend cap per {closed.window}, the rest is kept "
                "for other tenants, and the edge cannot answer within the deadline"
            )
        elif closed.share < 1.0:
            message = (
                f"the rest of the spend cap per {closed.window} is kept for requests of higher priority, and the edge "
                "has no room to spare"
            )
        return Refusal(RefusalKind.DEADLINE, message, closed.opens_s if math.isfinite(closed.opens_s) else None)


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
    return Refusal(RefusalKind.QUEUE_FULL, message, drain_s if drain_s > 0 else RETRY_AFTER_S)


def crowded_out(tenant: str, drain_s: float) -> Refusal:
    """Returns what a waiting request is told whose place one of another tenant takes."""
    message = (
        f"the queue is full and tenant {tenant!r} holds more than its share of it; retry after the time in Retry-After"
    )
    return Refusal(RefusalKind.QUEUE_FULL, message, drain_s if drain_s > 0 else RETRY_AFTER_S)


def expected_drain_s(lanes: Lanes, max_function_in_flight: int) -> float:
    """Returns what waits, divided by what the backends serve a second at full batches."""
    drain_s = 0.0
    for queues in lanes.all:
        items = sum(order.items for order in queues.orders)
        items_per_s = 0.0
        for terms in queues.edges:
            if terms.times is not None and terms.cap > 0:
                items_per_s += terms.parallel * terms.cap / terms.times.median_s[terms.cap]
        # All share the slots: the slowest says least.
        batches = [(b.target, b.known_times.median_s[b.target]) for b in queues.buffers if b.cap]
        items_per_s += max_function_in_flight * min((items / takes_s for items, takes_s in batches), default=0.0)
        if items and items_per_s > 0:
            drain_s += items / items_per_s
    return drain_s


def too_many_items(request: Request, most: int) -> Refusal:
    """Returns what is told when the only place is the edge, which takes fewer items in a batch."""
    message = (
        f"the edge takes at most {most} items of model {request.model} at once, and the request has {request.items};"
        " send fewer items at once"
    )
    return Refusal(RefusalKind.TOO_LARGE, message)


def _too_large(max_bytes: int) -> Refusal:
    """Returns what is told when the only place is a function, whose platform takes no call so large."""
    message = f"the functions' platform takes at most {max_bytes} bytes of inputs in one call; send fewer items at once"
    return Refusal(RefusalKind.TOO_LARGE, message)


def not_served(model: str) -> Refusal:
    """Returns what is told when a reload took the model away."""
    return Refusal(RefusalKind.NO_BACKEND, f"model {model!r} is not served any more: it left the configuration")


def too_late(*, left_s: float, down: Sequence[str], edge_only: bool = False) -> Refusal:
    """Returns what is told when no place can answer in time.

    Args:
        left_s: seconds until the deadline.
        down: backends that do not answer at present.
        edge_only: whether the request's class keeps it from the functions.
    """
    reason = "; its class is edge-only, so no function was asked" if edge_only else ""
    reason += f"; not answering: {', '.join(down)}" if down else ""
    # No figure that differs from request to request: errors are counted by their sentence.
    if left_s > 0:
        message = f"no backend can answer within the request's deadline{reason}"
    else:
        message = f"the request's deadline passed before any backend was free{reason}"
    return Refusal(RefusalKind.DEADLINE, message)

"""What becomes of a request that nobody can answer in time."""

import math
from dataclasses import dataclass

from scheduler.dispatch import refusals
from scheduler.dispatch.circuit_breaker import Circuit
from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.spend_cap import SpendVerdict
from scheduler.domain.errors import Refusal, RefusalKind
from scheduler.domain.requests import Backend


@dataclass(slots=True)
class Endings:
    """Served late where its class says so and somebody may; otherwise refused, with the reason."""

    edge: EdgeSide
    function: FunctionSide

    def too_late(
        self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float, course: SpendVerdict
    ) -> tuple[str, Refusal | None]:
        """Returns where a request goes that nobody can answer in time: `late`, or `refused` and why."""
        by_edge, by_function = self.edge.usable(queues, queued), self.function.usable(queues, queued)
        paid = course is SpendVerdict.FUNCTION
        if course is SpendVerdict.EDGE_EVEN_LATE and by_edge:
            return "late", None
        if queues.serves_late(queued) and (by_edge or (by_function and paid) or self._may_come_back(queues, queued)):
            return "late", None
        if by_function and not paid:
            return "refused", self.no_money(queues, queued, now_s=now_s)
        down = [side.value for side, there, circuit in self._sides(queues) if there and not circuit.closed]
        return "refused", refusals.too_late(left_s=queued.request.deadline_s - now_s, down=down)

    def _may_come_back(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        """Whether nobody answers just now, but one that is being probed could take this request when it is back."""
        if self.edge.circuit.closed or self.function.circuit.closed:
            return False
        by_edge = queued.failed_on is not Backend.EDGE and 0 < queued.request.items <= queues.edge_limit
        return by_edge or self.function.allowed(queues, queued)

    def _sides(self, queues: ModelQueues) -> tuple[tuple[Backend, bool, Circuit], ...]:
        return (
            (Backend.EDGE, queues.edge_times is not None, self.edge.circuit),
            (Backend.FUNCTION, bool(queues.buffers), self.function.circuit),
        )

    def no_money(self, queues: ModelQueues, queued: QueuedRequest, *, now_s: float) -> Refusal:
        """Returns what is told when only a function could answer and a spend cap forbids it."""
        closed = self.function.closed(queues, queued, now_s=now_s)
        message = f"the spend cap per {closed.window} is reached and the edge cannot answer within the deadline"
        if closed.share < 1.0:
            message = (
                f"the rest of the spend cap per {closed.window} is kept for others, and the edge has no room to spare"
            )
        return Refusal(RefusalKind.DEADLINE, message, closed.opens_s if math.isfinite(closed.opens_s) else None)

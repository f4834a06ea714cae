"""Which ends of requests count for the SLO budget of their class, and as what."""

from dataclasses import dataclass

from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.lanes import Lanes
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.decisions import Reason
from scheduler.domain.errors import Refusal, RefusalKind

MISSED = frozenset({RefusalKind.DEADLINE, RefusalKind.NO_ANSWER, RefusalKind.BACKEND, RefusalKind.QUOTA})
"""Refusals that miss the objective. A full queue, a daemon that stops, a model that is not served and bad content say
nothing about where requests should have gone."""

NOT_LEARNED = frozenset({Reason.SPEND_CAP.value, Reason.BUDGET.value})
"""Reasons of refusals that are not counted here: no money, and a miss on purpose, which was counted when it was
decided."""


@dataclass(slots=True)
class EndsCounted:
    """Counts the ends of requests in the budgets of their classes.

    An answer in time counts. A late answer, a refusal for the deadline, a failure, and a client that went away at its
    deadline or after it count as a miss, but only where some side could have answered in time when the request arrived:
    of a deadline that no path can hold, and of a spend cap, no decision is to be learned.
    """

    lanes: Lanes
    edges: Edges
    function: FunctionSide

    def answered(self, queued: QueuedRequest, *, now_s: float) -> None:
        """Counts an answer."""
        request = queued.request
        queues = self.lanes.first.get(request.model)
        if queues is None or queued.spent:
            return
        missed = now_s > request.deadline_s
        budget = queues.lateness.budgets.get(request.class_name)
        if budget is not None and (not missed or self.could(queued)):
            budget.count(missed=missed, now_s=now_s)

    def refused(self, queued: QueuedRequest, refusal: Refusal, *, now_s: float) -> None:
        """Counts a refusal."""
        if refusal.kind in MISSED and refusal.reason not in NOT_LEARNED:
            self._missed(queued, now_s=now_s)

    def cancelled(self, queued: QueuedRequest, *, now_s: float) -> None:
        """Counts a request whose client went away: a miss from its deadline on, nothing before."""
        if now_s >= queued.request.deadline_s:
            self._missed(queued, now_s=now_s)

    def _missed(self, queued: QueuedRequest, *, now_s: float) -> None:
        queues = self.lanes.first.get(queued.request.model)
        if queues is not None and not queued.spent and self.could(queued):
            queues.lateness.count(queued.request.class_name, missed=True, now_s=now_s)

    def could(self, queued: QueuedRequest) -> bool:
        """Whether an idle side could have answered in time on arrival. One that is out counts if it was sent there."""
        queues = self.lanes.get(queued.request)
        return queues is not None and (self._edge_could(queues, queued) or self._function_could(queues, queued))

    def _edge_could(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        request, left_s = queued.request, queued.request.deadline_s - queued.request.arrived_at_s
        for own in self.edges.of_edge:
            terms = queues.edges[own[0].edge]
            if terms.times is None or request.items > terms.limit or terms.times.median_s[request.items] > left_s:
                continue
            if queued.attempts or own[0].circuit.serves(queues.model.name):
                return True
        return False

    def _function_could(self, queues: ModelQueues, queued: QueuedRequest) -> bool:
        request, buffer = queued.request, queues.buffer_of(queued)
        if buffer is None or request.class_name in queues.edge_only or request.items > buffer.cap:
            return False
        there = bool(queued.attempts) or self.function.circuit.serves(queues.model.name)
        takes_s = self.function.uplink.idle_path_s(request.body_bytes) + buffer.known_times.median_s[request.items]
        return there and takes_s <= request.deadline_s - request.arrived_at_s

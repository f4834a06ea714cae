"""Edge only: greedy adaptive batching.

Whenever the edge is free, it gets all waiting requests in order of arrival, as many as the earliest deadline allows. A
request that can no longer be in time is dropped when it reaches the head of the queue. A work-conserving model server
batches like this (NVIDIA Triton's dynamic batcher without a queue delay). The lazy dropping is described in Shen et
al., "Nexus: a GPU cluster engine for accelerating DNN-based video analysis" (SOSP 2019).
"""

from collections import deque

from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline
from scheduler.simulator.policies.site import Site

TOO_LATE = "the edge cannot answer before the deadline"


class EdgeOnly(Baseline):
    """Policy without functions, first in, first out."""

    def __init__(self, site: Site) -> None:
        """Creates an empty queue."""
        super().__init__(site)
        self._queue: deque[Request] = deque()

    def arrived(self, request: Request, now_s: float) -> None:  # noqa: ARG002
        """Adds the request to the queue."""
        self._queue.append(request)

    def decide(self, now_s: float) -> None:
        """Sends the next batch if the edge is free."""
        if self.edge_batches or not self._queue:
            return
        batch = self._next_batch(now_s)
        if batch:
            self.send_edge(batch, now_s)

    def _next_batch(self, now_s: float) -> list[Request]:
        queue, seconds, late = self._queue, self.site.edge_s, self.site.served_late
        batch: list[Request] = []
        latest_s = float("inf")
        while queue and len(batch) + 1 < len(seconds):
            request = queue[0]
            if now_s + seconds[1] <= request.deadline_s:
                latest_s = min(latest_s, request.deadline_s)
            elif request.class_name not in late:
                self.refuse(queue.popleft(), RefusalKind.DEADLINE, TOO_LATE)
                continue
            if now_s + seconds[len(batch) + 1] > latest_s:
                break
            batch.append(queue.popleft())
        return batch

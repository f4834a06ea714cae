"""AIMD: additive increase and multiplicative decrease of the batch size, as in Clipper's adaptive batching.

Source: Crankshaw et al., "Clipper: a low-latency online prediction serving system" (NSDI 2017), section 4.3. The
maximum batch size grows by a constant while the processing time of a batch stays within the latency objective, and
shrinks by 10 % when it does not. The objective is half the SLO here, since a request also waits for the batch before.
Clipper has one kind of backend. Here its queue feeds the edge, first in, first out. If the next batch would answer the
request at the head of the queue too late, this request goes to a buffer for functions, whose batches are sent at
their cheapest size or at their earliest deadline.
"""

from collections import deque

from scheduler.domain.batches import Batch
from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Backend, Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import DeadlineBuffer
from scheduler.simulator.policies.edge_only import TOO_LATE
from scheduler.simulator.policies.site import Site

_STEP = 1.0
_BACKOFF_FACTOR = 0.9


class Aimd(Baseline):
    """Policy with one queue and an adaptive batch size."""

    def __init__(self, site: Site) -> None:
        """Starts with batches of one request, as Clipper does."""
        super().__init__(site)
        self._queue: deque[Request] = deque()
        self._overflow = DeadlineBuffer(self)
        self._size = 1.0

    @property
    def batch_size(self) -> int:
        """Maximum number of requests in the next batch."""
        return max(1, min(int(self._size), len(self.site.edge_s) - 1))

    def arrived(self, request: Request, now_s: float) -> None:  # noqa: ARG002
        """Adds the request to the queue."""
        self._queue.append(request)

    def returned(self, batch: Batch, now_s: float) -> None:
        """Adapts the batch size to an edge batch: decreases it if too slow, increases it if full and fast enough."""
        if batch.backend is not Backend.EDGE:
            return
        if now_s - batch.sent_at_s > self.site.slo_s / 2:
            self._size = max(1.0, self._size * _BACKOFF_FACTOR)
        elif batch.items >= self.batch_size:
            self._size = min(self._size + _STEP, float(len(self.site.edge_s)))

    def decide(self, now_s: float) -> None:
        """Moves late heads to the buffer, sends the next batch if the edge is free, sends a function batch if due."""
        self._shed(now_s)
        queue = self._queue
        if queue and not self.edge_batches:
            self.send_edge([queue.popleft() for _ in range(min(self.batch_size, len(queue)))], now_s)
        self._overflow.send_if_due(now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the time at which the next function batch is due; None for never."""
        return earliest(self._overflow.due_s)

    def _shed(self, now_s: float) -> None:
        queue, seconds = self._queue, self.site.edge_s
        start_s = max(now_s, self.edge_free_at_s)
        kept: list[Request] = []
        while queue and start_s + seconds[min(self.batch_size, len(queue))] > queue[0].deadline_s:
            head = queue.popleft()
            if head.class_name not in self.site.stays and self._overflow.likely_in_time(head, now_s):
                self._overflow.add(head, now_s)
            elif start_s + seconds[1] > head.deadline_s and head.class_name not in self.site.served_late:
                self.refuse(head, RefusalKind.DEADLINE, TOO_LATE)
            else:
                kept.append(head)
        queue.extendleft(reversed(kept))

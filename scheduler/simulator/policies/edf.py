"""Earliest deadline first, without forecasts.

Liu and Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment" (J. ACM 20, 1973),
extended to batches. Whenever the edge is free, it gets the requests with the earliest deadlines, as many as the
earliest of these deadlines allows. A request waits for the edge until the last moment at which a function could still
answer in time. It is then sent to a function together with the next earliest deadlines, in the largest batch that
takes at most half the SLO. The policy uses no estimate of future arrivals or of when the edge will be free.
"""

from heapq import heappop, heappush

from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.edge_only import TOO_LATE
from scheduler.simulator.policies.site import Site

_LONGEST_LEAD = 0.9
"""Fraction of the SLO. A request waits for the edge for at least the rest, even if the function is then late."""

Waiting = list[tuple[float, int, Request]]


def function_batch(site: Site) -> tuple[FunctionTier, int]:
    """Returns tier and size of the function batches."""
    return site.cheapest_function(site.slo_s / 2)


class EarliestDeadlineFirst(Baseline):
    """Policy with two heaps by deadline: requests that can use functions in time, and the other requests."""

    def __init__(self, site: Site) -> None:
        """Creates empty heaps."""
        super().__init__(site)
        self._movable: Waiting = []
        self._stay: Waiting = []
        self._tier, self._function_batch = function_batch(site)
        self._median_s = site.function_median_s(self._tier, 1)
        self._function_s = min(site.function_s(self._tier, self._function_batch), _LONGEST_LEAD * site.slo_s)

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to one of the heaps."""
        late_there = now_s + self._median_s > request.deadline_s
        heap = self._stay if late_there or request.class_name in self.site.stays else self._movable
        heappush(heap, (request.deadline_s, request.request_id, request))

    def decide(self, now_s: float) -> None:
        """Sends the next batch if the edge is free, and function batches at their last moment."""
        if not self.edge_batches:
            batch = self._next_batch(now_s)
            if batch:
                self.send_edge(batch, now_s)
        while self._movable and self._latest_send_s() <= now_s:
            batch = [heappop(self._movable)[2] for _ in range(min(self._function_batch, len(self._movable)))]
            self.send_function(batch, self._tier, now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the last moment of the earliest deadline; None if no request may use functions."""
        return earliest(self._latest_send_s()) if self._movable else None

    def _latest_send_s(self) -> float:
        return self._movable[0][0] - self._function_s

    def _earliest(self) -> Waiting:
        if not self._stay or (self._movable and self._movable[0] < self._stay[0]):
            return self._movable
        return self._stay

    def _next_batch(self, now_s: float) -> list[Request]:
        seconds, late = self.site.edge_s, self.site.served_late
        batch: list[Request] = []
        latest_s = float("inf")
        while len(batch) + 1 < len(seconds) and (heap := self._earliest()):
            deadline_s, _, request = heap[0]
            if now_s + seconds[1] <= deadline_s:
                latest_s = min(latest_s, deadline_s)
            elif heap is self._movable:
                self._send_at_once(now_s)
                continue
            elif request.class_name not in late:
                heappop(heap)
                self.refuse(request, RefusalKind.DEADLINE, TOO_LATE)
                continue
            if now_s + seconds[len(batch) + 1] > latest_s:
                break
            batch.append(heappop(heap)[2])
        return batch

    def _send_at_once(self, now_s: float) -> None:
        """Sends the request that would be late even on an idle edge to a function, which may be faster than usual."""
        self.send_function([heappop(self._movable)[2]], self._tier, now_s)

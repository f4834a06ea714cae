"""Earliest deadline first, without forecasting.

Liu and Layland, "Scheduling algorithms for multiprogramming in a hard-real-time environment" (J. ACM 20, 1973), made
to batch: whenever the edge is free it takes the most urgent requests, as many as the most urgent of them allows. A
request waits for it until the last moment at which a function could still answer in time; then it leaves with the
next most urgent ones, in the largest function batch that takes at most half the SLO. Nothing is assumed of what will
arrive or of when the edge will be free.
"""

from heapq import heappop, heappush

from scheduler.domain.errors import RefusalKind
from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.edge_only import TOO_LATE
from scheduler.simulator.policies.site import Site

_LONGEST_LEAD = 0.9
"""Of the SLO. Where even that is too short for 99 % of the function's answers, the edge still gets a chance."""

Waiting = list[tuple[float, int, Request]]


def spilled_together(site: Site) -> tuple[FunctionTier, int]:
    """Returns tier and size of the batches that leave at the last moment."""
    return site.cheapest_function(site.slo_s / 2)


class EarliestDeadlineFirst(Baseline):
    """Two heaps by deadline: who may leave the site, and who must stay or would leave in vain."""

    def __init__(self, site: Site) -> None:
        """Nobody waits."""
        super().__init__(site)
        self._may_leave: Waiting = []
        self._stay: Waiting = []
        self._tier, self._together = spilled_together(site)
        self._median_s = site.function_median_s(self._tier, 1)
        self._function_s = min(site.function_s(self._tier, self._together), _LONGEST_LEAD * site.slo_s)

    def arrived(self, request: Request, now_s: float) -> None:
        """Lets it wait."""
        in_vain = now_s + self._median_s > request.deadline_s
        heap = self._stay if in_vain or request.class_name in self.site.stays else self._may_leave
        heappush(heap, (request.deadline_s, request.request_id, request))

    def decide(self, now_s: float) -> None:
        """Fills the edge if it is free; lets leave whose last moment it is."""
        if not self.edge_batches:
            batch = self._next_batch(now_s)
            if batch:
                self.send_edge(batch, now_s)
        while self._may_leave and self._leaves_s() <= now_s:
            batch = [heappop(self._may_leave)[2] for _ in range(min(self._together, len(self._may_leave)))]
            self.send_function(batch, self._tier, now_s)

    def next_wakeup_s(self) -> float | None:
        """Returns the most urgent request's last moment."""
        return earliest(self._leaves_s()) if self._may_leave else None

    def _leaves_s(self) -> float:
        return self._may_leave[0][0] - self._function_s

    def _most_urgent(self) -> Waiting:
        if not self._stay or (self._may_leave and self._may_leave[0] < self._stay[0]):
            return self._may_leave
        return self._stay

    def _next_batch(self, now_s: float) -> list[Request]:
        seconds, late = self.site.edge_s, self.site.served_late
        batch: list[Request] = []
        latest_s = float("inf")
        while len(batch) + 1 < len(seconds) and (heap := self._most_urgent()):
            deadline_s, _, request = heap[0]
            if now_s + seconds[1] <= deadline_s:
                latest_s = min(latest_s, deadline_s)
            elif heap is self._may_leave:
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
        """Who cannot be in time on an idle edge tries a function: that may be lucky, and waiting helps nobody."""
        self.send_function([heappop(self._may_leave)[2]], self._tier, now_s)

"""Where requests wait until a function batch is worth its price."""

import math

from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline


class TimedBuffer:
    """Size and timeout: leaves when it is full, or so long after its first request came."""

    def __init__(self, owner: Baseline, tier: FunctionTier, *, size: int, timeout_s: float) -> None:
        """Stores its parts; it is empty.

        Args:
            owner: who sends.
            tier: where to.
            size: requests at which it leaves.
            timeout_s: the longest that its first request waits.
        """
        self._owner = owner
        self._tier = tier
        self._size = size
        self._timeout_s = timeout_s
        self._requests: list[Request] = []
        self.due_s = math.inf
        """When it leaves though it is not full."""

    def add(self, request: Request, now_s: float) -> None:
        """Takes a request in, and leaves if that fills it."""
        if not self._requests:
            self.due_s = now_s + self._timeout_s
        self._requests.append(request)
        if len(self._requests) >= self._size:
            self._leave(now_s)

    def leave_if_due(self, now_s: float) -> None:
        """Leaves if its time is over."""
        if self.due_s <= now_s:
            self._leave(now_s)

    def _leave(self, now_s: float) -> None:
        self._owner.send_function(self._requests, self._tier, now_s)
        self._requests, self.due_s = [], math.inf


class DeadlineBuffer:
    """Leaves at its cheapest size, or when the tightest deadline in it can wait no longer."""

    def __init__(self, owner: Baseline) -> None:
        """Finds the cheapest size within the SLO of the owner's site; it is empty."""
        self._owner = owner
        self._tier, self._size = owner.site.cheapest_function(owner.site.slo_s)
        self._seconds = [owner.site.function_s(self._tier, items) for items in range(1, self._size + 1)]
        self._single_s = owner.site.function_median_s(self._tier, 1)
        self._requests: list[Request] = []
        self._deadline_s = math.inf
        self.due_s = math.inf
        """When it must leave."""

    def may_make_it(self, request: Request, now_s: float) -> bool:
        """Whether a call for it alone, sent now, is more likely than not in time."""
        return now_s + self._single_s <= request.deadline_s

    def add(self, request: Request, now_s: float) -> None:
        """Takes a request in; who cannot wait for a larger batch leaves before, what is full leaves at once."""
        deadline_s = min(self._deadline_s, request.deadline_s)
        if self._requests and now_s + self._seconds[len(self._requests)] > deadline_s:
            self._leave(now_s)
            deadline_s = request.deadline_s
        self._requests.append(request)
        self._deadline_s = deadline_s
        self.due_s = deadline_s - self._seconds[len(self._requests) - 1]
        if len(self._requests) >= self._size:
            self._leave(now_s)

    def leave_if_due(self, now_s: float) -> None:
        """Leaves if its tightest deadline says so."""
        if self.due_s <= now_s:
            self._leave(now_s)

    def _leave(self, now_s: float) -> None:
        self._owner.send_function(self._requests, self._tier, now_s)
        self._requests, self._deadline_s, self.due_s = [], math.inf, math.inf

"""Buffers that collect requests into function batches."""

import math

from scheduler.domain.latency import FunctionTier
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline


class TimedBuffer:
    """Buffer with a size and a timeout: its batch is sent when full, or a fixed time after its first request."""

    def __init__(self, owner: Baseline, tier: FunctionTier, *, size: int, timeout_s: float) -> None:
        """Creates an empty buffer.

        Args:
            owner: the policy that sends the batches.
            tier: tier that serves the batches.
            size: number of requests at which a batch is sent.
            timeout_s: the longest wait of the first request of a batch, seconds.
        """
        self._owner = owner
        self._tier = tier
        self._size = size
        self._timeout_s = timeout_s
        self._requests: list[Request] = []
        self.due_s = math.inf
        """Time at which the batch is sent even if it is not full; infinite if the buffer is empty."""

    def add(self, request: Request, now_s: float) -> None:
        """Adds a request, and sends the batch if it is full."""
        if not self._requests:
            self.due_s = now_s + self._timeout_s
        self._requests.append(request)
        if len(self._requests) >= self._size:
            self._send(now_s)

    def send_if_due(self, now_s: float) -> None:
        """Sends the batch if its timeout has passed."""
        if self.due_s <= now_s:
            self._send(now_s)

    def _send(self, now_s: float) -> None:
        self._owner.send_function(self._requests, self._tier, now_s)
        self._requests, self.due_s = [], math.inf


class DeadlineBuffer:
    """Buffer whose batch is sent at its cheapest size, or at the last moment for its earliest deadline."""

    def __init__(self, owner: Baseline) -> None:
        """Creates an empty buffer; its batch size is the cheapest one within the SLO of the owner's site."""
        self._owner = owner
        self._tier, self._size = owner.site.cheapest_function(owner.site.slo_s)
        self._seconds = [owner.site.function_s(self._tier, items) for items in range(1, self._size + 1)]
        self._single_s = owner.site.function_median_s(self._tier, 1)
        self._requests: list[Request] = []
        self._deadline_s = math.inf
        self.due_s = math.inf
        """Last moment to send the batch in time; infinite if the buffer is empty."""

    def likely_in_time(self, request: Request, now_s: float) -> bool:
        """Returns whether a call with this request alone, sent now, is in time with probability above one half."""
        return now_s + self._single_s <= request.deadline_s

    def add(self, request: Request, now_s: float) -> None:
        """Adds a request. Sends the batch before if it would be late with one more request, and after if it is full."""
        deadline_s = min(self._deadline_s, request.deadline_s)
        if self._requests and now_s + self._seconds[len(self._requests)] > deadline_s:
            self._send(now_s)
            deadline_s = request.deadline_s
        self._requests.append(request)
        self._deadline_s = deadline_s
        self.due_s = deadline_s - self._seconds[len(self._requests) - 1]
        if len(self._requests) >= self._size:
            self._send(now_s)

    def send_if_due(self, now_s: float) -> None:
        """Sends the batch if its last moment has come."""
        if self.due_s <= now_s:
            self._send(now_s)

    def _send(self, now_s: float) -> None:
        self._owner.send_function(self._requests, self._tier, now_s)
        self._requests, self._deadline_s, self.due_s = [], math.inf, math.inf

"""The next batch of a pool of anonymous slots: sent when any of them is free, as one edge server's next batch is.

The rule is the one that serves a single server best with fifty lines (`separate` runs one engine for each slot). The
edge has one next batch. A request that finds it empty is its first member, whose deadline will bind: it joins if the
batch that will have gathered by the time a slot is free, at the present rate, still meets that deadline. Others join
while the batch with them meets the first member's deadline. All else goes to the functions, in batches that leave at
their cheapest size or at the last moment. A free slot takes the batch at once, whatever the other slots do: so near
saturation all slots start small batches together.
"""

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from scheduler.domain.batches import Batch
from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Backend, Place, Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.buffers import DeadlineBuffer
from scheduler.simulator.policies.edge_only import TOO_LATE
from scheduler.simulator.policies.site import Site

RATE_WINDOW_S = 2.0
"""Window in which the present rate is counted."""
EXPECTED_PART = 0.9
"""Part of the requests expected by then that are taken to join."""
RESTS_S = 1.0
"""Seconds for which a slot gets no batch after one that failed, as a balancer leaves out a server that does."""


class Slots(Baseline):
    """Policy with one next batch for all slots, and one buffer for functions."""

    def __init__(self, site: Site) -> None:
        """Creates an empty batch and an empty buffer; all slots are free."""
        super().__init__(site)
        self._next: list[Request] = []
        self._buffer = DeadlineBuffer(self)
        self._recent: deque[float] = deque()
        self._free = [(0.0, number) for number in range(len(site.slots))]
        """When each slot that has no batch became free, as a heap."""
        self._busy: dict[int, tuple[float, int]] = {}
        """By batch: when it is expected back, and its slot."""
        self._resting: list[tuple[float, int]] = []
        """When each slot whose batch failed is tried again, as a heap."""

    def arrived(self, request: Request, now_s: float) -> None:
        """Adds the request to the next batch, to the functions' buffer, or to neither."""
        self._count(now_s)
        free_s, seconds = self._free_next(now_s)
        waits = request.class_name in self.site.stays
        if self._room(request, free_s, seconds, now_s):
            self._next.append(request)
        elif not waits:
            self._buffer.add(request, now_s)
        elif request.class_name in self.site.served_late:
            self._next.append(request)
        else:
            self.refuse(request, RefusalKind.DEADLINE, TOO_LATE)

    def decide(self, now_s: float) -> None:
        """Sends the next batch if a slot is free, and the functions' batch at its last moment."""
        self._buffer.send_if_due(now_s)
        while self._resting and self._resting[0][0] <= now_s:
            heappush(self._free, heappop(self._resting))
        if self._next and self._free:
            _, slot = heappop(self._free)
            most = len(self.site.slots[slot].safe_s) - 1
            batch, self._next = self._next[:most], self._next[most:]
            self._start(slot, batch, now_s)

    def returned(self, batch: Batch, now_s: float) -> None:
        """Frees the slot of a batch that came back."""
        if batch.backend is Backend.EDGE:
            _, slot = self._busy.pop(batch.batch_id)
            heappush(self._free, (now_s, slot))

    def failed(self, batch: Batch, now_s: float) -> None:
        """Leaves out a slot whose batch failed, for a while."""
        if batch.backend is Backend.EDGE:
            _, slot = self._busy.pop(batch.batch_id)
            heappush(self._resting, (now_s + RESTS_S, slot))

    def next_wakeup_s(self) -> float | None:
        """Returns the last moment of the functions' batch, or when a slot is tried again; None for neither."""
        return earliest(self._buffer.due_s, self._resting[0][0] if self._resting else math.inf)

    def _room(self, request: Request, free_s: float, seconds: Sequence[float], now_s: float) -> bool:
        """Whether the next batch with this request, and with those that will join, is in time for its first member."""
        items = len(self._next) + 1
        deadline_s = min([one.deadline_s for one in self._next], default=request.deadline_s)
        if not self._next:
            items += int(EXPECTED_PART * self._rate_rps(now_s) * (free_s - now_s))
        return items < len(seconds) and free_s + seconds[items] <= min(deadline_s, request.deadline_s)

    def _free_next(self, now_s: float) -> tuple[float, Sequence[float]]:
        """Returns when a slot is free next, and its seconds by items."""
        if self._free:
            return now_s, self.site.slots[self._free[0][1]].safe_s
        free_s, slot = min([*self._busy.values(), *self._resting])
        return max(now_s, free_s), self.site.slots[slot].safe_s

    def _start(self, slot: int, batch: Sequence[Request], now_s: float) -> None:
        at = self.site.slots[slot]
        service_s = at.beside_s + at.latency.predict_s(len(batch))
        batch_id = self.send(batch, now_s, service_s=service_s, finish_s=now_s + service_s, place=Place.edge(at.name))
        self._busy[batch_id] = now_s + service_s, slot

    def _count(self, now_s: float) -> None:
        self._recent.append(now_s)
        while self._recent[0] < now_s - RATE_WINDOW_S:
            self._recent.popleft()

    def _rate_rps(self, now_s: float) -> float:
        return len(self._recent) / max(min(RATE_WINDOW_S, now_s), math.ulp(1.0))

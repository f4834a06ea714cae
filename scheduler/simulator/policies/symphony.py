"""Symphony: deferred batches in windows of dispatch, with functions for what the edge's next batch has no room for.

Source: Chen et al., "Symphony: optimized DNN model serving using deferred batch scheduling" (arXiv 2308.07470), and its
scheduler in the repository abcdabcd987/nexus. The candidate is the batch of the earliest deadlines that is as large as
the first of them, d, allows. For its size b it may start from `frontrun` = d - latency(b + 1), when one more request
could not join any longer, until `latest` = d - latency(b). An accelerator that is free earlier waits for that.

Symphony has accelerators only, and drops what they cannot serve in time. Here a request that is not in the edge's
candidate waits for a later one as long as a function could still be in time. Functions get their batches by the same
rule; one is always free.
"""

import math
from bisect import bisect_left, bisect_right, insort

from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Request
from scheduler.simulator.policies.baseline import Baseline, earliest
from scheduler.simulator.policies.edge_only import TOO_LATE
from scheduler.simulator.policies.site import Site

Entry = tuple[float, int, Request]
"""Deadline, number and request: requests are in line by deadline."""


class Symphony(Baseline):
    """Policy with one line of requests by deadline, whose head is the edge's candidate."""

    def __init__(self, site: Site) -> None:
        """Creates an empty line."""
        super().__init__(site)
        self._line: list[Entry] = []
        self._next_s = math.inf
        self._tier, largest = site.cheapest_function(site.slo_s)
        self._function_s = [site.function_s(self._tier, items) for items in range(1, largest + 1)]
        self._median_s = site.function_median_s(self._tier, 1)

    def arrived(self, request: Request, now_s: float) -> None:  # noqa: ARG002
        """Adds the request to the line."""
        insort(self._line, (request.deadline_s, request.request_id, request))

    def decide(self, now_s: float) -> None:
        """Starts the edge's candidate and the functions' batches whose windows are open."""
        past, size = self._candidate(now_s)
        if not self.edge_batches and size and self._frontrun_s(past, size) <= now_s:
            self._start(self._line[past : past + size], now_s)
        elif not self.edge_batches and not size:
            self._start([entry for entry in self._line if self._only_edge(entry)], now_s)
        past, size = self._candidate(now_s)
        others = [*self._line[:past], *self._line[past + size :]]
        self._next_s = self._move(others, max(now_s, self.edge_free_at_s), now_s)
        past, size = self._candidate(now_s)
        if size and not self.edge_batches:
            self._next_s = min(self._next_s, self._frontrun_s(past, size))

    def next_wakeup_s(self) -> float | None:
        """Returns the beginning of the earliest window; None if a message has to come first."""
        return earliest(self._next_s)

    def _candidate(self, now_s: float) -> tuple[int, int]:
        """Returns how many at the head of the line the edge would answer too late, and the size of its candidate."""
        from_s, seconds = max(now_s, self.edge_free_at_s), self.site.edge_s
        past = bisect_left(self._line, (from_s + seconds[1],))
        if past == len(self._line):
            return past, 0
        in_time = bisect_right(seconds, self._line[past][0] - from_s) - 1
        return past, min(max(1, in_time), len(self._line) - past)

    def _frontrun_s(self, past: int, size: int) -> float:
        """Returns when one more request could not join the candidate any longer; at once for the largest size."""
        if size + 1 >= len(self.site.edge_s):
            return -math.inf
        return self._line[past][0] - self.site.edge_s[size + 1]

    def _only_edge(self, entry: Entry) -> bool:
        """Whether the edge has to serve a request even if it is late."""
        return entry[2].class_name in self.site.stays and entry[2].class_name in self.site.served_late

    def _start(self, batch: list[Entry], now_s: float) -> None:
        batch = batch[: len(self.site.edge_s) - 1]
        if batch:
            self.send_edge([request for _, _, request in batch], now_s)
            self._leave(batch)

    def _leave(self, gone: list[Entry]) -> None:
        numbers = {number for _, number, _ in gone}
        self._line = [entry for entry in self._line if entry[1] not in numbers]

    def _move(self, others: list[Entry], edge_from_s: float, now_s: float) -> float:
        """Sends function batches whose windows are open, and refuses what nothing answers in time.

        Args:
            others: the requests that are not in the edge's candidate, in line.
            edge_from_s: start of the edge's next batch.
            now_s: the time.

        Returns:
            The beginning of the next window; infinite if there is none.
        """
        stays, late = self.site.stays, self.site.served_late
        edge_until_s = edge_from_s + self.site.edge_s[1]
        lost = [e for e in others if e[2].class_name in stays - late and e[0] < edge_until_s]
        movable = [e for e in others if e[2].class_name not in stays]
        sent, next_s, at = [], math.inf, 0
        while at < len(movable):
            deadline_s, _, request = movable[at]
            next_s = deadline_s - self._function_s[min(len(movable) - at, len(self._function_s) - 1)]
            if next_s > now_s:
                break
            next_s = math.inf
            size = min(len(movable) - at, bisect_right(self._function_s, deadline_s - now_s))
            too_late = deadline_s < edge_until_s
            if not size and (now_s + self._median_s <= deadline_s or (too_late and request.class_name in late)):
                size = 1
            if size:
                batch = movable[at : at + size]
                self.send_function([request for _, _, request in batch], self._tier, now_s)
                sent += batch
            elif too_late:
                lost.append(movable[at])
            at += max(1, size)
        for _, _, request in lost:
            self.refuse(request, RefusalKind.DEADLINE, TOO_LATE)
        self._leave(sent + lost)
        return next_s

"""What the edge, the uplink and the functions will look like when a batch gets there."""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from scheduler.domain.scatter import Scatter


@dataclass(frozen=True, slots=True, eq=False)
class ServiceTimes:
    """Predicted seconds by batch size, as tables: they are read several times for every request.

    Index = items; index 0 is 0 s, so that an empty batch costs nothing.
    """

    median_s: tuple[float, ...]
    safe_s: tuple[float, ...]
    """The median times `margin`."""
    margin: float = 1.0
    """Factor on the median that a batch stays within with the wanted probability."""
    scatter: Scatter = Scatter()
    """How answers stray from the median."""
    max_batch: int = 0
    """Largest batch the tables know."""

    def largest_within(self, seconds: float, *, cautious: bool) -> int:
        """Returns the most items that take at most `seconds`; 0 if not even one does."""
        return bisect_right(self.safe_s if cautious else self.median_s, seconds) - 1 if seconds >= 0 else 0

    def late(self, items: int, slack_s: float) -> float:
        """Returns the probability that a batch of `items` takes longer than `slack_s`."""
        if slack_s <= 0:
            return 1.0
        return self.scatter.exceeds(math.log(slack_s / self.median_s[items]))


def service_times(predicted_s: Iterable[float], *, margin: float, scatter: Scatter | None = None) -> ServiceTimes:
    """Tabulates predictions for batches of 1, 2, ... items.

    A larger batch is never predicted to be faster than a smaller one, whatever noise the law was learned from:
    the tables are searched by bisection.
    """
    median = tuple(accumulate(predicted_s, max, initial=0.0))
    cautious = tuple([s * margin for s in median])
    return ServiceTimes(median, cautious, margin, Scatter(sigma=0.0) if scatter is None else scatter, len(median) - 1)


@dataclass(slots=True)
class EdgeOccupancy:
    """The edge serves one batch at a time; this is the batch it is at."""

    batch_id: int | None = None
    sent_at_s: float = 0.0
    predicted_finish_s: float = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight."""
        return self.batch_id is None

    def free_at_s(self, now_s: float) -> float:
        """Returns when the edge is expected to be free.

        A batch that is overdue is taken to need as long again as it is overdue already: without a model of what
        went wrong, the time spent so far is the best guess of the time that remains.
        """
        if self.batch_id is None:
            return now_s
        return max(self.predicted_finish_s, now_s + (now_s - self.predicted_finish_s))

    @property
    def service_s(self) -> float:
        """Expected seconds of the batch in flight; 0 if idle."""
        return 0.0 if self.batch_id is None else self.predicted_finish_s - self.sent_at_s

    def occupy(self, *, batch_id: int, now_s: float, finish_s: float) -> None:
        """Notes that a batch was sent."""
        self.batch_id, self.sent_at_s, self.predicted_finish_s = batch_id, now_s, finish_s

    def release(self, batch_id: int) -> None:
        """Notes that a batch came back; one that was given up before is ignored."""
        if self.batch_id == batch_id:
            self.batch_id = None


class Slots(NamedTuple):
    """How many function batches may be in flight: of all together, and of one pool of instances."""

    most: int
    pool: tuple[str, str] = ("", "")
    """Model and tier."""
    most_in_pool: int = 2**31


class Overdue(NamedTuple):
    """When a batch should have been back at the latest, on whose instances it is, and whether it met a warm one."""

    at_s: float
    pool: tuple[str, str]
    warm: bool


@dataclass(slots=True)
class UplinkOccupancy:
    """One pipe that all function batches share: a batch waits for the one before it."""

    bytes_per_s: float | None = None
    """None: ample."""
    rtt_s: float = 0.0
    excess_s: float = 0.0
    """What the way has been taking beyond wait, transfer and round trip, typically."""
    slack_s: float = 0.0
    """What it may take beyond that at the strictest percentile."""
    sigma_s: float = 0.0
    """How much it scatters."""
    free_at_s: float = 0.0
    finishes_s: dict[int, float] = field(default_factory=dict)
    """Batch in flight -> expected finish; as many entries as batches in flight."""
    pool_of: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Batch in flight -> the instances that it runs on."""
    in_pool: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Batches in flight by pool."""
    behind_bytes: dict[int, int] = field(default_factory=dict)
    """Batch in flight -> its bytes, in the order of the sends: what is still behind a batch in the pipe."""
    overdue: dict[int, Overdue] = field(default_factory=dict)
    """Batch in flight -> when it should have been back at the latest."""
    grace_s: dict[tuple[str, str], float] = field(default_factory=dict)
    """By pool: what a cold start may explain of that."""
    back_at_s: float = 0.0
    """When the last batch came back."""

    def transfer_s(self, body_bytes: int) -> float:
        """Returns the seconds that so many bytes occupy the pipe."""
        if self.bytes_per_s is None:
            return 0.0
        if self.bytes_per_s <= 0:
            return float("inf")
        return body_bytes / self.bytes_per_s

    def begins_s(self, at_s: float, body_bytes: int, pool: tuple[str, str] = ("", "")) -> float:
        """Returns when a function would begin with a batch that leaves at `at_s`, the way back counted in.

        Args:
            at_s: when it leaves.
            body_bytes: its size on the wire.
            pool: the instances that it would run on.
        """
        return max(at_s, self.free_at_s) + self.stalled_s(at_s, pool) + self.idle_path_s(body_bytes)

    def oldest_overdue_s(self, pool: tuple[str, str]) -> float:
        """Returns when the oldest batch of these instances should have been back if none was cold; inf for none."""
        return next((sent.at_s for sent in self.overdue.values() if sent.pool == pool), math.inf)

    def stalled_s(self, at_s: float, pool: tuple[str, str] = ("", "")) -> float:
        """Returns how long nothing has come back that should have: the link may be gone, and for as long again.

        A batch that may have met a cold instance of another tier says nothing about the link.
        """
        if at_s <= self.back_at_s or not self.overdue:
            return 0.0
        grace_s = self.grace_s.get(pool, 0.0)
        telling = (
            sent.at_s + (grace_s if sent.pool == pool else 0.0)
            for sent in self.overdue.values()
            if sent.warm or sent.pool == pool
        )
        oldest_s = next(telling, math.inf)
        return at_s - max(oldest_s, self.back_at_s) if at_s > oldest_s else 0.0

    def idle_path_s(self, body_bytes: int) -> float:
        """Returns the seconds of an idle way: transfer, round trip, and what it takes beyond them."""
        return self.transfer_s(body_bytes) + self.rtt_s + self.excess_s

    def has_slot(self, slots: Slots) -> bool:
        """Whether one more batch may be in flight."""
        return len(self.finishes_s) < slots.most and self.in_pool[slots.pool] < slots.most_in_pool

    def expected_path_s(self, body_bytes: int, *, now_s: float, slots: Slots, ahead: int = 0) -> float:
        """Returns the seconds from now until the function could begin and back: slot, pipe, transfer, round trip.

        Args:
            body_bytes: the batch on the wire.
            now_s: the present.
            slots: batches that may be in flight together.
            ahead: batches that wait for a slot before this one.
        """
        start_s = max(now_s, self.free_at_s)
        missing = len(self.finishes_s) + ahead + 1 - slots.most
        if missing > 0:
            start_s = max(start_s, _freed_s(self.finishes_s.values(), missing, start_s))
        missing = self.in_pool[slots.pool] + ahead + 1 - slots.most_in_pool
        if missing > 0:
            ours = (at_s for batch_id, at_s in self.finishes_s.items() if self.pool_of[batch_id] == slots.pool)
            start_s = max(start_s, _freed_s(ours, missing, start_s))
        return start_s - now_s + self.stalled_s(now_s, slots.pool) + self.idle_path_s(body_bytes)

    def occupy(
        self,
        *,
        batch_id: int,
        body_bytes: int,
        now_s: float,
        finish_s: float,
        overdue_s: float = math.inf,
        pool: tuple[str, str] = ("", ""),
        warm: bool = True,
    ) -> None:
        """Notes that a batch was sent, when it should be back, typically and at the latest, and whether surely warm."""
        if overdue_s < math.inf:
            self.overdue[batch_id] = Overdue(overdue_s, pool, warm)
        transfer_s = self.transfer_s(body_bytes)
        if transfer_s < float("inf"):
            self.free_at_s = max(now_s, self.free_at_s) + transfer_s
        self.finishes_s[batch_id] = finish_s
        self.pool_of[batch_id] = pool
        self.in_pool[pool] += 1
        self.behind_bytes[batch_id] = body_bytes

    def arrived(self, batch_id: int, *, upload_end_s: float) -> None:
        """Learns when a batch had really left the pipe: what was sent after it is still behind it, or was till then.

        Without this a backlog that grows because the link is slower than thought is never seen.
        """
        if batch_id not in self.behind_bytes or self.bytes_per_s is None:
            return
        sent = iter(self.behind_bytes)
        while next(sent) != batch_id:
            pass
        behind_s = self.transfer_s(sum(self.behind_bytes[later] for later in sent))
        if behind_s < float("inf"):
            self.free_at_s = upload_end_s + behind_s

    def release(self, batch_id: int, *, now_s: float) -> None:
        """Notes that a batch came back. With nothing in flight the pipe is empty, whatever was forecast."""
        if self.finishes_s.pop(batch_id, None) is not None:
            self.in_pool[self.pool_of.pop(batch_id)] -= 1
        self.overdue.pop(batch_id, None)
        self.behind_bytes.pop(batch_id, None)
        self.back_at_s = now_s
        if not self.finishes_s:
            self.free_at_s = min(self.free_at_s, now_s)


def _freed_s(finishes_s: Iterable[float], missing: int, default_s: float) -> float:
    """When so many of the batches in flight are back: all of them, where there are fewer."""
    ordered = sorted(finishes_s)
    return ordered[min(missing, len(ordered)) - 1] if ordered else default_s

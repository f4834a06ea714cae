"""The uplink to the functions: one pipe that all their batches share, and how many may be in flight."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.uplink import AMPLE_UPLINK, UplinkEstimate

Pool = tuple[str, str]
"""Model and tier: the instances that a batch runs on."""
NO_POOL: Pool = ("", "")


class Slots(NamedTuple):
    """How many function batches may be in flight: of all together, and of one pool of instances."""

    max_in_flight: int
    pool: Pool = NO_POOL
    max_in_pool: int = 2**31


class Overdue(NamedTuple):
    """When a batch should have been back at the latest, on whose instances it is, and whether it met a warm one."""

    at_s: float
    pool: Pool
    warm: bool
    sent_at_s: float = 0.0
    hung_at_s: float = math.inf
    """When it is not to be expected any more."""


@dataclass(slots=True)
class UplinkOccupancy:
    """One pipe that all function batches share: a batch waits for the one before it."""

    estimate: UplinkEstimate = AMPLE_UPLINK
    free_at_s: float = 0.0
    """When the last batch sent will have left the pipe."""
    finishes_s: dict[int, float] = field(default_factory=dict)
    """Batch in flight -> expected finish; as many entries as batches in flight."""
    pool_of: dict[int, Pool] = field(default_factory=dict)
    """Batch in flight -> the instances that it runs on."""
    in_pool: Counter[Pool] = field(default_factory=Counter)
    """Batches in flight by pool."""
    behind_bytes: dict[int, int] = field(default_factory=dict)
    """Batch in flight -> its bytes, in the order of the sends: what is still behind a batch in the pipe."""
    overdue: dict[int, Overdue] = field(default_factory=dict)
    """Batch in flight -> when it should have been back at the latest."""
    overdue_from_s: float = math.inf
    """No batch in flight is overdue before."""
    changes: int = 0
    """How often batches were sent or came back."""
    grace_s: dict[Pool, float] = field(default_factory=dict)
    """By pool: what a cold start may explain of that."""
    back_at_s: float = 0.0
    """When the last batch came back."""

    def update(self, estimate: UplinkEstimate) -> None:
        """Takes over what is known of the link now."""
        self.estimate = estimate

    def excuse(self, pool: Pool, grace_s: float) -> None:
        """Notes the seconds of a cold start that may explain why a batch of this pool is overdue."""
        self.grace_s[pool] = grace_s

    def transfer_s(self, body_bytes: int) -> float:
        """Returns the seconds that so many bytes occupy the pipe."""
        bytes_per_s = self.estimate.bytes_per_s
        if bytes_per_s is None:
            return 0.0
        return body_bytes / bytes_per_s if bytes_per_s > 0 else math.inf

    def begins_s(self, at_s: float, body_bytes: int, pool: Pool = NO_POOL) -> float:
        """Returns when a function would begin with a batch that leaves at `at_s`, the way back counted in.

        Args:
            at_s: when it leaves.
            body_bytes: its size on the wire.
            pool: the instances that it would run on.
        """
        estimate = self.estimate
        stalled_s = self.stalled_s(at_s, pool) if at_s > self.overdue_from_s and at_s > self.back_at_s else 0.0
        transfer_s = 0.0 if estimate.bytes_per_s is None else self.transfer_s(body_bytes)
        start_s = at_s if at_s > self.free_at_s else self.free_at_s
        return start_s + stalled_s + (transfer_s + estimate.rtt_s + estimate.excess_s)

    def oldest_overdue_s(self, pool: Pool) -> float:
        """Returns when the oldest batch of these instances should have been back if none was cold; inf for none."""
        return next((sent.at_s for sent in self.overdue.values() if sent.pool == pool), math.inf)

    def stalled_s(self, at_s: float, pool: Pool = NO_POOL) -> float:
        """Returns how long nothing has come back that should have: the link may be gone, and for as long again.

        A batch that may have met a cold instance of another tier says nothing about the link.
        """
        if at_s <= self.back_at_s or at_s <= self.overdue_from_s:
            return 0.0
        for sent in self.overdue.values():
            if sent.pool == pool:
                oldest_s = sent.at_s + self.grace_s.get(pool, 0.0)
            elif sent.warm:
                oldest_s = sent.at_s
            else:
                continue
            return at_s - max(oldest_s, self.back_at_s) if at_s > oldest_s else 0.0
        return 0.0

    def idle_path_s(self, body_bytes: int) -> float:
        """Returns the seconds of an idle path: transfer, round trip, and what it takes beyond them."""
        estimate = self.estimate
        transfer_s = 0.0 if estimate.bytes_per_s is None else self.transfer_s(body_bytes)
        return transfer_s + estimate.rtt_s + estimate.excess_s

    def has_slot(self, slots: Slots) -> bool:
        """Whether one more batch may be in flight."""
        return len(self.finishes_s) < slots.max_in_flight and self.in_pool[slots.pool] < slots.max_in_pool

    def expected_path_s(self, body_bytes: int, *, now_s: float, slots: Slots, ahead: int = 0) -> float:
        """Returns the seconds from now until the function could begin and back: slot, pipe, transfer, round trip.

        Args:
            body_bytes: the batch on the wire.
            now_s: the present.
            slots: batches that may be in flight together.
            ahead: batches that wait for a slot before this one.
        """
        start_s, pool = max(now_s, self.free_at_s), slots.pool
        missing = len(self.finishes_s) + ahead + 1 - slots.max_in_flight
        if missing > 0:
            start_s = max(start_s, _freed_s(self.finishes_s.values(), missing, start_s))
        missing = self.in_pool[pool] + ahead + 1 - slots.max_in_pool
        if missing > 0:
            ours = [at_s for batch_id, at_s in self.finishes_s.items() if self.pool_of[batch_id] == pool]
            start_s = max(start_s, _freed_s(ours, missing, start_s))
        stalled_s = self.stalled_s(now_s, pool) if now_s > self.overdue_from_s and now_s > self.back_at_s else 0.0
        return start_s - now_s + stalled_s + self.idle_path_s(body_bytes)

    def occupy(
        self,
        *,
        batch_id: int,
        body_bytes: int,
        now_s: float,
        finish_s: float,
        overdue_s: float = math.inf,
        pool: Pool = NO_POOL,
        warm: bool = True,
        hung_s: float = math.inf,
    ) -> None:
        """Notes that a batch was sent, when it should be back, typically and at the latest, and whether surely warm."""
        self.changes += 1
        if overdue_s < math.inf:
            self.overdue[batch_id] = Overdue(overdue_s, pool, warm, now_s, hung_s)
            self.overdue_from_s = min(self.overdue_from_s, overdue_s)
        transfer_s = self.transfer_s(body_bytes)
        if transfer_s < math.inf:
            self.free_at_s = max(now_s, self.free_at_s) + transfer_s
        self.finishes_s[batch_id] = finish_s
        self.pool_of[batch_id] = pool
        self.in_pool[pool] += 1
        self.behind_bytes[batch_id] = body_bytes

    def answered(self, batch: Batch, report: BatchReport) -> None:
        """Learns from an answer when its batch had left the pipe. A cold start hides that."""
        if batch.tier and report.service_s is not None and not report.cold_start:
            path_s = report.elapsed_s - report.service_s - self.estimate.rtt_s - self.estimate.excess_s
            self.arrived(batch.batch_id, upload_end_s=batch.sent_at_s + path_s)

    def arrived(self, batch_id: int, *, upload_end_s: float) -> None:
        """Learns when a batch had really left the pipe: what was sent after it is still behind it, or was till then.

        Without this a backlog that grows because the link is slower than thought is never seen.
        """
        if batch_id not in self.behind_bytes or self.estimate.bytes_per_s is None:
            return
        sent = iter(self.behind_bytes)
        while next(sent) != batch_id:
            pass
        behind_s = self.transfer_s(sum(self.behind_bytes[later] for later in sent))
        if behind_s < math.inf:
            self.free_at_s = upload_end_s + behind_s

    def release(self, batch_id: int, *, now_s: float) -> None:
        """Notes that a batch came back. With nothing in flight the pipe is empty, whatever was forecast."""
        self.changes += 1
        if self.finishes_s.pop(batch_id, None) is not None:
            self.in_pool[self.pool_of.pop(batch_id)] -= 1
        if self.overdue.pop(batch_id, None) is not None:
            self.overdue_from_s = min([sent.at_s for sent in self.overdue.values()], default=math.inf)
        self.behind_bytes.pop(batch_id, None)
        self.back_at_s = now_s
        if not self.finishes_s:
            self.free_at_s = min(self.free_at_s, now_s)


def _freed_s(finishes_s: Iterable[float], missing: int, default_s: float) -> float:
    """When so many of the batches in flight are back: all of them, where there are fewer."""
    ordered = sorted(finishes_s)
    return ordered[min(missing, len(ordered)) - 1] if ordered else default_s

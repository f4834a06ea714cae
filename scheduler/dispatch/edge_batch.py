"""Which of those who wait make up the edge's next batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from scheduler.dispatch.forecast import ServiceTimes
from scheduler.dispatch.queue import QueuedRequest


@dataclass(frozen=True, slots=True)
class Composition:
    """The outcome for those who waited, earliest deadline first in each part."""

    chosen: tuple[QueuedRequest, ...]
    dropped: tuple[QueuedRequest, ...]
    """Too near their deadline for the batch that serves most; a later batch would be later still."""
    left: tuple[QueuedRequest, ...]
    """Do not fit, have time."""
    riding: tuple[QueuedRequest, ...] = ()
    """Of those chosen, who had been put elsewhere and ride along for nothing."""


def compose(
    waiting: Sequence[QueuedRequest],
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    drop_penalty: float,
    cautious: bool = True,
) -> Composition:
    """Chooses the batch to start at `now_s`.

    The oldest member's deadline bounds the batch. Insisting on the oldest makes batches shrink exactly when the load
    is high, throughput falls and the backlog grows (70 % spilled where 2 % are enough). So for each number k of
    oldest requests given up the batch is as large as request k allows, and the k with the highest goodput wins:
    items served a second, less `drop_penalty` for each item given up.

    Args:
        waiting: earliest deadline first.
        times: the edge's service times.
        now_s: the start of the batch.
        cap: most items in it; a single request may be larger.
        drop_penalty: how many served items one that is given up weighs.
        cautious: plan with the margin; False takes the medians, for when caution would serve nobody.
    """
    sums = [0, *accumulate(q.request.items for q in waiting)]
    best, best_score = (0, 0), float("-inf")
    for k, oldest in enumerate(waiting):
        most = max(cap, oldest.request.items)
        room = min(most, times.largest_within(oldest.request.deadline_s - now_s, cautious=cautious))
        end = k
        while end < len(waiting) and sums[end + 1] - sums[k] <= room:
            end += 1
        if end > k:
            items = sums[end] - sums[k]
            score = (items - drop_penalty * sums[k]) / times.median_s[items]
            if score > best_score:
                best, best_score = (k, end), score
            if end == len(waiting):
                break
    k, end = best
    if end == 0:
        return Composition((), (), tuple(waiting))
    return Composition(tuple(waiting[k:end]), tuple(waiting[:k]), tuple(waiting[end:]))


def fill_up(
    chosen: Sequence[QueuedRequest], candidates: Sequence[QueuedRequest], times: ServiceTimes, *, now_s: float, cap: int
) -> tuple[QueuedRequest, ...]:
    """Returns those `candidates` that can ride along with `chosen` without making anybody late, in their order."""
    items = sum(q.request.items for q in chosen)
    bind_s = min((q.request.deadline_s for q in chosen), default=float("inf"))
    taken: list[QueuedRequest] = []
    for queued in candidates:
        size = items + queued.request.items
        tightest_s = min(bind_s, queued.request.deadline_s)
        if size <= cap and now_s + times.safe_s[size] <= tightest_s:
            taken.append(queued)
            items, bind_s = size, tightest_s
    return tuple(taken)

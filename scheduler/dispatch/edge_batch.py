"""Which of the waiting requests make up the edge's next batch."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, islice
from typing import NamedTuple

from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.service_times import ServiceTimes

LOOKED_AT_ONCE = 64
"""Requests that are looked at together: a batch or two. Any number gives the same batches."""
ROUNDING = 1e-12
"""Part by which the bound on what is not looked at may be too low for rounding."""


class Composition(NamedTuple):
    """What is decided about the requests that waited, earliest deadline first in each part."""

    chosen: Sequence[QueuedRequest]
    dropped: Sequence[QueuedRequest] = ()
    """Too near their deadline for the batch that serves most; a later batch would be later still."""
    left: Sequence[QueuedRequest] = ()
    """Do not fit, have time, and were counted on: they are in no queue any more. The others keep their places."""
    piggybacked: Sequence[QueuedRequest] = ()
    """Of those chosen, the ones that another queue had held and that the batch has room for at no cost."""


class Bounds(NamedTuple):
    """What holds for all requests of those that wait: the search ends where they cannot change its outcome."""

    last_deadline_s: float = math.inf
    most_items: int = 2**31


NO_BOUNDS = Bounds()


class _Looked:
    """The first of those that wait, as far as they were looked at, and the sums of their items."""

    __slots__ = ("_waiting", "members", "sums")

    def __init__(self, waiting: Iterable[QueuedRequest]) -> None:
        self._waiting = iter(waiting)
        self.members: list[QueuedRequest] = []
        self.sums = [0]

    def more(self) -> bool:
        """Looks at some more; returns whether there were any."""
        following = list(islice(self._waiting, LOOKED_AT_ONCE))
        self.members += following
        self.sums += list(accumulate([q.request.items for q in following], initial=self.sums[-1]))[1:]
        return bool(following)


def compose(
    waiting: Iterable[QueuedRequest],
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    drop_penalty: float,
    safe: bool = True,
    bounds: Bounds = NO_BOUNDS,
) -> Composition:
    """Chooses the batch to start at `now_s`.

    The oldest member's deadline bounds the batch. Insisting on the oldest makes batches shrink exactly when the load
    is high, throughput falls and the backlog grows (70 % spilled where 2 % are enough). So for each number k of
    oldest requests given up the batch is as large as request k allows, and the k with the highest goodput wins:
    items served a second, less `drop_penalty` for each item given up. The search ends as soon as no k that follows
    can win: the goodput of a batch is at most the highest of all sizes, and the items given up only become more.

    Args:
        waiting: earliest deadline first; read as far as is needed.
        times: the edge's service times.
        now_s: the start of the batch.
        cap: most items in it; a single request may be larger.
        drop_penalty: how many served items one that is given up weighs.
        safe: plan with the margin; False takes the medians, for when the margin leaves no batch at all.
        bounds: on all that wait.
    """
    most_left = min(max(cap, bounds.most_items), times.largest_within(bounds.last_deadline_s - now_s, safe=safe))
    if most_left <= 0:
        return Composition(())
    looked, best, best_score, k, end = _Looked(waiting), (0, 0), -math.inf, 0, 0
    members, sums = looked.members, looked.sums
    while k < len(members) or looked.more():
        oldest = members[k].request
        room = min(max(cap, oldest.items), times.largest_within(oldest.deadline_s - now_s, safe=safe))
        end = max(end, k)
        while sums[end] - sums[k] > room:
            end -= 1
        while (end < len(members) or looked.more()) and sums[end + 1] - sums[k] <= room:
            end += 1
        if end > k:
            items = sums[end] - sums[k]
            score = (items - drop_penalty * sums[k]) / times.median_s[items]
            if score > best_score:
                best, best_score = (k, end), score
            if end == len(members):
                break
        k += 1
        if best_score >= _highest_score(times, most_left, drop_penalty * sums[k]):
            break
    k, end = best
    return Composition(members[k:end], members[:k])


def _highest_score(times: ServiceTimes, most: int, dropped: float) -> float:
    """Returns what no batch of at most so many items exceeds if `dropped` (with their weight) are given up for it."""
    if dropped >= most:
        return (most - dropped) / times.median_s[most] * (1.0 - ROUNDING)
    highest = _highest_rates(times)[most]
    return highest * (1.0 - dropped / most) * (1.0 + ROUNDING) if dropped else highest


@lru_cache(maxsize=32)
def _highest_rates(times: ServiceTimes) -> tuple[float, ...]:
    """Returns, for each size, the most items a second of all batches up to that size."""
    rates = [items / s if s > 0.0 else math.inf for items, s in enumerate(times.median_s[1:], start=1)]
    return tuple(accumulate(rates, max, initial=0.0))


def fill_up(
    chosen: Sequence[QueuedRequest],
    candidates: Iterable[QueuedRequest],
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    look: float = math.inf,
) -> list[QueuedRequest]:
    """Returns those `candidates` that can join `chosen` without making any member late, in their order.

    Args:
        chosen: the members so far.
        candidates: read until no request fits any more, or so many that do not fit were looked at.
        times: the edge's service times.
        now_s: the start of the batch.
        cap: most items in it.
        look: candidates that do not fit after which no more are looked at.
    """
    items = sum([q.request.items for q in chosen])
    bind_s = min([q.request.deadline_s for q in chosen], default=math.inf)
    taken: list[QueuedRequest] = []
    for queued in candidates:
        if items >= cap or look <= 0 or now_s + times.safe_s[items + 1] > bind_s:
            break
        size = items + queued.request.items
        tightest_s = min(bind_s, queued.request.deadline_s)
        if size <= cap and now_s + times.safe_s[size] <= tightest_s:
            taken.append(queued)
            items, bind_s = size, tightest_s
        else:
            look -= 1
    return taken

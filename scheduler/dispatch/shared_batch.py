"""Which of the waiting requests make up the edge's next batch where several tenants want more than it can serve."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from scheduler.dispatch.edge_batch import Bounds, Composition, compose
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.tenants import Tenants, Turns
from scheduler.dispatch.waiting_line import Rank, in_order
from scheduler.domain.service_times import ServiceTimes

LEAST_GOODPUT = 0.5
"""Part of the highest goodput that a batch keeps whatever fairness asks. Judgement: a tenant with objectives far below
the others' is served by batches of a few items, which cost the edge about half of what it can do."""


def compose_shared(
    tenants: Tenants,
    rank: Rank,
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    drop_penalty: float,
    safe: bool = True,
) -> Composition:
    """Chooses the batch to start at `now_s`, as `edge_batch.compose` does, and shares its items between tenants.

    The batch with the highest goodput gives up the requests with little time left, and has hardly more candidates than
    places: the one that sends most gets most. So as few are given up more than needed, at the cost of a smaller batch,
    for the tenants to take turns with what is left: until no tenant lost requests while it was behind another.

    Args:
        tenants: their shares and levels; without several tenants the result is that of `compose`.
        rank: the requests that wait.
        times: the edge's service times.
        now_s: the start of the batch.
        cap: most items in it; a single request may be larger.
        drop_penalty: how many served items one that is given up weighs.
        safe: plan with the margin; False takes the medians, for when the margin leaves no batch at all.
    """
    bounds = Bounds(rank.last_deadline_s, rank.most_items)
    result = compose(rank, times, now_s=now_s, cap=cap, drop_penalty=drop_penalty, safe=safe, bounds=bounds)
    if not result.chosen or not tenants.several(rank.kinds(), rank.others):
        return result
    waiting = list(rank)
    if len(result.chosen) == len(waiting):
        return result
    return _Sharing(tenants, waiting, times, now_s, cap, safe).best(len(result.dropped))


def in_turn(
    tenants: Tenants, kinds: Iterable[Sequence[QueuedRequest]], others: Sequence[QueuedRequest], *, per_item_s: float
) -> Iterator[QueuedRequest]:
    """Yields requests in their tenants' turns; without several tenants, earliest deadline first.

    Args:
        tenants: their shares and levels.
        kinds: in deadline order, each of one tenant; not to be changed meanwhile.
        others: in deadline order, of any.
        per_item_s: the edge's seconds for an item.
    """
    if not tenants.several(kinds := list(kinds), others):
        return in_order([others, *kinds])
    parts: dict[str, list[Sequence[QueuedRequest]]] = {}
    for part in (*tenants.by_tenant(others).values(), *kinds):
        parts.setdefault(tenants.label(part[0]), []).append(part)
    return tenants.in_turn({label: in_order(own) for label, own in parts.items()}, per_item_s=per_item_s)


class _Sharing:
    """The batches that are possible if the first k waiting requests are given up, for every k."""

    def __init__(
        self,
        tenants: Tenants,
        waiting: Sequence[QueuedRequest],
        times: ServiceTimes,
        now_s: float,
        cap: int,
        safe: bool,
    ) -> None:
        self._tenants, self._waiting, self._times = tenants, waiting, times
        self._now_s, self._cap, self._safe = now_s, cap, safe
        self._sums = [0, *accumulate(q.request.items for q in waiting)]
        self._queues: dict[str, list[QueuedRequest]] = {}
        self._places: dict[str, list[int]] = {}
        for place, queued in enumerate(waiting):
            label = tenants.label(queued)
            self._queues.setdefault(label, []).append(queued)
            self._places.setdefault(label, []).append(place)

    def best(self, most_given_up: int) -> Composition:
        """Returns the batch that gives up most, up to `most_given_up`, without wronging a tenant.

        Where all batches wrong one that keep half of the goodput, it is the one of them that gives up least.
        """
        low, high, middle = 0, most_given_up + 1, most_given_up
        least, right = LEAST_GOODPUT * self._goodput(most_given_up), None
        k, turns = most_given_up, self._turns(most_given_up)
        while low < high:
            if self._goodput(middle) < least:
                low = middle + 1
            else:
                k, turns = middle, self._turns(middle)
                if self._wrongs(k, turns):
                    high = k
                else:
                    low, right = k + 1, (k, turns)
            middle = (low + high) // 2
        k, turns = right or (k, turns)
        taken = set(map(id, turns.taken))
        return Composition([q for q in self._waiting[k:] if id(q) in taken], self._waiting[:k])

    def _items(self, k: int) -> int:
        """Returns the most items of a batch whose oldest member is request k."""
        oldest = self._waiting[k].request
        room = self._times.largest_within(oldest.deadline_s - self._now_s, safe=self._safe)
        return min(max(self._cap, oldest.items), room, self._sums[-1] - self._sums[k])

    def _goodput(self, k: int) -> float:
        items = self._items(k)
        return items / self._times.median_s[items] if items > 0 else 0.0

    def _per_item_s(self, k: int) -> float:
        items = self._items(k)
        return self._times.median_s[items] / items

    def _turns(self, k: int) -> Turns:
        starts = {label: bisect_left(places, k) for label, places in self._places.items()}
        return self._tenants.take_turns(self._queues, starts, items=self._items(k), per_item_s=self._per_item_s(k))

    def _wrongs(self, k: int, turns: Turns) -> bool:
        """Whether a tenant loses requests that could be in time, and all others of it go, and still it is behind."""
        tenants, per_item_s = self._tenants, self._per_item_s(k)
        ahead_s = max((turns.levels_s[tenants.label(q)] for q in turns.taken), default=0.0)
        for label, places in self._places.items():
            lost = bisect_left(places, k)
            if not lost or label in turns.unsatisfied:
                continue
            latest = self._queues[label][lost - 1].request
            in_time = self._now_s + self._times.safe_s[latest.items] <= latest.deadline_s
            if in_time and turns.levels_s[label] + per_item_s / tenants.shares[label] <= ahead_s:
                return True
        return False

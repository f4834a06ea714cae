"""Where an edge batch is cut: what one member more saves against the lateness that it adds."""

from collections.abc import Callable, Iterable, Sequence

from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.requests import Request
from scheduler.domain.service_times import ServiceTimes

LEAST_RISK = 1e-4
"""Probability of being late below which a member is not looked at, nor those after it. A bound of the work."""


def cut(
    members: Sequence[QueuedRequest],
    count: int,
    times: ServiceTimes,
    *,
    now_s: float,
    cap: int,
    late_cost: Callable[[Request], float],
    saves: Callable[[QueuedRequest], float],
) -> int:
    """Returns how many of the first members leave in the batch that starts now: as many as pay.

    Args:
        members: earliest deadline first, from the batch's first on: all that could be in it.
        count: how many of them were chosen; at least 1.
        times: the edge's service times.
        now_s: the start of the batch.
        cap: most items in it.
        late_cost: the price of answering a request late, in money.
        saves: what it saves, in money, that a request leaves in this batch and not otherwise.
    """
    items = sum([q.request.items for q in members[:count]])
    # Beyond that the first member is late on purpose.
    most = times.largest_within(members[0].request.deadline_s - now_s, safe=False)

    def lateness(size: int) -> float:
        """Returns the priced lateness of the chosen if the batch has so many items."""
        total = 0.0
        for queued in members[:count]:
            late = times.late_probability(size, queued.request.deadline_s - now_s)
            if late < LEAST_RISK:
                break
            total += late_cost(queued.request) * late
        return total

    def own(queued: QueuedRequest, size: int) -> float:
        return late_cost(queued.request) * times.late_probability(size, queued.request.deadline_s - now_s)

    before, chosen = lateness(items), count
    while count < len(members) and (size := items + members[count].request.items) <= min(cap, most):
        after = lateness(size) + own(members[count], size)
        if after - before >= saves(members[count]):
            break
        count, items, before = count + 1, size, after
    while 1 < count <= chosen:
        last, count = members[count - 1], count - 1
        size = items - last.request.items
        after = lateness(size)
        if before - after <= saves(last):
            return count + 1
        items, before = size, after
    return count


def weighed(
    chosen: Sequence[QueuedRequest],
    first: Iterable[QueuedRequest],
    queues: ModelQueues,
    *,
    now_s: float,
    spill: Callable[[QueuedRequest], float],
) -> list[QueuedRequest]:
    """Returns the batch that starts now, with more or fewer members than were chosen where that costs less.

    Args:
        chosen: the members that were chosen with a margin.
        first: the first of those that wait, earliest deadline first.
        queues: of the model.
        now_s: the present.
        spill: what a request costs, in money, lateness included, that a function serves instead.
    """
    members, times = list(first), queues.edge_times
    if times is None or not chosen or members[0] is not chosen[0]:
        return list(chosen)
    worth = queues.lateness.prices.seconds_worth
    count = cut(
        members,
        min(len(chosen), len(members)),
        times,
        now_s=now_s,
        cap=queues.edge_cap,
        late_cost=queues.late_cost,
        saves=lambda queued: spill(queued) - worth * queued.request.items,
    )
    return members[:count]

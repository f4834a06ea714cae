"""Which waiting requests are placed again when an edge batch has left: the first few of each rank."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.edges import Edges
from scheduler.dispatch.function_side import FunctionSide
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.queue import QueuedRequest, deadline_order
from scheduler.dispatch.waiting_line import WaitingLine, looked_at
from scheduler.domain.lifecycle import State

STAYED = 3
"""Requests of one kind that stay where they are although a function seemed in time, after which no more of their kind
are asked about: what holds them up (money, risk) holds up the others. Judgement: it bounds work; no simulation of
`scripts.command_hash` has so many waiting that it counts."""


def next_in_line(
    queues: ModelQueues,
    left: Sequence[QueuedRequest],
    slot: EdgeSide,
    edges: Edges,
    side: FunctionSide,
    *,
    now_s: float,
) -> Iterator[QueuedRequest]:
    """Takes requests out of the line, one by one, each to be placed before the next one is taken out.

    What is not taken out keeps its place: what its offers depend on is the same as for the first of its class and size,
    but for the deadline. A later deadline matters to functions, and to the edge while its next batch is empty; so for
    these the last of each kind is asked.

    Args:
        queues: of the model whose batch has left.
        left: by deadline, those that were counted on for that batch and are in no queue any more; all are taken.
        slot: the slot that has the batch in flight.
        edges: all slots.
        side: the functions.
        now_s: the present.
    """
    line, look = queues.edge_later, looked_at(queues.edges[slot.edge].cap)

    def has_chance(queued: QueuedRequest) -> bool:
        if side.in_time(queues, queued, now_s=now_s):
            return True
        return edges.opens_for(queues, queued, now_s=now_s)

    for rank in line.ranks(left, has_functions=queues.has_functions):
        by_function = rank.may_leave and any(side.in_time(queues, kind[-1], now_s=now_s) for kind in rank.kinds())
        stay: set[tuple[str, int, str]] = set()
        few = rank.next_few(look)
        for queued in few:
            kind = queued.request.class_name, queued.request.items, queues.tenants.label(queued)
            if queued.state is State.EDGE_LATER:
                alike = kind in stay and edges.all.may_answer(queues, queued, now_s=now_s)
                if alike and not (by_function and side.in_time(queues, queued, now_s=now_s)):
                    continue
                line.remove(queued)
            yield queued
            if queued.state is State.EDGE_LATER and edges.deadline_does_not_count(queues, queued):
                stay.add(kind)
        yield from (queued for queued in rank.others if queued.state is State.NEW)
        for members in rank.kinds():
            begin = bisect_right(members, deadline_order(few[-1]), key=deadline_order)
            yield from _later(line, members, begin, has_chance)


def _later(
    line: WaitingLine, members: Sequence[QueuedRequest], begin: int, has_chance: Callable[[QueuedRequest], bool]
) -> Iterator[QueuedRequest]:
    """Takes out those of one kind, from `begin` on, that a place could answer because of their later deadlines."""
    if begin == len(members) or not has_chance(members[-1]):
        return
    stayed = 0
    for queued in members[bisect_left(members, True, begin, key=has_chance) :]:
        line.remove(queued)
        yield queued
        stayed += queued.state is State.EDGE_LATER
        if stayed >= STAYED:
            return

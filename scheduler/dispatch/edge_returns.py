"""What the slots of an edge exchange when a batch is back on one of them: they are alike in all but what they hold."""

import math
from collections.abc import Sequence

from scheduler.dispatch.edge_side import EdgeSide


def take_over(free: EdgeSide, own: Sequence[EdgeSide], *, now_s: float) -> None:
    """Gives a slot whose batch is back what its edge does next, and the slots the next batches in their new order.

    The server begins the batch that was sent ahead first, whichever slot it was sent for: this slot has it from now on.
    What was promised for the first slot goes to the one that is free first now, and so on.

    Args:
        free: the slot, whose batch is not released yet, and which has none ahead.
        own: all slots of its edge.
        now_s: the present.
    """
    busy = [slot for slot in own if slot.occupancy.batch_id is not None]
    promised = sorted(busy, key=_due)
    waiting = [slot for slot in busy if slot.occupancy.ahead_id is not None]
    free_at_s = -math.inf
    if waiting:
        other = min(waiting, key=lambda slot: (slot.occupancy.ahead_sent_at_s, slot.number))
        free.occupancy.take_ahead(other.occupancy)
        free_at_s = now_s + free.occupancy.ahead_work_s - free.occupancy.lead_s
    following = sorted(busy, key=lambda slot: (free_at_s, slot.number) if slot is free else _due(slot))
    moves = [(old.number, new.number) for old, new in zip(promised, following, strict=True) if old is not new]
    for lane in free.lanes.all if moves else ():
        batches = lane.next_batches
        moved = [batches[old] for old, _ in moves]
        for (_, new), batch in zip(moves, moved, strict=True):
            batches[new] = batch
            batch.full = False


def _due(slot: EdgeSide) -> tuple[float, int]:
    return slot.occupancy.next_at_s, slot.number

"""What the slots of an edge exchange when a batch is back on one of them: they are alike in all but what they hold."""

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
    ahead = [slot for slot in busy if slot.occupancy.ahead_id is not None]
    if not ahead:
        due = sorted([(slot.occupancy.predicted_finish_s, slot.number) for slot in busy])
        before = [number for at_s, number in due if (at_s, number) < (free.occupancy.predicted_finish_s, free.number)]
        if before:
            _move(free, [*before, free.number], [free.number, *before])
        return
    promised = [slot.number for slot in sorted(busy, key=_due)]
    other = min(ahead, key=lambda slot: (slot.occupancy.ahead_sent_at_s, slot.number))
    free.occupancy.take_ahead(other.occupancy)
    free_at_s = now_s + free.occupancy.ahead_work_s - free.occupancy.lead_s
    following = sorted([(free_at_s, slot.number) if slot is free else _due(slot) for slot in busy])
    _move(free, promised, [number for _, number in following])


def _due(slot: EdgeSide) -> tuple[float, int]:
    return slot.occupancy.next_at_s, slot.number


def _move(slot: EdgeSide, before: Sequence[int], after: Sequence[int]) -> None:
    """Gives the next batches of slots, by number, to others, in the same order."""
    moves = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    for lane in slot.lanes.all if moves else ():
        batches = lane.next_batches
        moved = [batches[old] for old, _ in moves]
        for (_, new), batch in zip(moves, moved, strict=True):
            batches[new] = batch
            batch.full = False
        lane.changes.count += 1

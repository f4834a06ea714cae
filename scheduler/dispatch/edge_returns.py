"""What the slots of an edge exchange when a batch is back on one of them: they are alike in all but what they hold."""

from collections.abc import Sequence

from scheduler.dispatch.edge_side import EdgeSide


def take_over(free: EdgeSide, own: Sequence[EdgeSide]) -> None:
    """Gives a slot that is about to be free what its edge does next.

    The server begins the batch that was sent ahead first, whichever slot it was sent for: this slot has it from now on,
    and its next batch is that other slot's.

    Args:
        free: the slot, whose batch is not released yet.
        own: all slots of its edge.
    """
    waiting = [slot for slot in own if slot.occupancy.ahead_id is not None]
    if not waiting:
        _pass_on(free, own)
        return
    other = min(waiting, key=lambda slot: (slot.occupancy.ahead_sent_at_s, slot.number))
    free.occupancy.take_ahead(other.occupancy)
    _exchange(free, (free.number, other.number))


def _pass_on(free: EdgeSide, own: Sequence[EdgeSide]) -> None:
    """Gives a slot that is free sooner than others of its edge, against expectation, the next batch that is due.

    What was promised for the first of them goes to the one that is free first, and the next batches of those behind it
    move up.
    """
    due_s = (free.occupancy.next_at_s, free.number)
    busy = [(slot.occupancy.next_at_s, slot.number) for slot in own if slot.occupancy.batch_id is not None]
    numbers = [free.number, *[number for at_s, number in sorted(busy) if (at_s, number) < due_s]]
    if len(numbers) > 1:
        _exchange(free, numbers)


def _exchange(slot: EdgeSide, numbers: Sequence[int]) -> None:
    """Gives each of these slots the next batch of the one that follows it, and the last one that of the first."""
    for lane in slot.lanes.all:
        batches = lane.next_batches
        moved = [batches[number] for number in (*numbers[1:], numbers[0])]
        for number, batch in zip(numbers, moved, strict=True):
            batches[number] = batch
            batch.full = False

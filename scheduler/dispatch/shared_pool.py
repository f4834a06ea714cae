"""Buffers whose batches run on the same instances: what leaves one takes the warm instance that another counts on.

A model has several of them where its requests have several shapes (a lane for each), or where its plan gives classes or
sizes buffers of their own. Each gathers for as long as a warm instance promises to answer in time; so does the other.
"""

from collections.abc import Iterable

from scheduler.dispatch.function_buffer import FunctionBuffer


def share_pools(buffers: Iterable[FunctionBuffer]) -> None:
    """Tells buffers, all of one model, of those that have the same instances."""
    pools: dict[tuple[str, str], list[FunctionBuffer]] = {}
    for buffer in buffers:
        pools.setdefault(buffer.pool, []).append(buffer)
    for together in pools.values():
        beside = tuple(together) if len(together) > 1 else ()
        for buffer in together:
            buffer.beside = beside


def batches_ahead(buffer: FunctionBuffer) -> int:
    """Returns how many batches that gather on the same instances are to leave before this buffer's (not empty).

    The one with the earlier deadline goes first. While no cold start was seen, none is counted: nothing depends on it.
    """
    if not buffer.beside or not buffer.starts_seen:
        return 0
    own = _order(buffer)
    return sum([_order(other) < own for other in buffer.beside if other.queue.items])


def _order(buffer: FunctionBuffer) -> tuple[float, int]:
    first = buffer.queue.first.request
    return first.deadline_s, first.request_id

"""The outcome of a comparison of offers."""

from typing import NamedTuple

from scheduler.dispatch.edge_side import EdgeSide
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.decisions import Offer


class Choice(NamedTuple):
    """The offers, and the one with the least total among the possible ones."""

    offers: tuple[Offer, ...]
    chosen: int
    """Index; -1: none is possible."""
    slot: EdgeSide | None = None
    """Whose next batch the chosen offer is a place in, or to which a trial goes; None where that is no edge's."""
    no_room_for: Offer | None = None
    """The function's offer where no edge's next batch had room; None where one had, or functions were not asked."""
    displaced: QueuedRequest | None = None
    """The member of that next batch that leaves for this request."""
    trial: bool = False
    """Whether the request is sent only to learn whether its place is still as slow."""
    saved: float | None = None
    """Money that it saves to miss the objective on purpose; None: it does not."""
    given_way: float | None = None
    """Money that it saves that the displaced member misses its own; None: that one is placed again."""

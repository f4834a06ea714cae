"""The life of a request in the engine, as one transition table.

    new ----> edge-batch | edge-later | function | deferred | overdue | bisected   (a queue)
    a queue -> new                                                                (withdrawn, to be placed or sent)
    new ----> in-flight ----> in-flight  (a second copy: hedged)
    in-flight -> new                     (its last copy failed)
    new | in-flight -> ended             (answered, refused or cancelled)

A request is in exactly one state. Nothing leaves `ended`.
"""

from enum import Enum


class IllegalTransition(Exception):
    """A request was asked to enter a state that its present one does not lead to; a bug. Nothing was changed."""


class State(Enum):
    """Where a request is; the values are the words of records and files."""

    allows: tuple["State", ...]
    """The states that this one leads to: its row of the table."""

    NEW = "new"
    """In no queue and in no batch: it has just arrived, or is being placed again."""
    EDGE_BATCH = "edge-batch"
    """In the next batch of an edge server."""
    EDGE_LATER = "edge-later"
    """Waits for an edge batch after the next, because no function can take it."""
    FUNCTION = "function"
    """In a function batch that is being gathered."""
    DEFERRED = "deferred"
    """Waits for an idle edge, as its class allows."""
    OVERDUE = "overdue"
    """Its deadline cannot be met any more, and its class is served all the same."""
    BISECTED = "bisected"
    """In one half of a batch whose content a backend refused."""
    IN_FLIGHT = "in-flight"
    ENDED = "ended"


QUEUES = (State.EDGE_BATCH, State.EDGE_LATER, State.FUNCTION, State.DEFERRED, State.OVERDUE, State.BISECTED)

TRANSITIONS: dict[State, tuple[State, ...]] = {
    State.NEW: (*QUEUES, State.IN_FLIGHT, State.ENDED),
    **dict.fromkeys(QUEUES, (State.NEW,)),
    State.IN_FLIGHT: (State.IN_FLIGHT, State.NEW, State.ENDED),
    State.ENDED: (),
}
# On the members too: hashing a member takes longer than all else that a transition does.
for _state, _following in TRANSITIONS.items():
    _state.allows = _following

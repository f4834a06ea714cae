"""States of a request in the engine, and the transitions between them, as one table.

    new ----> edge-batch | edge-later | function | deferred | overdue | bisected   (a queue)
    a queue -> new                                                                (withdrawn, to be placed or sent)
    new ----> in-flight ----> in-flight  (a second copy: hedged)
    in-flight -> new                     (its last copy failed)
    new | in-flight -> ended             (answered, refused or cancelled)

A request is in exactly one state. Nothing leaves `ended`.
"""

from enum import Enum


class IllegalTransition(Exception):
    """Error: a request was to enter a state that its present state does not allow. It is a bug; nothing was changed."""


class State(Enum):
    """States of a request; the values are the words of records and files."""

    allows: tuple["State", ...]
    """The states that may follow: the row of the table."""

    NEW = "new"
    """In no queue and in no batch: it has just arrived, or is being placed again."""
    EDGE_BATCH = "edge-batch"
    """In the next batch of an edge server."""
    EDGE_LATER = "edge-later"
    """In the queue for an edge batch after the next one, because no function can take it."""
    FUNCTION = "function"
    """In a function batch that is being gathered."""
    DEFERRED = "deferred"
    """In the queue for an idle edge, as its class allows."""
    OVERDUE = "overdue"
    """In the queue of requests that are answered after their deadline, as their class or the spend cap's rule says."""
    BISECTED = "bisected"
    """In one half of a batch whose content a backend refused, to be sent to it again."""
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

"""What is known of a lane in which nothing has changed since it was looked at; `resting` fills it in and reads it."""

import math
from dataclasses import dataclass, field

PathState = tuple[float | int | None, ...]
"""What all decisions about functions are made from that is common to the lanes: it is the same as long as nothing was
sent to one or came back, and the same is known of the way there."""


@dataclass(slots=True)
class Rest:
    """Until when a lane needs no look, as long as its queues stay as they are."""

    seen: int = -1
    """Changes of the lane's queues, tables and limits when it was looked at; -1: it does not rest."""
    until_s: float = -math.inf
    """When something falls due, next batches aside."""
    gathers: bool = False
    """Whether requests are gathered for functions, so that the path matters."""
    path: PathState | None = None
    """The path when it was looked at; None: it is looked at in each call while it gathers."""
    next_until_s: list[tuple[int, float]] = field(default_factory=list)
    """Slot, and the sum of its free time and growth up to which the first member of the lane's next batch there, or the
    first of the requests behind it, is in time."""
    grown: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By slot: first deadline and seconds of the lane's next batch, as counted in the slot's growth."""
    due_s: float = -math.inf
    """The next moment at which a decision falls due; in the past where it is to be worked out."""
    due_path: PathState | None = None
    """The path when that was worked out."""

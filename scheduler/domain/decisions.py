"""What is kept of a decision: numbers only, worded when somebody asks."""

from typing import NamedTuple


class Decision(NamedTuple):
    """One placing of one request, with the terms of both sides as they looked then.

    Absolute times are on the shell's monotonic clock. A side that could not take the request at all has an infinite
    `..._finish_s`.
    """

    request_id: int
    at_s: float
    place: str
    """Where it was put: edge, waiting, function, deferred, late, refused."""
    cause: str
    """Why it was placed just now: arrival, deferred, displaced, edge-sent, edge-slipped, failure, filling, half,
    limits, plan, hedging, riding, slot, spend-cap."""
    plan_id: int
    deadline_s: float
    edge_start_s: float
    """When the edge's next batch was expected to start."""
    edge_items: int
    """Items expected in that batch when it starts."""
    edge_finish_s: float
    """When it was expected to be answered (median)."""
    edge_late: float
    """Probability that the edge would have answered this request after its deadline."""
    function_path_s: float
    """Seconds until the function could begin, and back: slot, uplink wait, transfer, round trip."""
    function_cold_s: float
    """Expected seconds of a cold start in that."""
    function_items: int
    """Items of the function batch that it would share."""
    function_finish_s: float
    """When that batch was expected to be answered (median)."""
    function_late: float
    """Probability that the function would have answered after the deadline."""
    function_cost: float
    """Money for this request's part of that batch."""

"""Decisions, batches and explanations to word, with whatever a test is about set otherwise."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from scheduler.daemon.explain.file import ExplanationFile
from scheduler.daemon.explain.requests import BesideTheLoop, Explanations
from scheduler.dispatch.decision_ring import ANSWERED, Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.decisions import Decision
from scheduler.domain.requests import Backend

TEN = datetime(2026, 5, 4, 10, tzinfo=timezone.utc)
DECISION: dict[str, Any] = {
    "request_id": 1,
    "at_s": 100.0,
    "place": "edge",
    "cause": "arrival",
    "plan_id": 3,
    "deadline_s": 101.0,
    "edge_start_s": 100.125,
    "edge_items": 8,
    "edge_finish_s": 100.25,
    "edge_late": 0.004,
    "function_path_s": 0.05,
    "function_cold_s": 0.01,
    "function_items": 3,
    "function_finish_s": 100.625,
    "function_late": 0.01,
    "function_cost": 2.5e-6,
}
"""A request that arrives at 100 s, with a deadline of 1 s, and goes to the edge."""


def a_decision(**changes: Any) -> Decision:
    """Returns a decision."""
    return Decision(**{**DECISION, **changes})


def a_batch(batch_id: int, request_ids: Sequence[int], **changes: Any) -> Batch:
    """Returns a batch that was sent at 100.125 s and expected at 100.25 s."""
    fields: dict[str, Any] = {
        "backend": Backend.EDGE,
        "model": "digits",
        "items": len(request_ids),
        "body_bytes": 24_000 * len(request_ids),
        "sent_at_s": 100.125,
        "deadline_s": 101.0,
        "give_up_at_s": 103.0,
        "predicted_finish_s": 100.25,
        "predicted_service_s": 0.0625,
    }
    return Batch(batch_id=batch_id, request_ids=tuple(request_ids), **{**fields, **changes})


async def at_once(work: Callable[[], None]) -> None:
    """Runs blocking work on the loop itself: virtual time cannot wait for a thread."""
    work()


def explanations_of(
    explain: Callable[[int], Explanation | None],
    clock: Callable[[], float],
    file: ExplanationFile | None = None,
    beside_the_loop: BesideTheLoop = at_once,
) -> Explanations:
    """Returns what a runner needs; it is always 10:00 UTC."""
    return Explanations(
        explain,
        ring=100,
        currency="CNY",
        clock=clock,
        wall_clock=lambda: TEN,
        file=file,
        beside_the_loop=beside_the_loop,
    )


def an_explanation(**changes: Any) -> Explanation:
    """Returns that of a request which the edge answered 0.25 s after its arrival."""
    report = BatchReport(elapsed_s=0.125, service_s=0.0703125)
    fields: dict[str, Any] = {
        "request_id": 1,
        "decisions": (a_decision(),),
        "sendings": (Sending(a_batch(7, (1, 2)), 100.25, report, None, 0.0),),
        "ended_at_s": 100.25,
        "outcome": ANSWERED,
    }
    return Explanation(**{**fields, **changes})

"""Decisions, batches and explanations to word, with whatever a test is about set otherwise."""

from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any

from scheduler.daemon.explain.file import ExplanationFile
from scheduler.daemon.explain.requests import BesideTheLoop, Explanations, Newest
from scheduler.dispatch.decision_ring import ANSWERED, Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport
from scheduler.domain.decisions import Cause, Decision, Offer, Reason, move
from scheduler.domain.lifecycle import State
from scheduler.domain.requests import Place, Request

TEN = datetime(2026, 5, 4, 10, tzinfo=timezone.utc)
LATENESS_PRICE = 1e-5
FUNCTION = Place.function("1gb")
GATES = frozenset(Reason) - {Reason.MONEY, Reason.LATENESS, Reason.COST_TO_OTHERS, Reason.LEAST_TOTAL}
"""Reasons that make an offer impossible; the others compare possible ones."""


def a_request(**changes: Any) -> Request:
    """Returns a request that arrives at 100 s, with a deadline of 1 s."""
    fields: dict[str, Any] = {"model": "digits", "arrived_at_s": 100.0, "deadline_s": 101.0, "body_bytes": 24_000}
    return Request(**{"request_id": 1, **fields, **changes})


def an_offer(**changes: Any) -> Offer:
    """Returns an offer, the edge's where nothing else is said; its total is the sum of its terms."""
    fields: dict[str, Any] = {
        "place": Place.edge(),
        "queue": State.EDGE_BATCH,
        "reason": None,
        "start_s": 100.125,
        "finish_s": 100.25,
        "items": 8,
        "late_probability": 0.004,
        "money": 0.0,
        "cost_to_others": 1.5e-7,
        **changes,
    }
    terms = fields["money"] + LATENESS_PRICE * fields["late_probability"] + fields["cost_to_others"]
    return Offer(**{"total": terms, **fields})


def a_function_offer(**changes: Any) -> Offer:
    """Returns a function's offer, which costs money and disturbs no other request."""
    fields: dict[str, Any] = {
        "place": FUNCTION,
        "queue": State.FUNCTION,
        "start_s": 100.05,
        "finish_s": 100.625,
        "items": 3,
        "late_probability": 0.01,
        "money": 2.5e-6,
        "cost_to_others": 0.0,
    }
    return an_offer(**{**fields, **changes})


def a_decision(**changes: Any) -> Decision:
    """Returns a decision at 100 s between an edge and a function; the edge costs less. `request_id` may be given."""
    request = changes.pop("request", None) or a_request(request_id=changes.pop("request_id", 1))
    fields: dict[str, Any] = {
        "at_s": 100.0,
        "cause": Cause.ARRIVAL,
        "plan_id": 3,
        "lateness_price": LATENESS_PRICE,
        "compared": True,
        "offers": (an_offer(), a_function_offer()),
        "chosen": 0,
    }
    return Decision(request, **{**fields, **changes})


def a_move(cause: Cause, place: Place, queue: State, *, at_s: float = 100.0) -> Decision:
    """Returns a move without a comparison."""
    return a_decision(at_s=at_s, cause=cause, compared=False, lateness_price=0.0, offers=move(place, queue, now_s=at_s))


def a_batch(batch_id: int, request_ids: Sequence[int], **changes: Any) -> Batch:
    """Returns a batch that was sent to the edge at 100.125 s and expected at 100.25 s."""
    fields: dict[str, Any] = {
        "place": Place.edge(),
        "model": "digits",
        "items": len(request_ids),
        "body_bytes": 24_000 * len(request_ids),
        "sent_at_s": 100.125,
        "deadline_s": 101.0,
        "give_up_at_s": 103.0,
        "predicted_finish_s": 100.25,
        "predicted_service_s": 0.0625,
        "reasons": (Reason.MONEY,) * len(request_ids),
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
    newest: Newest | None = None,
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
        newest=newest,
    )


def an_explanation(**changes: Any) -> Explanation:
    """Returns that of a request which the edge answered 0.25 s after its arrival. `request_id` may be given."""
    report = BatchReport(elapsed_s=0.125, service_s=0.0703125)
    request = changes.pop("request", None) or a_request(request_id=changes.pop("request_id", 1))
    fields: dict[str, Any] = {
        "request": request,
        "decisions": (a_decision(request=request),),
        "sendings": (Sending(a_batch(7, (1, 2)), 100.25, report, None, 0.0),),
        "ended_at_s": 100.25,
        "outcome": ANSWERED,
    }
    return Explanation(**{**fields, **changes})

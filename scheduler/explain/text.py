"""An explanation in words: what was decided about a request, when and why, what was expected and what came.

Worded only when somebody asks. Times in the text count from the first decision.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from scheduler.dispatch.decision_ring import ANSWERED, CANCELLED, Explanation, Sending
from scheduler.domain.decisions import Decision
from scheduler.domain.errors import RefusalKind
from scheduler.domain.requests import Backend

CAUSES = {
    "arrival": "on arrival",
    "deferred": "as it could not be deferred any longer",
    "displaced": "to make room for another",
    "edge-sent": "when an edge batch left without it",
    "edge-slipped": "because the edge was slower than forecast",
    "filling": "to fill a function batch that was leaving",
    "half": "because its deadline had passed while it waited to be sent again",
    "riding": "as an edge batch that was leaving had room",
    "slot": "because of the wait for a free function call",
    "plan": "under a new plan",
    "failure": "after a backend had failed",
    "hedging": "to save its deadline",
    "limits": "under an operator's new limits",
    "spend-cap": "because a spend cap was reached",
}
PLACES = {
    "edge": "it was put into the edge's next batch",
    "waiting": "it was left to wait for a later edge batch",
    "function": "it was put into the function batch that was being gathered",
    "deferred": "it was left to wait for an idle edge",
    "late": "it was queued to be served late",
    "refused": "it was refused",
}
OUTCOMES = {
    CANCELLED: "ended without an answer: its client went away",
    RefusalKind.QUEUE_FULL.value: "refused: the queue was full",
    RefusalKind.DEADLINE.value: "refused: no place could answer within its deadline",
    RefusalKind.DRAINING.value: "refused: the daemon was shutting down",
    RefusalKind.BACKEND.value: "refused: a backend failed and no other could answer within its deadline",
    RefusalKind.NO_BACKEND.value: "refused: nothing serves its model any more",
    RefusalKind.BAD_REQUEST.value: "refused: the backend refused its content",
}
_EXPECTED_TERMS = (
    "start",
    "slot, uplink, round trip",
    "of it a possible cold start",
    "gathering and service",
    "items in the batch",
    "answer",
    "risk of being late",
    "cost of this request",
)
_TAKEN_BY_EDGE = ("edge", "waiting")
_UNKNOWN = "not known"


@dataclass(frozen=True, slots=True)
class Context:
    """What the shell knows of a request beside the engine's numbers."""

    client_id: str = ""
    """By which its client calls it; empty where it has no name."""
    first_decided_at: str = ""
    """Date and time of the first decision, UTC, in ISO 8601; empty where nobody knows."""
    currency: str = "CNY"
    """Of every cost."""


NO_CONTEXT = Context()


def describe(explanation: Explanation, context: Context = NO_CONTEXT) -> str:
    """Returns the explanation in English, as lines for a terminal.

    >>> print(describe(Explanation(7, (), ended_at_s=3.0, outcome="queue_full")))
    request 7
    no decision about it is kept
      +0.000 s  refused: the queue was full
    """
    return "\n".join([*_heading(explanation, context), *_events(explanation, context.currency)])


def _heading(explanation: Explanation, context: Context) -> Iterator[str]:
    # As Python writes texts: a client's id may hold what would confuse a terminal.
    name = f" (its client calls it {context.client_id!r})" if context.client_id else ""
    when = f", first decided about at {context.first_decided_at}" if context.first_decided_at else ""
    yield f"request {explanation.request_id}{name}{when}"
    if not explanation.decisions:
        yield "no decision about it is kept"
        return
    deadline_s = explanation.decisions[-1].deadline_s
    yield f"times count from the first decision; its deadline is {_clock(explanation)(deadline_s)}"


def _events(explanation: Explanation, currency: str) -> Iterator[str]:
    """What happened, in order; of what happened at the same time, causes come before effects."""
    clock = _clock(explanation)
    events: list[tuple[float, int, list[str]]] = []
    for at, decision in enumerate(explanation.decisions):
        left_out = explanation.left_out if at == 1 else 0
        events.append((decision.at_s, 0, list(_decision(decision, clock, currency, left_out=left_out))))
    for sending in explanation.sendings:
        events.append((sending.batch.sent_at_s, 1, [_sent(sending)]))
        if sending.settled_at_s is not None:
            events.append((sending.settled_at_s, 2, list(_settled(explanation, sending, clock, currency))))
    if explanation.ended_at_s is not None:
        events.append((explanation.ended_at_s, 3, [_ended(explanation)]))
    for at_s, _, lines in sorted(events, key=lambda event: event[:2]):
        yield f"  {clock(at_s)}  {lines[0]}"
        yield from (f"            {line}" for line in lines[1:])
    under_way = [sending for sending in explanation.sendings if sending.settled_at_s is None]
    yield from (f"  {_batch(sending)} is not back yet" for sending in under_way)
    if explanation.ended_at_s is None:
        yield "  it has not ended yet"


def _decision(decision: Decision, clock: Callable[[float], str], currency: str, *, left_out: int) -> Iterator[str]:
    cause = CAUSES.get(decision.cause, f"because of {decision.cause}")
    place = PLACES.get(decision.place, f"it was put to {decision.place}")
    earlier = f" ({left_out} decisions before this one are not kept)" if left_out else ""
    yield f"{cause}, {place} (plan {decision.plan_id}){earlier}"
    yield from _table(("expected", "edge", "function"), _expected(decision, clock, currency))
    yield _alternative(decision, currency)


def _expected(decision: Decision, clock: Callable[[float], str], currency: str) -> Iterator[tuple[str, str, str]]:
    """Yields (term, of the edge, of the function) as they looked when the decision fell."""
    edge, function = _sides(decision)
    service_s = max(0.0, decision.function_finish_s - decision.at_s - decision.function_path_s)
    by_edge = (
        clock(decision.edge_start_s),
        "",
        "",
        _seconds(decision.edge_finish_s - decision.edge_start_s),
        str(decision.edge_items),
        clock(decision.edge_finish_s),
        _percent(decision.edge_late),
        "nothing",
    )
    by_function = (
        "",
        _seconds(decision.function_path_s),
        _seconds(decision.function_cold_s),
        _seconds(service_s),
        str(decision.function_items),
        clock(decision.function_finish_s),
        _percent(decision.function_late),
        _money(decision.function_cost, currency),
    )
    cannot = ("", "", "", "", "", "cannot take it", "", "")
    yield from zip(_EXPECTED_TERMS, by_edge if edge else cannot, by_function if function else cannot, strict=True)


def _sides(decision: Decision) -> tuple[bool, bool]:
    """Whether the edge and a function could take the request at all."""
    return math.isfinite(decision.edge_finish_s), math.isfinite(decision.function_finish_s)


def _table(head: tuple[str, str, str], rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for name, left, right in (head, *rows):
        if left or right:
            yield f"{name:<28} {left:>15} {right:>15}".rstrip()


def _alternative(decision: Decision, currency: str) -> str:
    edge, function = _sides(decision)
    cost = _money(decision.function_cost, currency)
    if decision.place in _TAKEN_BY_EDGE and function:
        risks = f"a risk of {_percent(decision.function_late)} instead of {_percent(decision.edge_late)}"
        return f"not taken: the function, at {cost} more and {risks}"
    if decision.place == "function" and edge:
        risks = f"a risk of {_percent(decision.edge_late)} instead of {_percent(decision.function_late)}"
        return f"not taken: the edge, at {cost} less and {risks}"
    if not (edge or function):
        return "there was no alternative: no place could take it"
    if min(decision.edge_finish_s, decision.function_finish_s) > decision.deadline_s:
        return "there was no alternative: each place that could take it was expected to be late"
    if decision.place in ("late", "refused"):
        return f"not taken: to risk it ({_percent(min(decision.edge_late, decision.function_late))} of being late)"
    return f"there was no alternative: the {'edge' if function else 'function'} could not take it"


def _sent(sending: Sending) -> str:
    batch = sending.batch
    together = len(batch.request_ids)
    company = "alone" if together == 1 else f"with {together - 1} other request{'s' if together > 2 else ''}"
    return (
        f"sent to {_place(sending)} in batch {batch.batch_id}, {company}: {_items(batch.items)}, {batch.body_bytes} B"
    )


def _settled(explanation: Explanation, sending: Sending, clock: Callable[[float], str], currency: str) -> Iterator[str]:
    at_s, ended_at_s = sending.settled_at_s, explanation.ended_at_s
    how = f"failed ({sending.failure_kind.value})" if sending.failure_kind else "came back"
    beside = ""
    if at_s is not None and ended_at_s is not None and ended_at_s < at_s:
        beside = ", after the request had ended; what it cost counts all the same"
    yield f"{_batch(sending)} {how}{beside}"
    yield from _table(("", "predicted", "actual"), _terms(explanation, sending, clock, currency))


def _terms(
    explanation: Explanation, sending: Sending, clock: Callable[[float], str], currency: str
) -> Iterator[tuple[str, str, str]]:
    """Yields (term, predicted, actual) of a batch that is back."""
    batch, report = sending.batch, sending.report
    decision = next((d for d in reversed(explanation.decisions) if d.at_s <= batch.sent_at_s), None)
    on_edge = batch.backend is Backend.EDGE
    if decision is not None:
        if on_edge:
            yield "start", _if_finite(decision.edge_start_s, clock), clock(batch.sent_at_s)
        items = decision.edge_items if on_edge else decision.function_items
        yield "items in the batch", str(items), str(batch.items)
    service_s = None if report is None else report.service_s
    elapsed_s = None if report is None else report.elapsed_s
    idle_path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
    actual_way_s = None if elapsed_s is None or service_s is None else elapsed_s - service_s
    yield "way there and back, waiting", _if_finite(idle_path_s, _seconds), _if_finite(actual_way_s, _seconds)
    if not on_edge:
        if report is not None:
            yield "of it round trip", "", _if_finite(report.rtt_s, _seconds)
        cold_s = _seconds(decision.function_cold_s) if decision else ""
        yield "cold start", cold_s, _yes(None if report is None else report.cold_start)
    yield "service", _seconds(batch.predicted_service_s), _if_finite(service_s, _seconds)
    yield "answer", _if_finite(batch.predicted_finish_s, clock), _if_finite(sending.settled_at_s, clock)
    yield "cost of the batch", _money(batch.expected_cost, currency), _money(sending.cost, currency)


def _ended(explanation: Explanation) -> str:
    if explanation.outcome != ANSWERED:
        return OUTCOMES.get(explanation.outcome, f"refused: {explanation.outcome.replace('_', ' ')}")
    if not explanation.decisions or explanation.ended_at_s is None:
        return "answered"
    left_s = explanation.decisions[-1].deadline_s - explanation.ended_at_s
    return f"answered, {_seconds(abs(left_s))} {'before' if left_s >= 0 else 'after'} its deadline"


def _clock(explanation: Explanation) -> Callable[[float], str]:
    """Returns what words an absolute time: as seconds from the first thing that is kept."""
    times_s = [decision.at_s for decision in explanation.decisions[:1]]
    times_s += [sending.batch.sent_at_s for sending in explanation.sendings[:1]]
    times_s += [] if explanation.ended_at_s is None else [explanation.ended_at_s]
    start_s = min(times_s, default=0.0)
    return lambda at_s: f"{at_s - start_s:+.3f} s"


def _batch(sending: Sending) -> str:
    return f"batch {sending.batch.batch_id} on {_place(sending)}"


def _place(sending: Sending) -> str:
    if sending.batch.backend is Backend.EDGE:
        return "the edge"
    return f"the function tier {sending.batch.tier}" if sending.batch.tier else "the function"


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3f} s"


def _percent(probability: float) -> str:
    if 0 < probability < 0.001:
        return "below 0.1 %"
    return f"{100 * probability:.3g} %"


def _money(cost: float | None, currency: str) -> str:
    if cost is None:
        return _UNKNOWN
    return f"{cost:.3g} {currency}" if cost else "nothing"


def _if_finite(value: float | None, word: Callable[[float], str]) -> str:
    if value is None:
        return _UNKNOWN
    return word(value) if math.isfinite(value) else "never"


def _yes(happened: bool | None) -> str:
    return _UNKNOWN if happened is None else "yes" if happened else "no"

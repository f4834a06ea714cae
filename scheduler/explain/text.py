"""Words an explanation: what was decided about a request, when and why, what was expected and what happened.

Times in the text count from the first decision. Places are written as in the metrics: `edge:NAME`, `function:TIER`.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from scheduler.dispatch.decision_ring import ANSWERED, Explanation, Sending
from scheduler.domain.decisions import Cause, Decision, Offer
from scheduler.domain.requests import Backend
from scheduler.explain.words import CAUSES, GATES, LEFT, MOVES, OUTCOMES, QUEUES, REASONS, REFUSED

_UNKNOWN = "not known"
_LEAST_MONEY = 1e-12
"""Less is not written as a figure: a risk of nearly 0 costs nearly nothing."""


@dataclass(frozen=True, slots=True)
class Context:
    """What the shell knows of a request beside the engine's numbers."""

    client_id: str = ""
    """By which its client calls it; empty where it has no name."""
    first_decided_at: str = ""
    """Date and time of the first decision, UTC, in ISO 8601; empty where it is not known."""
    currency: str = "CNY"
    """Of every cost."""
    counts_as: str = ""
    """The tenant that it counts as, its own or `other`; empty while none is configured."""
    tenant_share: float = 0.0
    """Of the whole, of that tenant."""


NO_CONTEXT = Context()


@dataclass(frozen=True, slots=True)
class _Units:
    """How the numbers of one explanation are written."""

    start_s: float
    """Times count from here."""
    currency: str

    def clock(self, at_s: float) -> str:
        """Returns an absolute time."""
        return f"{at_s - self.start_s:+.3f} s" if math.isfinite(at_s) else "never"

    def money(self, cost: float | None) -> str:
        """Returns an amount of money."""
        if cost is None:
            return _UNKNOWN
        if 0 < cost < _LEAST_MONEY:
            return f"below {_LEAST_MONEY:.0e} {self.currency}"
        return f"{cost:.3g} {self.currency}" if cost else "nothing"


def describe(explanation: Explanation, context: Context = NO_CONTEXT) -> str:
    """Returns the explanation in English, as lines for a terminal.

    >>> from scheduler.domain.requests import Request
    >>> request = Request(7, "digits", arrived_at_s=3.0, deadline_s=4.0)
    >>> print(describe(Explanation(request, (), ended_at_s=3.0, outcome="queue_full")))
    request 7
    model 'digits', class 'default'
    no decision about it is kept
      +0.000 s  refused: the queue was full
    """
    units = _Units(_start_s(explanation), context.currency)
    return "\n".join([*_heading(explanation, context, units), *_events(explanation, units)])


def _start_s(explanation: Explanation) -> float:
    times_s = [decision.at_s for decision in explanation.decisions[:1]]
    times_s += [sending.batch.sent_at_s for sending in explanation.sendings[:1]]
    times_s += [] if explanation.ended_at_s is None else [explanation.ended_at_s]
    return min(times_s, default=0.0)


def _heading(explanation: Explanation, context: Context, units: _Units) -> Iterator[str]:
    # As Python writes texts: what a client sent may hold what would confuse a terminal.
    request = explanation.request
    name = f" (its client calls it {context.client_id!r})" if context.client_id else ""
    when = f", first decided about at {context.first_decided_at}" if context.first_decided_at else ""
    yield f"request {request.request_id}{name}{when}"
    yield f"model {request.model!r}, class {request.class_name!r}{_tenant(request.tenant, context)}"
    if not explanation.decisions:
        yield "no decision about it is kept"
        return
    yield f"times count from the first decision; its deadline is {units.clock(request.deadline_s)}"


def _tenant(name: str, context: Context) -> str:
    """Returns the words for a request's tenant and its share."""
    told = f", tenant {name!r}" if name else ""
    if not context.counts_as:
        return told
    counts_as = "" if context.counts_as == name else f"counts as {context.counts_as!r}, "
    return f"{told or ', no tenant'} ({counts_as}share {context.tenant_share:.3g})"


def _events(explanation: Explanation, units: _Units) -> Iterator[str]:
    """Yields what happened, in order; of what happened at the same time, causes come before effects."""
    events: list[tuple[float, int, list[str]]] = []
    for at, decision in enumerate(explanation.decisions):
        sent_before = sum(_later(decision, sending) for sending in explanation.sendings)
        left_out = explanation.left_out if at == 1 else 0
        events.append((decision.at_s, 3 * sent_before, list(_decision(decision, units, left_out=left_out))))
    for at, sending in enumerate(explanation.sendings):
        events.append((sending.batch.sent_at_s, 3 * at + 1, [_sent(sending)]))
        if sending.settled_at_s is not None:
            events.append((sending.settled_at_s, 3 * at + 2, list(_settled(explanation, sending, units))))
    if explanation.ended_at_s is not None:
        events.append((explanation.ended_at_s, 3 * len(explanation.sendings), [_ended(explanation)]))
    for at_s, _, lines in sorted(events, key=lambda event: event[:2]):
        yield f"  {units.clock(at_s)}  {lines[0]}"
        yield from (f"            {line}" for line in lines[1:])
    under_way = [sending for sending in explanation.sendings if sending.settled_at_s is None]
    yield from (f"  {_batch(sending)} is not back yet" for sending in under_way)
    if explanation.ended_at_s is None:
        yield "  it has not ended yet"


def _later(decision: Decision, sending: Sending) -> bool:
    """Whether a decision was made after a batch was sent: at the same time too, if the batch was back at once."""
    if decision.at_s != sending.batch.sent_at_s:
        return decision.at_s > sending.batch.sent_at_s
    # A hedge is noted when it has been sent.
    sent = (attempt.batch_id for attempt in decision.request.attempts)
    return decision.cause is not Cause.HEDGE and sending.batch.batch_id in sent


def _decision(decision: Decision, units: _Units, *, left_out: int) -> Iterator[str]:
    earlier = f" ({left_out} decisions before this one are not kept)" if left_out else ""
    yield f"{CAUSES[decision.cause]}, {_done(decision)} (plan {decision.plan_id}){earlier}"
    if decision.compared or len(decision.offers) > 1:
        yield f"an answer after the deadline was priced at {units.money(decision.lateness_price)}"
        yield from _table(_offers(decision, units))
    yield from _why(decision, units)


def _done(decision: Decision) -> str:
    choice = decision.choice
    if choice is None:
        return QUEUES[REFUSED]
    if decision.compared:
        return QUEUES.get(choice.queue.value, f"it was put into the queue {choice.queue.value}")
    return MOVES.get(decision.cause, "it was moved to {place}").format(place=choice.place)


def _why(decision: Decision, units: _Units) -> Iterator[str]:
    """Yields what decided, and what a refused request missed by least."""
    if not decision.compared:
        yield "no offers were compared"
        return
    reason, rival, missed = decision.reason, decision.rival, decision.nearest_miss
    words = REASONS[reason].format(place=rival.place if rival else "any place")
    yield f"decided by {reason.value}: {words}"
    if missed is not None:
        late_s = missed.finish_s - decision.request.deadline_s
        when = f", {_seconds(late_s)} after its deadline" if 0 < late_s < math.inf else ""
        gate = f": {GATES.get(missed.reason, missed.reason.value)}" if missed.reason else ""
        yield f"nearest miss: {missed.place} ({missed.queue.value}){gate}, answer {units.clock(missed.finish_s)}{when}"


def _offers(decision: Decision, units: _Units) -> Iterator[Sequence[str]]:
    """Yields the offers side by side, in the order in which they were asked: a term, then a figure for each offer."""
    offers = decision.offers
    yield ("offer", *[str(offer.place) for offer in offers])
    yield ("queue", *[offer.queue.value for offer in offers])
    yield ("start", *[_known(offer.start_s, units.clock) for offer in offers])
    yield ("answer", *[_known(offer.finish_s, units.clock) for offer in offers])
    yield ("items in the batch", *[str(offer.items or "") for offer in offers])
    yield ("in place of request", *[str(offer.displaces or "") for offer in offers])
    # Of an impossible offer, what was not worked out is certain to be late, and free.
    risky = [offer.possible or offer.late_probability < 1.0 for offer in offers]
    yield ("risk of being late", *_only(risky, [_percent(offer.late_probability) for offer in offers]))
    priced = [offer.possible or offer.money > 0.0 for offer in offers]
    yield ("money", *_only(priced, [units.money(offer.money) for offer in offers]))
    possible = [offer.possible for offer in offers]
    yield ("cost to others", *_only(possible, [units.money(offer.cost_to_others) for offer in offers]))
    yield ("total", *_only(possible, [units.money(offer.total) for offer in offers]))
    yield ("result", *[_result(offer, chosen=at == decision.chosen) for at, offer in enumerate(offers)])


def _result(offer: Offer, *, chosen: bool) -> str:
    if chosen:
        return "chosen"
    return "not chosen" if offer.reason is None else GATES.get(offer.reason, offer.reason.value)


def _only(shown: Iterable[bool], words: Iterable[str]) -> list[str]:
    return [word if is_shown else "" for is_shown, word in zip(shown, words, strict=True)]


def _table(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yields the rows that have a figure: the term on the left, the figures aligned on the right."""
    filled = [row for row in rows if any(row[1:])]
    widths = [max(map(len, column)) for column in zip(*filled, strict=True)]
    for name, *figures in filled:
        cells = (f"  {figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True))
        yield f"{name:<{widths[0]}}{''.join(cells)}".rstrip()


def _sent(sending: Sending) -> str:
    batch = sending.batch
    together = len(batch.request_ids)
    company = "alone" if together == 1 else f"with {together - 1} other request{'s' if together > 2 else ''}"
    why = f"; it left because {LEFT[batch.why_left]}" if batch.why_left in LEFT else ""
    size = f"{_items(batch.items)}, {batch.body_bytes} B"
    return f"sent to {batch.place} in batch {batch.batch_id}, {company}: {size}{why}"


def _settled(explanation: Explanation, sending: Sending, units: _Units) -> Iterator[str]:
    at_s, ended_at_s = sending.settled_at_s, explanation.ended_at_s
    how = f"failed ({sending.failure_kind.value})" if sending.failure_kind else "came back"
    beside = ""
    if at_s is not None and ended_at_s is not None and ended_at_s < at_s:
        beside = ", after the request had ended; what it cost counts all the same"
    yield f"{_batch(sending)} {how}{beside}"
    yield from _table([("", "predicted", "actual"), *_terms(explanation, sending, units)])


MOMENT_S = 1e-6
"""Seconds below which a wait is none: what is left of rounding."""


def _terms(explanation: Explanation, sending: Sending, units: _Units) -> Iterator[tuple[str, str, str]]:
    """Yields (term, predicted, actual) of a batch that is back."""
    batch, report = sending.batch, sending.report
    offer = _promised(explanation, sending)
    if offer is not None:
        if batch.backend is Backend.EDGE:
            yield "start", units.clock(offer.start_s), units.clock(batch.sent_at_s)
        yield "items in the batch", str(offer.items), str(batch.items)
    service_s = None if report is None else report.service_s
    elapsed_s = None if report is None else report.elapsed_s
    # A forecast counts the wait for other daemons as a part of the service; an edge server reports it as none.
    predicted_s = batch.predicted_service_s - batch.predicted_others_s
    path_s = batch.predicted_finish_s - batch.sent_at_s - predicted_s
    actual_path_s = None if elapsed_s is None or service_s is None else elapsed_s - service_s
    yield "path there and back, waiting", _if_finite(path_s, _seconds), _if_finite(actual_path_s, _seconds)
    if batch.backend is Backend.EDGE and report is not None and (report.queue_s or path_s > MOMENT_S):
        yield "of it for the device", _if_finite(max(0.0, path_s), _seconds), _if_finite(report.queue_s, _seconds)
        if batch.predicted_others_s or report.others_s:
            yield (
                "of it behind other daemons",
                _seconds(batch.predicted_others_s),
                _if_finite(report.others_s, _seconds),
            )
    if batch.backend is Backend.FUNCTION:
        if report is not None:
            yield "of it round trip", "", _if_finite(report.rtt_s, _seconds)
        yield "cold start", "", _yes(None if report is None else report.cold_start)
    yield "service", _seconds(predicted_s), _if_finite(service_s, _seconds)
    yield "answer", units.clock(batch.predicted_finish_s), _if_finite(sending.settled_at_s, units.clock)
    yield "cost of the batch", units.money(batch.expected_cost), units.money(sending.cost)


def _promised(explanation: Explanation, sending: Sending) -> Offer | None:
    """Returns the offer by which the request came into this batch; None where it came by a move or it is not kept."""
    before = (d for d in reversed(explanation.decisions) if not _later(d, sending))
    decision = next(before, None)
    if decision is None or not decision.compared or decision.choice is None:
        return None
    return decision.choice if decision.choice.place == sending.batch.place else None


def _ended(explanation: Explanation) -> str:
    if explanation.outcome != ANSWERED:
        return OUTCOMES.get(explanation.outcome, f"refused: {explanation.outcome.replace('_', ' ')}")
    if explanation.ended_at_s is None:
        return "answered"
    left_s = explanation.request.deadline_s - explanation.ended_at_s
    return f"answered, {_seconds(abs(left_s))} {'before' if left_s >= 0 else 'after'} its deadline"


def _batch(sending: Sending) -> str:
    return f"batch {sending.batch.batch_id} on {sending.batch.place}"


def _items(count: int) -> str:
    return f"{count} item{'' if count == 1 else 's'}"


def _seconds(seconds: float) -> str:
    # The addition of 0.0 makes a rounded -0.0 print without its sign.
    return f"{round(seconds, 3) + 0.0:.3f} s"


def _percent(probability: float) -> str:
    if 0 < probability < 0.001:
        return "below 0.1 %"
    return f"{100 * probability:.3g} %"


def _known(value: float, word: Callable[[float], str]) -> str:
    return word(value) if math.isfinite(value) else ""


def _if_finite(value: float | None, word: Callable[[float], str]) -> str:
    if value is None:
        return _UNKNOWN
    return word(value) if math.isfinite(value) else "never"


def _yes(happened: bool | None) -> str:
    return _UNKNOWN if happened is None else "yes" if happened else "no"

"""Replays choices from the records alone: what an explain file says must lead to the choices that it says were made.

Works on the JSON of explanations (`scheduler.explain.json_lines`, version 2) and imports nothing of the program, so
that it repeats none of its mistakes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Values = Mapping[str, Any]

NO_CHOICE = {"top-up", "piggyback", "reclaimed", "hedge", "overdue-sent", "trial"}
"""Causes of moves in which no offers are compared."""
TERMS = ("money", "lateness", "cost-to-others")
"""Reasons that compare two possible offers; all others are gates, but for this one:"""
NEAR = 0.01
"""Part of a price within which totals of edge servers count as equal, as in `scheduler/dispatch/edges.py`."""
LEAST_TOTAL = "least-total"
GATES = {
    *("class", "no-backend", "failed-there", "quota", "too-large", "circuit-open", "batch-full", "joins-late"),
    *("first-deadline", "no-slot", "cold", "late", "too-risky", "spend-cap", "budget"),
    *("gives-way", "not-served-late", "no-place-given-up"),
}
REL_TOLERANCE, ABS_TOLERANCE = 1e-9, 1e-15
"""Of a total, in parts of it and in money: floating-point sums in another order."""


@dataclass
class Replay:
    """What was replayed, and where a record does not lead to its choice."""

    decisions: int = 0
    compared: int = 0
    contradictions: list[str] = field(default_factory=list)

    def add(self, explanations: Iterable[Values]) -> None:
        """Replays the decisions of these requests."""
        for explanation in explanations:
            self.decisions += len(explanation["decisions"])
            self.compared += sum(decision["compared"] for decision in explanation["decisions"])
            self.contradictions += contradictions(explanation)


def contradictions(explanation: Values) -> Iterator[str]:
    """Yields a sentence for each statement of a request's record that its other statements do not bear out."""
    for at, decision in enumerate(explanation["decisions"]):
        for sentence in _of_decision(decision):
            yield f"request {explanation['request_id']}, decision {at}: {sentence}"
    # A ring that is not whole drops decisions, among them perhaps the one that explains a sending.
    if not explanation["decisions_left_out"]:
        for sentence in _of_sendings(explanation["decisions"], explanation):
            yield f"request {explanation['request_id']}: {sentence}"


def _of_decision(decision: Values) -> Iterator[str]:
    if decision["compared"] == (decision["cause"] in NO_CHOICE):
        yield f"compared is {decision['compared']} with the cause {decision['cause']}"
    if not decision["compared"]:
        if decision["reason"] != LEAST_TOTAL:
            yield f"nothing was compared, but {decision['reason']} decided"
        return
    for at, offer in enumerate(decision["offers"]):
        yield from (f"offer {at}: {sentence}" for sentence in _of_offer(offer, decision["lateness_price"]))
    best = _best(decision["offers"])
    if best is None:
        yield from _of_refusal(decision)
    elif _near(decision, best):
        return
    elif decision["chosen_offer"] != best or decision["chosen"] != _where(decision["offers"][best]):
        yield f"{decision['chosen']} was chosen, but offer {best} has the least total"
    elif decision["nearest_miss"] is not None:
        yield "a nearest miss, though it was not refused"
    else:
        yield from _of_reason(decision, best)


def _near(decision: Values, best: int) -> bool:
    """Whether an edge server was chosen that starts before the one with the least total, at nearly the same total."""
    offers, at = decision["offers"], decision["chosen_offer"]
    if at is None or at == best or not all(offers[i]["place"].startswith("edge:") for i in (at, best)):
        return False
    if offers[at]["place"] == offers[best]["place"] or not offers[at]["possible"]:
        return False
    price = max([decision["lateness_price"], *[offer["money"] or 0.0 for offer in offers]])
    sooner = bool(offers[at]["start_s"] < offers[best]["start_s"])
    return sooner and bool(offers[at]["total"] - offers[best]["total"] <= NEAR * price)


def _of_offer(offer: Values, lateness_price: float) -> Iterator[str]:
    if not offer["possible"]:
        if offer["total"] is not None or offer["reason"] not in GATES:
            yield f"impossible by {offer['reason']}, total {offer['total']}"
        return
    if offer["reason"] is not None:
        yield f"possible in spite of {offer['reason']}"
    terms = offer["money"] + lateness_price * offer["late_probability"] + offer["cost_to_others"]
    if offer["total"] is None or not _equal(offer["total"], terms):
        yield f"total {offer['total']}, but its terms add up to {terms}"


def _of_refusal(decision: Values) -> Iterator[str]:
    offers, missed = decision["offers"], decision["nearest_miss"]
    if decision["chosen"] != {"place": "", "tier": "", "queue": "refused"} or decision["chosen_offer"] is not None:
        yield f"no offer is possible, but {decision['chosen']} was chosen"
        return
    if not offers:
        if missed is not None or decision["reason"] != "no-backend":
            yield f"nothing was offered, but {decision['reason']} decided and {missed} missed by least"
        return
    # Of places that would never answer, one that is not there says least.
    nearest = min(offers, key=lambda offer: (_number(offer["finish_s"]), offer["reason"] == "no-backend"))
    if missed != {**_where(nearest), "reason": nearest["reason"]}:
        yield f"the nearest miss is said to be {missed}, but {_where(nearest)} would have answered first"
    # A class that keeps a request away, or rather misses than pays, explains more than the nearest miss.
    by_class = next((offer["reason"] for offer in offers if offer["reason"] in {"class", "budget"}), None)
    if decision["reason"] != (by_class or nearest["reason"]):
        yield f"refused for {decision['reason']}, but the nearest miss was impossible by {nearest['reason']}"


def _of_reason(decision: Values, best: int) -> Iterator[str]:
    """Checks the reason against the rival: the first offer, or where that was chosen, the next possible one."""
    offers, reason = decision["offers"], decision["reason"]
    others = offers[:1] if best else [offer for offer in offers[1:] if offer["possible"]]
    if not others:
        expected = {LEAST_TOTAL}
    elif not others[0]["possible"]:
        expected = {others[0]["reason"]}
    else:
        more = _more(others[0], offers[best], decision["lateness_price"])
        expected = {term for term, difference in zip(TERMS, more, strict=True) if difference == max(more)}
    if reason not in expected:
        yield f"{reason} is said to have decided, but it was {' or '.join(sorted(expected))}"


def _more(rival: Values, choice: Values, lateness_price: float) -> tuple[float, float, float]:
    """Returns by how much the rival is dearer in money, lateness and cost to others."""
    late = rival["late_probability"] - choice["late_probability"]
    others = rival["cost_to_others"] - choice["cost_to_others"]
    return rival["money"] - choice["money"], lateness_price * late, others


def _of_sendings(decisions: Sequence[Values], explanation: Values) -> Iterator[str]:
    """Checks that each batch left for the place, and for the reason, of the last decision before it."""
    for sending in explanation["sendings"]:
        before = [decision for decision in decisions if not _later(decision, sending)]
        if not before:
            continue
        chosen = before[-1]["chosen"]
        if sending["place"] != chosen["place"]:
            yield f"sent to {sending['place']}, but put into the queue {chosen['queue']} of {chosen['place']}"
        reason = dict(zip(sending["request_ids"], sending["reasons"], strict=True))[explanation["request_id"]]
        if reason != before[-1]["reason"]:
            yield f"sent for {reason}, but decided by {before[-1]['reason']}"


def _later(decision: Values, sending: Values) -> bool:
    """Whether a decision was made after a batch was sent: at the same time too, if the batch was back at once."""
    if decision["at_s"] != sending["sent_at_s"]:
        return bool(decision["at_s"] > sending["sent_at_s"])
    # A hedge is noted when it has been sent.
    sent = {attempt["batch_id"] for attempt in decision["attempts"]}
    return decision["cause"] != "hedge" and sending["batch_id"] in sent


def _best(offers: Sequence[Values]) -> int | None:
    """Returns the first of the possible offers with the least total; None where none is possible."""
    possible = [at for at, offer in enumerate(offers) if offer["possible"]]
    return min(possible, key=lambda at: _number(offers[at]["total"]), default=None)


def _where(offer: Values) -> dict[str, str]:
    return {name: offer[name] for name in ("place", "tier", "queue")}


def _number(value: float | None) -> float:
    return math.inf if value is None else value


def _equal(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=REL_TOLERANCE, abs_tol=ABS_TOLERANCE)

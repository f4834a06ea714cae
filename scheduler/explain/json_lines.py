"""An explanation as one line of JSON, and back: what files keep and `GET /v1/explain` answers.

Keys carry their units; absolute times (`..._at_s`, `deadline_s`, `start_s`, `finish_s`) are on the clock of the daemon
or simulation that wrote them, as in `GET /v1/batches`. Money is in `currency`. A null where a number stands otherwise:
never (a time), impossible (a total), or not known.

A decision has its offers in the order in which the places were asked; `chosen` is the one with the least `total`, of
equal ones the first. `total = money + lateness_price x late_probability + cost_to_others`; an offer that a gate forbids
has no total, and the gate as `reason`. With `compared` false nothing was compared: the request was moved as `chosen`
says.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from scheduler.dispatch.decision_ring import Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport, FailureKind, WhyLeft
from scheduler.domain.decisions import Cause, Decision, Offer, Reason
from scheduler.domain.lifecycle import State
from scheduler.domain.plain import check_types
from scheduler.domain.requests import EDGE_NAME, Attempt, Backend, Place, Request
from scheduler.explain.text import NO_CONTEXT, Context
from scheduler.explain.words import REFUSED

VERSION = 2
"""Raised when a key changes its meaning or goes. Version 1 had the terms of both sides instead of offers."""
_OF_THE_REQUEST = ("model", "class_name", "tenant", "priority", "items", "body_bytes", "arrived_at_s", "deadline_s")
_LATER = ("counts_as", "tenant_share")
"""Of the context: what lines may lack."""
_ELSEWHERE = {"place", "request_ids", "reasons", "why_left"}
"""Fields of a batch that are not plain numbers or texts."""


def to_values(explanation: Explanation, context: Context = NO_CONTEXT) -> dict[str, Any]:
    """Returns an explanation as JSON shows it; its keys stay what they are while `version` does."""
    return {
        "version": VERSION,
        "request_id": explanation.request_id,
        **asdict(context),
        **{name: _finite(getattr(explanation.request, name)) for name in _OF_THE_REQUEST},
        "outcome": explanation.outcome,
        "ended_at_s": explanation.ended_at_s,
        "decisions_left_out": explanation.left_out,
        "decisions": [_decision_values(decision) for decision in explanation.decisions],
        "sendings": [_sending_values(sending) for sending in explanation.sendings],
    }


def from_values(values: Mapping[str, Any]) -> tuple[Explanation, Context]:
    """Returns what `to_values` was given.

    Raises:
        ValueError: it is no explanation, or of another version; the message says what is wrong.
    """
    version = values.get("version")
    if version != VERSION:
        known = f"it is of version {version!r} and only version {VERSION} can be read here"
        raise ValueError(f"{known}; use the release of edgeburst that wrote it")
    try:
        request = Request(values["request_id"], **{name: _number(values[name]) for name in _OF_THE_REQUEST})
        explanation = Explanation(
            request,
            tuple(_decision_of(request, decision) for decision in values["decisions"]),
            values["decisions_left_out"],
            tuple(_sending_of(sending) for sending in values["sendings"]),
            values["ended_at_s"],
            values["outcome"],
        )
        # Lines of earlier versions do not say what its tenant counts as.
        told = {field.name: values[field.name] for field in fields(Context) if field.name not in _LATER}
        context = Context(**told, **{name: values[name] for name in _LATER if name in values})
        check_types(explanation)
        check_types(context)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"an explanation lacks or misstates {error}") from None
    return explanation, context


def to_json(explanation: Explanation, context: Context = NO_CONTEXT) -> str:
    """Returns one line of JSON, without a line's end."""
    return json.dumps(to_values(explanation, context), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> tuple[Explanation, Context]:
    """Returns what `to_json` was given; ValueError where the line is none of its."""
    try:
        values = json.loads(line)
    except RecursionError:
        raise ValueError("the line has too many levels") from None
    if not isinstance(values, dict):
        raise ValueError("an explanation is a JSON object")
    return from_values(values)


def _decision_values(decision: Decision) -> dict[str, Any]:
    choice, missed = decision.choice, decision.nearest_miss
    refused = {"place": "", "tier": "", "queue": REFUSED}
    return {
        "at_s": decision.at_s,
        "cause": decision.cause.value,
        "plan_id": decision.plan_id,
        "deadline_s": _finite(decision.request.deadline_s),
        "lateness_price": _finite(decision.lateness_price),
        "compared": decision.compared,
        "chosen": refused if choice is None else _where(choice),
        "chosen_offer": None if choice is None else decision.chosen,
        "reason": decision.reason.value,
        "nearest_miss": None if missed is None else {**_where(missed), "reason": _gate(missed)},
        "attempts": [_attempt_values(attempt) for attempt in decision.request.attempts],
        "offers": [_offer_values(offer) for offer in decision.offers],
    }


def _attempt(values: Mapping[str, Any]) -> Attempt:
    backend = Backend(values["backend"])
    return Attempt(backend, values["batch_id"], values["sent_at_s"], values.get("edge", EDGE_NAME))


def _decision_of(request: Request, values: Mapping[str, Any]) -> Decision:
    attempts = tuple(_attempt(a) for a in values["attempts"])
    offers = tuple(map(_offer_of, values["offers"]))
    chosen = -1 if values["chosen_offer"] is None else values["chosen_offer"]
    decision = Decision(
        replace(request, deadline_s=_number(values["deadline_s"]), attempts=attempts),
        values["at_s"],
        Cause(values["cause"]),
        values["plan_id"],
        _number(values["lateness_price"]),
        values["compared"],
        offers,
        chosen,
    )
    if decision.chosen < -1:
        raise ValueError(f"an explanation names offer {decision.chosen} of {len(offers)}")
    if decision.choice is not None and _where(decision.choice) != values["chosen"]:
        raise ValueError(f"an explanation misstates which of {len(offers)} offers was chosen")
    return decision


def _attempt_values(attempt: Attempt) -> dict[str, Any]:
    said = {"backend": attempt.backend.value, "batch_id": attempt.batch_id, "sent_at_s": attempt.sent_at_s}
    return {**said, "edge": attempt.edge} if attempt.backend is Backend.EDGE else said


def _where(offer: Offer) -> dict[str, str]:
    return {"place": str(offer.place), "tier": offer.place.tier, "queue": offer.queue.value}


def _gate(offer: Offer) -> str | None:
    return None if offer.reason is None else offer.reason.value


def _offer_values(offer: Offer) -> dict[str, Any]:
    return {
        **_where(offer),
        "possible": offer.possible,
        "reason": _gate(offer),
        "start_s": _finite(offer.start_s),
        "finish_s": _finite(offer.finish_s),
        "items": offer.items,
        "late_probability": _finite(offer.late_probability),
        "money": _finite(offer.money),
        "cost_to_others": offer.cost_to_others,
        "total": _finite(offer.total) if offer.possible else None,
        "displaces": offer.displaces,
    }


def _offer_of(values: Mapping[str, Any]) -> Offer:
    return Offer(
        Place.parse(values["place"]),
        State(values["queue"]),
        None if values["reason"] is None else Reason(values["reason"]),
        _number(values["start_s"]),
        _number(values["finish_s"]),
        values["items"],
        _number(values["late_probability"]),
        _number(values["money"]),
        values["cost_to_others"],
        _number(values["total"]),
        values["displaces"],
    )


def _sending_values(sending: Sending) -> dict[str, Any]:
    batch, report = sending.batch, sending.report
    return {
        "place": str(batch.place),
        **{name: _finite(getattr(batch, name)) for name in _batch_fields()},
        "request_ids": batch.request_ids,
        "reasons": [reason.value for reason in batch.reasons],
        "why_left": batch.why_left.value if batch.why_left else None,
        "settled_at_s": sending.settled_at_s,
        "failure_kind": sending.failure_kind.value if sending.failure_kind else None,
        "cost": sending.cost,
        "report": None if report is None else asdict(report),
    }


def _sending_of(values: Mapping[str, Any]) -> Sending:
    kind, report = values["failure_kind"], values["report"]
    batch = Batch(
        place=Place.parse(values["place"]),
        request_ids=tuple(values["request_ids"]),
        reasons=tuple(map(Reason, values["reasons"])),
        # Lines of earlier versions do not say it.
        why_left=WhyLeft(values["why_left"]) if values.get("why_left") else None,
        **{name: _number(values[name]) for name in _batch_fields() if name in values},
    )
    return Sending(
        batch,
        values["settled_at_s"],
        None if report is None else BatchReport(**{**report, "disbelieved": tuple(report.get("disbelieved", ()))}),
        None if kind is None else FailureKind(kind),
        values["cost"],
    )


def _batch_fields() -> list[str]:
    return [field.name for field in fields(Batch) if field.init and field.name not in _ELSEWHERE]


def _finite(value: Any) -> Any:
    """Returns null for an infinity, which JSON does not have: what never happens."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return math.inf if value is None else value

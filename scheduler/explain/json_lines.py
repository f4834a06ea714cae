"""An explanation as one line of JSON, and back: what files keep and `GET /v1/explain` answers.

Keys carry their units; absolute times (`..._at_s`, `deadline_s`, `..._start_s`, `..._finish_s`) are on the clock of the
daemon that wrote them, as in `GET /v1/batches`. A null where a number stands otherwise: never (a time), or not known.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from scheduler.dispatch.decision_ring import Explanation, Sending
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.decisions import Decision
from scheduler.domain.requests import Backend
from scheduler.explain.text import NO_CONTEXT, Context

VERSION = 1
_SAID_AS = {"edge_late": "edge_late_probability", "function_late": "function_late_probability"}
"""Fields of a decision whose keys say more than their names."""


def to_values(explanation: Explanation, context: Context = NO_CONTEXT) -> dict[str, Any]:
    """Returns an explanation as JSON shows it; its keys stay what they are while `version` does."""
    return {
        "version": VERSION,
        "request_id": explanation.request_id,
        **asdict(context),
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
        raise ValueError(f"version {version!r} of explanations cannot be read here, only {VERSION}")
    try:
        explanation = Explanation(
            values["request_id"],
            tuple(_decision_of(values["request_id"], decision) for decision in values["decisions"]),
            values["decisions_left_out"],
            tuple(_sending_of(sending) for sending in values["sendings"]),
            values["ended_at_s"],
            values["outcome"],
        )
        context = Context(**{field.name: values[field.name] for field in fields(Context)})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"an explanation lacks or misstates {error}") from None
    return explanation, context


def to_json(explanation: Explanation, context: Context = NO_CONTEXT) -> str:
    """Returns one line of JSON, without a line's end."""
    return json.dumps(to_values(explanation, context), separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> tuple[Explanation, Context]:
    """Returns what `to_json` was given; ValueError where the line is none of its."""
    values = json.loads(line)
    if not isinstance(values, dict):
        raise ValueError("an explanation is a JSON object")
    return from_values(values)


def _decision_values(decision: Decision) -> dict[str, Any]:
    values = {_SAID_AS.get(name, name): _finite(value) for name, value in decision._asdict().items()}
    del values["request_id"]
    return values


def _decision_of(request_id: int, values: Mapping[str, Any]) -> Decision:
    names = [name for name in Decision._fields if name != "request_id"]
    return Decision(request_id=request_id, **{name: _number(values[_SAID_AS.get(name, name)]) for name in names})


def _sending_values(sending: Sending) -> dict[str, Any]:
    batch, report = sending.batch, sending.report
    return {
        **{field.name: _finite(getattr(batch, field.name)) for field in fields(batch)},
        "backend": batch.backend.value,
        "settled_at_s": sending.settled_at_s,
        "failure_kind": sending.failure_kind.value if sending.failure_kind else None,
        "cost": sending.cost,
        "report": None if report is None else asdict(report),
    }


def _sending_of(values: Mapping[str, Any]) -> Sending:
    batch = {field.name: _number(values[field.name]) for field in fields(Batch)}
    kind, report = values["failure_kind"], values["report"]
    return Sending(
        Batch(**{**batch, "backend": Backend(values["backend"]), "request_ids": tuple(values["request_ids"])}),
        values["settled_at_s"],
        None if report is None else BatchReport(**report),
        None if kind is None else FailureKind(kind),
        values["cost"],
    )


def _finite(value: Any) -> Any:
    """JSON has no infinity: what never happens is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return math.inf if value is None else value

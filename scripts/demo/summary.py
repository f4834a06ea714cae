"""From what was measured to summary.json, and to the verdict. Pure: values in, values out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from scheduler.domain.latency import LatencyModel, Price
from scripts.demo.settings import settled

WRONG_ABOVE = 1e-3
ACCURACY_AT_LEAST = 0.97
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one request.

    Attributes:
        arrival_s: when it had to be sent, seconds from the first phase's start.
        latency_s: from then to its answer or failure.
        answered: whether it was answered.
        wrong: whether the answer differs from the model's own to the same bytes alone.
        correct: whether it names the true digit.
        backend: edge or function; empty without an answer.
        batch_id: the batch that answered it.
    """

    arrival_s: float
    latency_s: float
    answered: bool
    wrong: bool
    correct: bool
    backend: str
    batch_id: int


@dataclass(frozen=True, slots=True)
class PlanCause:
    """When a plan was made, in seconds from the first phase's start, and why."""

    at_s: float
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Money:
    """The bill of the measured part, by the local endpoint's meter.

    Attributes:
        cost_cny: calls and their seconds.
        cost_booked_cny: the same as the daemon reckoned it from what the containers told.
        cost_all_function_cny: all requests at the cheapest feasible function batch.
        provisioned_idle_cny: instances kept warm while they served nothing.
        cu_usd: calls and their seconds on the provider's CU meter.
        provisioned_idle_usd: the warm instances on the CU meter.
    """

    cost_cny: float
    cost_booked_cny: float
    cost_all_function_cny: float
    provisioned_idle_cny: float
    cu_usd: float
    provisioned_idle_usd: float


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The burst after the measured part that meets no warm instance; none of the figures counts it.

    Attributes:
        requests: sent at once.
        answered: of them.
        cold_batches: function batches whose instance had to be started.
        instances_started: function processes that were started for them.
        slowest_cold_batch_s: from its sending to its answer, start included.
        service_s: the time of that batch in the started instance.
    """

    requests: int
    answered: int
    cold_batches: int
    instances_started: int
    slowest_cold_batch_s: float | None
    service_s: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """A demo that is over.

    Attributes:
        outcomes: one for each request of the measured part.
        slo_s: latency objective.
        steps_s: moments at which the rate changed.
        plans: made while it was measured.
        money: the bill.
        price_sheets: name, currency, source and date of each sheet.
        cold_start: the burst afterwards; None where it was left out.
        wall_s: from the first arrival to the last answer.
        emulated: in plain words, what is not real; empty at true speed.
        seed: of arrivals and pictures.
        provisioned: function instances that were kept warm.
        client_warning: a sentence if the client itself fell behind.
    """

    outcomes: Sequence[Outcome]
    slo_s: float
    steps_s: Sequence[float]
    plans: Sequence[PlanCause]
    money: Money
    price_sheets: Mapping[str, Mapping[str, str]]
    cold_start: ColdStart | None
    wall_s: float
    emulated: Sequence[str]
    seed: int
    provisioned: int
    client_warning: str = ""


def wrong_answers(answers: npt.NDArray[np.float32], alone: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Returns which answers differ by more than 1e-3 in any place from the model's own; a missing number differs.

    Args:
        answers: requests x classes.
        alone: the model's answer to each request's picture by itself, in the same form.
    """
    return np.asarray(~(np.abs(answers - alone) <= WRONG_ABOVE).all(axis=1), dtype=np.bool_)


def all_function_cost(
    requests: int, *, latency: LatencyModel, price: Price, slo_s: float, item_bytes: float, bytes_per_s: float
) -> float:
    """Returns the money if every request went to a function in full batches of the cheapest feasible size.

    Feasible is what the latency model and the transfer of its bytes leave within the SLO, with no wait to gather it: kinder to
    functions than any schedule could be.
    """
    sizes = range(1, latency.max_batch + 1)
    feasible = [b for b in sizes if latency.predict_s(b) + b * item_bytes / bytes_per_s <= slo_s]
    return requests * min(price.cost(latency.predict_s(b)) / b for b in feasible or [1])


def summarise(run: Run) -> dict[str, object]:
    """Returns what summary.json holds."""
    answered = [outcome for outcome in run.outcomes if outcome.answered]
    within = np.array([o.answered and o.latency_s <= run.slo_s for o in run.outcomes], dtype=np.bool_)
    counted = settled(np.array([o.arrival_s for o in run.outcomes], dtype=np.float64), run.steps_s)
    return {
        "requests": len(run.outcomes),
        "answered": len(answered),
        "errors": len(run.outcomes) - len(answered),
        "wrong_answers": sum(outcome.wrong for outcome in answered),
        "accuracy": _mean([outcome.correct for outcome in answered]),
        "within_slo": _mean(within),
        "within_slo_settled": _mean(within[counted]),
        "slo_s": run.slo_s,
        **_places(answered),
        **asdict(run.money),
        "latency_s": _percentiles([outcome.latency_s for outcome in answered]),
        "plans": [asdict(plan) for plan in run.plans],
        "wall_s": run.wall_s,
        "emulated": list(run.emulated),
        "seed": run.seed,
        "provisioned_instances": run.provisioned,
        "cold_start": asdict(run.cold_start) if run.cold_start else None,
        "price_sheets": {name: dict(sheet) for name, sheet in run.price_sheets.items()},
        "client_warning": run.client_warning,
    }


def _places(answered: Sequence[Outcome]) -> dict[str, object]:
    found: dict[str, object] = {}
    for backend in ("edge", "function"):
        theirs = [outcome for outcome in answered if outcome.backend == backend]
        batches = len({outcome.batch_id for outcome in theirs})
        found[f"{backend}_requests"] = len(theirs)
        found[f"{backend}_batches"] = batches
        found[f"mean_{backend}_batch"] = len(theirs) / batches if batches else 0.0
    return found


def _mean(values: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _percentiles(latencies_s: Sequence[float]) -> dict[str, float | None]:
    if not latencies_s:
        return dict.fromkeys(_PERCENTILES)
    return {name: float(np.percentile(latencies_s, percent)) for name, percent in _PERCENTILES.items()}


def failures(summary: Mapping[str, object]) -> list[str]:
    """Returns in sentences why a demo has failed; empty for a good one."""
    requests, answered, accuracy = summary["requests"], summary["answered"], summary["accuracy"]
    assert isinstance(accuracy, float)
    found = []
    if not requests:
        found.append("No request was sent.")
    if answered != requests:
        found.append(f"Only {answered} of {requests} requests were answered once.")
    if summary["wrong_answers"]:
        found.append(f"{summary['wrong_answers']} answers differ from the model's own to the same picture alone.")
    if accuracy < ACCURACY_AT_LEAST:
        found.append(f"The accuracy is {accuracy:.4f}, below {ACCURACY_AT_LEAST}.")
    return found

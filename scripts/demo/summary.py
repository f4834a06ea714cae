"""Computes summary.json and the failures from the measurements; pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from scheduler.domain.latency import LatencyModel, Price
from scripts.demo.alternatives import Alternative
from scripts.demo.settings import settled

WRONG_ABOVE = 1e-3
ACCURACY_AT_LEAST = 0.97
_PERCENTILES = {"p50": 50, "p95": 95, "p99": 99}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one request.

    Attributes:
        arrival_s: time at which it had to be sent, seconds from the start of the first phase.
        latency_s: seconds from then to its answer or failure.
        answered: whether it was answered.
        wrong: whether the answer differs from the model's own answer to the same picture alone.
        correct: whether the answer is the true digit.
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
    """Time of a plan, in seconds from the start of the first phase, and its cause."""

    at_s: float
    cause: str
    detail: str


@dataclass(frozen=True, slots=True)
class Money:
    """Bill of the measured part, from the meter of the local endpoint.

    Attributes:
        cost_cny: cost of calls and their seconds.
        cost_booked_cny: the same, computed by the daemon from the reports of the containers.
        cost_all_function_cny: cost of all requests in the cheapest feasible function batch.
        provisioned_all_function: provisioned instances that this would need to keep the SLO.
        provisioned_idle_all_function_cny: cost of those while idle.
        provisioned_idle_cny: cost of provisioned instances while idle.
        cu_usd: cost of calls and their seconds on the provider's CU meter.
        provisioned_idle_usd: cost of provisioned instances while idle on the CU meter.
    """

    cost_cny: float
    cost_booked_cny: float
    cost_all_function_cny: float
    provisioned_all_function: int
    provisioned_idle_all_function_cny: float
    provisioned_idle_cny: float
    cu_usd: float
    provisioned_idle_usd: float

    @property
    def bill_cny(self) -> float:
        """The whole bill: calls and warm instances."""
        return self.cost_cny + self.provisioned_idle_cny

    @property
    def bill_all_function_cny(self) -> float:
        """The whole bill if all requests were sent to functions."""
        return self.cost_all_function_cny + self.provisioned_idle_all_function_cny


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Burst after the measured part, without warm instances; not part of the other figures.

    Attributes:
        requests: number of requests, sent at once.
        answered: number of answers.
        cold_batches: function batches whose instance had to be started.
        instances_started: function processes that were started for them.
        metered_cny: cost of the burst's calls and starts, from the meter of the local endpoint.
        booked_cny: the same, as the daemon booked it.
        slowest_cold_batch_s: seconds from send to answer of the slowest of these batches.
        service_s: service time of this batch in its instance, seconds.
    """

    requests: int
    answered: int
    cold_batches: int
    instances_started: int
    metered_cny: float
    booked_cny: float
    slowest_cold_batch_s: float | None
    service_s: float | None


@dataclass(frozen=True, slots=True)
class Run:
    """Results of a demo.

    Attributes:
        outcomes: outcome of each request of the measured part.
        slo_s: SLO of each request, seconds.
        steps_s: times at which the rate changed.
        plans: plans made during the measurement.
        money: the bill.
        price_sheets: name, currency, source and date of each sheet.
        cold_start: the burst afterwards; None if it was omitted.
        wall_s: seconds from the first arrival to the last answer.
        emulated: sentences on the emulated parts.
        seed: seed of arrivals and pictures.
        provisioned: number of provisioned instances.
        client_warning: a sentence if the client was late with sending; otherwise empty.
        alternatives: what other policies would have done with the same arrivals.
        alternatives_notes: sentences on them.
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
    alternatives: Sequence[Alternative] = ()
    alternatives_notes: Sequence[str] = ()


def wrong_answers(answers: npt.NDArray[np.float32], alone: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Returns which answers differ in any probability by more than 1e-3 from the model's own; NaN always differs.

    Args:
        answers: probabilities of each answer, shape requests x classes.
        alone: the model's own answer to the picture of each request, same shape.
    """
    return np.asarray(~(np.abs(answers - alone) <= WRONG_ABOVE).all(axis=1), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class AllFunction:
    """Cost of all requests by function, and the seconds for which instances are busy with them."""

    cost: float
    busy_s: float


def all_function_cost(
    requests: int, *, latency: LatencyModel, price: Price, slo_s: float, item_bytes: float, bytes_per_s: float
) -> AllFunction:
    """Returns what it takes to send all requests to functions in full batches of the cheapest feasible size.

    A size is feasible if its service and its transfer fit into the SLO. The wait to fill the batch is ignored, so that
    no real schedule is cheaper.
    """
    sizes = range(1, latency.max_batch + 1)
    feasible = [b for b in sizes if latency.predict_s(b) + b * item_bytes / bytes_per_s <= slo_s]
    cheapest = min(feasible or [1], key=lambda b: price.cost(latency.predict_s(b)) / b)
    batches, service_s = requests / cheapest, latency.predict_s(cheapest)
    return AllFunction(batches * price.cost(service_s), batches * service_s)


def summarise(run: Run) -> dict[str, object]:
    """Returns the content of summary.json."""
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
        "bill_cny": run.money.bill_cny,
        "bill_all_function_cny": run.money.bill_all_function_cny,
        "bill_share": _ratio(run.money.bill_cny, run.money.bill_all_function_cny),
        "latency_s": _percentiles([outcome.latency_s for outcome in answered]),
        "plans": [asdict(plan) for plan in run.plans],
        "wall_s": run.wall_s,
        "emulated": list(run.emulated),
        "seed": run.seed,
        "provisioned_instances": run.provisioned,
        "cold_start": asdict(run.cold_start) if run.cold_start else None,
        "price_sheets": {name: dict(sheet) for name, sheet in run.price_sheets.items()},
        "client_warning": run.client_warning,
        "alternatives": [asdict(one) for one in (_measured(run, _mean(within)), *run.alternatives)],
        "alternatives_notes": list(run.alternatives_notes),
    }


def _measured(run: Run, within_slo: float) -> Alternative:
    money = run.money
    words = "edgeburst, measured"
    return Alternative(words, within_slo, money.cost_cny, run.provisioned, money.provisioned_idle_cny)


def _places(answered: Sequence[Outcome]) -> dict[str, object]:
    found: dict[str, object] = {}
    for backend in ("edge", "function"):
        theirs = [outcome for outcome in answered if outcome.backend == backend]
        batches = len({outcome.batch_id for outcome in theirs})
        found[f"{backend}_requests"] = len(theirs)
        found[f"{backend}_batches"] = batches
        found[f"mean_{backend}_batch"] = len(theirs) / batches if batches else 0.0
    return found


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def _mean(values: Sequence[bool] | npt.NDArray[np.bool_]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def _percentiles(latencies_s: Sequence[float]) -> dict[str, float | None]:
    if not latencies_s:
        return dict.fromkeys(_PERCENTILES)
    return {name: float(np.percentile(latencies_s, percent)) for name, percent in _PERCENTILES.items()}


def failures(summary: Mapping[str, object]) -> list[str]:
    """Returns sentences that say why the demo failed; none if it did not."""
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

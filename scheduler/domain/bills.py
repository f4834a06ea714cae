"""What money is spent on, and what one invocation costs by purpose."""

import math
from dataclasses import dataclass
from enum import Enum

from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.failures import Booked, kinds
from scheduler.domain.latency import Price

NOT_BILLED = kinds(booked=Booked.NO)
"""Failures that the provider does not charge for (403, 429, 5xx and what never arrived); the others may have run."""
BILL_MAY_COME = kinds(booked=Booked.AS_EXPECTED)
"""Failures after which the run may go on and its bill, or that of its instance's start, may still become known."""
RAN = kinds(booked=Booked.AS_RUN)
"""Failures of the function itself."""


class Purpose(str, Enum):
    """What money is spent on."""

    CALL = "call"
    """Invocations that carry requests."""
    HEDGE = "hedge"
    """Invocations that carry second copies of requests."""
    WARMING = "warming"
    """Invocations without requests, which keep instances warm."""
    START = "start"
    """Initializers of instances that started for an invocation, as the container reports them."""
    START_ESTIMATE = "start-estimate"
    """The same where no answer reports it: the invocation failed or timed out, or the container is of an old build."""
    PROVISIONING = "provisioning"
    """Initializers of instances that started ahead of invocations."""
    IDLE = "idle"
    """Provisioned instances without an invocation."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Money spent for one purpose."""

    what: Purpose
    tier: str
    model: str
    tenant: str
    currency: str
    amount: float


@dataclass(frozen=True, slots=True)
class Bill:
    """Money for one invocation, by purpose, in its price's currency."""

    call: float = 0.0
    start: float = 0.0
    """Its instance's initializer, as reported."""
    start_estimate: float = 0.0
    """The same, estimated."""
    provisioning: float = 0.0
    """An initializer that ran before the invocation and is reported with it."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.call + self.start + self.start_estimate + self.provisioning


def purpose_of(batch: Batch) -> Purpose:
    """Returns what an invocation itself is booked as, its instance's start apart."""
    return Purpose.WARMING if batch.warming else Purpose.HEDGE if batch.hedge else Purpose.CALL


def expected_bill(batch: Batch, price: Price) -> Bill:
    """Returns the bill of an invocation as it is expected at its send."""
    return Bill(batch.expected_cost, start_estimate=_start_price(price, batch.cold_risk, batch.predicted_init_s))


def bill_of(
    batch: Batch, price: Price, report: BatchReport, failure: FailureKind | None = None, *, final: bool = False
) -> Bill:
    """Returns the bill of an invocation that ended.

    Args:
        batch: as it was sent.
        price: of its tier.
        report: what came back.
        failure: why it failed; None where it was answered.
        final: whether no answer is awaited any more. Until then a run of unknown length counts as expected.
    """
    duration_s = report.billed_duration_s
    if duration_s is None and failure in NOT_BILLED:
        return Bill()
    if report.initializer_failed:
        # The program never saw the invocation, but the initializer ran, for a time that nothing reports.
        return Bill(start_estimate=_start_price(price, 1.0, min(batch.predicted_init_s, report.elapsed_s)))
    if duration_s is not None:
        return _measured_bill(batch, price, report, duration_s)
    lasts = failure in RAN or (final and failure is not None)
    call = price.cost(_ran_s(batch, report)) if lasts else batch.expected_cost
    start_s = min(batch.predicted_init_s, report.elapsed_s)
    return Bill(call, start_estimate=_start_price(price, batch.cold_risk if failure else 0.0, start_s))


def _measured_bill(batch: Batch, price: Price, report: BatchReport, duration_s: float) -> Bill:
    """Returns the bill of a run whose duration is known: it is billed even where it ended in a failure."""
    call, init_s = price.cost(duration_s), report.init_s
    if report.cold_start and init_s is None:
        start_s = min(batch.predicted_init_s, max(0.0, report.elapsed_s - duration_s))
        return Bill(call, start_estimate=_start_price(price, 1.0, start_s))
    if not init_s:
        return Bill(call)
    # The provider bills an initializer like an invocation, with a fee of its own.
    start = price.cost(init_s)
    return Bill(call, start=start) if report.cold_start else Bill(call, provisioning=start)


def _start_price(price: Price, probability: float, init_s: float) -> float:
    return probability * price.cost(init_s) if probability > 0.0 and init_s > 0.0 else 0.0


def _ran_s(batch: Batch, report: BatchReport) -> float:
    """Returns the seconds that an invocation without a report ran: those that path and start do not explain."""
    path_s = batch.predicted_finish_s - batch.sent_at_s - batch.predicted_service_s
    path_s = path_s if math.isfinite(path_s) else 0.0
    return max(0.0, report.elapsed_s - path_s - batch.cold_risk * batch.predicted_start_s)

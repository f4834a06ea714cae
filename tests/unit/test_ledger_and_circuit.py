"""Money in one place, and backends left alone while they fail."""

from dataclasses import replace

import pytest
from support.function_batches import function_batch

from scheduler.dispatch.circuit_breaker import LONGEST_PAUSE_S, Circuit, Circuits
from scheduler.dispatch.edge_occupancy import EdgeOccupancy
from scheduler.dispatch.ledger import MOST_UNBILLED, Ledger
from scheduler.dispatch.spend_cap import SpendCap
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.latency import Price
from scheduler.domain.messages import ProbeMeasured, SendProbe
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import EDGE_NAME, FUNCTIONS, Place

PRICE = Price(per_s=1.27e-5, per_call=9e-7, grain_s=0.001, sheet="test")


def billed(duration_s: float) -> BatchReport:
    return BatchReport(elapsed_s=20.0, billed_duration_s=duration_s)


def booked() -> Ledger:
    ledger = Ledger()
    ledger.book(function_batch(1, expected_cost=5e-6), PRICE)
    return ledger


def test_the_answer_corrects_what_was_expected_at_the_send() -> None:
    ledger = booked()
    assert ledger.spent == 5e-6
    ledger.settle(1, BatchReport(elapsed_s=1.0, billed_duration_s=0.7804))
    assert ledger.spent == pytest.approx(1.27e-5 * 0.781 + 9e-7)


@pytest.mark.parametrize("kind", [FailureKind.THROTTLED, FailureKind.UNREACHABLE, FailureKind.SERVER])
def test_what_the_provider_does_not_bill_costs_nothing(kind: FailureKind) -> None:
    ledger = booked()
    assert ledger.settle(1, BatchReport(elapsed_s=1.0), failure=kind) == 0.0
    assert ledger.spent == 0.0


def test_a_run_that_the_container_measured_is_billed_even_if_it_refused_its_content() -> None:
    ledger = booked()
    ledger.settle(1, BatchReport(elapsed_s=1.0, billed_duration_s=0.5), failure=FailureKind.REJECTED)
    assert ledger.spent == pytest.approx(1.27e-5 * 0.5 + 9e-7)


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.BROKEN])
def test_a_run_of_unknown_length_counts_as_expected(kind: FailureKind) -> None:
    ledger = booked()
    ledger.settle(1, BatchReport(elapsed_s=1.0), failure=kind)
    assert ledger.spent == 5e-6


def test_a_run_that_broke_off_is_taken_to_have_lasted_until_the_platform_said_so() -> None:
    ledger = booked()
    ledger.settle(1, BatchReport(elapsed_s=30.2), failure=FailureKind.FUNCTION)
    assert ledger.spent == pytest.approx(PRICE.cost(30.0))


def test_an_edge_batch_costs_nothing() -> None:
    assert Ledger().settle(7, BatchReport(elapsed_s=1.0)) == 0.0


def given_up() -> Ledger:
    ledger = Ledger(SpendCap(per_hour=1.0))
    ledger.book(function_batch(1, expected_cost=5e-6), PRICE, now_s=100.0, max_cost=8e-6)
    ledger.settle(1, BatchReport(elapsed_s=1.0), failure=FailureKind.TIMEOUT)
    return ledger


def test_a_bill_that_comes_after_the_batch_was_given_up_corrects_what_was_spent() -> None:
    ledger = given_up()
    cost = 1.27e-5 * 2.0 + 9e-7
    assert ledger.spent == 5e-6
    assert ledger.bill(1, billed(2.0)) == pytest.approx(cost - 5e-6)
    assert ledger.spent == pytest.approx(cost)
    assert ledger.cap.hour.sum(100.0) == pytest.approx(cost)


def test_a_bill_counts_once() -> None:
    ledger = given_up()
    ledger.bill(1, billed(2.0))
    assert ledger.bill(1, billed(2.0)) == 0.0
    assert ledger.bill(99, billed(2.0)) == 0.0


def test_the_cap_holds_back_the_most_a_batch_may_cost_until_its_bill_is_known() -> None:
    ledger = Ledger(SpendCap(per_hour=1.0))
    ledger.book(function_batch(1, expected_cost=5e-6), PRICE, now_s=100.0, max_cost=8e-6)
    assert ledger.cap.hour.sum(100.0) == 8e-6
    ledger.settle(1, BatchReport(elapsed_s=1.0), failure=FailureKind.BROKEN)
    assert ledger.cap.hour.sum(100.0) == 8e-6
    ledger.bill(1, billed(0.3))
    assert ledger.cap.hour.sum(100.0) == pytest.approx(PRICE.cost(0.3))


@pytest.mark.parametrize("failure", [None, FailureKind.THROTTLED])
def test_a_batch_that_is_back_counts_against_the_cap_with_what_it_cost(failure: FailureKind | None) -> None:
    ledger = Ledger(SpendCap(per_hour=1.0))
    ledger.book(function_batch(1, expected_cost=5e-6), PRICE, now_s=100.0)
    billed_s = 0.3 if failure is None else None
    ledger.settle(1, BatchReport(elapsed_s=1.0, billed_duration_s=billed_s), failure=failure)
    assert ledger.cap.hour.sum(100.0) == pytest.approx(PRICE.cost(0.3) if failure is None else 0.0)


def test_a_run_that_failed_with_a_bill_waits_for_no_other() -> None:
    ledger = Ledger(SpendCap(per_hour=1.0))
    ledger.book(function_batch(1, expected_cost=5e-6), PRICE, now_s=100.0, max_cost=8e-6)
    ledger.settle(1, BatchReport(elapsed_s=1.0, billed_duration_s=0.3), failure=FailureKind.FUNCTION)
    assert ledger.cap.hour.sum(100.0) == pytest.approx(PRICE.cost(0.3))
    assert ledger.bill(1, billed(9.0)) == 0.0


def test_the_bills_waited_for_are_bounded_and_the_oldest_are_forgotten() -> None:
    ledger = Ledger()
    for batch_id in range(MOST_UNBILLED + 3):
        ledger.book(function_batch(batch_id, expected_cost=1.0), PRICE, now_s=0.0)
        ledger.settle(batch_id, BatchReport(elapsed_s=1.0), failure=FailureKind.TIMEOUT)
    assert len(ledger.unbilled) == MOST_UNBILLED
    assert ledger.bill(2, billed(9.0)) == 0.0
    assert ledger.bill(3, billed(9.0)) != 0.0


def test_a_grain_is_not_exceeded_by_its_own_binary_representation() -> None:
    assert PRICE.billed_s(0.003) == pytest.approx(0.003)
    assert PRICE.billed_s(0.0030001) == pytest.approx(0.004)


def circuit() -> Circuit:
    return Circuit(failures_to_open=3, first_pause_s=1.0)


def test_nobody_there_opens_at_once_and_a_probe_closes() -> None:
    it = circuit()
    it.failed(FailureKind.UNREACHABLE, now_s=10.0, retry_after_s=None)
    assert not it.usable(10.0)
    assert it.probe_at_s == 11.0
    it.succeeded()
    assert it.usable(11.0)


def test_server_errors_open_after_several_in_a_row() -> None:
    it = circuit()
    for _ in range(2):
        it.failed(FailureKind.SERVER, now_s=0.0, retry_after_s=None)
    assert it.closed
    it.failed(FailureKind.SERVER, now_s=0.0, retry_after_s=None)
    assert not it.closed


def test_pauses_double_up_to_a_limit() -> None:
    it, pauses = circuit(), []
    it.failed(FailureKind.UNREACHABLE, now_s=0.0, retry_after_s=None)
    for _ in range(8):
        it.probe_failed(0.0)
        pauses.append(it.pause_s)
    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_throttling_asks_for_silence_and_leaves_the_circuit_closed() -> None:
    it = circuit()
    it.failed(FailureKind.THROTTLED, now_s=5.0, retry_after_s=2.0)
    assert it.closed
    assert not it.usable(6.9)
    assert it.usable(7.0)


def test_refused_content_says_nothing_about_the_backend() -> None:
    it = circuit()
    for _ in range(10):
        it.failed(FailureKind.REJECTED, now_s=0.0, retry_after_s=None)
    assert it.closed


def test_a_backend_that_answers_probes_and_fails_batches_is_asked_less_and_less_often() -> None:
    it = Circuit(failures_to_open=3, first_pause_s=1.0, longest_pause_s=30.0)
    pauses, now_s = [], 0.0
    for _ in range(3):
        it.failed(FailureKind.SERVER, now_s=now_s, retry_after_s=None)
    for _ in range(6):
        assert it.probe_at_s is not None
        pauses.append(it.probe_at_s - now_s)
        now_s = it.probe_at_s
        it.probe_succeeded(now_s)
        assert it.closed
        it.failed(FailureKind.SERVER, now_s=now_s, retry_after_s=None)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert it.probe_at_s is not None
    it.probe_succeeded(it.probe_at_s)
    it.succeeded()
    it.failed(FailureKind.SERVER, now_s=now_s, retry_after_s=None)
    assert it.closed
    it.failed(FailureKind.UNREACHABLE, now_s=now_s, retry_after_s=None)
    assert it.probe_at_s == now_s + 1.0


def test_a_probe_of_a_backend_that_is_in_use_forgives_no_failure() -> None:
    it = Circuit(failures_to_open=3, first_pause_s=1.0)
    for at_s in (0.0, 1.0, 2.0):
        assert it.closed
        it.failed(FailureKind.SERVER, now_s=at_s, retry_after_s=None)
        if it.closed:
            it.probe_succeeded(at_s)
    assert not it.closed


def test_batches_sent_before_an_outage_was_over_are_no_sign_of_another() -> None:
    it = Circuit(failures_to_open=3, first_pause_s=1.0)
    it.failed(FailureKind.TIMEOUT, now_s=5.0, retry_after_s=None, sent_at_s=0.0)
    it.probe_succeeded(6.0)
    it.failed(FailureKind.BROKEN, now_s=6.1, retry_after_s=None, sent_at_s=1.0)
    assert it.closed
    it.failed(FailureKind.TIMEOUT, now_s=6.2, retry_after_s=None, sent_at_s=2.0)
    assert it.probe_at_s == 6.2
    it.probe_succeeded(7.2)
    it.failed(FailureKind.BROKEN, now_s=7.3, retry_after_s=None, sent_at_s=7.25)
    assert it.probe_at_s == 7.3 + 2.0


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.UNREACHABLE])
@pytest.mark.parametrize(("given_up_at_s", "asked_at_s"), [(0.4, 1.0), (5.0, 5.0)])
def test_the_pause_after_a_hang_begins_when_the_batch_was_sent(
    kind: FailureKind, given_up_at_s: float, asked_at_s: float
) -> None:
    """Whether nothing answered it or nothing took it, as where a link was cut for a moment."""
    it = circuit()
    it.failed(kind, now_s=given_up_at_s, retry_after_s=None, sent_at_s=0.0)
    assert it.probe_at_s == asked_at_s


def test_a_probe_that_hangs_is_a_pause_itself() -> None:
    circuits = Circuits.closed(EngineSettings(models=()), {EDGE_NAME: [EdgeOccupancy()]}, UplinkOccupancy())
    edge = circuits.edge
    edge.failed(FailureKind.TIMEOUT, now_s=0.0, retry_after_s=None)
    assert circuits.to_probe(1.0, idle_link=False) == [SendProbe(Place.edge())]
    circuits.probed(ProbeMeasured(Place.edge(), ok=False), now_s=1.1)
    assert edge.probe_at_s == 1.0 + 2.0
    assert circuits.to_probe(3.0, idle_link=False) == [SendProbe(Place.edge())]
    circuits.probed(ProbeMeasured(Place.edge(), ok=False), now_s=5.5)
    assert edge.probe_at_s == 5.5
    # One that was not asked for, as at the start, says nothing of when it began.
    circuits.probed(ProbeMeasured(Place.edge(), ok=False), now_s=6.0)
    assert edge.probe_at_s == 6.0 + 2.0


@pytest.mark.parametrize(("sent_at_s", "closed"), [(2.0, True), (0.5, False)])
@pytest.mark.parametrize("asked_by_engine", [True, False])
def test_a_probe_that_hung_says_nothing_once_a_later_batch_is_back(
    sent_at_s: float, closed: bool, asked_by_engine: bool
) -> None:
    """One of the uplink waits 10 s for its answer; what was cut when it began may long be whole again."""
    circuits = Circuits.closed(EngineSettings(models=()), {EDGE_NAME: [EdgeOccupancy()]}, UplinkOccupancy())
    if asked_by_engine:
        assert circuits.to_probe(1.0, idle_link=True) == [SendProbe(FUNCTIONS)]
    circuits.succeeded(replace(function_batch(1), sent_at_s=sent_at_s))
    probe = ProbeMeasured(FUNCTIONS, ok=False, asked_at_s=None if asked_by_engine else 1.0)
    circuits.probed(probe, now_s=11.0)
    assert circuits.function.closed is closed
    assert circuits.to_probe(42.0, idle_link=True) == [SendProbe(FUNCTIONS)]


def test_the_pause_after_each_of_two_probes_that_hang_begins_when_that_one_was_sent() -> None:
    """As after a reload, which asks an edge that the engine is asking: the first to be back is not the only one."""
    circuits = Circuits.closed(EngineSettings(models=()), {EDGE_NAME: [EdgeOccupancy()]}, UplinkOccupancy())
    first_s = circuits.edge.first_pause_s
    circuits.edge.failed(FailureKind.SERVER, now_s=0.0, retry_after_s=None)
    circuits.edge.probe_failed(0.0)
    assert circuits.to_probe(first_s, idle_link=False) == [SendProbe(Place.edge())]
    circuits.probed(ProbeMeasured(Place.edge(), ok=False, asked_at_s=first_s), now_s=first_s + 0.1)
    circuits.probed(ProbeMeasured(Place.edge(), ok=False, asked_at_s=first_s + 0.1), now_s=first_s + 1.1)
    assert circuits.edge.probe_at_s == pytest.approx(first_s + 0.1 + circuits.edge.pause_s)


def test_probes_that_were_under_way_together_make_the_pause_longer_once() -> None:
    """As at a start: the edge is rehearsed while the engine asks it, too."""
    it = circuit()
    it.failed(FailureKind.UNREACHABLE, now_s=2.0, retry_after_s=None)
    it.probe_failed(4.0, asked_at_s=2.5)
    assert (it.pause_s, it.probe_at_s) == (2.0, 4.5)
    it.probe_failed(5.0, asked_at_s=3.5)
    assert (it.pause_s, it.probe_at_s) == (2.0, 5.5)
    it.probe_failed(7.0, asked_at_s=5.5)
    assert (it.pause_s, it.probe_at_s) == (4.0, 9.5)

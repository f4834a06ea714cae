"""Every billed second is booked, under its own name: calls, starts, estimates, warming, hedges, idle instances."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.function_batches import function_batch

from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.spend_cap import SpendCap
from scheduler.domain.batches import Batch, BatchReport, FailureKind
from scheduler.domain.bills import Bill, Purpose, bill_of
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import EngineSettings, ModelSettings

PRICE = Price(per_s=1.0, per_call=0.25, grain_s=0.001, sheet="test")
COLD = {"cold_risk": 0.5, "predicted_start_s": 3.0, "predicted_init_s": 2.0, "expected_cost": 0.5}
"""A batch that meets a cold start with probability 1/2: 3 s, of which 2 are billed."""


def answer(duration_s: float = 0.3, *, elapsed_s: float = 10.0, **changes: object) -> BatchReport:
    return replace(BatchReport(elapsed_s, billed_duration_s=duration_s), **changes)  # type: ignore[arg-type]


def booked(*batches: Batch, at_s: float = 100.0) -> Ledger:
    ledger = Ledger(SpendCap(per_hour=1e6))
    for batch in batches:
        ledger.book(batch, PRICE, now_s=at_s, max_cost=9.0)
    return ledger


def amounts(ledger: Ledger) -> dict[str, object]:
    return {row.what.value: pytest.approx(row.amount) for row in ledger.spending() if abs(row.amount) > 1e-12}


def test_a_reported_start_is_billed_like_a_call_of_its_own() -> None:
    bill = bill_of(function_batch(**COLD), PRICE, answer(0.3, cold_start=True, init_s=1.5))
    assert bill == Bill(call=PRICE.cost(0.3), start=PRICE.cost(1.5))
    assert bill.total == pytest.approx(0.3 + 0.25 + 1.5 + 0.25)


def test_a_model_that_its_first_call_loaded_is_billed_once() -> None:
    assert bill_of(function_batch(**COLD), PRICE, answer(1.8, cold_start=True, init_s=0.0)) == Bill(PRICE.cost(1.8))


def test_the_start_of_an_old_container_is_an_estimate_no_longer_than_the_call_leaves_time_for() -> None:
    batch = function_batch(**COLD)
    assert bill_of(batch, PRICE, answer(0.3, cold_start=True)) == Bill(PRICE.cost(0.3), start_estimate=PRICE.cost(2.0))
    short = answer(0.3, elapsed_s=0.8, cold_start=True)
    assert bill_of(batch, PRICE, short).start_estimate == pytest.approx(PRICE.cost(0.5))


def test_a_start_that_came_before_the_call_is_provisioning() -> None:
    bill = bill_of(function_batch(**COLD), PRICE, answer(0.3, cold_start=False, init_s=1.5))
    assert bill == Bill(PRICE.cost(0.3), provisioning=PRICE.cost(1.5))


@pytest.mark.parametrize("kind", [FailureKind.TIMEOUT, FailureKind.BROKEN])
def test_a_call_without_an_answer_may_have_started_an_instance(kind: FailureKind) -> None:
    bill = bill_of(function_batch(**COLD), PRICE, BatchReport(10.0), kind)
    assert bill == Bill(0.5, start_estimate=0.5 * PRICE.cost(2.0))


@pytest.mark.parametrize("kind", [FailureKind.THROTTLED, FailureKind.UNREACHABLE, FailureKind.SERVER])
def test_a_call_that_the_provider_refused_started_none(kind: FailureKind) -> None:
    assert bill_of(function_batch(**COLD), PRICE, BatchReport(10.0), kind) == Bill()


def test_a_crash_ran_for_the_time_that_path_and_start_leave() -> None:
    bill = bill_of(function_batch(**COLD), PRICE, BatchReport(10.2), FailureKind.FUNCTION)
    assert bill.call == pytest.approx(PRICE.cost(10.2 - 0.2 - 0.5 * 3.0))
    assert bill.start_estimate == pytest.approx(0.5 * PRICE.cost(2.0))


def test_an_initializer_that_failed_is_billed_and_the_call_is_not() -> None:
    report = BatchReport(10.0, initializer_failed=True)
    assert bill_of(function_batch(**COLD), PRICE, report, FailureKind.FUNCTION) == Bill(start_estimate=PRICE.cost(2.0))


def test_a_run_whose_connection_was_given_up_lasted_until_then() -> None:
    bill = bill_of(function_batch(), PRICE, BatchReport(30.2), FailureKind.TIMEOUT, final=True)
    assert bill == Bill(pytest.approx(PRICE.cost(30.0)))


def test_calls_hedges_warming_and_starts_are_apart() -> None:
    ledger = booked(
        function_batch(1, **COLD),
        function_batch(2, hedge=True, **COLD),
        function_batch(3, request_ids=(), items=0, **COLD),
    )
    ledger.settle(1, answer(0.3, cold_start=True, init_s=1.5))
    ledger.settle(2, answer(0.4, cold_start=False))
    ledger.settle(3, answer(0.001, cold_start=False, init_s=1.0))
    assert amounts(ledger) == {"call": 0.55, "hedge": 0.65, "warming": 0.251, "start": 1.75, "provisioning": 1.25}


def test_a_batch_is_paid_by_its_tenants_in_proportion_to_their_items() -> None:
    ledger = Ledger()
    ledger.book(
        function_batch(items=4),
        PRICE,
        parts=((("ours", "m", "a"), 0.5), (("ours", "m", "b"), 0.25), (("other", "m", "a"), 0.25)),
    )
    ledger.settle(1, answer(0.75, cold_start=True, init_s=1.75))
    paid = {(row.what, row.tenant): pytest.approx(row.amount) for row in ledger.spending()}
    assert paid == {
        (Purpose.CALL, "ours"): 0.75,
        (Purpose.CALL, "other"): 0.25,
        (Purpose.START, "ours"): 1.5,
        (Purpose.START, "other"): 0.5,
    }


def test_a_start_found_later_replaces_the_estimate_of_the_call_that_was_given_up() -> None:
    ledger = booked(function_batch(1, **COLD), function_batch(2, **COLD))
    ledger.settle(1, BatchReport(10.0), failure=FailureKind.TIMEOUT)
    ledger.bill(1, BatchReport(10.2), failure=FailureKind.TIMEOUT)
    assert amounts(ledger)["start-estimate"] == 0.5 * PRICE.cost(2.0)
    ledger.settle(2, answer(0.3, cold_start=False, init_s=1.0))
    assert amounts(ledger) == {"call": PRICE.cost(8.5) + PRICE.cost(0.3), "start": PRICE.cost(1.0)}
    assert ledger.cap.hour.sum(100.0) == pytest.approx(ledger.spent)


def test_a_start_found_while_the_bill_is_awaited_is_not_estimated_again() -> None:
    ledger = booked(function_batch(1, **COLD), function_batch(2, **COLD))
    ledger.settle(1, BatchReport(10.0), failure=FailureKind.TIMEOUT)
    ledger.settle(2, answer(0.3, cold_start=False, init_s=1.0))
    assert amounts(ledger) == {"call": 0.5 + PRICE.cost(0.3), "start": PRICE.cost(1.0)}
    ledger.bill(1, BatchReport(10.2), failure=FailureKind.TIMEOUT)
    assert amounts(ledger) == {"call": PRICE.cost(10.0) + PRICE.cost(0.3), "start": PRICE.cost(1.0)}
    assert ledger.cap.hour.sum(100.0) == pytest.approx(ledger.spent)


def test_the_rows_of_batches_are_corrected_when_a_start_is_found_later() -> None:
    told: dict[int, Bill] = {}
    ledger = booked(function_batch(1, **COLD), function_batch(2, **COLD))
    ledger.listener = lambda command: told.update({command.batch_id: command.bill})
    ledger.settle(1, BatchReport(10.0), failure=FailureKind.TIMEOUT)
    assert told == {}
    ledger.settle(2, answer(0.3, cold_start=False, init_s=1.0))
    assert told == {1: Bill(0.5), 2: Bill(PRICE.cost(0.3), start=PRICE.cost(1.0))}


def test_a_crashed_instance_reports_no_start_any_more() -> None:
    ledger = booked(function_batch(1, **COLD), function_batch(2, **COLD))
    ledger.settle(1, BatchReport(10.0), failure=FailureKind.FUNCTION)
    ledger.settle(2, answer(0.3, cold_start=False, init_s=1.0))
    assert amounts(ledger)["start-estimate"] == 0.5 * PRICE.cost(2.0)
    assert amounts(ledger)["provisioning"] == PRICE.cost(1.0)


reports = st.builds(
    BatchReport,
    elapsed_s=st.floats(0.0, 20.0),
    billed_duration_s=st.none() | st.floats(0.0, 5.0),
    cold_start=st.none() | st.booleans(),
    init_s=st.none() | st.floats(0.0, 5.0),
    initializer_failed=st.booleans(),
)
outcomes = st.tuples(reports, st.none() | st.sampled_from(FailureKind), st.none() | reports, st.booleans())


@given(st.lists(outcomes, max_size=20))
def test_whatever_comes_back_the_accounts_add_up_and_the_cap_counts_what_is_settled(
    plan: list[tuple[BatchReport, FailureKind | None, BatchReport | None, bool]],
) -> None:
    ledger = Ledger(SpendCap(per_hour=1e9))
    for batch_id in range(len(plan)):
        ledger.book(
            function_batch(batch_id, **COLD),
            PRICE,
            now_s=0.0,
            max_cost=50.0,
            parts=((("a", "m", "c"), 0.3), (("b", "m", "c"), 0.7)),
        )
    shown: dict[int, Bill] = {}
    ledger.listener = lambda command: shown.update({command.batch_id: command.bill})
    total = 0.0
    for batch_id, (report, failure, _, _) in enumerate(plan):
        shown[batch_id] = bill_of(function_batch(batch_id, **COLD), PRICE, report, failure)
        total += ledger.settle(batch_id, report, failure=failure)
    for batch_id, (_, _, late, given_up) in enumerate(plan):
        if late is not None:
            ledger.bill(batch_id, late, failure=FailureKind.TIMEOUT if given_up else None)
    assert all(row.amount > -1e-9 for row in ledger.spending())
    assert ledger.spent == pytest.approx(sum(row.amount for row in ledger.spending()))
    for what, part in ((Purpose.START, "start"), (Purpose.START_ESTIMATE, "start_estimate"), (Purpose.CALL, "call")):
        in_books = sum(row.amount for row in ledger.spending() if row.what is what)
        assert in_books == pytest.approx(sum(getattr(bill, part) for bill in shown.values()), abs=1e-9)
    held = sum(booking.held for booking in ledger.unbilled.values())
    awaited = sum(booking.bill.total for booking in ledger.unbilled.values())
    assert ledger.cap.hour.sum(0.0) == pytest.approx(ledger.spent - awaited + held)


TIER = FunctionTier("1gb", "f", LatencyModel(0.2, 0.1, 8), PRICE, provisioned=2, idle_per_s=0.5)


def provisioned(tier: FunctionTier = TIER, **settings: float) -> EngineSettings:
    return EngineSettings((ModelSettings("m", tiers=(tier,)),), **settings)  # type: ignore[arg-type]


def test_provisioned_instances_cost_while_they_do_not_serve() -> None:
    ledger = Ledger()
    ledger.configure(provisioned())
    ledger.idle.pass_time(50.0)
    ledger.book(function_batch(1), PRICE, on_provisioned=True)
    ledger.book(function_batch(2), PRICE)
    ledger.idle.pass_time(60.0)
    ledger.settle(1, answer(4.0))
    ledger.settle(2, answer(3.0))
    assert amounts(ledger)["idle"] == 0.5 * (2 * 10.0 - 4.0)
    ledger.configure(provisioned(replace(TIER, provisioned=0)))
    ledger.idle.pass_time(600.0)
    assert amounts(ledger)["idle"] == 0.5 * (2 * 10.0 - 4.0)


def test_what_instances_cost_idle_comes_off_the_caps_first() -> None:
    ledger = Ledger()
    ledger.configure(provisioned(spend_per_hour=3700.0, spend_per_day=86_400.0 + 50.0))
    assert (ledger.cap.per_hour, ledger.cap.per_day) == (100.0, 50.0)
    ledger.configure(provisioned(spend_per_hour=100.0))
    assert (ledger.cap.per_hour, ledger.cap.per_day) == (0.0, None)
    ledger.configure(provisioned(replace(TIER, provisioned=0), spend_per_hour=100.0))
    assert ledger.cap.per_hour == 100.0

"""The SLO budget as an account: its bounds, its price, what is counted, and misses on purpose."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.lateness_price import LatenessPrice, Prices
from scheduler.dispatch.slo_budget import (
    FIRST_MULTIPLIER,
    MAX_MULTIPLIER,
    MIN_MULTIPLIER,
    MOST_COUNTED,
    REMEMBERED_S,
    SAFETY,
    SCALE,
    SCALE_OVERDRAWN,
    UNHURRIED_BASE,
    SloBudget,
)
from scheduler.domain.plans import ClassOutlook, ServiceClass

PERCENTILES = st.sampled_from([0.9, 0.99, 0.999])


@given(st.lists(st.booleans(), min_size=1, max_size=400), PERCENTILES, st.booleans())
def test_balance_and_weight_stay_within_their_bounds(ends: list[bool], percentile: float, spends: bool) -> None:
    budget = SloBudget(percentile, spends)
    for number, missed in enumerate(ends):
        before = budget.multiplier
        budget.count(missed=missed, now_s=float(number))
        assert MIN_MULTIPLIER * (1 - 1e-9) <= budget.multiplier <= MAX_MULTIPLIER * (1 + 1e-9)
        assert budget.balance <= (1 - percentile) * min(number + 1, MOST_COUNTED) + 1e-9
        if missed:
            assert budget.multiplier >= before * (1 - 1e-9), "a miss makes lateness no cheaper"


@given(st.lists(st.booleans(), min_size=1, max_size=200), PERCENTILES)
def test_the_balance_is_what_was_paid_in_less_the_misses(ends: list[bool], percentile: float) -> None:
    """Within its bounds, against the sum."""
    budget, paid = SloBudget(percentile), 0.0
    for missed in ends:
        budget.count(missed=missed, now_s=0.0)
        paid += SAFETY * (1 - percentile) - missed
        scale = SCALE if budget.balance > 0 else SCALE_OVERDRAWN
        assert budget.multiplier == pytest.approx(math.exp(budget.log_base - budget.balance / scale))
    if paid > SCALE_OVERDRAWN * (budget.log_base - math.log(MAX_MULTIPLIER)):
        assert budget.balance == pytest.approx(paid)


def test_where_more_miss_than_may_the_base_rises_until_they_do_not() -> None:
    """A toy service, whose misses fall with the weight: in the end just as many miss as are paid for."""
    budget, owed, missed_late = SloBudget(0.99), 0.0, 0
    for number in range(60_000):
        owed += 0.06 / budget.multiplier
        missed = owed >= 1.0
        owed -= missed
        budget.count(missed=missed, now_s=number * 0.01)
        missed_late += missed and number >= 30_000
    assert missed_late / 30_000 == pytest.approx(SAFETY * 0.01, rel=0.05)
    assert budget.multiplier == pytest.approx(0.06 / (SAFETY * 0.01), rel=0.1)


def test_a_change_forgets_what_was_saved_and_no_debt() -> None:
    budget = SloBudget(0.99)
    for _ in range(1000):
        budget.count(missed=False, now_s=0.0)
    assert budget.balance > 0
    budget.raise_caution()
    assert budget.balance == 0
    budget.count(missed=True, now_s=1.0)
    owed = budget.balance
    budget.raise_caution()
    assert budget.balance == owed < 0


def test_credit_fades_within_days() -> None:
    budget = SloBudget(0.99)
    for _ in range(2000):
        budget.count(missed=False, now_s=0.0)
    budget.count(missed=False, now_s=3 * REMEMBERED_S)
    assert budget.counted == pytest.approx(2000 * math.exp(-3) + 1)
    assert budget.balance <= 0.01 * budget.counted * (1 + 1e-9)


@pytest.mark.parametrize(("spill", "low"), [(0.005, True), (0.2, False)])
def test_the_first_measured_plan_says_whether_there_is_haste(spill: float, low: bool) -> None:
    budget = SloBudget(0.99)
    first = budget.log_base
    budget.expect(spill)
    assert budget.log_base == first, "no request has ended: the rate is not known"
    budget.count(missed=False, now_s=0.0)
    budget.expect(spill)
    assert (math.exp(budget.log_base) == pytest.approx(UNHURRIED_BASE)) == low
    after = budget.log_base
    budget.expect(0.0)
    assert budget.log_base == after, "later plans leave it to the misses"


def test_it_goes_on_where_an_earlier_process_was() -> None:
    budget, other = SloBudget(0.99), SloBudget(0.99)
    for number in range(300):
        budget.count(missed=number % 50 == 0, now_s=0.0)
    other.resume(balance=budget.balance, log_base=budget.log_base, counted=budget.counted)
    assert (other.multiplier, other.balance) == (pytest.approx(budget.multiplier), budget.balance)
    other.resume(balance=1e9, log_base=1e9, counted=1e9)
    assert other.multiplier <= MAX_MULTIPLIER
    assert other.balance <= 0.01 * MOST_COUNTED * (1 + 1e-9)


def test_a_class_that_cannot_be_kept_has_the_base_multiplier_until_it_can() -> None:
    budget = SloBudget(0.99)
    budget.follow(feasible=False)
    for _ in range(300):
        budget.count(missed=True, now_s=0.0)
    assert budget.multiplier == pytest.approx(FIRST_MULTIPLIER)
    assert budget.balance < -30
    budget.follow(feasible=True)
    assert budget.multiplier == pytest.approx(MAX_MULTIPLIER)


def test_classes_that_cannot_be_kept_do_not_hurry_the_others() -> None:
    classes = ServiceClass("kept", slo_s=0.5), ServiceClass("hopeless", slo_s=0.01)
    price, outlook = LatenessPrice(), ClassOutlook("hopeless", 0.0, feasible=False)
    price.adopt(classes, 0.1, [ClassOutlook("kept", 0.98, feasible=False), outlook])
    for _ in range(1000):
        price.count("kept", missed=False, now_s=0.0)
    price.reprice(Prices(unit_cost=1.0))
    names = [c.name for c in classes]
    assert price.that_count(names) == ["kept"], "a class that misses its percentile by little is worth all effort"
    assert price.highest_late_cost(names) == price.multiplier("kept") < price.multiplier("hopeless")
    assert price.log_multiplier == price.budgets["kept"].log_multiplier
    assert price.highest_multiplier(["hopeless"]) == price.multiplier("hopeless") == pytest.approx(FIRST_MULTIPLIER)
    price.adopt(classes, 0.1, [replace(outlook, expected_within_slo=0.99, feasible=True)])
    assert price.that_count(names) == names

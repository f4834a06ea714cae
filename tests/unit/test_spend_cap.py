"""A spend cap holds in every hour and every day, from whatever second they are counted."""

import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.function_batches import function_batch

from scheduler.dispatch.ledger import Ledger
from scheduler.dispatch.spend_cap import KEPT_FOR_PRIORITY, OverCap, SlidingSum, SpendCap, SpendVerdict, verdict
from scheduler.domain.batches import BatchReport, FailureKind
from scheduler.domain.latency import Price

HOUR_S, DAY_S = 3600.0, 86_400.0
PRICE = Price(per_s=1.0, per_call=0.0, grain_s=0.001, sheet="test")

gaps_s = st.floats(0.0, 2000.0)
costs = st.floats(0.001, 1.0)


def worst_window(sends: list[tuple[float, float]], length_s: float) -> float:
    """The most money in any window (t - length, t], by brute force: it must end at a send."""
    return max(
        (math.fsum(cost for at_s, cost in sends if end_s - length_s < at_s <= end_s) for end_s, _ in sends),
        default=0.0,
    )


@given(st.lists(st.tuples(gaps_s, costs), max_size=80), st.floats(0.5, 3.0), st.floats(2.0, 10.0))
def test_no_hour_and_no_day_exceeds_its_cap_where_bills_are_as_booked(
    offers: list[tuple[float, float]], per_hour: float, per_day: float
) -> None:
    cap, sent = SpendCap(per_hour=per_hour, per_day=per_day), []
    for at_s, cost in zip(accumulate(gap_s for gap_s, _ in offers), [cost for _, cost in offers], strict=True):
        if cap.allows(cost, at_s):
            cap.book(cost, at_s=at_s)
            sent.append((at_s, cost))
    assert worst_window(sent, HOUR_S) <= per_hour * (1 + 1e-6)
    assert worst_window(sent, DAY_S) <= per_day * (1 + 1e-6)


flights = st.tuples(
    st.floats(0.0, 400.0),  # gap to the one before
    st.floats(0.01, 0.3),  # expected seconds, which are money here
    st.floats(0.2, 2.0),  # billed over expected; at most 2 are held back
    st.floats(0.0, 300.0),  # until the answer
    st.sampled_from([None, FailureKind.TIMEOUT, FailureKind.THROTTLED]),
    st.booleans(),  # whether the bill of a timed-out batch ever comes
)


@given(st.lists(flights, max_size=60), st.integers(0, 60))
def test_bills_that_come_late_and_higher_than_booked_exceed_the_cap_by_at_most_one_batch(
    plan: list[tuple[float, float, float, float, FailureKind | None, bool]], rogue: int
) -> None:
    """All bills stay below what is held back but that of one batch, which costs five times as much."""
    ledger, cap = Ledger(SpendCap(per_hour=1.0)), 1.0
    sent: list[tuple[float, float]] = []
    back: list[tuple[float, int, float, FailureKind | None, bool]] = []
    at_s, overshoot = 0.0, 0.0
    for batch_id, (gap_s, expected_s, factor, takes_s, failure, billed) in enumerate(plan):
        at_s += gap_s
        for due in sorted(entry for entry in back if entry[0] <= at_s):
            back.remove(due)
            come_back(ledger, *due[1:])
        held = 2.0 * PRICE.cost(expected_s)
        if not ledger.cap.allows(held, at_s):
            continue
        cost_s = expected_s * (10.0 if batch_id == rogue else factor)
        batch = function_batch(batch_id, expected_cost=PRICE.cost(expected_s))
        ledger.book(batch, PRICE, now_s=at_s, max_cost=held)
        back.append((at_s + takes_s, batch_id, cost_s, failure, billed))
        cost = 0.0 if failure is FailureKind.THROTTLED else PRICE.cost(cost_s)
        sent.append((at_s, cost))
        overshoot = max(overshoot, cost - held)
    assert worst_window(sent, HOUR_S) <= cap + max(0.0, overshoot) + 1e-6


def come_back(ledger: Ledger, batch_id: int, cost_s: float, failure: FailureKind | None, billed: bool) -> None:
    if failure is None:
        ledger.settle(batch_id, BatchReport(elapsed_s=1.0, billed_duration_s=cost_s))
        return
    ledger.settle(batch_id, BatchReport(elapsed_s=1.0), failure=failure)
    if failure is FailureKind.TIMEOUT and billed:
        ledger.bill(batch_id, BatchReport(elapsed_s=20.0, billed_duration_s=cost_s))


@given(st.lists(st.tuples(gaps_s, costs), max_size=40), costs, st.floats(0.0, 5000.0))
def test_it_reopens_when_it_says_and_not_a_bucket_earlier(
    offers: list[tuple[float, float]], cost: float, later_s: float
) -> None:
    cap, at_s = SpendCap(per_hour=1.0, per_day=4.0), 0.0
    for gap_s, booked in offers:
        at_s += gap_s
        cap.book(booked, at_s=at_s)
    now_s = at_s + later_s
    opens_s = cap.reopens_at_s(cost, now_s)
    assert cap.allows(cost, now_s) is (opens_s == now_s)
    if opens_s > now_s:
        assert not cap.allows(cost, math.nextafter(opens_s, 0.0))
    assert cap.allows(cost, opens_s)


def test_a_batch_dearer_than_the_cap_is_never_let_through() -> None:
    cap = SpendCap(per_hour=1.0)
    assert not cap.allows(1.1, 0.0)
    assert cap.reopens_at_s(1.1, 0.0) == math.inf
    assert cap.closed_by(1.1, 0.0) == "hour"


def test_without_a_cap_there_is_always_room_and_spending_is_remembered_for_a_cap_to_come() -> None:
    cap = SpendCap()
    cap.book(5.0, at_s=100.0)
    assert cap.room(100.0) == math.inf
    assert cap.reopens_at_s(1e9, 100.0) == 100.0
    cap.per_hour = 6.0
    assert cap.room(200.0) == 1.0
    cap.per_hour = 2.0
    assert cap.room(200.0) == 0.0


def test_the_day_forbids_what_the_hour_would_allow() -> None:
    cap = SpendCap(per_hour=1.0, per_day=1.5)
    cap.book(1.0, at_s=0.0)
    assert cap.allows(0.5, 2 * HOUR_S)
    cap.book(0.5, at_s=2 * HOUR_S)
    assert cap.closed_by(0.1, 4 * HOUR_S) == "day"
    # 00:00 leaves the day with its quarter of an hour.
    assert cap.reopens_at_s(0.1, 4 * HOUR_S) == DAY_S + 900.0


@given(st.lists(gaps_s, max_size=300))
def test_memory_is_bounded_by_the_buckets(gaps: list[float]) -> None:
    window = SlidingSum(bucket_s=60.0, buckets=60)
    for at_s in accumulate(gaps):
        window.book(1.0, at_s=at_s)
        assert len(window._amounts) <= 61


def test_a_correction_of_what_has_left_the_window_changes_nothing() -> None:
    window = SlidingSum(bucket_s=60.0, buckets=60)
    window.book(1.0, at_s=0.0)
    window.book(1.0, at_s=4000.0)
    window.correct(5.0, booked_at_s=0.0)
    assert window.sum(4000.0) == 1.0


def test_three_tenths_fit_into_a_cap_of_three_tenths_in_spite_of_binary_fractions() -> None:
    cap = SpendCap(per_hour=0.3)
    for _ in range(3):
        assert cap.allows(0.1, 0.0)
        cap.book(0.1, at_s=0.0)
    assert not cap.allows(1e-6, 0.0)


@pytest.mark.parametrize(
    ("over_cap", "low_priority", "found"),
    [
        (OverCap.SERVE_LATE, False, SpendVerdict.EDGE_EVEN_LATE),
        (OverCap.SERVE_LATE, True, SpendVerdict.EDGE_EVEN_LATE),
        (OverCap.EDGE_ONLY, False, SpendVerdict.EDGE_IN_TIME),
        (OverCap.EDGE_ONLY, True, SpendVerdict.EDGE_IN_TIME),
        (OverCap.REFUSE_LOW_PRIORITY, False, SpendVerdict.EDGE_IN_TIME),
        (OverCap.REFUSE_LOW_PRIORITY, True, SpendVerdict.EDGE_IF_IDLE),
    ],
)
def test_each_word_says_what_becomes_of_a_request_over_the_cap(
    over_cap: OverCap, low_priority: bool, found: SpendVerdict
) -> None:
    cap = SpendCap(per_hour=1.0)
    assert verdict(cap, over_cap, cost=0.1, now_s=0.0, low_priority=low_priority) is SpendVerdict.FUNCTION
    cap.book(1.0, at_s=0.0)
    assert verdict(cap, over_cap, cost=0.1, now_s=0.0, low_priority=low_priority) is found


def test_the_last_of_the_money_is_kept_from_low_priority_only_where_that_is_the_word() -> None:
    cap = SpendCap(per_hour=1.0)
    cap.book(1.0 - KEPT_FOR_PRIORITY, at_s=0.0)
    refuses, others = OverCap.REFUSE_LOW_PRIORITY, OverCap.EDGE_ONLY
    assert verdict(cap, refuses, cost=0.1, now_s=0.0, low_priority=True) is SpendVerdict.EDGE_IF_IDLE
    assert verdict(cap, refuses, cost=0.1, now_s=0.0, low_priority=False) is SpendVerdict.FUNCTION
    assert verdict(cap, others, cost=0.1, now_s=0.0, low_priority=True) is SpendVerdict.FUNCTION


def test_the_settings_words_are_the_words_of_the_decision() -> None:
    assert {word.value for word in OverCap} == {"serve-late", "refuse-low-priority", "edge-only"}


def test_what_closes_the_caps_and_when_they_open_is_told() -> None:
    cap = SpendCap(per_hour=1.0)
    assert cap.closing(0.2, 0.0) == ("", None)
    cap.book(0.9, at_s=0.0)
    assert cap.closing(0.2, 10.0) == ("hour", 3650.0)
    assert [(each.window, each.cap, each.spent) for each in cap.figures(10.0)] == [("hour", 1.0, 0.9)]
    assert cap.closing(2.0, 10.0) == ("hour", None), "it never fits"
    leased = SpendCap()
    leased.configure(per_hour=1.0, per_day=None, leased="state")
    assert leased.closing(0.1, 5.0) == ("state", 0.0), "nothing is leased yet"
    assert leased.lease is not None
    leased.lease.grant(0.3, closed_by="hour", opens_at_s=65.0)
    assert leased.closing(0.1, 5.0) == ("hour", 60.0)
    leased.lease.grant(0.3, closed_by="", opens_at_s=0.0)
    assert leased.closing(0.1, 5.0) == ("", None)

"""What is remembered of batches and of the daemon's own latency: bounded, ordered, and priced once."""

import gc
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.backends.batch_send import BatchSend
from scheduler.daemon.model_statistics import InferenceCounters
from scheduler.daemon.own_latency import OwnLatency
from scheduler.daemon.records import FRESH, BatchRecord, BatchRing, batch_bill, bill_row, billed_s
from scheduler.domain.batches import Batch, BatchReport, Failure, FailureKind
from scheduler.domain.bills import Bill
from scheduler.domain.decisions import Reason
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.requests import Place

TIER = FunctionTier("1gb", "digits", LatencyModel(0.2, 0.1, 8), Price(per_s=2.0, per_call=0.5))


def a_batch(batch_id: int) -> Batch:
    return Batch(
        batch_id=batch_id,
        place=Place.function("1gb"),
        model="digits",
        request_ids=(1,),
        items=1,
        body_bytes=10,
        sent_at_s=0.0,
        deadline_s=1.0,
        give_up_at_s=2.0,
        predicted_finish_s=0.5,
        predicted_service_s=0.3,
        expected_cost=7.0,
    )


def a_record(batch_id: int, error: str = "") -> BatchRecord:
    return BatchRecord(a_batch(batch_id), 1.0, 0.1, BatchReport(0.5, cold_start=True), None, Bill(), error)


def many_records(count: int, requests: int = 1) -> Iterator[BatchRecord]:
    """Yields records of batches alike in their words, as those of one daemon are, and different in their numbers."""
    for number in range(1, count + 1):
        batch = replace(
            a_batch(number),
            request_ids=tuple(range(10**9 + number * requests, 10**9 + (number + 1) * requests)),
            reasons=(Reason.LEAST_TOTAL,) * requests,
            sent_at_s=0.1 * number,
            predicted_service_s=0.3 + 1e-6 * number,
        )
        report = BatchReport(
            0.5 + 1e-6 * number, 0.4, cold_start=number % 3 == 0, memory_bytes=None if number % 2 else 7
        )
        bill, billed = Bill(0.01 * number, start=0.1), None if number % 2 else 0.25
        yield BatchRecord(
            batch, 1.0 + 0.1 * number, 0.1 + 1e-6 * number, report, billed, bill, "late" if number % 5 == 0 else ""
        )


def test_records_are_read_alike_whether_they_are_packed_or_not() -> None:
    ring, records = BatchRing(3 * FRESH), list(many_records(2 * FRESH + 10, requests=2))
    for record in records:
        ring.add(record)
    expected = [{"record": number, **record.row()} for number, record in enumerate(records, start=1)]
    assert ring.rows(0, 4 * FRESH) == expected
    assert [list(row) for row in ring.rows(0, 4 * FRESH)] == [list(row) for row in expected]
    assert ring.newest(0, 4 * FRESH) == list(enumerate(records, start=1))[-FRESH:]
    ring.correct(3, Bill(5.0))
    assert ring.rows(len(records), 9) == [{**expected[2], "record": len(records) + 1, **bill_row(Bill(5.0))}]
    ring.add(records[0])
    assert [row["batch_id"] for row in ring.rows(len(records), 9)] == [3, 1]
    assert len({row["batch_id"] for row in ring.rows(0, 4 * FRESH)}) == len(records)


def test_a_daemon_that_answers_a_million_requests_keeps_little_of_their_batches() -> None:
    """In batches of 50 they are twice as many as are kept; the first 100,000 fill a fifth of the ring."""
    ring = BatchRing(10_000)
    records = many_records(20_000, requests=50)
    tracemalloc.start()
    try:
        for record in islice(records, 2_000):
            ring.add(record)
        before = tracemalloc.get_traced_memory()[0]
        for record in records:
            ring.add(record)
        gc.collect()
        kept = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert kept <= 5e6, f"{kept:,.0f} bytes"


def test_a_bill_that_is_corrected_later_is_read_again_once() -> None:
    ring = BatchRing(8)
    for batch_id in (1, 2):
        ring.add(a_record(batch_id))
    ring.correct(1, Bill(2.0, start=1.0))
    ring.correct(1, Bill(2.0, start=1.0))
    ring.correct(7, Bill(2.0))
    rows = [(row["record"], row["batch_id"], row["cost"], row["start_cost"]) for row in ring.rows(0, 9)]
    assert rows == [(2, 2, 0.0, 0.0), (3, 1, 3.0, 1.0)]


@given(st.lists(st.integers(1, 12), max_size=60), st.integers(1, 8), st.integers(1, 5))
def test_a_reader_that_follows_the_numbers_ends_with_the_last_word_on_every_batch_that_is_kept(
    batch_ids: list[int], limit: int, page: int
) -> None:
    ring = BatchRing(limit)
    read: dict[object, object] = {}
    after = 0
    for step, batch_id in enumerate(batch_ids):
        ring.add(a_record(batch_id, str(step)))
        if step % 3 == 0:
            for row in ring.rows(after, page):
                assert isinstance(row["record"], int)
                assert row["record"] > after
                after = row["record"]
                read[row["batch_id"]] = row["error"]
    kept = {row["batch_id"]: row["error"] for row in ring.rows(0, 1000)}
    read |= {row["batch_id"]: row["error"] for row in ring.rows(after, 1000)}
    last_words = {batch_id: str(step) for step, batch_id in enumerate(batch_ids)}
    assert len(kept) <= limit
    assert all(last_words[batch_id] == error for batch_id, error in kept.items())  # type: ignore[index]
    assert all(read[batch_id] == error for batch_id, error in kept.items())


def test_a_row_says_how_the_instance_started() -> None:
    assert a_record(1).row()["start_kind"] == "cold"


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ((), ""),
        ((Reason.LATE,), "late"),
        ((Reason.LATE, Reason.MONEY, Reason.MONEY), "money"),
        ((Reason.LATE, Reason.MONEY, Reason.LEAST_TOTAL, Reason.MONEY, Reason.LATE), "late"),
    ],
)
def test_a_row_names_the_place_and_the_reason_of_most_members_of_several_the_first(
    reasons: tuple[Reason, ...], told: str
) -> None:
    row = replace(a_record(1), batch=replace(a_batch(1), reasons=reasons)).row()
    assert (row["place"], row["reason"]) == ("function:1gb", told)
    assert (row["backend"], row["tier"]) == ("function", "1gb")


def test_placements_count_each_member_of_each_batch_that_leaves_however_few_records_are_kept() -> None:
    ring, members = BatchRing(1), (Reason.MONEY, Reason.LATE, Reason.MONEY)
    for batch_id in range(10):
        ring.sent(replace(a_batch(batch_id), reasons=members))
        ring.add(a_record(batch_id))
    ring.sent(replace(a_batch(11), place=Place.edge(), reasons=members[:1]))
    ring.sent(replace(a_batch(12), request_ids=()))
    assert ring.placements() == [
        {"place": "edge:main", "reason": "money", "requests": 1},
        {"place": "function:1gb", "reason": "late", "requests": 10},
        {"place": "function:1gb", "reason": "money", "requests": 20},
    ]


@pytest.mark.parametrize(
    ("report", "failure", "cost"),
    [
        (BatchReport(1.0, billed_duration_s=0.3), None, 2.0 * 0.3 + 0.5),
        (BatchReport(1.0, billed_duration_s=0.3), FailureKind.REJECTED, 2.0 * 0.3 + 0.5),
        (BatchReport(1.0), None, 7.0),
        (BatchReport(1.0), FailureKind.TIMEOUT, 7.0),
        (BatchReport(1.0), FailureKind.FUNCTION, 2.0 * 0.8 + 0.5),
        (BatchReport(1.0), FailureKind.THROTTLED, 0.0),
        (BatchReport(1.0), FailureKind.UNREACHABLE, 0.0),
    ],
)
def test_a_batch_costs_what_was_measured_or_else_expected_unless_the_provider_bills_nothing(
    report: BatchReport, failure: FailureKind | None, cost: float
) -> None:
    batch_send = BatchSend(a_batch(1), TIER, 0.0)
    bill = batch_bill(batch_send, report, Failure(failure, "why") if failure else None)
    assert bill.total == pytest.approx(cost)


def test_the_edge_is_free_and_bills_nothing() -> None:
    batch_send = BatchSend(a_batch(1), None, 0.0)
    report = BatchReport(1.0, billed_duration_s=0.3)
    assert (batch_bill(batch_send, report), billed_s(batch_send, report)) == (Bill(), None)


def test_what_is_billed_is_rounded_up_to_the_grain() -> None:
    send, report = BatchSend(a_batch(1), TIER, 0.0), BatchReport(1.0, billed_duration_s=0.2504)
    assert billed_s(send, report) == pytest.approx(0.251)


def test_own_latency_keeps_the_last_requests_counts_all_and_tells_each_sum() -> None:
    own = OwnLatency(size=3)
    assert own.summary() == {"count": 0}
    sums_s = [own.add(0.25, 0.5, back_s) for back_s in (9.0, 1.0, 2.0, 3.0)]
    summary = own.summary()
    assert (summary["count"], summary["p50_s"], summary["max_s"]) == (4, 2.75, 3.75)
    assert sums_s == [9.75, 1.75, 2.75, 3.75]


def test_the_ring_is_bounded_and_read_by_record_number() -> None:
    ring = BatchRing(50)
    for batch_id in range(1, 71):
        ring.add(a_record(batch_id))
    assert [row["record"] for row in ring.rows(0, 1000)] == list(range(21, 71))
    assert [row["batch_id"] for row in ring.rows(60, 3)] == [61, 62, 63]


def test_a_row_tells_what_a_batch_was_and_what_each_part_of_it_cost() -> None:
    report = BatchReport(9.0, billed_duration_s=0.3, cold_start=True, init_s=1.5, disbelieved=("service_s",))
    send = BatchSend(replace(a_batch(1), hedge=True), TIER, 0.0)
    ring = BatchRing(4)
    ring.add(BatchRecord(send.batch, 9.0, 0.1, report, 0.3, batch_bill(send, report), log_tail="ready"))
    [row] = ring.rows(0, 10)
    assert (row["what"], row["init_s"], row["log_tail"]) == ("hedge", 1.5, "ready")
    assert (row["call_cost"], row["start_cost"], row["cost"]) == pytest.approx((1.1, 3.5, 4.6))
    assert ring.disbelieved() == [{"tier": "1gb", "field": "service_s", "reports": 1}]


def test_answered_batches_with_requests_are_counted_for_the_statistics_and_no_others() -> None:
    counters = InferenceCounters()
    ring = BatchRing(1, counters)
    ring.add(a_record(1))
    ring.add(a_record(2, "timeout: no answer"))
    ring.add(replace(a_record(3), batch=replace(a_batch(3), request_ids=(), items=0)))
    [stats] = counters.report(["digits"], wall_ahead_s=0.0)["model_stats"]
    assert stats["execution_count"] == 1
    assert [(entry["batch_size"], entry["compute_infer"]["ns"]) for entry in stats["batch_stats"]] == [(1, 500_000_000)]

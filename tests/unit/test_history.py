"""The history of the page: counts add up whatever the step, percentiles are near the truth, memory is bounded."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.history.buckets import MOST_NAMES, Bucket, Names, bucket_of, loaded
from scheduler.daemon.history.columns import Columns, Wanted
from scheduler.daemon.history.counting import COUNTS, ENDS_KEPT, MOST_CELLS, REST, Cell, Counting, Key
from scheduler.daemon.history.latency_bins import BINS, IN_AN_OCTAVE, bin_of, quantile_s
from scheduler.daemon.history.rings import KEPT, MOST_POINTS, STEPS_S, UNSAVED_KEPT, History

KEYS = [Key("digits", name, tenant, place) for name in ("a", "b") for tenant in ("", "lab") for place in ("", "edge:x")]

counts = st.integers(0, 1000)
cells = st.builds(
    Cell,
    **dict.fromkeys(COUNTS, counts),
    bins=st.dictionaries(st.integers(0, BINS - 1), st.integers(1, 1000), max_size=6),
)
buckets = st.builds(
    Bucket,
    cells=st.dictionaries(st.integers(0, len(KEYS) - 1), cells, max_size=4),
    money=st.dictionaries(st.sampled_from(["calls", "saved"]), st.integers(1, 99).map(float)),
    cold=counts,
    calls=counts,
    queued=counts,
    gauges=st.dictionaries(st.sampled_from(["rate", "pace digits edge:x"]), st.integers(1, 99).map(float)),
)


@given(st.lists(st.floats(0.002, 50.0), min_size=1, max_size=300), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_a_percentile_is_within_a_bin_of_the_true_one(latencies: list[float], fraction: float) -> None:
    binned: dict[int, int] = {}
    for latency in latencies:
        binned[bin_of(latency)] = binned.get(bin_of(latency), 0) + 1
    found = quantile_s(binned, fraction)
    truth = float(np.quantile(latencies, fraction, method="inverted_cdf"))
    assert found is not None
    assert abs(math.log2(found / truth)) <= 1 / IN_AN_OCTAVE + 1e-9


@given(st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_a_longer_latency_is_in_no_lower_bin(one: float, other: float) -> None:
    assert 0 <= bin_of(min(one, other)) <= bin_of(max(one, other)) < BINS


def test_a_minute_of_more_keys_than_a_second_has_reads_back_whole() -> None:
    minute = Bucket(cells={number: Cell(arrived=1) for number in range(3 * MOST_CELLS)})
    assert loaded(minute.dumped()) == minute


@given(buckets)
def test_a_bucket_reads_back_as_it_was_written(bucket: Bucket) -> None:
    assert loaded(bucket.dumped()) == bucket


@pytest.mark.parametrize(
    "values", [{}, {"c": 3}, {"c": [["x"]]}, {"c": [], "m": 3}, {"c": [[0, 1]]}, {"c": [], "g": {"rate": None}}]
)
def test_what_is_no_bucket_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="."):
        bucket_of(values)
    assert loaded(b"no json") is None


@given(st.lists(st.tuples(st.integers(1, 40), buckets), min_size=1, max_size=30))
def test_every_level_has_the_same_sums(steps: list[tuple[int, Bucket]]) -> None:
    history, at_s, all_of = History(), 1_000_000, Bucket()
    for number in range(len(KEYS)):
        history.names.number(KEYS[number])
    for wait_s, bucket in steps:
        at_s += wait_s
        history.add(at_s, bucket)
        all_of.add(bucket)
    for level in history.levels:
        summed = Bucket()
        for _, blob in level.rows:
            summed.add(loaded(blob) or pytest.fail("not readable"))
        if level.open_at_s is not None:
            summed.add(level.open)
        assert summed == all_of
    columns = read(history, 1_000_000, at_s + 1)["columns"]
    assert sum(value or 0 for value in columns["arrived"]) == sum(cell.arrived for cell in all_of.cells.values())


def read(history: History, from_s: int, to_s: int, wanted: Wanted | None = None) -> dict[str, Any]:
    columns = Columns(history, history.select(from_s, to_s), wanted or Wanted())
    for _ in columns.read():
        pass
    return columns.values()


def seconds(history: History, length: int, *, begin_s: int = 600_000) -> Iterator[int]:
    for at_s in range(begin_s, begin_s + length):
        number = history.names.number(Key("digits", "a", "", "edge:x"))
        history.add(at_s, Bucket({number: Cell(within=1, bins={40: 1})}))
        yield at_s


def test_the_rings_are_bounded_and_answers_have_few_points() -> None:
    history = History()
    last_s = list(seconds(history, 3 * KEPT[0]))[-1]
    assert [len(level.rows) for level in history.levels] == [KEPT[0], 3 * KEPT[0] // 10 - 1, 3 * KEPT[0] // 60 - 1]
    assert len(history.take_unsaved()) <= UNSAVED_KEPT
    for length_s, step_s in ((900, 1), (2000, 10), (7200, 10), (86_400, 60), (7 * 86_400, 420)):
        selection = history.select(last_s + 1 - length_s, last_s + 1)
        assert selection.step_s == step_s
        assert selection.points <= MOST_POINTS + 1


def test_last_night_can_be_looked_at_closer() -> None:
    history = History()
    last_s = list(seconds(history, 7000))[-1]
    close = history.select(last_s - 6000, last_s - 5000)
    assert close.step_s == STEPS_S[1]
    assert sum(bucket.cells[0].within for _, bucket in close.rows) == pytest.approx(1000, abs=10)


def test_a_filter_lets_its_requests_through_only() -> None:
    history = History()
    numbers = {key: history.names.number(key) for key in KEYS}
    history.add(700_000, Bucket({number: Cell(arrived=1, within=2) for number in numbers.values()}))
    columns = read(history, 699_990, 700_001, Wanted(class_name="a", place="edge:x"))["columns"]
    assert [sum(value or 0 for value in columns[name]) for name in ("arrived", "within", "edge", "function")] == [
        2,
        4,
        4,
        0,
    ]
    assert columns["within"][:10] == [None] * 10, "seconds in which the daemon did not run are gaps"
    summary = read(history, 699_990, 700_001, Wanted(tenant="lab"))["summary"]
    assert [row["names"] for row in summary["classes"]] == [["digits", "a"], ["digits", "b"]]


def test_what_an_earlier_process_kept_is_taken_up_and_goes_on() -> None:
    before = History()
    last_s = list(seconds(before, 130))[-1]
    rows = before.take_unsaved() + before.open_rows()
    after = History()
    after.restore(Names(before.names.keys), rows[::-1], now_s=last_s + 1)
    assert list(seconds(after, 50, begin_s=last_s + 1))
    for level in after.levels:
        total = sum((loaded(blob) or Bucket()).cells[0].within for _, blob in level.rows)
        total += level.open.cells[0].within if level.open_at_s is not None else 0
        assert total == 180
    assert after.begins_s() == 600_000


def test_what_lies_in_the_future_is_forgotten_when_the_clock_was_set_back() -> None:
    history = History()
    last_s = list(seconds(history, 100))[-1]
    history.forget_after(last_s - 50)
    assert all(at_s <= last_s - 50 for level in history.levels for at_s, _ in level.rows)
    assert all(row.at_s <= last_s - 50 for row in history.take_unsaved())
    again = History()
    again.restore(Names(), history.open_rows(), now_s=0)
    assert again.begins_s() is None


def test_a_second_that_comes_twice_is_added_up() -> None:
    history = History()
    for _ in range(3):
        history.add(5, Bucket({0: Cell(within=1)}))
    assert [(at_s, (loaded(blob) or Bucket()).cells[0].within) for at_s, blob in history.levels[0].rows] == [(5, 3)]


class TestCounting:
    def test_each_end_is_counted_once_and_misses_and_refusals_are_kept(self) -> None:
        counting = Counting()
        counting.configure({"lab"})
        counting.arrived("digits", "a", "lab")
        key = counting.key("digits", "a", "elsewhere", "edge:x")
        counting.answered(key, request_id=1, at_s=9.0, latency_s=0.2, slo_s=0.5, items=3)
        counting.answered(key, request_id=2, at_s=9.5, latency_s=0.6, slo_s=0.5, items=1)
        for column, kind in (("refused", "deadline"), ("cancelled", "cancelled"), ("rejected", "bad_request")):
            counting.ended(column, key, kind=kind, request_id=3, at_s=10.0, latency_s=0.1, reason="late")
        assert [(end.request_id, end.kind, end.key.tenant) for end in counting.ends_after(0, 9)] == [
            (2, "late", "other"),
            (3, "deadline", "other"),
        ]
        assert [end.request_id for end in counting.ends_after(1, 9)] == [3]
        taken = counting.take()
        assert taken[Key("digits", "a", "lab")] == Cell(arrived=1)
        bins = {bin_of(0.2): 1, bin_of(0.6): 1}
        assert taken[key] == Cell(within=1, late=1, refused=1, rejected=1, cancelled=1, items=4, bins=bins)
        assert counting.take() == {}

    def test_without_tenants_all_count_as_one(self) -> None:
        assert Counting().key("digits", "a", "lab") == Key("digits", "a")

    def test_many_keys_and_ends_are_bounded(self) -> None:
        counting = Counting()
        for number in range(500):
            counting.arrived(f"model {number}", "a", "")
            key = counting.key("m", "a", "")
            counting.ended("refused", key, kind="deadline", request_id=number, at_s=0.0, latency_s=0.0, reason="")
        cells = counting.take()
        assert len(cells) <= MOST_CELLS + 2
        assert sum(cell.arrived for cell in cells.values()) == 500
        assert cells[Key(REST, REST)].arrived > 400
        assert len(counting.ends) == ENDS_KEPT
        names = Names()
        assert len({names.number(Key(str(number), "a")) for number in range(2000)}) <= MOST_NAMES
        assert len(names.keys) <= MOST_NAMES

"""What is learned of an edge server that other daemons use as well: service and wait apart, only as far as it helps."""

import copy
import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.domain.latency import LatencyModel
from scheduler.estimators.edge_service import FEWEST, HALF_LIFE_S, WORSE, EdgeService
from scheduler.estimators.service_tables import TimesCache
from scheduler.estimators.service_time import ServiceTime

LAW = LatencyModel(alpha_s=0.04, beta_s=0.01, max_batch=32)
SIZES = st.integers(1, LAW.max_batch)


def fresh(*, grows: bool = False) -> EdgeService:
    return EdgeService(ServiceTime(LAW), grows=grows)


def taught(edge: EdgeService, *, wait_s: float, batches: int = 64, items: int = 6, since_s: float = 0.0) -> float:
    """Teaches it batches, one each second, that wait so long; returns when the last one came back."""
    for number in range(batches):
        edge.update(items, LAW.predict_s(items) + wait_s, others_s=wait_s, now_s=since_s + number)
    return since_s + batches - 1


@settings(max_examples=30)
@given(
    answers=st.lists(st.tuples(SIZES, st.floats(0.5, 2.0)), min_size=1, max_size=40), said=st.sampled_from([None, 0.0])
)
def test_of_an_edge_without_others_it_is_the_service_time_itself(
    answers: list[tuple[int, float]], said: float | None
) -> None:
    edge, plain = fresh(grows=True), ServiceTime(LAW)
    for number, (items, factor) in enumerate(answers):
        observed_s = factor * LAW.predict_s(items)
        found = edge.update(items, observed_s, others_s=said, now_s=float(number))
        assert (found is None) == (plain.update(items, observed_s) is None)
    assert edge.predict_all_s(32) == plain.predict_all_s(32)
    assert (edge.scatter(), edge.forecast(), edge.lessons) == (plain.scatter(), plain.forecast(), plain.lessons)
    assert (edge.snapshot(), edge.shared, edge.wait_s) == (plain.snapshot(), False, 0.0)
    assert not edge.forgets(1e9)


def test_a_wait_is_added_to_every_size_where_it_does_not_grow_and_in_proportion_where_it_does() -> None:
    added, grown = fresh(), fresh(grows=True)
    for edge in (added, grown):
        taught(edge, wait_s=0.05)
        assert edge.shared
        assert edge.wait_s == pytest.approx(0.05)
        assert edge.times_profile == pytest.approx(1.0, abs=0.02)
        assert edge.predict_s(6) == pytest.approx(0.15, rel=0.03)
    assert added.predict_s(24) == pytest.approx(0.28 + 0.05, rel=0.03)
    assert grown.predict_s(24) == pytest.approx(0.28 * 1.5, rel=0.03)
    assert added.predict_all_s(24) == pytest.approx([added.predict_s(items) for items in range(1, 25)])


def test_a_wait_that_changes_is_followed_within_eight_batches() -> None:
    edge = fresh()
    now_s = taught(edge, wait_s=0.05)
    taught(edge, wait_s=0.2, batches=FEWEST, since_s=now_s + 1.0)
    assert edge.wait_s > 0.05 + 0.6 * 0.15
    assert edge.times_profile == pytest.approx(1.0, abs=0.02)


def test_others_that_are_gone_leave_the_service_behind() -> None:
    edge = fresh()
    now_s = taught(edge, wait_s=0.1)
    taught(edge, wait_s=0.0, since_s=now_s + 1.0)
    assert not edge.shared
    assert edge.predict_s(6) == pytest.approx(0.1, rel=0.02)


def test_half_of_the_wait_is_forgotten_in_a_silence() -> None:
    edge = fresh()
    now_s = taught(edge, wait_s=0.1)
    assert not edge.forgets(now_s + 0.9 * HALF_LIFE_S)
    lessons = edge.lessons
    assert edge.forgets(now_s + HALF_LIFE_S)
    assert edge.lessons > lessons
    assert edge.wait_s == pytest.approx(0.05)
    assert edge.forgets(now_s + 3 * HALF_LIFE_S)
    assert edge.wait_s == pytest.approx(0.0125)


def test_a_server_that_reports_no_more_is_known_by_whole_seconds_again() -> None:
    edge, plain = fresh(), ServiceTime(LAW)
    for number in range(80):
        edge.update(6, 0.2, others_s=0.1 if number < 64 else None, now_s=float(number))
        plain.update(6, 0.2)
    assert not edge.shared
    assert edge.predict_all_s(32) == plain.predict_all_s(32)


def lies() -> Iterator[tuple[str, object]]:
    rng = np.random.default_rng(4)
    yield "of small ones", lambda items, seconds: 0.9 * seconds if items < 8 else 0.0
    yield "of large ones", lambda items, seconds: 0.9 * seconds if items >= 8 else 0.0
    yield "by chance", lambda items, seconds: float(rng.uniform(0.0, 0.99)) * seconds
    yield "in turns", lambda items, seconds: (items % 2) * 0.8 * seconds


@pytest.mark.parametrize("grows", [False, True])
@pytest.mark.parametrize(("name", "lie"), [*lies()])
def test_a_server_that_lies_is_not_believed_more_than_its_whole_seconds(name: str, lie: object, *, grows: bool) -> None:
    assert callable(lie)
    edge, plain, rng = fresh(grows=grows), ServiceTime(LAW), np.random.default_rng(2)
    errors = np.zeros(2)
    for number in range(400):
        items = int(rng.integers(1, 16))
        seconds = LAW.predict_s(items) * math.exp(rng.normal(0.0, 0.1))
        predicted_s = np.array([edge.predict_s(items), plain.predict_s(items)])
        if number >= 2 * FEWEST:
            errors += np.abs(np.log(seconds / predicted_s))
        edge.update(items, seconds, others_s=lie(items, seconds), now_s=0.1 * number)
        plain.update(items, seconds)
    assert errors[0] <= WORSE * errors[1], name


def test_seconds_that_are_none_teach_nothing() -> None:
    edge = fresh()
    for observed_s in (0.0, -1.0, math.nan, math.inf):
        assert edge.update(4, observed_s, others_s=0.1, now_s=0.0) is None
    assert edge.lessons == 0
    edge.update(4, 0.1, others_s=0.1, now_s=0.0)
    assert edge.predict_s(4) > 0.0


def test_a_rare_short_wait_is_not_worth_a_copy_of_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[object] = []
    monkeypatch.setattr(copy, "deepcopy", copied.append)
    edge = fresh()
    for number in range(200):
        edge.update(6, 0.1, others_s=0.0 if number % 10 else 0.005, now_s=float(number))
    assert not copied


def test_it_says_since_when_others_are_seen_how_long_batches_wait_and_why_that_does_not_count() -> None:
    edge = fresh()
    assert edge.others is None
    taught(edge, wait_s=0.05, batches=FEWEST // 2, since_s=7.0)
    few = edge.others
    assert few is not None
    assert (few.since_s, few.learned_s, few.doubt, few.trusted) == (7.0, 0.0, "few-batches", False)
    assert few.observed_s == pytest.approx(0.05)
    taught(edge, wait_s=0.05, since_s=20.0)
    told = edge.others
    assert told is not None
    assert (told.since_s, told.doubt, told.trusted) == (7.0, "", True)
    assert told.learned_s == edge.wait_s == pytest.approx(0.05)
    taught(edge, wait_s=0.0, since_s=100.0)
    assert edge.others is None


def test_reports_by_which_forecasts_are_worse_are_said_to_be_so() -> None:
    edge = fresh()
    taught(edge, wait_s=0.05)
    for number in range(64):
        # Whole seconds stay, while the server shifts them to and fro.
        edge.update(6, 0.15, others_s=0.14 if number % 2 else 0.01, now_s=100.0 + number)
    told = edge.others
    assert told is not None
    assert (told.doubt, told.learned_s) == ("predicts-worse", 0.0)


@pytest.mark.parametrize("grows", [False, True])
def test_a_table_says_which_part_of_each_forecast_is_the_wait_for_others(*, grows: bool) -> None:
    edge = fresh(grows=grows)
    tables = TimesCache(edge, LAW.max_batch)
    assert tables.get(0.9).others_s(6) == 0.0
    taught(edge, wait_s=0.05)
    times = tables.get(0.9)
    assert times.others_s(6) == pytest.approx(0.05, rel=0.03)
    assert times.others_s(24) == pytest.approx(0.14 if grows else 0.05, rel=0.03)
    without = [times.median_s[items] - times.others_s(items) for items in (1, 6, 24)]
    assert without == pytest.approx([LAW.predict_s(items) for items in (1, 6, 24)], rel=0.03)

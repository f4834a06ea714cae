"""Arrival rate: counts lose nothing, rates are those of the arrivals themselves, silence brings them to 0."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.estimators.arrival_rate import HISTORY, MAX_EMPTY, ArrivalRate
from scheduler.estimators.changepoint import count_detector
from scheduler.estimators.dispersion import IndexOfDispersion

GAPS = st.lists(st.tuples(st.floats(0, 1.5), st.integers(1, 5)), min_size=1, max_size=60)


def arrivals_of(gaps: list[tuple[float, int]]) -> list[tuple[float, int]]:
    at_s, arrivals = 0.0, []
    for gap_s, items in gaps:
        at_s += gap_s
        arrivals.append((at_s, items))
    return arrivals


def fed(arrivals: list[tuple[float, int]]) -> ArrivalRate:
    rate = ArrivalRate()
    for at_s, items in arrivals:
        rate.update(items, at_s)
    return rate


@given(GAPS)
def test_closed_ticks_hold_every_item_once(gaps: list[tuple[float, int]]) -> None:
    arrivals = arrivals_of(gaps)
    closed = fed(arrivals).advance(arrivals[-1][0] + 0.3)
    assert sum(closed) == sum(items for _, items in arrivals)
    assert len(closed) == int((arrivals[-1][0] + 0.3 - arrivals[0][0]) / 0.25)


@given(GAPS, st.lists(st.integers(0, 59)))
def test_how_often_it_is_asked_does_not_change_the_counts(gaps: list[tuple[float, int]], asked: list[int]) -> None:
    arrivals = arrivals_of(gaps)
    rate, closed = ArrivalRate(), []
    for i, (at_s, items) in enumerate(arrivals):
        rate.update(items, at_s)
        if i in asked:
            closed += rate.advance(at_s)
    end_s = arrivals[-1][0] + 1
    assert closed + rate.advance(end_s) == fed(arrivals).advance(end_s)


@given(GAPS, st.floats(0, 4))
def test_recent_rate_is_the_items_of_eight_ticks_and_the_open_one(
    gaps: list[tuple[float, int]], later_s: float
) -> None:
    arrivals = arrivals_of(gaps)
    start_s, now_s = arrivals[0][0], arrivals[-1][0] + later_s
    tick = int((now_s - start_s) / 0.25)
    first = max(tick - 8, 0)
    items = sum(n for at_s, n in arrivals if int((at_s - start_s) / 0.25) >= first)
    span_s = max(now_s - start_s - first * 0.25, 0.5)
    assert fed(arrivals).recent_rps(now_s) == pytest.approx(items / span_s)


def test_recent_rate_does_not_depend_on_whether_ticks_were_closed_meanwhile() -> None:
    arrivals = [(0.1 * i, 1) for i in range(40)]
    asked, not_asked = fed(arrivals), fed(arrivals)
    asked.advance(4.8)
    assert asked.recent_rps(4.9) == not_asked.recent_rps(4.9)


def test_rates_fall_to_nothing_in_silence() -> None:
    rate = fed([(0.1 * i, 1) for i in range(40)])
    assert rate.recent_rps(3.9) == pytest.approx(10, rel=0.1)
    assert 0 < rate.recent_rps(5.0) < 6
    assert rate.recent_rps(6.5) == 0
    rate.advance(300.0)
    assert rate.regime_rps < 0.5


def test_nothing_is_known_before_the_first_arrival() -> None:
    rate = ArrivalRate()
    assert (rate.recent_rps(5.0), rate.regime_rps, rate.dispersion) == (0.0, 0.0, 1.0)
    assert rate.advance(5.0) == []


def test_a_night_of_silence_gives_a_bounded_number_of_ticks() -> None:
    rate = fed([(0.0, 3)])
    closed = rate.advance(36_000.0)
    assert closed == [3, *[0] * MAX_EMPTY]
    assert rate.advance(36_000.0) == []
    rate.update(2, 36_000.1)
    assert rate.advance(36_000.3) == [2]


def test_a_clock_that_goes_back_counts_in_the_open_tick() -> None:
    rate = fed([(10.0, 1), (10.6, 1), (10.3, 1)])
    assert rate.advance(10.8) == [1, 0, 2]
    assert rate.recent_rps(9.0) > 0


def test_a_restart_takes_the_rate_of_the_ticks_since_the_change() -> None:
    rate = fed([(0.25 * i + 0.01, 10 if i < 40 else 30) for i in range(46)])
    rate.advance(46 * 0.25 + 0.02)
    assert 40 < rate.regime_rps < 60
    rate.restart(6)
    assert rate.regime_rps == pytest.approx(120.0)
    rate.restart(0)
    assert rate.regime_rps == 0


def test_regime_rate_follows_slow_drift() -> None:
    rate = fed([(0.25 * i + 0.01, 10 if i < 400 else 12) for i in range(1600)])
    assert rate.regime_rps == pytest.approx(48, rel=0.01)


@pytest.mark.parametrize("group", [1, 4, 10])
def test_dispersion_is_the_size_of_groups(group: int) -> None:
    dispersion, values = IndexOfDispersion(), []
    for count in np.random.default_rng(1).poisson(30 / group, 4000).tolist():
        dispersion.update(group * count)
        values.append(dispersion.value)
    assert np.mean(values[400:]) == pytest.approx(group, rel=0.1)


def test_a_step_does_not_pass_for_burstiness() -> None:
    dispersion = IndexOfDispersion()
    for count in np.random.default_rng(2).poisson(np.repeat([10.0, 30.0], 300)).tolist():
        dispersion.update(count)
    assert dispersion.value < 1.3


def test_empty_ticks_say_nothing_about_dispersion() -> None:
    dispersion = IndexOfDispersion()
    for count in [5, 9, 2, *[0] * 1000]:
        dispersion.update(count)
    before = dispersion.value
    dispersion.update(0)
    assert dispersion.value == before


@given(st.integers(0, 600), st.integers(0, 3000), st.integers(1, 300))
def test_empty_ticks_taken_together_leave_what_they_leave_one_by_one(before: int, empty: int, memory: int) -> None:
    together, one_by_one = (ArrivalRate(memory_ticks=memory) for _ in range(2))
    for rate in (together, one_by_one):
        for tick in range(before):
            rate.update(tick % 3, 0.25 * tick + 0.1)
        rate.update(2, 0.25 * before + 0.1)
    end_s = 0.25 * (before + 1 + empty) + 0.1
    counts = together.advance(end_s)
    for tick in range(before + 1, before + 2 + empty):
        one_by_one.advance(0.25 * tick + 0.1)
    assert len(counts) <= before + 1 + MAX_EMPTY
    assert together.regime_rps == pytest.approx(one_by_one.regime_rps, rel=1e-9, abs=1e-12)
    assert together.dispersion == one_by_one.dispersion
    assert list(together._history)[-HISTORY:] == list(one_by_one._history)[-HISTORY:]
    together.update(1, end_s)
    assert together.recent_rps(end_s) > 0


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(0, 60))
def test_a_silence_reports_nothing_after_the_ticks_that_the_detector_is_given(counts: list[int], more: int) -> None:
    detector = count_detector()
    for count in (*counts, *[0] * MAX_EMPTY):
        detector.update(count)
    assert [change for _ in range(more) if (change := detector.update(0)) is not None] == []

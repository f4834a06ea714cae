"""The daemon's own lateness: a high quantile of what was late, forgotten again, and nothing where nothing is late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.own_lateness import LEAST_S, MOST_S, WINDOW, OwnLateness


def noted(*, wakeups: "list[float]", answers: "list[float]") -> OwnLateness:
    own = OwnLateness()
    for late_s in wakeups:
        own.called(due_s=1000.0, now_s=1000.0 + late_s)
    for late_s in answers:
        own.heard(read_at_s=1000.0, now_s=1000.0 + late_s)
    return own


@given(st.lists(st.floats(0.0, LEAST_S / 2)), st.lists(st.floats(0.0, LEAST_S / 2)))
def test_what_is_as_late_as_timers_are_coarse_is_not_late(wakeups: "list[float]", answers: "list[float]") -> None:
    assert noted(wakeups=wakeups, answers=answers).slack_s == 0.0


def test_wakeups_and_answers_add_up() -> None:
    own = noted(wakeups=[0.04], answers=[0.03])
    assert own.slack_s == pytest.approx(0.07)
    assert own.of_answers_s == pytest.approx(0.03)


def test_one_that_was_late_among_hundreds_counts_for_nothing_and_one_in_fifty_does() -> None:
    assert noted(wakeups=[0.0] * (WINDOW - 1) + [0.5], answers=[]).slack_s == 0.0
    assert noted(wakeups=([0.0] * 49 + [0.5]) * 5, answers=[]).slack_s == pytest.approx(0.5)


def test_what_was_late_once_is_forgotten() -> None:
    assert noted(wakeups=[0.5] * WINDOW + [0.0] * WINDOW, answers=[]).slack_s == 0.0


def test_a_host_that_was_away_is_not_late_by_hours() -> None:
    assert noted(wakeups=[3600.0], answers=[]).slack_s == MOST_S

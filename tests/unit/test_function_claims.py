"""Nothing that a function says of its own run is believed beyond what was measured from outside."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.daemon.backends.claims import INITIALIZER_TIMEOUT_S, Claims, Prediction, believed

TIMES = ("duration_s", "service_s", "init_s")
NUMBERS = st.floats(allow_nan=True, allow_infinity=True) | st.floats(0.0, 3.0) | st.integers()
ANYTHING = NUMBERS | st.none() | st.booleans() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
HEADERS = st.fixed_dictionaries({}, optional={**dict.fromkeys(TIMES, ANYTHING), "cold_start": ANYTHING})
ELAPSED = st.floats(0.0, 100.0)
PREDICTIONS = st.builds(Prediction, service_s=st.floats(0.0, 200.0), init_s=st.floats(0.0, 1000.0))


@given(HEADERS, ELAPSED, PREDICTIONS)
def test_whatever_it_says_the_times_believed_fit_into_what_was_measured(
    header: dict[str, object], elapsed_s: float, predicted: Prediction
) -> None:
    claims = believed(header, elapsed_s=elapsed_s, predicted=predicted)
    for name in TIMES:
        value = getattr(claims, name)
        assert (value is None) == (header.get(name) is None)
        assert value is None or (math.isfinite(value) and value >= 0)
    ran_s = claims.duration_s if claims.duration_s is not None else elapsed_s
    assert ran_s <= elapsed_s
    assert (claims.service_s or 0.0) <= (elapsed_s if "duration_s" in claims.disbelieved else ran_s)
    if claims.cold_start:
        assert (claims.init_s or 0.0) <= elapsed_s - ran_s
    assert (claims.init_s or 0.0) <= max(INITIALIZER_TIMEOUT_S, elapsed_s)


@given(st.floats(0.0, 10.0), st.floats(0.0, 1.0), st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.booleans())
def test_an_honest_report_is_believed_to_the_last_digit(
    duration_s: float, share: float, init_s: float, path_s: float, cold_start: bool
) -> None:
    said = {"duration_s": duration_s, "service_s": share * duration_s, "init_s": init_s, "cold_start": cold_start}
    elapsed_s = path_s + duration_s + (init_s if cold_start else 0.0)
    claims = believed(said, elapsed_s=elapsed_s, predicted=Prediction(0.0, 0.0))
    assert claims.disbelieved == ()
    assert claims.duration_s == duration_s
    assert claims.service_s == share * duration_s
    assert claims.init_s == pytest.approx(init_s, abs=1e-6)
    assert claims.cold_start is cold_start


@pytest.mark.parametrize("said", [1e9, -0.1, math.nan, math.inf, "0.1", True, [0.1], 10**400])
def test_a_duration_that_cannot_be_true_is_replaced_by_the_prediction_and_named(said: object) -> None:
    header = {"duration_s": said, "cold_start": False}
    assert believed(header, elapsed_s=0.5, predicted=Prediction(0.2, 1.0)) == Claims(
        0.2, None, None, False, ("duration_s",)
    )


def test_a_prediction_is_not_believed_beyond_what_was_measured_either() -> None:
    assert believed({"duration_s": 9.0}, elapsed_s=0.5, predicted=Prediction(2.0, 1.0)).duration_s == 0.5


def test_an_initializer_before_the_call_is_believed_up_to_the_providers_limit() -> None:
    said = {"duration_s": 0.1, "cold_start": False}
    predicted = Prediction(0.2, 1.5)
    assert believed({**said, "init_s": 20.0}, elapsed_s=0.5, predicted=predicted).init_s == 20.0
    beyond = believed({**said, "init_s": 301.0}, elapsed_s=0.5, predicted=predicted)
    assert (beyond.init_s, beyond.disbelieved) == (1.5, ("init_s",))


def test_a_start_and_a_run_that_are_longer_than_the_call_together_leave_the_start_to_the_prediction() -> None:
    said = {"duration_s": 0.4, "init_s": 0.4, "cold_start": True}
    claims = believed(said, elapsed_s=0.5, predicted=Prediction(0.2, 0.05))
    assert (claims.duration_s, claims.init_s, claims.disbelieved) == (0.4, 0.05, ("init_s",))


def test_an_old_container_says_nothing_of_its_start_and_is_believed() -> None:
    said = {"duration_s": 0.3, "service_s": 0.25, "cold_start": True}
    assert believed(said, elapsed_s=2.0, predicted=Prediction(0.2, 1.0)) == Claims(0.3, 0.25, None, True)

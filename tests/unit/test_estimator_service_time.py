"""Service time: learns what the profile got wrong, keeps its percentiles, follows a step within a few batches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.domain.latency import LatencyModel
from scheduler.estimators.residuals import ResidualWindow
from scheduler.estimators.service_time import ServiceTime

PROFILED = LatencyModel(alpha_s=0.04234, beta_s=0.008165, max_batch=64)


def learned(
    factors: np.ndarray, *, batches: np.ndarray | None = None, service: ServiceTime | None = None
) -> ServiceTime:
    """A service that has seen batches which took the profiled time times these factors."""
    service = service or ServiceTime(PROFILED)
    sizes = np.full(len(factors), 8) if batches is None else batches
    for items, factor in zip(sizes.tolist(), factors.tolist(), strict=True):
        service.update(items, factor * PROFILED.predict_s(items))
    return service


def test_before_any_batch_it_is_the_profile_and_the_overhead() -> None:
    service = ServiceTime(PROFILED, overhead_s=0.01, prior_sigma=0.1)
    assert service.predict_s(8) == pytest.approx(PROFILED.predict_s(8) + 0.01)
    assert service.quantile_factor(0.99) == pytest.approx(math.exp(0.1 * 2.3263), rel=1e-4)
    assert service.quantile_factor(0.5) == pytest.approx(1.0)
    assert service.lessons == 0


def test_two_answers_outvote_a_wrong_profile() -> None:
    assert learned(np.array([2.0, 2.0])).predict_s(8) == pytest.approx(2 * PROFILED.predict_s(8), rel=0.1)


def test_what_was_seen_at_one_size_holds_for_the_others_in_the_main() -> None:
    service = learned(np.full(30, 2.0))
    assert 1.5 * PROFILED.predict_s(40) < service.predict_s(40) <= 2.01 * PROFILED.predict_s(40)


def test_each_size_keeps_its_own_shape() -> None:
    rng = np.random.default_rng(1)
    batches = rng.integers(0, 2, 400) * 31 + 1
    service = learned(np.where(batches == 1, 2.8, 1.0) * rng.lognormal(0, 0.05, 400), batches=batches)
    assert service.predict_s(1) == pytest.approx(2.8 * PROFILED.predict_s(1), rel=0.05)
    assert service.predict_s(32) == pytest.approx(PROFILED.predict_s(32), rel=0.05)


def test_a_shape_that_changes_is_learned_anew() -> None:
    rng = np.random.default_rng(9)
    batches = np.tile([1, 32], 2000)
    factors = np.where((batches == 1) & (np.arange(4000) > 2000), 1.3, 1.0) * rng.lognormal(0, 0.05, 4000)
    service = learned(factors, batches=batches)
    assert service.predict_s(1) == pytest.approx(1.3 * PROFILED.predict_s(1), rel=0.05)
    assert service.predict_s(32) == pytest.approx(PROFILED.predict_s(32), rel=0.05)


def test_new_sizes_with_shapes_far_from_the_first_pass_for_one_change_at_most() -> None:
    rng = np.random.default_rng(2)
    service = ServiceTime(PROFILED)
    batches = np.append(np.ones(60, dtype=int), rng.integers(2, 65, 60))
    factors = np.where(batches < 8, 2.8 / batches**0.5, 1.0) * rng.lognormal(0, 0.1, 120)
    changes = [
        service.update(items, factor * PROFILED.predict_s(items))
        for items, factor in zip(batches.tolist(), factors.tolist(), strict=True)
    ]
    assert sum(change is not None for change in changes) <= 1
    assert service.predict_s(32) == pytest.approx(PROFILED.predict_s(32), rel=0.1)


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("sigma", [0.05, 0.25])
def test_the_stated_percentile_holds(percentile: float, sigma: float) -> None:
    rng = np.random.default_rng(4)
    service = learned(rng.lognormal(0, sigma, 600))
    late = 0
    for factor in rng.lognormal(0, sigma, 2000).tolist():
        late += factor * PROFILED.predict_s(8) > service.predict_s(8) * service.quantile_factor(percentile)
        service.update(8, factor * PROFILED.predict_s(8))
    allowed = (1 - percentile) * 2000
    assert late == pytest.approx(allowed, abs=4 * math.sqrt(allowed) + 1)


def test_without_noise_the_margin_goes() -> None:
    service = learned(np.ones(600))
    assert service.predict_s(8) == pytest.approx(PROFILED.predict_s(8))
    assert service.quantile_factor(0.99) == pytest.approx(1.0, abs=1e-6)


def test_a_noisy_size_has_its_own_margin() -> None:
    rng = np.random.default_rng(5)
    batches = np.tile([1, 32], 400)
    service = learned(rng.lognormal(0, np.where(batches == 1, 0.3, 0.02)), batches=batches)
    assert service.quantile_factor(0.9, 1) > 1.3
    assert service.quantile_factor(0.9, 32) < 1.1
    assert service.quantile_factor(0.9, 16) == service.quantile_factor(0.9)


@pytest.mark.parametrize("step", [2.0, 0.5])
def test_a_step_is_followed_within_a_few_batches_at_all_sizes(step: float) -> None:
    rng = np.random.default_rng(6)
    batches = rng.integers(1, 65, 300)
    service = learned(rng.lognormal(0, 0.1, 300), batches=batches)
    margin = service.quantile_factor(0.99)
    changes = []
    for items in rng.integers(1, 65, 6).tolist():
        changes.append(service.update(items, step * PROFILED.predict_s(items) * rng.lognormal(0, 0.1)))
    (change,) = [change for change in changes if change is not None]
    assert change.after_mean - change.before_mean == pytest.approx(math.log(step), abs=0.15)
    for items in (1, 8, 64):
        assert service.predict_s(items) == pytest.approx(step * PROFILED.predict_s(items), rel=0.2)
    assert service.quantile_factor(0.99) < 1.3 * margin


def test_steps_do_not_pass_for_noise() -> None:
    rng = np.random.default_rng(8)
    service = learned(rng.lognormal(0, 0.1, 600))
    margin = service.quantile_factor(0.99)
    learned(np.tile(np.repeat([2.0, 1.0], 25), 6) * rng.lognormal(0, 0.1, 300), service=service)
    assert service.quantile_factor(0.99) < 1.1 * margin


def test_a_thermal_drift_is_followed() -> None:
    rng = np.random.default_rng(7)
    batches = rng.integers(1, 65, 2000)
    service = learned(np.linspace(1.0, 1.5, 2000) * rng.lognormal(0, 0.1, 2000), batches=batches)
    assert service.predict_s(8) == pytest.approx(1.5 * PROFILED.predict_s(8), rel=0.05)


@pytest.mark.parametrize("observed_s", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_duration_is_passed_over(observed_s: float) -> None:
    service = learned(np.array([1.5, 1.4]))
    before = service.predict_s(8), service.quantile_factor(0.9), service.lessons
    assert service.update(8, observed_s) is None
    assert (service.predict_s(8), service.quantile_factor(0.9), service.lessons) == before


def test_lessons_are_counted_and_move_predictions() -> None:
    service = learned(np.ones(5))
    before = service.lessons, service.predict_s(8)
    service.update(8, 1.2 * PROFILED.predict_s(8))
    assert service.lessons == before[0] + 1
    assert service.predict_s(8) > before[1]


@given(st.lists(st.tuples(st.integers(1, 512), st.floats(1e-4, 100)), max_size=80))
def test_any_history_gives_positive_predictions(history: list[tuple[int, float]]) -> None:
    service = ServiceTime(PROFILED)
    for items, observed_s in history:
        service.update(items, observed_s)
    for items in (1, 5, 64, 512):
        assert 0 < service.predict_s(items) < math.inf
    assert service.quantile_factor(0.5) <= service.quantile_factor(0.99) < math.inf


@given(st.lists(st.floats(-3, 3), min_size=40, max_size=150), st.sampled_from([0.2, 0.5, 0.85]))
def test_quantiles_are_order_statistics_of_the_window(values: list[float], percentile: float) -> None:
    window = ResidualWindow(size=40, prior_sigma=0.1)
    for value in values:
        window.update(value)
    assert len(window) == 40
    expected = np.quantile(values[-40:], percentile, method="weibull")
    assert window.quantile(percentile) == pytest.approx(float(expected), abs=1e-9)


def test_far_quantiles_of_a_small_window_come_from_a_fitted_distribution() -> None:
    window = ResidualWindow(size=100, prior_sigma=0.2)
    values = [-1.0, 1.0] * 4
    for value in values:
        window.update(value)
    # Eight residuals of scatter 1 weigh twice as much as the prior scatter of 0.2.
    assert window.quantile(0.99) == pytest.approx((2 * 1.0 + 0.2) / 3 * 2.3263, rel=1e-4)


def test_a_small_window_does_not_keep_the_prior_scatter_alive() -> None:
    window = ResidualWindow(size=40, prior_sigma=0.1)
    for _ in range(2000):
        window.update(0.0)
    assert window.quantile(0.99) < 0.002


def test_moments_are_those_of_the_window_however_much_went_through_it() -> None:
    rng = np.random.default_rng(11)
    window = ResidualWindow(size=50, prior_sigma=0.1)
    values = rng.normal(0.1, 0.2, 100_000)
    values[::997] = 1e6 * rng.normal(size=len(values[::997]))
    values[-60:] = rng.normal(0.1, 1e-4, 60)
    for value in values.tolist():
        window.update(value)
    scatter = window.scatter()
    assert scatter.mean == pytest.approx(values[-50:].mean(), rel=1e-3)
    assert scatter.sigma == pytest.approx(values[-50:].std(), rel=0.1)


@given(st.lists(st.floats(-3, 3), max_size=60), st.lists(st.floats(-3, 3), max_size=20))
def test_forgetting_the_newest_leaves_the_older_ones(old: list[float], new: list[float]) -> None:
    window, reference = ResidualWindow(size=100, prior_sigma=0.1), ResidualWindow(size=100, prior_sigma=0.1)
    for value in old:
        window.update(value)
        reference.update(value)
    for value in new:
        window.update(value)
    for _ in new:
        window.forget_newest()
    assert len(window) == len(reference)
    if len(old) >= 10:
        assert window.quantile(0.5) == reference.quantile(0.5)


def test_forgetting_from_an_empty_window_is_harmless() -> None:
    window = ResidualWindow(size=3, prior_sigma=0.1)
    window.forget_newest()
    assert len(window) == 0


def test_all_predictions_at_once_are_those_one_by_one() -> None:
    service = ServiceTime(LatencyModel(0.04, 0.01, 32))
    for items, observed_s in ((1, 0.06), (7, 0.15), (20, 0.2)):
        service.update(items, observed_s)
    assert service.predict_all_s(32) == [service.predict_s(items) for items in range(1, 33)]


def test_a_forecast_after_a_few_answers_is_as_wide_as_they_strayed() -> None:
    window = ResidualWindow(size=64, prior_sigma=0.1)
    assert window.forecast() == window.scatter()
    window.update(0.3)
    # One answer has no spread of its own; without the forecast the scatter would be 0.08.
    assert window.forecast().sigma == pytest.approx(0.8 * 0.3)
    window.update(0.3)
    assert window.forecast().sigma == pytest.approx(4 / 6 * 0.3)
    assert window.scatter().sigma == pytest.approx(4 / 6 * 0.1)


def test_a_forecast_is_the_scatter_where_answers_stray_no_more_than_the_prior_says() -> None:
    window = ResidualWindow(size=64, prior_sigma=0.1)
    for residual in (0.05, -0.09, 0.1):
        window.update(residual)
        assert window.forecast() == window.scatter()


@pytest.mark.parametrize("sigma", [0.25, 0.4])
def test_forecasts_beat_the_scatter_at_first_and_are_the_scatter_later(sigma: float) -> None:
    beyond_forecast = beyond_scatter = 0
    for seed in range(300):
        service = ServiceTime(PROFILED)
        for factor in np.random.default_rng(seed).lognormal(0.0, sigma, 8).tolist():
            if service.lessons:
                deviation = math.log(factor * PROFILED.predict_s(8) / service.predict_s(8))
                beyond_forecast += service.forecast().exceeds(deviation) < 0.05
                beyond_scatter += service.scatter().exceeds(deviation) < 0.05
            service.update(8, factor * PROFILED.predict_s(8))
    assert beyond_forecast < 0.7 * beyond_scatter
    many = learned(np.random.default_rng(1).lognormal(0.0, sigma, 500))
    assert many.forecast().sigma == pytest.approx(many.scatter().sigma, rel=0.01)

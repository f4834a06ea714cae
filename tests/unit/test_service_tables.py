"""The tables that decisions read: made anew seldom, and never further from what is known than stated."""

import math

import numpy as np
import pytest

from scheduler.domain.latency import LatencyModel
from scheduler.estimators.service_tables import MARGIN_STEP, STALE_PART, STILL, STILL_SIGMAS, TimesCache
from scheduler.estimators.service_time import ServiceTime

PROFILED = LatencyModel(alpha_s=0.04234, beta_s=0.008165, max_batch=32)
PERCENTILE = 0.95


def answers(sigma: float, *, count: int = 1500, seed: int = 1) -> list[tuple[int, float]]:
    """Batch sizes and seconds; slow by half as much again in the middle third, and two and a half times dear at one."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 33, count)
    factors = rng.lognormal(0.0, sigma, count) * np.where(sizes == 1, 2.5, 1.0)
    factors[count // 3 : 2 * count // 3] *= 1.5
    return [(items, factor * PROFILED.predict_s(items)) for items, factor in zip(sizes.tolist(), factors, strict=True)]


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.25])
def test_tables_are_never_further_off_than_stated(sigma: float) -> None:
    cache = TimesCache(service := ServiceTime(PROFILED), 32)
    for items, seconds in answers(sigma):
        service.update(items, seconds)
        read = cache.get(PERCENTILE)
        known = TimesCache(service, 32).get(PERCENTILE)
        nearly = math.exp(max(STILL, STILL_SIGMAS * known.scatter.sigma)) * (1 + 1e-9)
        for there, here in zip(read.median_s[1:], known.median_s[1:], strict=True):
            assert here / nearly <= there <= here * nearly
        assert abs(read.margin - known.margin) <= MARGIN_STEP
        if len(known.scatter.ordered) >= 100:
            for chance in (0.1, 0.5, 0.9):
                residual = known.scatter.quantile(chance)
                lag = abs(read.scatter.exceeds(residual) - known.scatter.exceeds(residual))
                assert lag <= 1 / STALE_PART + 1 / len(known.scatter.ordered)


@pytest.mark.parametrize(("sigma", "most"), [(0.1, 0.6), (0.25, 0.25)])
def test_most_answers_leave_the_tables_as_they_are(sigma: float, most: float) -> None:
    cache = TimesCache(service := ServiceTime(LatencyModel(alpha_s=0.216, beta_s=0.141, max_batch=5)), 5)
    rng, made = np.random.default_rng(2), []
    for factor in rng.lognormal(0.0, sigma, 3000).tolist():
        service.update(1, 0.357 * factor)
        times = cache.get(PERCENTILE)
        if not made or made[-1] is not times:
            made.append(times)
    assert len(made) < most * 3000


def test_tables_stay_where_nothing_is_learned_and_follow_the_percentile() -> None:
    cache = TimesCache(service := ServiceTime(PROFILED), 32)
    for items, seconds in answers(0.1, count=300):
        service.update(items, seconds)
    usual = cache.get(PERCENTILE)
    assert cache.get(PERCENTILE) is usual
    strict = cache.get(0.99)
    assert strict.margin > usual.margin
    assert strict.median_s == usual.median_s


def test_a_change_is_in_the_tables_at_once() -> None:
    cache = TimesCache(service := ServiceTime(PROFILED), 32)
    for items, seconds in answers(0.1, count=300)[:99]:
        service.update(items, seconds)
    before = cache.get(PERCENTILE).median_s[8]
    while service.update(8, 2 * before) is None:
        cache.get(PERCENTILE)
    assert cache.get(PERCENTILE).median_s[8] == pytest.approx(2 * before, rel=0.15)


def test_lateness_follows_the_forecast_where_it_is_asked_for() -> None:
    service = ServiceTime(PROFILED)
    service.update(8, 1.5 * PROFILED.predict_s(8))
    plain, cautious = TimesCache(service, 32).get(PERCENTILE), TimesCache(service, 32, forecasts=True).get(PERCENTILE)
    assert (cautious.safe_s, cautious.scatter) == (plain.safe_s, plain.scatter)
    assert cautious.late_probability(8, 1.2 * cautious.median_s[8]) > plain.late_probability(8, 1.2 * plain.median_s[8])

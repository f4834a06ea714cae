"""Fits give back what was drawn; refits have the rate and the burstiness they were given."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distributions.map_moments import dispersion_at

from scheduler.estimators.dispersion import IndexOfDispersion
from scheduler.planner.queueing.map_fit import fit_arrivals, fit_mmpp2, fit_poisson, refit
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2, poisson_arrivals
from scheduler.planner.queueing.map_sampling import ArrivalStream


def drawn(process: MarkovianArrivals, count: int) -> npt.NDArray[np.float64]:
    return ArrivalStream(process, np.random.default_rng(3)).gaps_s(count)


def by_rate(process: MarkovianArrivals) -> tuple[list[float], list[float]]:
    """Rates of the phases, slower first, and how often each is left."""
    d0, d1 = process.matrices()
    order = np.argsort(d1.diagonal())
    return d1.diagonal()[order].tolist(), (-d0 - d1).diagonal()[order].tolist()


@pytest.mark.parametrize(
    ("rates_rps", "leave_per_s"), [((10.0, 50.0), (0.5, 1.0)), ((20.0, 100.0), (0.1, 0.5)), ((0.0, 60.0), (2.0, 1.0))]
)
def test_modulated_phases_come_back_from_their_draws(
    rates_rps: tuple[float, float], leave_per_s: tuple[float, float]
) -> None:
    fit = fit_mmpp2(drawn(mmpp2(rates_rps=rates_rps, leave_per_s=leave_per_s), 20_000))
    fitted_rps, fitted_leaves = by_rate(fit.process)
    assert fitted_rps == pytest.approx(list(rates_rps), rel=0.05, abs=0.3)
    # There are some fifty changes of phase in the least eventful of these draws.
    assert fitted_leaves == pytest.approx(list(leave_per_s), rel=0.3)


def test_the_likelihood_is_that_of_the_gaps_one_after_the_other() -> None:
    gaps_s = drawn(mmpp2(rates_rps=(10.0, 50.0), leave_per_s=(0.5, 1.0)), 300)
    fit = fit_mmpp2(gaps_s)
    d0, d1 = fit.process.matrices()
    row, likelihood = fit.process.arrival_phase_distribution(), 0.0
    for gap_s in gaps_s.tolist():
        row = row @ scipy.linalg.expm(d0 * gap_s) @ d1
        likelihood += math.log(row.sum())
        row = row / row.sum()
    assert fit.log_likelihood == pytest.approx(likelihood, abs=1e-6)
    # No other process that was tried is likelier than the fitted one.
    assert fit.log_likelihood > fit_poisson(gaps_s).log_likelihood


def test_plain_arrivals_are_found_plain_and_bursts_bursty() -> None:
    plain = fit_arrivals(drawn(poisson_arrivals(30.0), 5000))
    assert plain.process.phases == 1
    assert plain.process.rate_rps == pytest.approx(30.0, rel=0.05)
    assert plain.gaps == 5000
    bursty = fit_arrivals(drawn(mmpp2(rates_rps=(10.0, 50.0), leave_per_s=(0.5, 1.0)), 5000))
    assert bursty.process.phases == 2


def test_what_is_plain_by_chance_a_little_likelier_with_two_phases_is_fitted_with_one() -> None:
    draws_s = [np.random.default_rng(seed).exponential(0.05, 1000) for seed in range(8)]
    gains = [fit_mmpp2(gaps_s).log_likelihood - fit_poisson(gaps_s).log_likelihood for gaps_s in draws_s]
    assert max(gains) > 1
    assert [fit_arrivals(gaps_s).process.phases for gaps_s in draws_s] == [1] * 8


def test_more_regular_arrivals_than_poisson_are_fitted_with_poisson() -> None:
    fit = fit_arrivals(np.full(500, 0.1) + 0.01 * np.random.default_rng(1).random(500))
    assert fit.process.phases == 1


def test_gaps_of_nothing_do_not_break_a_fit() -> None:
    gaps_s = np.where(np.arange(2000) % 3 == 0, 0.3, 0.0)
    process = fit_mmpp2(gaps_s).process
    assert process.rate_rps == pytest.approx(10.0, rel=0.1)
    # A thousandth of the mean gap of 0.1 s is as fast as a phase can be seen to be.
    assert process.matrices()[1].max() < 3 / 1e-4


@settings(max_examples=100)
@given(rate_rps=st.floats(0.1, 1000), dispersion=st.floats(0.2, 50), tick_s=st.floats(0.01, 10))
def test_a_refit_has_the_rate_and_the_dispersion_of_neighbours_it_was_given(
    rate_rps: float, dispersion: float, tick_s: float
) -> None:
    process = refit(rate_rps=rate_rps, dispersion=dispersion, tick_s=tick_s)
    assert process.rate_rps == pytest.approx(rate_rps)
    # Neighbouring counts x, y: E (x - y)^2 = 2 Var x - 2 Cov, and Var(x + y) = 2 Var x + 2 Cov.
    neighbours = 2 * dispersion_at(process, tick_s) - dispersion_at(process, 2 * tick_s)
    assert neighbours == pytest.approx(1.0 if dispersion < 1.02 else dispersion, rel=1e-6)


def test_the_estimator_sees_in_a_refit_about_what_the_refit_was_made_from() -> None:
    process = refit(rate_rps=80.0, dispersion=3.0, tick_s=0.25)
    times_s = np.cumsum(drawn(process, 200_000))
    seen = []
    counts = np.bincount((times_s / 0.25).astype(np.int64)).tolist()
    for start in range(0, len(counts) - 400, 400):
        estimator = IndexOfDispersion()
        for count in counts[start : start + 400]:
            estimator.update(count)
        seen.append(estimator.value)
    # The estimator starts from 1 and weighs its prior; a ratio of counts is not the ratio of expectations either.
    assert np.mean(seen) == pytest.approx(3.0, rel=0.2)


@pytest.mark.parametrize(
    ("gaps_s", "sentence"),
    [([0.1] * 5, "at least 20 gaps"), ([0.1] * 30 + [-1.0], "gaps_s must be finite"), ([0.0] * 30, "not all 0")],
)
def test_gaps_that_tell_nothing_are_refused(gaps_s: list[float], sentence: str) -> None:
    with pytest.raises(ArrivalError, match=sentence):
        fit_arrivals(np.array(gaps_s))


def test_refits_of_nothing_are_refused() -> None:
    with pytest.raises(ArrivalError, match="rate_rps must be above 0"):
        refit(rate_rps=0.0, dispersion=1.0, tick_s=1.0)
    with pytest.raises(ArrivalError, match="tick_s must be above 0"):
        refit(rate_rps=1.0, dispersion=1.0, tick_s=0.0)
    with pytest.raises(ArrivalError, match="dispersion must be above 0"):
        refit(rate_rps=1.0, dispersion=math.nan, tick_s=1.0)

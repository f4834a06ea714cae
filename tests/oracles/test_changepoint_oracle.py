"""Our run-length recursion and densities against the library's full recursion, and against scipy."""

from functools import partial

import numpy as np
import pytest
from bayesian_changepoint_detection import online_changepoint_detection as library
from scipy import stats
from support.library_density import InLibraryForm

from scheduler.estimators.densities import Density, GammaPoisson, NormalInverseGamma
from scheduler.estimators.package_changepoint import AdaptedDensity, PackageDensity
from scheduler.estimators.run_length import RunLengthPosterior, constant_hazard

PRIOR = {"alpha": 0.7, "beta": 0.3, "kappa": 0.2, "mu": 0.5}
HAZARD = partial(constant_hazard, 80.0)


def levels() -> list[float]:
    rng = np.random.default_rng(11)
    return np.concatenate((rng.normal(0, 0.3, 90), rng.normal(1.5, 0.3, 60), rng.normal(1.2, 0.9, 70))).tolist()


def counts() -> list[float]:
    rng = np.random.default_rng(12)
    return np.concatenate((rng.poisson(11, 90), rng.poisson(17, 60), np.zeros(20), rng.poisson(90, 30))).tolist()


def library_posterior(values: list[float], density: PackageDensity) -> np.ndarray:
    """The library's matrix: column t holds the posterior after t values."""
    hazard = partial(library.constant_hazard, 80.0)
    posterior, _ = library.online_changepoint_detection(np.array(values), hazard, density)
    return np.asarray(posterior)


def assert_equals_library(values: list[float], ours: Density, theirs: PackageDensity) -> None:
    expected = library_posterior(values, theirs)
    posterior = RunLengthPosterior(ours, HAZARD)
    for seen, value in enumerate(values, start=1):
        posterior.update(value)
        assert posterior.run_lengths.tolist() == list(range(seen + 1))
        np.testing.assert_allclose(posterior.mass, expected[: seen + 1, seen], rtol=1e-6, atol=1e-12)


def test_unpruned_posterior_of_levels_equals_the_library() -> None:
    assert_equals_library(levels(), NormalInverseGamma(**PRIOR), library.StudentT(**PRIOR))


def test_library_density_plugs_in_and_gives_the_library_posterior() -> None:
    assert_equals_library(levels(), AdaptedDensity(library.StudentT(**PRIOR)), library.StudentT(**PRIOR))


def test_unpruned_posterior_of_counts_equals_the_library_recursion_on_our_density() -> None:
    counted = GammaPoisson(shape=0.5, rate=0.05)
    assert_equals_library(counts(), counted, InLibraryForm(GammaPoisson(shape=0.5, rate=0.05)))


@pytest.mark.parametrize(
    ("values", "bounded", "exact"),
    [
        (levels(), NormalInverseGamma(**PRIOR), library.StudentT(**PRIOR)),
        (levels(), AdaptedDensity(library.StudentT(**PRIOR)), library.StudentT(**PRIOR)),
        (counts(), GammaPoisson(shape=0.5, rate=0.05), InLibraryForm(GammaPoisson(shape=0.5, rate=0.05))),
    ],
    ids=["levels", "library density", "counts"],
)
def test_dropping_negligible_rows_stays_near_the_library(
    values: list[float], bounded: Density, exact: PackageDensity
) -> None:
    expected = library_posterior(values, exact)
    posterior = RunLengthPosterior(bounded, HAZARD, mass_floor=1e-6)
    most_rows = 0
    for seen, value in enumerate(values, start=1):
        posterior.update(value)
        most_rows = max(most_rows, len(posterior.mass))
        mass = np.zeros(seen + 1)
        mass[posterior.run_lengths] = posterior.mass
        # Each step drops at most its rows times the floor, and a later value may raise what was dropped.
        assert 0.5 * np.abs(mass - expected[: seen + 1, seen]).sum() < 2e-3
    assert most_rows < len(values)


def test_merging_the_tail_keeps_the_posterior_of_short_runs() -> None:
    values = levels()
    expected = library_posterior(values, library.StudentT(**PRIOR))
    posterior = RunLengthPosterior(NormalInverseGamma(**PRIOR), HAZARD, max_rows=60)
    for seen, value in enumerate(values, start=1):
        posterior.update(value)
        assert len(posterior.mass) <= 60
        assert posterior.mass.sum() == pytest.approx(1.0)
        short = posterior.run_lengths < 40
        np.testing.assert_allclose(posterior.mass[short], expected[: seen + 1, seen][:40], atol=0.02)


def test_change_probability_equals_the_hazard_whatever_the_value() -> None:
    posterior = RunLengthPosterior(GammaPoisson(shape=0.5, rate=0.05), HAZARD)
    for value in counts():
        posterior.update(value)
        assert posterior.mass[0] == pytest.approx(1 / 80)


def test_constant_hazard_equals_the_library() -> None:
    runs = np.arange(7)
    np.testing.assert_array_equal(constant_hazard(250.0, runs), library.constant_hazard(250.0, runs))


def test_student_t_density_equals_the_library_after_a_thousand_values() -> None:
    ours, theirs = NormalInverseGamma(**PRIOR), library.StudentT(**PRIOR)
    for value in np.random.default_rng(3).normal(0, 2, 1000).tolist():
        ours.update_theta(value)
        theirs.update_theta(value)
    for value in (-30.0, 0.0, 1.7, 50.0):
        np.testing.assert_allclose(np.exp(ours.log_pdf(value)), theirs.pdf(value), rtol=1e-8, atol=1e-300)


def test_count_density_is_the_negative_binomial() -> None:
    density = GammaPoisson(shape=0.5, rate=0.05)
    seen = np.array(counts())[::-1]
    for value in seen[::-1].tolist():
        density.update_theta(value)
    shape = 0.5 + np.concatenate(([0.0], np.cumsum(seen)))
    rate = 0.05 + np.arange(len(seen) + 1)
    for value in (0, 1, 17, 400):
        expected = stats.nbinom.logpmf(value, shape, rate / (rate + 1.0))
        np.testing.assert_allclose(density.log_pdf(value), expected, rtol=1e-8, atol=1e-9)

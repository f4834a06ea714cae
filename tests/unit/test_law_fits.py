"""Fitted latency laws: coefficients and standard errors against scipy, recovery, refusal beyond the measured range."""

import numpy as np
import pytest
from scipy.optimize import curve_fit
from support.distributions.law_fits import fit_exponential, fit_polynomial, fit_work

from scheduler.planner.catalogue.json_fields import PlanInputError
from scheduler.planner.catalogue.latency_models import Grants, PolynomialLatency


def test_the_exponential_fit_and_its_errors_are_those_of_an_independent_program() -> None:
    rng = np.random.default_rng(1)
    vcpu = np.repeat([0.5, 1.0, 1.5, 2.0, 4.0, 8.0, 16.0], 5)
    seconds = (2.8 * np.exp(-vcpu / 0.49) + 0.25) * rng.normal(1, 0.02, len(vcpu))
    fit = fit_exponential(vcpu, seconds)
    found, covariance = curve_fit(lambda x, a, b, c: a * np.exp(-x / b) + c, vcpu, seconds, p0=(1, 1, 1))
    assert fit.coefficients == pytest.approx(found, rel=1e-5)
    assert fit.stderrs == pytest.approx(np.sqrt(np.diag(covariance)), rel=1e-3)


def test_true_coefficients_lie_within_a_few_standard_errors() -> None:
    rng = np.random.default_rng(2)
    vcpu, true, inside = np.linspace(0.5, 8, 40), np.array([3.0, 0.9, 0.4]), []
    for _ in range(60):
        fit = fit_exponential(vcpu, true[0] * np.exp(-vcpu / true[1]) + true[2] + rng.normal(0, 0.01, 40))
        inside.append(np.abs(np.array(fit.coefficients) - true) < 2 * np.array(fit.stderrs))
    assert np.mean(inside) == pytest.approx(0.95, abs=0.05)


def test_a_polynomial_is_recovered_in_the_order_of_its_law() -> None:
    true = (4.0, 2.0, -0.003, 0.01, -0.001, 2e-6)
    batch, memory_mb = (x.ravel() for x in np.meshgrid(np.arange(1.0, 9), np.arange(1280.0, 3009, 192)))
    law = PolynomialLatency(true)
    grants = Grants(np.ones(1), np.array([1280 / 1024]), np.zeros(1))
    seconds = sum(
        c * batch ** (d - k) * memory_mb**k
        for c, (d, k) in zip(true, [(d, k) for d in range(3) for k in range(d + 1)], strict=True)
    )
    assert law.table(grants, max_batch=8, grain_s=1e-9).mean_s[0] == pytest.approx(seconds[memory_mb == 1280])
    fit = fit_polynomial(batch, memory_mb, np.asarray(seconds), degree=2)
    assert fit.coefficients == pytest.approx(true, rel=1e-6)


def test_the_work_of_a_card_is_a_line() -> None:
    batch = np.array([1.0, 2, 4, 8, 16])
    fit = fit_work(batch, 0.0016 * batch + 0.002)
    assert fit.coefficients == pytest.approx((0.0016, 0.002))


def test_a_fit_is_refused_beyond_what_was_measured() -> None:
    batch = np.array([1.0, 2, 4, 8, 16])
    fit = fit_work(batch, 0.0016 * batch + 0.002 + 0.0001 * np.sin(batch))
    fit.refuse_beyond(batch=16)
    with pytest.raises(PlanInputError, match="batch 17 is beyond what the law was fitted to, 1 to 16"):
        fit.refuse_beyond(batch=17)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_exponential(np.array([1.0, 1, 2]), np.ones(3)), "vcpu has 2 different values; a fit needs 3"),
        (lambda: fit_work(np.array([1.0, 2]), np.array([1.0, -1])), "seconds must be finite and above 0"),
        (
            lambda: fit_polynomial(np.ones(4), np.arange(1.0, 5), np.ones(4), degree=1),
            "4 rows do not tell 3 coefficients apart",
        ),
    ],
)
def test_rows_that_cannot_be_fitted_are_refused(call, words: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(PlanInputError, match=words):
        call()

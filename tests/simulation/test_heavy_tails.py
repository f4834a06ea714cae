"""Pareto's law of service times, and the table of what the cap on saved credit does under it."""

from itertools import islice

import numpy as np
import pytest

from scheduler.cli import main
from scheduler.simulator.backends import noise
from scripts import credit_cap


@pytest.mark.parametrize("tail", [1.5, 3.0])
def test_the_factors_have_median_one_and_the_tail_that_was_asked_for(tail: float) -> None:
    """Against the closed form: x^(-tail) / 2 beyond x, and nothing below 2^(-1/tail)."""
    factors = np.array(list(islice(noise(0.0, np.random.default_rng(0), tail=tail), 100_000)))
    assert factors.min() >= 2 ** (-1 / tail)
    for beyond in (1.0, 2.0, 4.0):
        share = beyond**-tail / 2
        assert (factors > beyond).mean() == pytest.approx(share, abs=4 * (share / len(factors)) ** 0.5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--function-noise-law", "pareto:1"), "ALPHA above 1"),
        (("--function-noise-law", "weibull:2"), "give lognormal, or pareto:ALPHA"),
        (("--function-noise-law", "pareto:2", "--function-noise", "0.2"), "leave it out with another law"),
        (("--function-noise-law", "pareto:2", "--policy", "oracle-laws"), "told lognormal laws"),
    ],
)
def test_a_law_that_does_not_fit_is_refused(
    flags: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["simulate", "--poisson", "50", "--requests", "10", *flags]
    try:
        code: object = main(arguments)
    except SystemExit as end:
        code = end.code
    assert code not in (0, None)
    assert message in capsys.readouterr().err


def test_heavy_tails_are_simulated_and_have_no_limit(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--poisson", "150", "--requests", "300", "--function-noise-law", "pareto:2", "--limit")
    assert main(["simulate", *flags]) == 0
    assert "no limit for Pareto's law" in capsys.readouterr().out


def test_the_table_of_caps_has_a_row_for_each_law_and_cap() -> None:
    own = credit_cap.slo_budget.MOST_COUNTED
    head, line, *rows = credit_cap.rows(credit_cap.LAWS, (100.0, float("inf")), (3.0, 2.0))
    assert head.count("|") == line.count("|") == 7
    assert [row.split("|")[2].strip() for row in rows] == ["100", "no cap"] * 2
    assert own == credit_cap.slo_budget.MOST_COUNTED

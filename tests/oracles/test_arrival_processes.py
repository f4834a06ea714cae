"""Arrival processes against closed forms, against each other, and against their own draws."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distributions.map_moments import dispersion_at, dispersion_limit, gap_cv2, lag_correlation

from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, markovian, mmpp2, poisson_arrivals
from scheduler.planner.queueing.map_sampling import ArrivalStream
from scheduler.planner.queueing.matrices import stationary
from scheduler.workloads import read_map

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))
REGULAR = MarkovianArrivals(
    d0=((-30.0, 30.0, 0.0), (0.0, -30.0, 30.0), (0.0, 0.0, -30.0)),
    d1=((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), (30.0, 0.0, 0.0)),
)
"""Gaps of three exponential parts: more regular than Poisson."""
ALTERNATING = MarkovianArrivals(d0=((-12.0, 2.0), (1.0, -61.0)), d1=((1.0, 9.0), (50.0, 10.0)))
"""A short gap follows a long one."""
PROCESSES = {"bursty": BURSTY, "regular": REGULAR, "alternating": ALTERNATING, "both": BURSTY.superposed(ALTERNATING)}

rates = st.floats(0.1, 100.0)
bursts = st.builds(lambda a, b, x, y: mmpp2(rates_rps=(a, b), leave_per_s=(x, y)), rates, rates, rates, rates)


def test_poisson_is_plain_in_every_moment() -> None:
    process = poisson_arrivals(40.0)
    assert process.rate_rps == pytest.approx(40.0)
    assert gap_cv2(process) == pytest.approx(1.0)
    assert dispersion_limit(process) == pytest.approx(1.0)
    assert dispersion_at(process, 0.3) == pytest.approx(1.0)


@settings(max_examples=100, deadline=None)
@given(one=rates, two=rates, leave_one=rates, leave_two=rates, window_s=st.floats(1e-3, 100.0))
def test_dispersion_of_two_modulated_phases_has_its_closed_form(
    one: float, two: float, leave_one: float, leave_two: float, window_s: float
) -> None:
    process = mmpp2(rates_rps=(one, two), leave_per_s=(leave_one, leave_two))
    forgets = leave_one + leave_two
    rate_rps = (one * leave_two + two * leave_one) / forgets
    excess = 2 * leave_one * leave_two * (one - two) ** 2 / (forgets**3 * rate_rps)
    assert process.rate_rps == pytest.approx(rate_rps)
    assert dispersion_limit(process) == pytest.approx(1 + excess, rel=1e-9)
    settled = 1 + np.expm1(-forgets * window_s) / (forgets * window_s)
    assert dispersion_at(process, window_s) == pytest.approx(1 + excess * settled, rel=1e-7)


def test_gaps_in_three_exponential_parts_are_erlang() -> None:
    assert REGULAR.rate_rps == pytest.approx(10.0)
    assert gap_cv2(REGULAR) == pytest.approx(1 / 3)
    assert lag_correlation(REGULAR, 1) == pytest.approx(0.0, abs=1e-12)
    # Counts of a renewal process disperse like its gaps in the long run.
    assert dispersion_limit(REGULAR) == pytest.approx(1 / 3)


@settings(max_examples=60, deadline=None)
@given(one=bursts, two=bursts, window_s=st.floats(0.01, 10.0))
def test_superposed_counts_add_in_mean_and_variance(
    one: MarkovianArrivals, two: MarkovianArrivals, window_s: float
) -> None:
    both = one.superposed(two)
    assert both.rate_rps == pytest.approx(one.rate_rps + two.rate_rps)
    variance = sum(part.rate_rps * dispersion_at(part, window_s) for part in (one, two))
    assert both.rate_rps * dispersion_at(both, window_s) == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_draws_have_the_moments_of_their_process(name: str) -> None:
    process = PROCESSES[name]
    gaps_s = ArrivalStream(process, np.random.default_rng(5)).gaps_s(400_000)
    assert 1 / gaps_s.mean() == pytest.approx(process.rate_rps, rel=0.01)
    assert gaps_s.var() / gaps_s.mean() ** 2 == pytest.approx(gap_cv2(process), rel=0.02)
    for lag in (1, 2):
        seen = np.corrcoef(gaps_s[lag:], gaps_s[:-lag])[0, 1]
        assert seen == pytest.approx(lag_correlation(process, lag), abs=0.01)
    window_s = 20 / process.rate_rps
    counts = np.bincount((np.cumsum(gaps_s) / window_s).astype(np.int64))[:-1]
    assert counts.var() / counts.mean() == pytest.approx(dispersion_at(process, window_s), rel=0.04)


def test_a_draw_does_not_depend_on_how_it_is_cut_into_stretches() -> None:
    # The first gap after each chunk follows the phase before it, so that correlation survives the seams.
    stream = ArrivalStream(ALTERNATING, np.random.default_rng(2))
    chunks = [stream.gaps_s(50) for _ in range(4000)]
    firsts = np.array([chunk[0] for chunk in chunks[1:]])
    lasts = np.array([chunk[-1] for chunk in chunks[:-1]])
    assert np.corrcoef(firsts, lasts)[0, 1] == pytest.approx(lag_correlation(ALTERNATING, 1), abs=0.05)


def test_the_same_seed_draws_the_same_gaps() -> None:
    one, two = (ArrivalStream(BURSTY, np.random.default_rng(9)) for _ in range(2))
    for count in (1, 1000, 3):
        assert np.array_equal(one.gaps_s(count), two.gaps_s(count))


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_stationary_distributions_do_not_move(size: int) -> None:
    rng = np.random.default_rng(size)
    rates_per_s = rng.random((size, size)) * 10.0 ** rng.integers(-3, 4, (size, size))
    stochastic = rates_per_s / rates_per_s.sum(axis=1, keepdims=True)
    distribution = stationary(stochastic)
    assert distribution.sum() == pytest.approx(1.0)
    assert distribution @ stochastic == pytest.approx(distribution, rel=1e-9)


def test_a_rounded_diagonal_is_made_exact_and_a_missing_one_filled_in() -> None:
    rounded = MarkovianArrivals(
        d0=((-5.550246, 0.0), (0.0, -11.534881)), d1=((0.013407, 5.53684), (0.014749, 11.520132))
    )
    assert rounded.d0[0][0] == -(0.013407 + 5.53684)
    assert MarkovianArrivals(d0=((0.0, 1.0), (3.0, 0.0)), d1=((10.0, 0.0), (0.0, 50.0))).d0[1] == (3.0, -53.0)


def two_parts() -> MarkovianArrivals:
    return markovian(np.diag([-1.0, -2.0]), np.diag([1.0, 2.0]))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: poisson_arrivals(0.0), "rate_rps must be above 0, not 0.0"),
        (lambda: mmpp2(rates_rps=(0.0, 0.0), leave_per_s=(1.0, 1.0)), "rates_rps must be at least 0, one of them"),
        (lambda: mmpp2(rates_rps=(1.0, 0.0), leave_per_s=(0.0, 1.0)), "leave_per_s must be above 0"),
        (lambda: MarkovianArrivals(d0=(), d1=()), "D0 must have 1 to 64 rows, not 0"),
        (lambda: MarkovianArrivals(d0=((-1.0, 0.0),), d1=((1.0,),)), "D0 and D1 must be square matrices of one size"),
        (lambda: MarkovianArrivals(d0=((-1.0,),), d1=((1.0,), (1.0,))), "square matrices of one size"),
        (lambda: MarkovianArrivals(d0=((-1.0,),), d1=((float("nan"),),)), "D1 must hold finite rates; row 1, column 1"),
        (
            lambda: MarkovianArrivals(d0=((-1.0, -1.0), (0.0, -1.0)), d1=((2.0, 0.0), (0.0, 1.0))),
            "column 2 of D0 is -1",
        ),
        (lambda: MarkovianArrivals(d0=((-2.0,),), d1=((1.0,),)), "row 1 of D0 . D1 sums to -1, not 0"),
        (lambda: MarkovianArrivals(d0=((0.0,),), d1=((0.0,),)), "row 1 of D0 . D1 has no rate above 0"),
        (lambda: MarkovianArrivals(d0=((-1.0, 1.0), (1.0, -1.0)), d1=((0.0, 0.0), (0.0, 0.0))), "D1 has no arrival"),
        (two_parts, "has parts that cannot reach each other"),
        (
            lambda: PROCESSES["both"].superposed(PROCESSES["both"]).superposed(PROCESSES["both"].superposed(BURSTY)),
            "64",
        ),
    ],
)
def test_what_is_no_process_is_refused_in_one_sentence_that_names_the_field(
    make: Callable[[], object], sentence: str
) -> None:
    with pytest.raises(ArrivalError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_phase_that_is_left_for_good_does_not_matter_in_the_long_run() -> None:
    warm_up = MarkovianArrivals(d0=((-3.0, 1.0), (0.0, -5.0)), d1=((2.0, 0.0), (0.0, 5.0)))
    assert warm_up.rate_rps == pytest.approx(5.0)
    assert warm_up.phase_distribution() == pytest.approx([0.0, 1.0])


def test_the_published_processes_are_read() -> None:
    traces = os.environ.get("EDGEBURST_TRACES")
    if not traces:
        pytest.skip("set EDGEBURST_TRACES to the folder with the traces to run this")
    paths = sorted((Path(traces) / "maps").glob("*.json"))
    assert paths
    for one, two in itertools.pairwise([read_map(path) for path in paths]):
        d0, d1 = one.matrices()
        assert (d0 + d1).sum(axis=1) == pytest.approx(0.0, abs=1e-12)
        assert one.rate_rps != two.rate_rps

"""Count matrices against the exponential of the block-bidiagonal generator, and against their integrals."""

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.linalg
import scipy.stats

from scheduler.planner.queueing.chebyshev import chebyshev_points, interpolation
from scheduler.planner.queueing.map_counting import count_table
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2, poisson_arrivals
from scheduler.planner.queueing.matrices import product

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))
ALTERNATING = MarkovianArrivals(d0=((-12.0, 2.0), (1.0, -61.0)), d1=((1.0, 9.0), (50.0, 10.0)))


def by_block_exponential(process: MarkovianArrivals, counts: int, time_s: float) -> npt.NDArray[np.float64]:
    d0, d1 = process.matrices()
    generator = np.kron(np.eye(counts), d0) + np.kron(np.eye(counts, k=1), d1)
    m = process.phases
    first_row = scipy.linalg.expm(generator * time_s)[:m]
    return np.asarray(first_row.reshape(m, counts, m).transpose(1, 0, 2))


@pytest.mark.parametrize("process", [BURSTY, ALTERNATING, BURSTY.superposed(ALTERNATING)])
@pytest.mark.parametrize("time_s", [0.0, 0.003, 0.2, 1.0])
def test_counts_are_the_block_exponential(process: MarkovianArrivals, time_s: float) -> None:
    counts = count_table(process, counts=12, longest_s=1.0)
    assert counts.at(np.array([time_s]))[0] == pytest.approx(by_block_exponential(process, 12, time_s), abs=1e-13)


def test_poisson_counts_are_poisson() -> None:
    counts = count_table(poisson_arrivals(30.0), counts=200, longest_s=2.0)
    seen = counts.at(np.array([2.0, 0.5]))[:, :, 0, 0]
    for row, mean in zip(seen, (60.0, 15.0), strict=True):
        assert row == pytest.approx(scipy.stats.poisson.pmf(np.arange(200), mean), rel=1e-9, abs=1e-16)


def test_integrals_are_integrals() -> None:
    counts = count_table(ALTERNATING, counts=6, longest_s=1.0)
    for time_s in (0.0, 0.04, 1.0):
        wanted, _ = scipy.integrate.quad_vec(lambda t: counts.at(np.array([t]))[0], 0, time_s, epsabs=1e-13)
        assert counts.integrated(np.array([time_s]))[0] == pytest.approx(wanted, abs=1e-12)


def test_integrals_hold_where_ticks_end_early_because_counts_are_few() -> None:
    counts = count_table(poisson_arrivals(1000.0), counts=3, longest_s=50.0)
    assert len(counts.ticks) < 10
    # The mean time with k arrivals is one mean gap, whatever k.
    assert counts.integrated(np.array([50.0]))[0, :, 0, 0] == pytest.approx([1e-3] * 3)


@pytest.mark.parametrize("process", [BURSTY, BURSTY.superposed(ALTERNATING), poisson_arrivals(40.0)])
@pytest.mark.parametrize("step_s", [0.002, 0.3])
def test_steps_lead_to_the_same_matrices(process: MarkovianArrivals, step_s: float) -> None:
    whole = count_table(process, counts=20, longest_s=step_s * 30)
    timed_out, filled = count_table(process, counts=20, longest_s=step_s).stepped(30)
    times_s = np.arange(31) * step_s
    assert timed_out.transpose(0, 2, 1, 3) == pytest.approx(whole.at(times_s), abs=1e-13)
    assert filled.transpose(0, 2, 1, 3) == pytest.approx(whole.integrated(times_s), abs=1e-13)


def test_so_many_steps_that_they_do_not_fit_in_memory_are_refused() -> None:
    with pytest.raises(ArrivalError, match="choose fewer"):
        count_table(BURSTY, counts=100, longest_s=0.01).stepped(100_000)


def test_a_product_in_pieces_is_the_product() -> None:
    rng = np.random.default_rng(1)
    for shape in [(3, 4, 5), (1, 900_000, 2), (700, 30, 900), (300_000, 4, 4), (2, 3, 400_000)]:
        left, right = rng.random(shape[:2]), rng.random(shape[1:])
        np.testing.assert_allclose(product(left, right), left @ right, rtol=1e-12)


def test_vectors_are_rows_and_columns_of_the_matrices() -> None:
    counts = count_table(BURSTY, counts=5, longest_s=0.5)
    times_s, row, column = np.array([0.1, 0.5]), np.array([0.3, 0.7]), np.array([2.0, 5.0])
    assert counts.after(row).at(times_s) == pytest.approx(np.einsum("i,tkij->tkj", row, counts.at(times_s)))
    assert counts.before(column).integrated(times_s) == pytest.approx(counts.integrated(times_s) @ column)


def test_short_tables_say_the_same_for_short_times() -> None:
    counts = count_table(BURSTY, counts=40, longest_s=5.0)
    short = counts.up_to(0.02)
    assert len(short.ticks) < 30
    times_s = np.array([0.0, 0.013, 0.02])
    assert short.at(times_s) == pytest.approx(counts.at(times_s)[:, : short.counts], abs=1e-12)


def test_more_than_memory_holds_is_refused_in_one_sentence() -> None:
    silent = mmpp2(rates_rps=(1e-3, 1e5), leave_per_s=(1e-3, 1.0))
    with pytest.raises(ArrivalError, match="shorten the timeout or lower the largest batch"):
        count_table(silent.superposed(silent), counts=4096, longest_s=10.0)


def test_chebyshev_points_give_functions_back() -> None:
    points = chebyshev_points(100.0)
    values = np.exp(-100 * points)
    places = np.array([0.0, 1e-4, 0.013, 0.5, 0.77, 1.0, points[3]])
    assert interpolation(points, places) @ values == pytest.approx(np.exp(-100 * places), abs=1e-12)

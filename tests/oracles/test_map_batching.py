"""A buffer under Markovian arrivals against its closed form for Poisson, other formulas, and simulation."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distributions import poisson_waits
from support.distributions.empirical_noise import EmpiricalNoise, measured_noise
from support.distributions.map_waits import cost_per_request, mean_wait_s

from scheduler.planner.queueing.map_batching import BufferDistribution, buffer_distribution
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2, poisson_arrivals
from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes
from scheduler.planner.queueing.quantile_search import quantile
from scheduler.planner.queueing.service_noise import NO_NOISE, LognormalNoise, Noise
from scripts.exactness.comparison import Setting, compare

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))
ALTERNATING = MarkovianArrivals(d0=((-12.0, 2.0), (1.0, -61.0)), d1=((1.0, 9.0), (50.0, 10.0)))
SILENT = mmpp2(rates_rps=(0.0, 120.0), leave_per_s=(8.0, 6.0)).superposed(poisson_arrivals(3.0))
PROCESSES = {"bursty": BURSTY, "alternating": ALTERNATING, "silent": SILENT}


@pytest.mark.parametrize(
    ("max_batch", "timeout_s"), [(1, 0.1), (2, 0.05), (5, 0.1), (5, 1.0), (16, 0.5), (64, 0.5), (20, 0.0), (3, 20.0)]
)
def test_one_phase_is_the_closed_form_of_poisson(max_batch: int, timeout_s: float) -> None:
    distribution = buffer_distribution(poisson_arrivals(30.0), max_batch=max_batch, timeout_s=timeout_s)
    closed = PoissonBatchSizes(rate_rps=30.0, max_batch=max_batch, timeout_s=timeout_s)
    assert distribution.sizes == pytest.approx(closed.sizes, abs=1e-13)
    assert mean_wait_s(distribution) == pytest.approx(poisson_waits.mean_wait_s(closed), abs=1e-11)
    services_s = [0.02 + 0.01 * b for b in range(1, max_batch + 1)]
    assert cost_per_request(distribution, services_s) == pytest.approx(closed.cost_per_request(services_s))
    for latency_s in (0.0, 0.031, 0.1, 0.13, 0.4, 0.9, 5.0):
        assert distribution.latency_within(latency_s, services_s) == pytest.approx(
            poisson_waits.latency_within(closed, latency_s, services_s), abs=1e-12
        )


def by_counts(distribution: BufferDistribution, process: MarkovianArrivals, size: int, wait_s: float) -> float:
    """Another formula: counts of requests in the last `wait_s`, quadrature over fill times for the full size."""
    opening, timeout_s, ones = distribution.opening, distribution.timeout_s, np.ones(len(distribution.opening))

    def matrices(time_s: float) -> npt.NDArray[np.float64]:
        return distribution.counts.at(np.array([time_s]))[0]

    def at_least(number: int, time_s: float) -> npt.NDArray[np.float64]:
        return np.asarray(ones - matrices(time_s)[:number].sum(axis=0) @ ones)

    if size < distribution.max_batch:
        early, late = matrices(timeout_s - wait_s), matrices(wait_s)
        parts = [i * opening @ early[size - 1 - i] @ late[i] @ ones for i in range(1, size)]
        return float(sum(parts)) / distribution.mean_size
    arrive = process.matrices()[1]

    def rate(time_s: float) -> float:
        counts, left_s = matrices(time_s), min(wait_s, timeout_s - time_s)
        return float(sum(opening @ counts[j - 2] @ arrive @ at_least(size - j, left_s) for j in range(2, size)))

    inner, _ = scipy.integrate.quad(rate, 0, timeout_s, points=[timeout_s - wait_s], epsabs=1e-11)
    whole = distribution.sizes[-1] + opening @ at_least(size - 1, wait_s) + inner
    return float(whole) / distribution.mean_size


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize(("max_batch", "timeout_s"), [(2, 0.1), (4, 0.06), (7, 0.4)])
def test_waits_are_those_of_the_formula_by_last_arrivals(name: str, max_batch: int, timeout_s: float) -> None:
    distribution = buffer_distribution(PROCESSES[name], max_batch=max_batch, timeout_s=timeout_s)
    for part in (0.2, 0.77):
        waits_s = np.full((max_batch, 1), part * timeout_s)
        wanted = [by_counts(distribution, PROCESSES[name], size, part * timeout_s) for size in range(1, max_batch + 1)]
        assert distribution.within(waits_s)[:, 0] == pytest.approx(wanted, abs=1e-10)


@pytest.mark.parametrize("name", PROCESSES)
def test_distributions_are_those_of_a_simulated_buffer(name: str) -> None:
    points = [
        point
        for seed, (max_batch, timeout_s) in enumerate([(2, 0.2), (5, 0.05), (20, 0.5)])
        for point in compare(Setting(name, PROCESSES[name], max_batch, timeout_s), requests=1_000_000, seed=seed)
    ]
    far = [point for point in points if point.deviation > 3]
    assert len(points) > 50
    assert len(far) <= 1
    assert max(point.deviation for point in points) < 5


@settings(max_examples=60)
@given(
    rates_rps=st.tuples(st.floats(0.1, 300), st.floats(0, 300)),
    leave_per_s=st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
    max_batch=st.integers(1, 40),
    timeout_s=st.one_of(st.just(0.0), st.floats(1e-6, 2)),
)
def test_probabilities_sum_to_one_for_every_buffer(
    rates_rps: tuple[float, float], leave_per_s: tuple[float, float], max_batch: int, timeout_s: float
) -> None:
    distribution = buffer_distribution(
        mmpp2(rates_rps=rates_rps, leave_per_s=leave_per_s), max_batch=max_batch, timeout_s=timeout_s
    )
    assert distribution.sizes.sum() == pytest.approx(1.0, abs=1e-12)
    assert distribution.sizes.min() >= 0
    assert cost_per_request(distribution, np.arange(1, max_batch + 1) * 3.0) == pytest.approx(3.0)
    fractions = [distribution.wait_within(x * timeout_s) for x in (0.0, 0.1, 0.3, 0.6, 0.95, 1.0)]
    assert distribution.wait_within(-1e-6) == 0.0
    assert all(before <= after + 1e-9 for before, after in zip(fractions, fractions[1:], strict=False))
    assert fractions[-1] == pytest.approx(1.0, abs=1e-12)
    assert 0 <= mean_wait_s(distribution) <= timeout_s * (1 + 1e-9)
    # Probabilities before they are made to sum to 1 already do: nothing is lost in the tables.
    full = 1 - distribution.sizes[:-1].sum()
    assert full == pytest.approx(distribution.sizes[-1], abs=1e-12)


def test_batches_open_in_the_phase_in_which_they_do_and_not_in_a_usual_one() -> None:
    # Bursts fill batches fast, so that most batches open in one although most time is calm.
    process = mmpp2(rates_rps=(1.0, 200.0), leave_per_s=(0.1, 0.5))
    distribution = buffer_distribution(process, max_batch=4, timeout_s=0.5)
    assert distribution.opening[1] > 0.9
    assert process.phase_distribution()[1] < 0.2


def test_a_latency_bound_of_service_and_timeout_holds_to_the_last_bit() -> None:
    services_s = [0.1 + 0.07 * b for b in range(1, 6)]
    for slo_s in (0.6, 0.7, 0.9, 1.1):
        distribution = buffer_distribution(BURSTY, max_batch=5, timeout_s=slo_s - services_s[-1])
        assert distribution.latency_within(slo_s, services_s) == pytest.approx(1.0, abs=1e-12)
        assert distribution.latency_within(slo_s - 1e-6, services_s) < 1.0


@pytest.mark.parametrize("noise", [NO_NOISE, LognormalNoise(0.15), EmpiricalNoise((0.8, 0.9, 1.0, 1.6))])
def test_quantiles_are_where_their_fraction_is_reached(noise: Noise) -> None:
    distribution, services_s = (
        buffer_distribution(BURSTY, max_batch=6, timeout_s=0.2),
        np.array([0.1, 0.12, 0.15, 0.2, 0.3, 0.31]),
    )
    for percentile in (0.01, 0.3, 0.5, 0.9, 0.99):
        latency_s = distribution.latency_quantile_s(percentile, services_s, noise)
        assert distribution.latency_within(latency_s, services_s, noise) >= percentile
        assert distribution.latency_within(latency_s - 1e-9, services_s, noise) < percentile


def test_measured_factors_mix_the_distributions_of_each() -> None:
    distribution, services_s = buffer_distribution(ALTERNATING, max_batch=3, timeout_s=0.1), np.array([0.1, 0.15, 0.2])
    noise = measured_noise([0.05, 0.24], [0.1, 0.2])
    for latency_s in (0.1, 0.16, 0.21, 0.3):
        # Each batch draws its own factor, so a request's latency is a mixture over factors of one distribution each.
        wanted = np.mean([distribution.latency_within(latency_s, services_s * factor) for factor in (0.5, 1.2)])
        assert distribution.latency_within(latency_s, services_s, noise) == pytest.approx(float(wanted), abs=1e-12)


def test_lognormal_noise_is_the_limit_of_its_many_equal_parts() -> None:
    distribution, services_s = (
        buffer_distribution(BURSTY, max_batch=4, timeout_s=0.15),
        np.array([0.1, 0.13, 0.16, 0.2]),
    )
    sigma, parts = 0.2, 20_000
    middles = scipy.special.ndtri((np.arange(parts) + 0.5) / parts)
    many = EmpiricalNoise(tuple(np.exp(sigma * middles - sigma**2 / 2).tolist()))
    for latency_s in (0.08, 0.15, 0.25, 0.3, 0.45):
        fine = distribution.latency_within(latency_s, services_s, many)
        assert distribution.latency_within(latency_s, services_s, LognormalNoise(sigma)) == pytest.approx(
            fine, abs=2e-5
        )
    assert distribution.latency_within(0.0, services_s, LognormalNoise(sigma)) == pytest.approx(0.0, abs=1e-15)
    assert distribution.latency_within(9.0, services_s, LognormalNoise(sigma)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("max_batch", "timeout_s", "sentence"),
    [(0, 1.0, "max_batch must be at least 1"), (1, -1.0, "timeout_s must be"), (1, math.inf, "timeout_s must be")],
)
def test_what_is_no_buffer_is_refused(max_batch: int, timeout_s: float, sentence: str) -> None:
    with pytest.raises(ArrivalError, match=sentence):
        buffer_distribution(BURSTY, max_batch=max_batch, timeout_s=timeout_s)


def test_what_is_no_noise_or_percentile_is_refused() -> None:
    with pytest.raises(ArrivalError, match="sigma and mean"):
        LognormalNoise(0.0)
    with pytest.raises(ArrivalError, match="at least one"):
        EmpiricalNoise(())
    with pytest.raises(ArrivalError, match="must be above 0"):
        EmpiricalNoise((1.0, 0.0))
    with pytest.raises(ValueError, match="percentile must be"):
        quantile(lambda x: x, 1.0, upper=2.0)

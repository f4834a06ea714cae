"""Shared buffers against a walk through simulated arrivals, the one-class distribution, and other integrals."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.distributions.class_buffers import class_buffer_distribution
from support.distributions.poisson_waits import latency_within

from scheduler.planner.queueing.multi_slo_batching import BatchSizeDistribution, SharedBuffer
from scheduler.planner.queueing.multi_slo_lateness import SharedWaits, StrictestLateness
from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes
from scheduler.planner.queueing.poisson_tails import neighbouring_tails

Array = npt.NDArray[np.float64]

FOUR = SharedBuffer(np.array([0.5, 0.6, 0.8, 1.0]), np.array([5.0, 5.0, 5.0, 15.0]))
SERVICES_S = np.array([0.05, 0.1, 0.15, 0.22, 0.27, 0.31, 0.36, 0.41])[:, None]


def latencies(
    buffer: SharedBuffer, *, latency_reserve_s: float, services_s: Array, count: int
) -> tuple[Array, Array, Array]:
    """Walks a buffer through `count` arrivals: batch sizes, latency and application of each request."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.exponential(1 / buffer.rate_rps, count))
    app = rng.choice(len(buffer.slos_s), count, p=buffer.rates_rps / buffer.rate_rps)
    times_s, limits_s = times.tolist(), (times + buffer.slos_s[app] - latency_reserve_s).tolist()
    sizes, took_s, start = [], np.empty(count), 0
    while start < count:
        closes_s, end = limits_s[start], start + 1
        while end < count and end - start < len(services_s) and times_s[end] < closes_s:
            closes_s, end = min(closes_s, limits_s[end]), end + 1
        if end - start == len(services_s):
            closes_s = times_s[end - 1]
        took_s[start:end] = closes_s - times[start:end] + services_s[end - start - 1]
        sizes.append(end - start)
        start = end
    return np.array(sizes), took_s, app


def test_sizes_and_lateness_are_those_of_a_walk_through_arrivals() -> None:
    sizes, took_s, app = latencies(FOUR, latency_reserve_s=0.2, services_s=SERVICES_S[:, 0], count=200_000)
    distribution = FOUR.size_distribution(np.array([0.2]), max_batch=8)
    seen = np.bincount(sizes, minlength=9)[1:9] / len(sizes)
    expected = np.append(distribution.below[0], distribution.reached()[0, -1])
    assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / len(sizes))
    late = SharedWaits.of(FOUR, distribution, 0).late(FOUR.slos_s, SERVICES_S, np.ones_like(SERVICES_S))
    for number in range(4):
        # Requests of a batch are late together: eight times fewer independent ones.
        tolerance = 4 * np.sqrt(max(late[number], 1e-4) * 8 / (app == number).sum())
        assert np.mean(took_s[app == number] > FOUR.slos_s[number]) == pytest.approx(late[number], abs=tolerance)


def strictest_late(buffer: SharedBuffer, distribution: BatchSizeDistribution, atoms_s: Array, weights: Array) -> Array:
    """Fraction of the strictest application that is late, by latency reserve, configuration and cap."""
    reserves, configurations = len(distribution.latency_reserves_s), len(atoms_s)
    lateness = StrictestLateness.of_each(
        distribution,
        buffer.rate_rps * (buffer.strictest_s - distribution.latency_reserves_s),
        atoms_s,
        weights,
        rates_rps=np.full(configurations, buffer.rate_rps),
        slos_s=np.full(configurations, buffer.strictest_s),
    )
    late = lateness.paired(np.arange(reserves).repeat(configurations), np.tile(np.arange(configurations), reserves))
    return late.reshape(reserves, configurations, -1)


@given(rate_rps=st.floats(0.1, 200), slo_s=st.floats(0.05, 3), cap=st.integers(1, 12), part=st.floats(0.01, 1))
def test_one_application_has_the_distribution_of_a_single_class(
    rate_rps: float, slo_s: float, cap: int, part: float
) -> None:
    buffer, latency_reserve_s = SharedBuffer(np.array([slo_s]), np.array([rate_rps])), part * slo_s
    single = PoissonBatchSizes(rate_rps=rate_rps, max_batch=cap, timeout_s=slo_s - latency_reserve_s)
    distribution = buffer.size_distribution(np.array([latency_reserve_s]), max_batch=cap)
    assert np.append(distribution.below[0], distribution.reached()[0, -1]) == pytest.approx(single.sizes, abs=1e-10)
    services_s = np.linspace(0.3, 1.1, cap)[:, None] * slo_s
    within = latency_within(single, slo_s, services_s[:, 0].tolist())
    weights = np.ones_like(services_s)
    strictest = strictest_late(buffer, distribution, services_s[None], weights[None])
    assert strictest[0, 0, -1] == pytest.approx(1 - within, abs=2e-6)
    assert SharedWaits.of(buffer, distribution, 0).late(buffer.slos_s, services_s, weights)[0] == pytest.approx(
        1 - within, abs=3e-5
    )


@given(
    slos_s=st.lists(st.floats(0.2, 2), min_size=2, max_size=5, unique=True),
    rates_rps=st.lists(st.floats(0.2, 30), min_size=5, max_size=5),
    cap=st.integers(2, 16),
    part=st.floats(0.05, 1),
)
def test_several_applications_have_the_distribution_that_other_integrals_give(
    slos_s: list[float], rates_rps: list[float], cap: int, part: float
) -> None:
    ascending = np.sort(np.array(slos_s))
    buffer = SharedBuffer(ascending, np.array(rates_rps[: len(slos_s)]))
    latency_reserve_s = part * float(ascending[0])
    distribution = buffer.size_distribution(np.array([latency_reserve_s]), max_batch=cap)
    other = class_buffer_distribution(buffer.rates_rps, ascending - latency_reserve_s, max_batch=cap)
    assert np.append(distribution.below[0], distribution.reached()[0, -1]) == pytest.approx(other.sizes, abs=1e-7)
    services_s = np.linspace(0.02, 0.9, cap) * float(ascending[0])
    late = SharedWaits.of(buffer, distribution, 0).late(ascending, services_s[:, None], np.ones((cap, 1)))
    assert late == pytest.approx(1 - other.latency_within(ascending, services_s), abs=5e-5)
    # Applications with a longer timeout are not late more often: the search relies on it.
    assert (np.diff(late) <= 5e-5).all()


def test_all_caps_and_reserves_at_once_are_each_alone() -> None:
    latency_reserves_s = np.array([0.1, 0.3, 0.45])
    distribution = FOUR.size_distribution(latency_reserves_s, max_batch=8)
    atoms_s = np.stack([SERVICES_S, SERVICES_S * 0.8 + 0.05]) * np.array([0.9, 1.0, 1.2])
    weights = np.broadcast_to([0.2, 0.5, 0.3], atoms_s.shape)
    late = strictest_late(FOUR, distribution, atoms_s, weights)
    for reserve_row in range(3):
        waits = SharedWaits.of(FOUR, distribution, reserve_row)
        for row in range(2):
            for cap in (1, 2, 5, 8):
                alone = waits.late(FOUR.slos_s, atoms_s[row, :cap], weights[row, :cap])[0]
                assert late[reserve_row, row, cap - 1] == pytest.approx(alone, abs=2e-5)


def test_quantiles_are_where_so_many_are_late() -> None:
    distribution = FOUR.size_distribution(np.array([0.2]), max_batch=8)
    waits, weights = SharedWaits.of(FOUR, distribution, 0), np.ones_like(SERVICES_S)
    found_s = waits.quantiles_s(np.array([0.5, 0.9, 0.95, 0.99]), SERVICES_S, weights)
    late = waits.late(found_s, SERVICES_S, weights)
    earlier = waits.late(found_s - 2e-4, SERVICES_S, weights)
    assert (late <= np.array([0.5, 0.1, 0.05, 0.01]) + 1e-9).all()
    assert (earlier > np.array([0.5, 0.1, 0.05, 0.01]) - 1e-3).all()


def test_the_mean_open_time_gives_the_mean_size_without_a_cap() -> None:
    latency_reserves_s = np.array([0.35, 0.45])
    means = FOUR.size_distribution(latency_reserves_s, max_batch=80).mean_sizes()[:, -1]
    assert means == pytest.approx(1 + FOUR.rate_rps * (FOUR.strictest_s - latency_reserves_s + FOUR.open_beyond_s))


def test_interpolated_poisson_tails_are_those_of_the_sum() -> None:
    means, sizes = np.array([0.0, 0.3, 4.04, 17.77, 200.0]), np.array([1, 2, 5, 16, 32])
    found = neighbouring_tails(means, sizes, largest=32)
    for column, (mean, size) in enumerate(zip(means, sizes, strict=True)):
        terms = np.exp(-mean) * np.cumprod(np.concatenate([[1.0], mean / np.arange(1, 40)]))
        for offset, tail in zip((-1, 0, 1), found, strict=True):
            assert tail[column] == pytest.approx(max(0.0, 1 - terms[: size + offset].sum()), abs=1e-7)

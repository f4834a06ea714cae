"""The exact batch distribution against a Monte Carlo of the buffer, and against its limits in closed form."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distributions.poisson_waits import latency_within, mean_wait_s, within

from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes

ARRIVALS = 200_000


def buffer_by_simulation(
    rate_rps: float, max_batch: int, timeout_s: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Runs arrivals through a buffer one by one; returns each request's batch size and wait."""
    times_s = np.cumsum(np.random.default_rng(11).exponential(1 / rate_rps, ARRIVALS)).tolist()
    sizes, waits_s, first = [], [], 0
    while first < len(times_s):
        last = first
        while (
            last + 1 < len(times_s) and last + 1 - first < max_batch and times_s[last + 1] <= times_s[first] + timeout_s
        ):
            last += 1
        count = last - first + 1
        closed_s = times_s[last] if count == max_batch else times_s[first] + timeout_s
        sizes += [count] * count
        waits_s += [closed_s - times_s[i] for i in range(first, last + 1)]
        first = last + 1
    return np.array(sizes), np.array(waits_s)


CASES = [(30.0, 1, 0.1), (30.0, 2, 0.05), (30.0, 5, 0.1), (30.0, 5, 1.0), (8.0, 16, 0.5), (100.0, 8, 0.06)]


@pytest.mark.parametrize(("rate_rps", "max_batch", "timeout_s"), CASES)
def test_distribution_agrees_with_a_simulated_buffer(rate_rps: float, max_batch: int, timeout_s: float) -> None:
    sizes, waits_s = buffer_by_simulation(rate_rps, max_batch, timeout_s)
    distribution = PoissonBatchSizes(rate_rps=rate_rps, max_batch=max_batch, timeout_s=timeout_s)
    batches = np.array([(sizes == b).sum() / b for b in range(1, max_batch + 1)])
    assert distribution.sizes == pytest.approx(batches / batches.sum(), abs=0.006)
    assert distribution.mean_size == pytest.approx(len(sizes) / batches.sum(), rel=0.01)
    assert mean_wait_s(distribution) == pytest.approx(waits_s.mean(), rel=0.01, abs=1e-9)
    costs = [0.3 + 0.1 * b for b in range(1, max_batch + 1)]
    paid = sum(n * cost for n, cost in zip(batches, costs, strict=True)) / len(sizes)
    assert distribution.cost_per_request(costs) == pytest.approx(paid, rel=0.01)


@pytest.mark.parametrize(("rate_rps", "max_batch", "timeout_s"), CASES)
def test_waits_and_latencies_agree_with_a_simulated_buffer(rate_rps: float, max_batch: int, timeout_s: float) -> None:
    sizes, waits_s = buffer_by_simulation(rate_rps, max_batch, timeout_s)
    distribution = PoissonBatchSizes(rate_rps=rate_rps, max_batch=max_batch, timeout_s=timeout_s)
    for fraction in (0.1, 0.35, 0.7, 0.999):
        wait_s = fraction * timeout_s
        for size in range(1, max_batch + 1):
            seen = ((sizes == size) & (waits_s <= wait_s)).mean()
            assert within(distribution, wait_s, size) == pytest.approx(seen, abs=0.006)
    services_s = [0.02 + 0.01 * b for b in range(1, max_batch + 1)]
    latencies_s = waits_s + np.array(services_s)[sizes - 1]
    for latency_s in np.quantile(latencies_s, (0.2, 0.5, 0.9)) + 1e-9:
        seen = (latencies_s <= latency_s).mean()
        assert latency_within(distribution, float(latency_s), services_s) == pytest.approx(seen, abs=0.006)


@settings(max_examples=150, deadline=None)
@given(
    rate_rps=st.one_of(st.just(0.0), st.floats(0, 1e4)),
    max_batch=st.integers(1, 64),
    timeout_s=st.one_of(st.just(0.0), st.just(math.inf), st.floats(0, 100)),
)
def test_probabilities_sum_to_one_for_every_buffer(rate_rps: float, max_batch: int, timeout_s: float) -> None:
    distribution = PoissonBatchSizes(rate_rps=rate_rps, max_batch=max_batch, timeout_s=timeout_s)
    assert len(distribution.sizes) == max_batch
    assert math.fsum(distribution.sizes) == pytest.approx(1.0, abs=1e-9)
    assert min(distribution.sizes) >= 0
    assert 1.0 - 1e-9 <= distribution.mean_size <= max_batch + 1e-6
    per_item = [2.0 * b for b in range(1, max_batch + 1)]
    assert distribution.cost_per_request(per_item) == pytest.approx(2.0)
    assert mean_wait_s(distribution) >= 0
    assert mean_wait_s(distribution) <= timeout_s * (1 + 1e-9) or rate_rps > 0
    whole = sum(within(distribution, 1e9 if math.isinf(timeout_s) else timeout_s, b) for b in range(1, max_batch + 1))
    if rate_rps > 1e-3 or not math.isinf(timeout_s):
        assert whole == pytest.approx(1.0, abs=1e-6)


def test_limits_are_single_requests_and_full_batches() -> None:
    alone = PoissonBatchSizes(rate_rps=50.0, max_batch=4, timeout_s=0.0)
    assert alone.sizes == (1.0, 0.0, 0.0, 0.0)
    assert mean_wait_s(alone) == 0.0
    silent = PoissonBatchSizes(rate_rps=0.0, max_batch=4, timeout_s=0.3)
    assert silent.mean_size == 1.0
    assert mean_wait_s(silent) == pytest.approx(0.3)
    full = PoissonBatchSizes(rate_rps=50.0, max_batch=4, timeout_s=math.inf)
    assert full.sizes[-1] == 1.0
    # The first waits for three arrivals, the next for two, then one, then none: (3 + 2 + 1) / 4 mean gaps.
    assert mean_wait_s(full) == pytest.approx(1.5 / 50.0)


@pytest.mark.parametrize(
    ("rate_rps", "max_batch", "timeout_s"), [(1.0, 0, 1.0), (-1.0, 1, 1.0), (1.0, 1, -1.0), (math.inf, 1, 1.0)]
)
def test_what_is_no_buffer_is_refused(rate_rps: float, max_batch: int, timeout_s: float) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        PoissonBatchSizes(rate_rps=rate_rps, max_batch=max_batch, timeout_s=timeout_s)

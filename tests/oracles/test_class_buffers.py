"""Classes with timeouts of their own in one buffer: against one class, theory's integral, and simulation."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import scipy.integrate
from hypothesis import given, settings
from hypothesis import strategies as st
from support.distributions import poisson_waits
from support.distributions.class_buffers import class_buffer_distribution, class_sizes, uncapped_mean_size
from support.distributions.empirical_noise import EmpiricalNoise

from scheduler.planner.queueing.map_process import ArrivalError
from scheduler.planner.queueing.poisson_batching import PoissonBatchSizes
from scheduler.planner.queueing.service_noise import LognormalNoise

CASES = [
    ((10.0, 20.0), (0.05, 0.2), 5),
    ((10.0, 20.0), (0.2, 0.05), 2),
    ((10.0, 5.0, 30.0, 2.0), (0.1, 0.2, 0.0, 0.5), 8),
    ((3.0, 4.0, 5.0), (0.1, 0.4, 0.2), 64),
    ((30.0, 40.0, 5.0), (0.3, 0.3, 0.5), 3),
]
REQUESTS = 200_000


def shared_buffer(
    rates_rps: tuple[float, ...], timeouts_s: tuple[float, ...], max_batch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Runs arrivals through a buffer one by one; returns each request's class, batch size and wait."""
    rng = np.random.default_rng(17)
    times_s = np.cumsum(rng.exponential(1 / sum(rates_rps), REQUESTS))
    classes = rng.choice(len(rates_rps), size=REQUESTS, p=np.array(rates_rps) / sum(rates_rps))
    arrivals, runs_out = times_s.tolist(), (times_s + np.array(timeouts_s)[classes]).tolist()
    sizes, waits_s, first = np.empty(REQUESTS, dtype=np.int64), np.empty(REQUESTS), 0
    while first < REQUESTS:
        closes_s, after = runs_out[first], first + 1
        while after < REQUESTS and after - first < max_batch and arrivals[after] <= closes_s:
            closes_s = min(closes_s, runs_out[after])
            after += 1
        if after - first == max_batch:
            closes_s = arrivals[after - 1]
        sizes[first:after], waits_s[first:after] = after - first, closes_s - times_s[first:after]
        first = after
    return classes, sizes, waits_s


@pytest.mark.parametrize(("rates_rps", "timeouts_s", "max_batch"), CASES)
def test_sizes_waits_and_latencies_are_those_of_a_simulated_buffer(
    rates_rps: tuple[float, ...], timeouts_s: tuple[float, ...], max_batch: int
) -> None:
    classes, sizes, waits_s = shared_buffer(rates_rps, timeouts_s, max_batch)
    distribution = class_buffer_distribution(rates_rps, timeouts_s, max_batch=max_batch)
    batches = np.array([(sizes == b).sum() / b for b in range(1, max_batch + 1)])
    assert distribution.sizes == pytest.approx(batches / batches.sum(), abs=0.006)
    services_s = 0.02 + 0.01 * np.arange(1, max_batch + 1)
    latencies_s = waits_s + services_s[sizes - 1]
    for of_class, timeout_s in enumerate(timeouts_s):
        mine = classes == of_class
        for part in (0.0, 0.3, 0.8, 1.0):
            seen = [(mine & (sizes == b) & (waits_s <= part * timeout_s + 1e-9)).sum() for b in range(1, max_batch + 1)]
            within = distribution.within(of_class, np.full((max_batch, 1), part * timeout_s))[:, 0]
            assert within == pytest.approx(np.array(seen) / mine.sum(), abs=0.01)
        for percentile in (0.3, 0.9, 0.99):
            latency_s = distribution.latency_quantile_s(percentile, services_s, of_class=of_class)
            assert (latencies_s[mine] <= latency_s + 1e-9).mean() >= percentile - 0.01
            assert (latencies_s[mine] < latency_s - 1e-9).mean() <= percentile + 0.01


@settings(max_examples=60)
@given(
    rates_rps=st.lists(st.floats(0.1, 100), min_size=1, max_size=4),
    timeout_s=st.one_of(st.just(0.0), st.floats(1e-4, 2)),
    max_batch=st.integers(1, 40),
)
def test_equal_timeouts_are_one_class(rates_rps: list[float], timeout_s: float, max_batch: int) -> None:
    distribution = class_buffer_distribution(rates_rps, [timeout_s] * len(rates_rps), max_batch=max_batch)
    one = PoissonBatchSizes(rate_rps=math.fsum(rates_rps), max_batch=max_batch, timeout_s=timeout_s)
    assert distribution.sizes == pytest.approx(one.sizes, abs=1e-12)
    services_s = [0.1 + 0.01 * b for b in range(1, max_batch + 1)]
    assert distribution.cost_per_request(services_s) == pytest.approx(one.cost_per_request(services_s))
    # Where the rest of the bound is the timeout itself to the last bit, the two may round to different sides of it.
    for latency_s in (0.0, 0.1234567, 0.2345678, 1.0123456):
        wanted = poisson_waits.latency_within(one, latency_s, services_s)
        assert distribution.latency_within([latency_s] * len(rates_rps), services_s) == pytest.approx(
            [wanted] * len(rates_rps), abs=1e-10
        )


@settings(max_examples=100)
@given(
    classes=st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 2)), min_size=1, max_size=6),
    max_batch=st.integers(2, 40),
)
def test_probabilities_sum_to_one_for_every_mixture(classes: list[tuple[float, float]], max_batch: int) -> None:
    rates_rps, timeouts_s = (np.array(values) for values in zip(*classes, strict=True))
    distribution = class_buffer_distribution(rates_rps, timeouts_s, max_batch=max_batch)
    assert distribution.sizes.sum() == pytest.approx(1.0)
    assert distribution.mean_size <= uncapped_mean_size(rates_rps, timeouts_s) * (1 + 1e-9)
    for of_class, timeout_s in enumerate(timeouts_s.tolist()):
        fractions = [
            distribution.within(of_class, np.full((max_batch, 1), part * timeout_s)).sum()
            for part in (0.1, 0.5, 0.9, 1.0)
        ]
        assert all(before <= after + 1e-9 for before, after in zip(fractions, fractions[1:], strict=False))
        # Every request of a class is in some batch: its members by size, counted apart, make up its share of E[b].
        assert fractions[-1] == pytest.approx(1.0, abs=1e-9)
        assert distribution.within(of_class, np.full((max_batch, 1), -1e-6)).sum() == 0.0


@pytest.mark.parametrize(("rates_rps", "timeouts_s", "max_batch"), CASES)
def test_sizes_are_those_of_the_integral_over_closing_times(
    rates_rps: tuple[float, ...], timeouts_s: tuple[float, ...], max_batch: int
) -> None:
    total, taus = sum(rates_rps), np.array(timeouts_s)
    lambdas = np.array(rates_rps)

    def mass(age_s: float) -> float:
        return float((lambdas * np.minimum(age_s, taus)).sum())

    def closing(age_s: float, further: int) -> float:
        ended, alive = lambdas[taus < age_s].sum(), lambdas[taus > age_s].sum() / total
        return float(ended * alive * math.exp(-total * age_s) * mass(age_s) ** further / math.factorial(further))

    sizes = class_sizes(rates_rps, timeouts_s, max_batch=max_batch)
    for size in range(1, min(max_batch, 12)):
        own = [
            rate / total * math.exp(-total * tau) * mass(tau) ** (size - 1) / math.factorial(size - 1)
            for rate, tau in zip(rates_rps, timeouts_s, strict=True)
        ]
        cuts = sorted(set(timeouts_s))
        joined = 0.0
        if size > 1:
            joined = sum(
                scipy.integrate.quad(closing, low, high, args=(size - 2,), epsabs=1e-12)[0]
                for low, high in zip(cuts, cuts[1:], strict=False)
            )
        assert sizes[size - 1] == pytest.approx(sum(own) + joined, abs=1e-10)


def test_a_cap_out_of_reach_leaves_the_mean_without_a_cap() -> None:
    for rates_rps, timeouts_s, _ in CASES:
        distribution = class_buffer_distribution(rates_rps, timeouts_s, max_batch=200)
        assert distribution.mean_size == pytest.approx(float(uncapped_mean_size(rates_rps, timeouts_s)), rel=1e-12)


def test_many_settings_at_once_are_one_after_the_other() -> None:
    rates_rps = np.array([[3.0, 4.0, 5.0]])
    timeouts_s = np.array([[[0.3, 0.1, 0.2]], [[0.0, 0.5, 0.5]]]) + np.array([[0.0], [0.1], [1.0]])
    sizes = class_sizes(rates_rps, timeouts_s, max_batch=6)
    assert sizes.shape == (2, 3, 6)
    for place in np.ndindex(2, 3):
        assert sizes[place] == pytest.approx(class_sizes(rates_rps[0], timeouts_s[place], max_batch=6))
        assert uncapped_mean_size(rates_rps, timeouts_s)[place] == pytest.approx(
            float(uncapped_mean_size(rates_rps[0], timeouts_s[place]))
        )


def test_the_order_in_which_classes_are_named_does_not_matter() -> None:
    distribution = class_buffer_distribution([10.0, 5.0, 7.0], [0.3, 0.1, 0.2], max_batch=5)
    other = class_buffer_distribution([5.0, 7.0, 10.0], [0.1, 0.2, 0.3], max_batch=5)
    services_s, bounds_s = np.full(5, 0.1), [0.3, 0.15, 0.2]
    fractions = distribution.latency_within(bounds_s, services_s)
    assert other.latency_within([bounds_s[i] for i in (1, 2, 0)], services_s) == pytest.approx(fractions[[1, 2, 0]])


def test_worst_case_timeouts_hold_every_bound_to_the_last_bit() -> None:
    services_s = [0.1 + 0.07 * b for b in range(1, 6)]
    slos_s = [0.6, 0.7, 1.1]
    distribution = class_buffer_distribution(
        [20.0, 3.0, 4.0], [slo_s - services_s[-1] for slo_s in slos_s], max_batch=5
    )
    assert distribution.latency_within(slos_s, services_s) == pytest.approx(1.0, abs=1e-12)
    tighter = distribution.latency_within([slo_s - 1e-6 for slo_s in slos_s], services_s)
    # A class whose timeout is never waited for in a full batch may lose next to nothing; none gains.
    assert (tighter <= 1 + 1e-12).all()


def test_noise_mixes_the_distributions_of_its_factors() -> None:
    distribution, services_s = (
        class_buffer_distribution([20.0, 3.0], [0.1, 0.3], max_batch=4),
        np.array([0.1, 0.13, 0.15, 0.2]),
    )
    few = EmpiricalNoise((0.5, 1.25))
    bounds_s = [0.21, 0.33]
    mixed = np.mean([distribution.latency_within(bounds_s, services_s * factor) for factor in few.factors], axis=0)
    assert distribution.latency_within(bounds_s, services_s, few) == pytest.approx(mixed)
    assert distribution.latency_within(bounds_s, services_s, LognormalNoise(1e-6)) == pytest.approx(
        distribution.latency_within(bounds_s, services_s), abs=1e-5
    )


@pytest.mark.parametrize(
    ("rates_rps", "timeouts_s", "max_batch", "sentence"),
    [
        ([], [], 1, "there must be a class"),
        ([0.0], [1.0], 2, "rates_rps must be above 0"),
        ([1.0], [-1.0], 2, "timeouts_s must be at least 0"),
        ([1.0], [math.inf], 2, "timeouts_s must be"),
        ([1.0], [1.0], 0, "max_batch must be at least 1"),
    ],
)
def test_what_is_no_shared_buffer_is_refused(
    rates_rps: list[float], timeouts_s: list[float], max_batch: int, sentence: str
) -> None:
    with pytest.raises(ArrivalError, match=sentence):
        class_buffer_distribution(rates_rps, timeouts_s, max_batch=max_batch)

"""Markovian classes with timeouts of their own in one buffer: against Poisson classes, one class, and simulation."""

import numpy as np
import pytest
from support.distributions.class_buffers import class_buffer_distribution
from support.distributions.marked_buffers import marked_buffer_distribution

from scheduler.planner.queueing.map_batching import buffer_distribution
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2, poisson_arrivals
from scheduler.planner.queueing.map_sampling import ArrivalStream

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))
SILENT = mmpp2(rates_rps=(0.0, 30.0), leave_per_s=(2.0, 3.0))
ALTERNATING = MarkovianArrivals(d0=((-12.0, 2.0), (1.0, -61.0)), d1=((1.0, 9.0), (50.0, 10.0)))


@pytest.mark.parametrize(
    ("rates_rps", "timeouts_s", "max_batch"),
    [
        ((10.0, 20.0), (0.05, 0.2), 5),
        ((10.0, 20.0), (0.2, 0.05), 2),
        ((10.0, 5.0, 30.0, 2.0), (0.1, 0.2, 0.0, 0.5), 8),
        ((3.0, 4.0), (0.2, 0.2), 3),
        ((3.0, 4.0), (0.2, 0.1), 1),
    ],
)
def test_poisson_classes_have_their_closed_form(
    rates_rps: tuple[float, ...], timeouts_s: tuple[float, ...], max_batch: int
) -> None:
    distribution = marked_buffer_distribution(
        [poisson_arrivals(rate) for rate in rates_rps], timeouts_s, max_batch=max_batch
    )
    closed = class_buffer_distribution(rates_rps, timeouts_s, max_batch=max_batch)
    assert distribution.sizes == pytest.approx(closed.sizes, abs=1e-13)
    services_s = 0.1 + 0.02 * np.arange(max_batch)
    assert distribution.cost_per_request(services_s) == pytest.approx(closed.cost_per_request(services_s))
    for of_class in range(len(rates_rps)):
        every = closed.within(of_class, np.full((max_batch, 1), 9.0))[:, 0]
        per_batch = closed.mean_size * rates_rps[of_class] / sum(rates_rps)
        for wait_s in (0.0, 0.03, 0.05, 0.17, 0.2, 0.4):
            late = every - closed.within(of_class, np.full((max_batch, 1), wait_s))[:, 0]
            assert distribution.late(of_class, wait_s) == pytest.approx(late * per_batch, abs=1e-12)
        for latency_s in (0.05, 0.1, 0.15, 0.31):
            assert distribution.class_latency_within(of_class, latency_s, services_s) == pytest.approx(
                closed.class_latency_within(of_class, latency_s, services_s), abs=1e-12
            )


@pytest.mark.parametrize("max_batch", [1, 2, 12])
def test_equal_timeouts_are_one_superposed_class(max_batch: int) -> None:
    distribution = marked_buffer_distribution([BURSTY, SILENT], [0.2, 0.2], max_batch=max_batch)
    one = buffer_distribution(BURSTY.superposed(SILENT), max_batch=max_batch, timeout_s=0.2)
    assert distribution.sizes == pytest.approx(one.sizes, abs=1e-13)
    services_s = 0.1 + 0.01 * np.arange(max_batch)
    fractions = [distribution.class_latency_within(of_class, 0.25, services_s) for of_class in (0, 1)]
    mixed = np.average(fractions, weights=[BURSTY.rate_rps, SILENT.rate_rps])
    assert mixed == pytest.approx(one.latency_within(0.25, services_s), abs=1e-12)


def test_sizes_and_waits_are_those_of_a_simulated_buffer() -> None:
    processes, timeouts_s, max_batch, requests = (BURSTY, ALTERNATING), (0.12, 0.04), 6, 200_000
    distribution = marked_buffer_distribution(processes, timeouts_s, max_batch=max_batch)
    draws_s = [
        np.cumsum(ArrivalStream(process, np.random.default_rng(seed)).gaps_s(requests))
        for seed, process in enumerate(processes)
    ]
    end_s = min(times_s[-1] for times_s in draws_s)
    times_s = np.concatenate(draws_s)
    classes = np.repeat([0, 1], requests)
    order = np.argsort(times_s)[: int((times_s < end_s).sum())]
    times_s, classes = times_s[order], classes[order]
    arrivals, runs_out = times_s.tolist(), (times_s + np.array(timeouts_s)[classes]).tolist()
    sizes, waits_s, first, count = np.empty(len(order), dtype=np.int64), np.empty(len(order)), 0, len(order)
    while first < count:
        closes_s, after = runs_out[first], first + 1
        while after < count and after - first < max_batch and arrivals[after] <= closes_s:
            closes_s = min(closes_s, runs_out[after])
            after += 1
        if after - first == max_batch:
            closes_s = arrivals[after - 1]
        sizes[first:after], waits_s[first:after] = after - first, closes_s - times_s[first:after]
        first = after
    batches = np.array([(sizes == b).sum() / b for b in range(1, max_batch + 1)])
    assert distribution.sizes == pytest.approx(batches / batches.sum(), abs=0.006)
    for of_class, timeout_s in enumerate(timeouts_s):
        for wait_s in (-1.0, 0.0, 0.3 * timeout_s, 0.9 * timeout_s):
            late = (classes == of_class) & (waits_s > wait_s)
            seen = np.array([(late & (sizes == b)).sum() for b in range(1, max_batch + 1)]) / batches.sum()
            assert distribution.late(of_class, wait_s) == pytest.approx(seen, abs=0.015)


def test_every_request_is_in_some_batch() -> None:
    processes = [BURSTY, SILENT, poisson_arrivals(5.0)]
    distribution = marked_buffer_distribution(processes, [0.1, 0.3, 0.0], max_batch=7)
    total_rps = sum(process.rate_rps for process in processes)
    for of_class, process in enumerate(processes):
        share = distribution.mean_size * process.rate_rps / total_rps
        assert distribution.late(of_class, -1.0).sum() == pytest.approx(share, rel=1e-10)


def test_what_is_no_shared_buffer_is_refused() -> None:
    with pytest.raises(ArrivalError, match="at least one class"):
        marked_buffer_distribution([], [], max_batch=2)
    with pytest.raises(ArrivalError, match="more than 64 together; use Poisson classes"):
        marked_buffer_distribution([BURSTY] * 7, [0.1] * 7, max_batch=2)
    with pytest.raises(ArrivalError, match="one timeout for each of the 2 classes"):
        marked_buffer_distribution([BURSTY] * 2, [0.1], max_batch=2)
    with pytest.raises(ArrivalError, match="timeout_s must be at least 0"):
        marked_buffer_distribution([BURSTY] * 2, [0.1, -0.1], max_batch=2)
    with pytest.raises(ArrivalError, match="max_batch must be at least 1"):
        marked_buffer_distribution([BURSTY], [0.1], max_batch=0)

"""The grid of buffers against one buffer at a time."""

import numpy as np
import pytest

from scheduler.planner.queueing.map_batching import buffer_distribution
from scheduler.planner.queueing.map_batching_grid import buffer_grid
from scheduler.planner.queueing.map_process import ArrivalError, MarkovianArrivals, mmpp2, poisson_arrivals

BURSTY = mmpp2(rates_rps=(10.0, 80.0), leave_per_s=(1.0, 3.0))
ALTERNATING = MarkovianArrivals(d0=((-12.0, 2.0), (1.0, -61.0)), d1=((1.0, 9.0), (50.0, 10.0)))
SERVICES = {
    "off the grid": 0.1 + 0.0213 * np.arange(1, 41),
    "on the grid": 0.05 * np.arange(1, 41),
    "constant": np.full(40, 0.1),
    "falling": 0.9 / np.arange(1, 41),
}


@pytest.mark.parametrize("process", [BURSTY, ALTERNATING, poisson_arrivals(40.0), BURSTY.superposed(ALTERNATING)])
@pytest.mark.parametrize("services", SERVICES)
def test_every_buffer_of_a_grid_is_the_one_buffer(process: MarkovianArrivals, services: str) -> None:
    services_s, places = SERVICES[services], [(0, 1), (0, 7), (1, 2), (1, 40), (4, 3), (11, 12), (20, 1), (20, 40)]
    grid = buffer_grid(process, max_batch=40, step_s=0.05, steps=20)
    distributions = {
        place: buffer_distribution(process, max_batch=place[1], timeout_s=float(grid.timeouts_s[place[0]]))
        for place in places
    }
    for (step, cap), distribution in distributions.items():
        assert grid.sizes(cap)[step] == pytest.approx(distribution.sizes, abs=1e-12)
        assert grid.mean_sizes[step, cap - 1] == pytest.approx(distribution.mean_size)
    for latency_s in (0.0, 0.15, 0.3, 0.62, 1.4):
        fractions = grid.latency_within(latency_s, services_s)
        for (step, cap), distribution in distributions.items():
            wanted = distribution.latency_within(latency_s, services_s[:cap])
            assert fractions[step, cap - 1] == pytest.approx(wanted, abs=1e-11)


def test_caps_that_are_asked_for_are_those_of_all() -> None:
    grid = buffer_grid(BURSTY, max_batch=12, step_s=0.03, steps=10)
    services_s = 0.1 + 0.01 * np.arange(1, 13)
    every = grid.latency_within(0.3, services_s)
    assert grid.latency_within(0.3, services_s, caps=[9, 1, 4]) == pytest.approx(every[:, [8, 0, 3]], abs=1e-14)


def test_no_request_is_late_up_to_the_wait_that_is_left_and_then_the_first_of_each_batch_is() -> None:
    grid = buffer_grid(BURSTY, max_batch=8, step_s=0.01, steps=40)
    # A wait of 0.2 s is left, a little less in the second case.
    assert grid.latency_within(0.3, np.full(8, 0.1))[:21] == pytest.approx(1.0, abs=1e-14)
    late = 1 - grid.latency_within(0.3 - 1e-7, np.full(8, 0.1))[20, 1:]
    timed_out = np.array([grid.sizes(cap)[20, :-1].sum() for cap in range(2, 9)])
    assert late == pytest.approx(timed_out / grid.mean_sizes[20, 1:], abs=1e-5)


def test_steps_that_hold_far_more_arrivals_than_any_cap_are_no_exception() -> None:
    process, services_s = poisson_arrivals(1000.0), np.array([0.01, 0.012, 0.014])
    grid = buffer_grid(process, max_batch=3, step_s=50.0, steps=2)
    distribution = buffer_distribution(process, max_batch=3, timeout_s=100.0)
    for latency_s in (0.0135, 0.0142, 1.0):
        wanted = distribution.latency_within(latency_s, services_s)
        assert grid.latency_within(latency_s, services_s)[2, 2] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(
    ("max_batch", "step_s", "steps", "sentence"),
    [(0, 0.1, 3, "max_batch"), (2, 0.0, 3, "step_s must be above 0"), (2, 0.1, 0, "steps at least 1")],
)
def test_what_is_no_grid_is_refused(max_batch: int, step_s: float, steps: int, sentence: str) -> None:
    with pytest.raises(ArrivalError, match=sentence):
        buffer_grid(BURSTY, max_batch=max_batch, step_s=step_s, steps=steps)


def test_caps_off_the_grid_are_refused() -> None:
    grid = buffer_grid(BURSTY, max_batch=3, step_s=0.1, steps=2)
    for call in (lambda: grid.sizes(4), lambda: grid.latency_within(1.0, [0.1] * 3, caps=[0])):
        with pytest.raises(ArrivalError, match="cap must be"):
            call()

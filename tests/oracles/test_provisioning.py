"""How many warm instances pay: the chain of phase and pool against closed forms and a simulation of instances."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from scheduler.planner.functions.provisioning import (
    BatchTraffic,
    InstancePrices,
    WarmProblem,
    cheapest,
    cycle_traffic,
    erlang_loss,
    map_traffic,
    poisson_traffic,
    upkeep,
)
from scheduler.planner.queueing.map_process import MarkovianArrivals

PRICES = InstancePrices(idle_per_s=1.0, per_start=2.0, start_s=2.0, kept_s=60.0, max_instances=200)


def problem(traffic: BatchTraffic, *, max_late_per_s: float = math.inf, **changed: float) -> WarmProblem:
    return WarmProblem(traffic, replace(PRICES, **changed), late_if_cold=1.0, max_late_per_s=max_late_per_s)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Simulated:
    idle: float
    starts_per_s: float
    late_per_s: float


def simulate(
    traffic: BatchTraffic, prices: InstancePrices, count: int, *, seconds: float, seed: int, sigma: float
) -> Simulated:
    """Simulates each instance: provisioned ones are taken first, then the one that was used last.

    Services are lognormal with this sigma; none is exponential, which the closed forms do not need either.
    """
    rng = np.random.default_rng(seed)
    leaving = traffic.changes.sum(axis=1) - np.diag(traffic.changes)
    phase, now_s, next_phase_s = 0, 0.0, 0.0
    free_at = [0.0] * count
    starts = waits = 0
    busy_s = 0.0
    while now_s < seconds:
        while now_s >= next_phase_s:
            if next_phase_s > 0:
                chances = np.where(np.arange(len(leaving)) == phase, 0.0, traffic.changes[phase])
                phase = int(rng.choice(len(leaving), p=chances / chances.sum()))
            next_phase_s += rng.exponential(1 / leaving[phase]) if leaving[phase] > 0 else seconds * 2
        rate = traffic.batches_per_s[phase]
        gap_s = rng.exponential(1 / rate) if rate > 0 else math.inf
        if now_s + gap_s > next_phase_s:
            # Both are memoryless, so the arrival is drawn anew in the next phase.
            now_s = next_phase_s
            continue
        now_s += gap_s
        service_s = traffic.service_s[phase] * math.exp(sigma * rng.standard_normal() - sigma**2 / 2)
        free_at[count:] = [each for each in free_at[count:] if each > now_s or now_s - each < prices.kept_s]
        idle = [number for number, at_s in enumerate(free_at) if at_s <= now_s]
        if idle and idle[0] < count:
            chosen = idle[0]
        elif idle:
            chosen = max(idle, key=lambda number: free_at[number])
        elif len(free_at) < prices.max_instances:
            free_at.append(now_s + prices.start_s + service_s)
            starts += 1
            continue
        else:
            # It is lost, as in Erlang's system; a real one waits, and is late as well.
            waits += 1
            continue
        free_at[chosen] = now_s + service_s
        busy_s += service_s if chosen < count else 0.0
    return Simulated(count - busy_s / seconds, starts / seconds, (starts + waits) / seconds)


@pytest.mark.parametrize("load", [0.0, 0.3, 4.0, 60.0])
def test_erlangs_losses_are_those_of_his_formula(load: float) -> None:
    for servers in (0, 1, 7):
        weights = [load**k / math.factorial(k) for k in range(servers + 1)]
        assert erlang_loss(servers, np.array([load]))[servers, 0] == pytest.approx(weights[-1] / sum(weights))


def test_a_full_set_of_provisioned_instances_is_erlangs_system() -> None:
    traffic = poisson_traffic(batches_per_s=5.0, service_s=0.8)
    found = upkeep(problem(traffic, max_instances=6), 6)
    loss = erlang_loss(6, np.array([4.0]))[6, 0]
    assert found.late_per_s == pytest.approx(5.0 * loss)
    assert found.idle_per_s == pytest.approx(6 - 4.0 * (1 - loss))
    assert found.starts_per_s == 0.0


def test_ample_instances_are_the_infinite_server_system() -> None:
    """M/G/infinity: the mean number in service is the load, and none waits."""
    found = upkeep(problem(poisson_traffic(batches_per_s=5.0, service_s=0.8)), 40)
    assert found.idle_per_s == pytest.approx(40 - 4.0)
    assert found.late_per_s < 1e-12


def test_rare_batches_start_an_instance_each_time_that_the_last_one_is_gone() -> None:
    """One batch in 200 s on average, kept for 60 s: a gap is longer with probability exp(-60 / 200)."""
    traffic = poisson_traffic(batches_per_s=1 / 200, service_s=0.01)
    found = upkeep(problem(traffic, start_s=0.01), 0)
    assert found.starts_per_s == pytest.approx(math.exp(-60 / 200) / 200, rel=0.02)


@pytest.mark.parametrize(
    ("batches_per_s", "service_s", "count", "sigma"),
    [(0.01, 0.5, 0, 0.3), (0.3, 1.0, 0, 0.3), (0.3, 1.0, 1, 0.3), (2.0, 1.0, 3, 0.0), (6.0, 0.7, 4, 0.5)],
)
def test_steady_traffic_starts_as_many_instances_as_in_a_simulation(
    batches_per_s: float, service_s: float, count: int, sigma: float
) -> None:
    traffic = poisson_traffic(batches_per_s=batches_per_s, service_s=service_s)
    seconds = max(20_000.0, 2_000 / batches_per_s) if batches_per_s < 1 else 20_000.0
    seen = simulate(traffic, PRICES, count, seconds=seconds, seed=3, sigma=sigma)
    found = upkeep(problem(traffic), count)
    assert found.idle_per_s == pytest.approx(seen.idle, rel=0.03, abs=0.02)
    # Few starts are seen; their number scatters by its root.
    tolerance = 0.2 * seen.starts_per_s + 3 * math.sqrt(seen.starts_per_s * seconds + 1) / seconds
    assert found.starts_per_s == pytest.approx(seen.starts_per_s, abs=tolerance)


BURSTS = cycle_traffic(
    [
        (300.0, poisson_traffic(batches_per_s=0.02, service_s=0.6)),
        (60.0, poisson_traffic(batches_per_s=12.0, service_s=0.6)),
    ]
)
"""A minute of 7.2 batches in service, then five minutes of nearly none, in which the platform removes the instances."""


@pytest.mark.parametrize("count", [0, 4, 8, 12])
def test_bursts_start_as_many_instances_as_in_a_simulation(count: int) -> None:
    seen = simulate(BURSTS, PRICES, count, seconds=60_000.0, seed=5, sigma=0.3)
    found = upkeep(problem(BURSTS), count)
    # The simulation sees 167 bursts of random length: 8 % of scatter.
    assert found.idle_per_s == pytest.approx(seen.idle, rel=0.05)
    assert found.late_per_s == pytest.approx(seen.late_per_s, rel=0.25, abs=0.003)


def test_the_proposal_is_what_the_simulation_would_choose() -> None:
    rate = BURSTS.mean_batches_per_s
    for part in (0.02,):
        proposed = cheapest(problem(BURSTS, max_late_per_s=part * rate)).count
        needed = next(
            count
            for count in range(40)
            if simulate(BURSTS, PRICES, count, seconds=25_000.0, seed=7, sigma=0.3).late_per_s <= part * rate
        )
        assert abs(proposed - needed) <= 2


def test_the_cheapest_is_the_cheapest_of_all_that_are_in_time() -> None:
    for per_start in (0.1, 30.0, 3_000.0):
        for max_late_per_s in (math.inf, 0.05):
            asked = problem(BURSTS, max_late_per_s=max_late_per_s, per_start=per_start)
            everything = [upkeep(asked, count) for count in range(31)]
            in_time = [each for each in everything if each.late_per_s <= max_late_per_s]
            assert cheapest(asked) == min(in_time, key=lambda each: each.cost_per_s)


def test_steady_traffic_keeps_its_instances_warm_and_needs_none() -> None:
    busy = poisson_traffic(batches_per_s=14.0, service_s=0.65)
    assert cheapest(problem(busy, max_late_per_s=0.14)).count == 0


def test_instances_that_are_cheap_while_idle_replace_dear_starts() -> None:
    rare = poisson_traffic(batches_per_s=1 / 200, service_s=0.5)
    assert cheapest(problem(rare, per_start=1_000.0)).count == 1
    assert cheapest(problem(rare, per_start=1.0)).count == 0


def test_a_bound_that_no_number_keeps_gives_the_smallest_that_comes_as_near_as_all() -> None:
    busy = poisson_traffic(batches_per_s=14.0, service_s=0.65)
    # Nine instances for 9.1 in service: without starts beyond them, all of them are needed.
    assert cheapest(problem(busy, max_late_per_s=0.0, max_instances=9, start_s=1e6)).count == 9


def test_a_markovian_process_is_thinned_to_its_batches() -> None:
    process = MarkovianArrivals(d0=((-11.0, 1.0), (3.0, -53.0)), d1=((10.0, 0.0), (0.0, 50.0)))
    traffic = map_traffic(process, mean_batch=4.0, service_s=0.5)
    assert traffic.parts.tolist() == pytest.approx([0.75, 0.25])
    assert traffic.mean_batches_per_s == pytest.approx(20.0 / 4)
    assert traffic.loads.tolist() == pytest.approx([1.25, 6.25])


def test_a_cycle_spends_its_time_as_told() -> None:
    parts = BURSTS.parts
    assert parts.tolist() == pytest.approx([300 / 360, 60 / 360])
    three = cycle_traffic([(held_s, poisson_traffic(batches_per_s=1.0, service_s=1.0)) for held_s in (1.0, 2.0, 5.0)])
    assert three.parts.tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_large_pools_are_taken_in_steps() -> None:
    traffic = poisson_traffic(batches_per_s=900.0, service_s=0.5)
    found = cheapest(problem(traffic, max_late_per_s=0.01, max_instances=1024))
    assert 0 <= found.count <= 1024
    full = upkeep(problem(traffic, max_instances=1024), 600)
    assert full.late_per_s < 1e-6

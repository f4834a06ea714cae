"""What is believed of warm instances, held against pools whose instances are known."""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pytest

from scheduler.domain.batches import BatchReport
from scheduler.estimators.warm_instances import WarmInstances
from scheduler.estimators.warming import Warming, warming_due
from scheduler.simulator.backends import ColdStarts, InstancePool

START_S, SERVICE_S, RTT_S = 2.0, 0.8, 0.1


@dataclass
class NamedPool:
    """Instances with names, some always there; the one that has been idle longest is taken first."""

    idle_s: float
    provisioned: int
    started: int = 0
    free: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.free = [(0.0, f"provisioned-{number}") for number in range(self.provisioned)]

    def start(self, at_s: float) -> tuple[float, str]:
        """Seconds until an instance serves a request that comes now, and its name."""
        self.free = [(s, name) for s, name in self.free if name[0] == "p" or s > at_s - self.idle_s]
        idle = [entry for entry in self.free if entry[0] <= at_s]
        if idle:
            self.free.remove(min(idle))
            return 0.0, min(idle)[1]
        self.started += 1
        return START_S, f"new-{self.started}"

    def release(self, free_at_s: float, name: str) -> None:
        self.free.append((free_at_s, name))


class Anonymous:
    """The simulator's pool, which tells no names, with the face of the other."""

    def __init__(self, idle_s: float, start_s: float = START_S) -> None:
        self.pool = InstancePool(ColdStarts(start_s, idle_s))

    def start(self, at_s: float) -> tuple[float, str]:
        return self.pool.start_s(at_s), ""

    def release(self, free_at_s: float, name: str) -> None:
        self.pool.release(free_at_s)


class World:
    """Batches sent to a pool, and what the estimator hears of them."""

    def __init__(self, pool: NamedPool | Anonymous, warm: WarmInstances) -> None:
        self.pool, self.warm = pool, warm
        self.back: list[tuple[float, int, BatchReport]] = []
        self.batches = 0

    def hear(self, now_s: float) -> None:
        while self.back and self.back[0][0] <= now_s:
            at_s, batch_id, report = heapq.heappop(self.back)
            self.warm.came_back(batch_id, report, now_s=at_s, expected_path_s=RTT_S)

    def send(self, now_s: float, service_s: float = SERVICE_S) -> bool:
        """Sends a batch and returns whether it met a cold start."""
        self.batches += 1
        self.warm.sent(self.batches, now_s=now_s)
        start_s, name = self.pool.start(now_s + RTT_S / 2)
        self.pool.release(now_s + RTT_S / 2 + start_s + service_s, name)
        elapsed_s = RTT_S + start_s + service_s
        report = BatchReport(elapsed_s, service_s=service_s, cold_start=start_s > 0, instance_id=name)
        heapq.heappush(self.back, (now_s + elapsed_s, self.batches, report))
        return start_s > 0


def forecasts(world: World, gaps_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Rows of (probability of a cold start as forecast, whether there was one)."""
    rows, now_s = [], 0.0
    for gap_s in gaps_s.tolist():
        now_s += gap_s
        world.hear(now_s)
        rows.append((world.warm.cold_probability(now_s), float(world.send(now_s))))
    return np.array(rows)


def gaps(mean_s: float, count: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).exponential(mean_s, count)


@pytest.mark.parametrize("idle_s", [60.0, 240.0, 900.0])
@pytest.mark.parametrize("mean_gap_s", [0.5, 20.0, 120.0, 400.0])
def test_forecast_cold_starts_are_as_frequent_as_those_that_happen(idle_s: float, mean_gap_s: float) -> None:
    rows = forecasts(World(Anonymous(idle_s), WarmInstances()), gaps(mean_gap_s, 1500))
    forecast, happened = rows.mean(axis=0)
    # Three standard errors of what happened, and five batches at which the idle time was still being learned.
    tolerance = 3 * math.sqrt(happened * (1 - happened) / len(rows)) + 5 / len(rows)
    assert abs(forecast - happened) < tolerance
    # Where cold starts matter at all, it is known which batches meet one.
    if happened > 0.05:
        assert ((rows[:, 0] - rows[:, 1]) ** 2).mean() < 0.15 * happened * (1 - happened)


def test_forecasts_of_each_size_come_true_as_often_as_they_say() -> None:
    rows = np.concatenate(
        [
            forecasts(World(Anonymous(idle_s), WarmInstances()), gaps(mean_s, 400, seed))
            for seed, (idle_s, mean_s) in enumerate([(120.0, 150.0), (300.0, 250.0), (900.0, 500.0)] * 4)
        ]
    )
    for low, high, tolerance in ((0.0, 0.05, 0.02), (0.05, 0.5, 0.15), (0.5, 0.9, 0.15), (0.9, 1.01, 0.02)):
        chosen = rows[(rows[:, 0] >= low) & (rows[:, 0] < high)]
        assert len(chosen) > 30
        assert abs(chosen[:, 0].mean() - chosen[:, 1].mean()) < tolerance


def test_instances_known_by_name_are_told_apart_whichever_is_taken_first() -> None:
    rows = forecasts(World(NamedPool(240.0, 0), WarmInstances()), gaps(60.0, 1500))
    forecast, happened = rows.mean(axis=0)
    assert abs(forecast - happened) < 0.02
    assert ((rows[:, 0] - rows[:, 1]) ** 2).mean() < 0.2 * happened * (1 - happened)


def test_provisioned_instances_are_recognised_and_never_feared() -> None:
    world = World(NamedPool(60.0, provisioned=2), WarmInstances())
    rows = forecasts(world, gaps(100.0, 300))
    assert rows[:, 1].sum() == 0
    assert rows[20:, 0].max() < 0.01


def test_where_nothing_ever_starts_cold_the_fear_of_it_is_gone_after_a_few_batches() -> None:
    world = World(Anonymous(math.inf, start_s=0.0), WarmInstances())
    rows = forecasts(world, gaps(0.02, 600))
    # Forty are sent before the first is back.
    assert rows[40:, 0].sum() < 5
    assert rows[300:, 0].mean() < 0.01


def test_a_platform_that_becomes_quicker_to_reclaim_is_noticed() -> None:
    world = World(Anonymous(600.0), WarmInstances())
    forecasts(world, gaps(300.0, 150))
    assert world.warm.idle_time.survives(400.0) > 0.9
    world.pool = Anonymous(120.0)
    now_s = world.back[0][0] + 1.0
    for gap_s in gaps(300.0, 150, seed=1).tolist():
        now_s += gap_s
        world.hear(now_s)
        world.send(now_s)
    assert world.warm.idle_time.survives(400.0) < 0.1


def test_the_seconds_of_a_cold_start_are_learned() -> None:
    world = World(Anonymous(60.0), WarmInstances(prior_start_s=10.0))
    forecasts(world, gaps(200.0, 60))
    assert world.warm.start_s(0.5) == pytest.approx(START_S, rel=0.15)
    assert world.warm.start_s(0.99) < 1.6 * START_S


@dataclass
class Policy:
    """How warming calls are decided: by price, never, or so that one instance is always warm."""

    kind: str
    rate: float
    call_cost: float
    lateness_cost: float

    def decide(self, warm: WarmInstances, now_s: float, idle_s: float) -> Warming:
        if self.kind == "never":
            return Warming(0, math.inf)
        if self.kind == "always":
            latest_s = max(warm.idle_since_s(), default=-math.inf) + 0.9 * idle_s
            due = not warm.busy and latest_s <= now_s
            return Warming(int(due), now_s + 1.0 if due or warm.busy else latest_s)
        return warming_due(
            warm,
            now_s=now_s,
            batches_per_s=self.rate,
            service_s=SERVICE_S,
            call_cost=self.call_cost,
            lateness_cost=self.lateness_cost,
        )


def money(policy: Policy, times_s: npt.NDArray[np.float64], idle_s: float = 240.0) -> float:
    """What warming calls and cold starts cost together over a run."""
    world, spent = World(Anonymous(idle_s), WarmInstances()), 0.0
    for now_s, is_batch in moments(policy, world, times_s, idle_s):
        if is_batch:
            spent += policy.lateness_cost * world.send(now_s)
            continue
        for _ in range(policy.decide(world.warm, now_s, idle_s).calls):
            world.send(now_s, service_s=0.001)
            spent += policy.call_cost
    return spent


def moments(
    policy: Policy, world: World, times_s: npt.NDArray[np.float64], idle_s: float
) -> Iterator[tuple[float, bool]]:
    """Batches, and between them the times at which the policy wants to look again."""
    now_s = 0.0
    for at_s in times_s.tolist():
        while True:
            world.hear(now_s)
            # Answers on their way tell of instances that are about to become idle.
            look_s = policy.decide(world.warm, now_s, idle_s).look_again_at_s
            look_s = min(max(look_s, now_s + 0.5), world.back[0][0] if world.back else math.inf)
            if look_s >= at_s:
                break
            now_s = look_s
            world.hear(now_s)
            yield now_s, False
        now_s = at_s
        world.hear(now_s)
        yield now_s, True


@pytest.mark.parametrize("mean_gap_s", [30.0, 300.0, 3000.0, 30_000.0])
@pytest.mark.parametrize("price_ratio", [3.0, 30.0, 300.0])
def test_warming_is_no_dearer_than_never_or_always_doing_it(mean_gap_s: float, price_ratio: float) -> None:
    """Price ratio: a cold start's lateness over a warming call."""
    times_s = np.cumsum(gaps(mean_gap_s, 60 if mean_gap_s > 3000 else 300, seed=7))
    costs = {
        kind: money(Policy(kind, 1 / mean_gap_s, call_cost=1.0, lateness_cost=price_ratio), times_s)
        for kind in ("by price", "never", "always")
    }
    # A tenth, and what the first batches pay until the idle time is known.
    assert costs["by price"] <= 1.1 * min(costs["never"], costs["always"]) + 5 * price_ratio, costs


def test_warming_saves_where_a_cold_start_is_dear_and_traffic_is_thin() -> None:
    times_s = np.cumsum(gaps(600.0, 300, seed=3))
    costs = {
        kind: money(Policy(kind, 1 / 600.0, call_cost=1.0, lateness_cost=100.0), times_s)
        for kind in ("by price", "never")
    }
    assert costs["by price"] < 0.25 * costs["never"], costs


def test_a_burst_on_provisioned_instances_is_no_occasion_for_warming_calls() -> None:
    """They never cool, and no further one is called into being, however dear a cold start would be."""
    world, calls = World(NamedPool(240.0, provisioned=2), WarmInstances()), 0
    for now_s in np.cumsum(gaps(0.4, 300, seed=5)).tolist():
        world.hear(now_s)
        if world.warm.busy < 2:
            world.send(now_s, service_s=0.5)
        terms = {"batches_per_s": 2.5, "service_s": 0.5, "call_cost": 1e-6, "lateness_cost": 1e-3}
        calls += warming_due(world.warm, now_s=now_s, **terms).calls
    assert calls == 0

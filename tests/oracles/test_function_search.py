"""The search for functions against trying everything, on small grids and random applications."""

import numpy as np
import pytest
from support.exhaustive_planning import cheapest, cheapest_grouping

from scheduler.planner.catalogue.configurations import Configurations, Family
from scheduler.planner.catalogue.function_profile import FunctionProfile
from scheduler.planner.catalogue.latency_models import ExponentialLatency, SliceLatency, TableLatency
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.cost_bounds import space_of
from scheduler.planner.functions.grouping import best_grouping, segment_bounds
from scheduler.planner.functions.problem import Application, PlanningProblem
from scheduler.planner.functions.shared_buffer_search import Choice, percentile, worst_case
from scheduler.planner.functions.solve import plan_functions
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer

SHEET = load_sheet("fc2-gpu-1ms-cny")


def families(rng: np.random.Generator) -> tuple[Family, ...]:
    """A few CPU and GPU configurations with random latency models."""
    vcpu = np.array([0.5, 1.0, 2.0, 4.0])
    scale = float(rng.uniform(0.3, 1.5))
    rows = tuple((scale * 2.0 * b**0.9, 0.5, scale * 0.15 * b) for b in range(1, 4))
    slower = tuple((1.2 * a, g, 1.3 * c) for a, g, c in rows)
    memory_gb = np.maximum(0.5 + 0.1 * np.arange(1, 4), vcpu[:, None])
    cpu = Family("cpu", ExponentialLatency(rows, slower), vcpu, np.zeros(4), memory_gb, np.full(4, 3.0))
    gpu_gb = np.array([1.0, 3.0, 8.0])
    latency = SliceLatency(
        slope_s=float(rng.uniform(0.001, 0.01)),
        constant_s=float(rng.uniform(0.001, 0.02)),
        slice_s=0.002,
        card_gb=24,
        worst_factor=1.2,
    )
    gpu = Family("gpu", latency, gpu_gb / 3, gpu_gb, np.full((3, 7), 0.5), np.array([3.0, 7.0, 7.0]))
    return cpu, gpu


def drawn(seed: int, *, applications: int) -> tuple[FunctionProfile, tuple[Configurations, ...], SharedBuffer]:
    rng = np.random.default_rng(seed)
    profile = FunctionProfile("random", "drawn", "today", families(rng))
    slos_s = np.sort(rng.uniform(0.4, 2.0, applications))
    return profile, profile.tabulated(SHEET), SharedBuffer(slos_s, rng.uniform(0.3, 12, applications))


@pytest.mark.parametrize("seed", range(6))
def test_the_worst_case_search_finds_what_trying_everything_finds(seed: int) -> None:
    _, configurations, buffer = drawn(seed, applications=1 + seed % 3)
    found = worst_case(space_of(configurations), buffer)
    best = cheapest(configurations, buffer, None)
    assert (found.cost if found else np.inf) == pytest.approx(best, rel=1e-7)


@pytest.mark.parametrize("reserve_full_batch", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_the_percentile_search_finds_what_trying_everything_finds(seed: int, reserve_full_batch: bool) -> None:
    _, configurations, buffer = drawn(10 + seed, applications=1 + seed % 3)
    wanted = np.array([0.9, 0.99, 0.95][: len(buffer.slos_s)])
    space = space_of(configurations, reserve_full_batch=reserve_full_batch)
    found, certain = percentile(space, buffer, wanted), worst_case(space, buffer)
    best = cheapest(configurations, buffer, wanted.tolist(), reserve_full_batch=reserve_full_batch)
    assert (found.cost if found else np.inf) == pytest.approx(best, rel=1e-6)
    assert found is None or certain is None or found.cost <= certain.cost


@pytest.mark.parametrize(("seed", "objective"), [(20, "worst-case"), (21, "worst-case"), (22, "percentile")])
def test_the_grouping_is_the_best_of_all_contiguous_ones(seed: int, objective: str) -> None:
    profile, configurations, buffer = drawn(seed, applications=4)
    apps = tuple(
        Application(f"a{i}", float(slo), 0.95, float(rate))
        for i, (slo, rate) in enumerate(zip(buffer.slos_s, buffer.rates_rps, strict=True))
    )
    plan = plan_functions(PlanningProblem(apps[::-1], profile, SHEET, objective=objective))
    best = cheapest_grouping(configurations, buffer, None if objective == "worst-case" else [0.95] * 4)
    assert plan.total_cost_per_request * buffer.rate_rps == pytest.approx(best, rel=1e-6)
    assert plan.segments_total == 10


def test_no_cost_lies_below_its_bound() -> None:
    rng = np.random.default_rng(3)
    for seed in range(30, 36):
        _, configurations, buffer = drawn(seed, applications=3)
        space = space_of(configurations)
        which = np.flatnonzero(space.worst_s <= buffer.strictest_s)
        for pair in rng.choice(which, 12):
            latency_reserve_s = space.worst_s[pair]
            mean = 1 + buffer.rate_rps * (buffer.strictest_s - latency_reserve_s + buffer.open_beyond_s)
            bound = space.cost_bounds(np.array([mean]), np.array([pair]))[0]
            distribution = buffer.size_distribution(np.array([latency_reserve_s]), max_batch=int(space.cap[pair]))
            family = configurations[int(space.family[pair])]
            index, cap = int(space.index[pair]), int(space.cap[pair])
            sizes = np.append(distribution.below[0], distribution.reached()[0, -1])
            cost = sizes @ family.cost(index, cap) / distribution.mean_sizes()[0, -1]
            assert bound <= cost * (1 + 1e-9)


@pytest.mark.parametrize("count", [6, 50])
def test_no_segment_costs_less_than_its_bound(count: int) -> None:
    rng = np.random.default_rng(count)
    _, configurations, _ = drawn(50, applications=1)
    space = space_of(configurations)
    slos_s, rates_rps = np.sort(rng.uniform(0.5, 2.5, count)), rng.uniform(0.2, 5, count)
    certain = segment_bounds(space, slos_s, rates_rps, latency_reserves_s=space.worst_s)
    relaxed = segment_bounds(
        space, slos_s, rates_rps, latency_reserves_s=np.minimum(space.min_reserve_s, space.worst_s)
    )
    tight = []
    for start, end in [(0, 1), (0, 4), (2, 6), (count - 1, count), (count // 2, count)]:
        buffer = SharedBuffer(slos_s[start:end], rates_rps[start:end])
        found = worst_case(space, buffer)
        assert found is not None
        assert certain[start, end - 1] <= found.cost * buffer.rate_rps * (1 + 1e-9)
        tight.append(certain[start, end - 1] / (found.cost * buffer.rate_rps))
        chosen = percentile(space, buffer, np.full(end - start, 0.9))
        assert chosen is not None
        assert relaxed[start, end - 1] <= chosen.cost * buffer.rate_rps * (1 + 1e-9)
    assert max(tight) > 0.7


@pytest.mark.parametrize("objective", ["worst-case", "percentile"])
def test_bounds_change_nothing_but_the_work(objective: str) -> None:
    _, configurations, _ = drawn(61, applications=1)
    space, rng = space_of(configurations), np.random.default_rng(10)
    slos_s = np.sort(np.geomspace(0.35, 6, 14) * rng.uniform(0.9, 1.1, 14))
    rates_rps = rng.uniform(0.05, 6, 14)

    def buffers(start: int, end: int) -> SharedBuffer:
        return SharedBuffer(slos_s[start:end], rates_rps[start:end])

    def search(buffer: SharedBuffer, _: slice, below: float) -> Choice | None:
        if objective == "worst-case":
            return worst_case(space, buffer, below=below)
        return percentile(space, buffer, np.full(len(buffer.slos_s), 0.95), below=below)

    min_reserve_s = space.worst_s if objective == "worst-case" else np.minimum(space.min_reserve_s, space.worst_s)
    bounds = segment_bounds(space, slos_s, rates_rps, latency_reserves_s=min_reserve_s)
    pruned = best_grouping(bounds, buffers=buffers, search=search)
    whole = best_grouping(np.where(np.isinf(bounds), np.inf, 0.0), buffers=buffers, search=search)
    assert len(pruned.groups) > 1
    assert pruned.cost_per_s == pytest.approx(whole.cost_per_s, rel=1e-12)
    assert pruned.segments_pruned >= whole.segments_pruned
    # A bound that is none does harm here, so that this test can tell.
    wrong = best_grouping(bounds * 3, buffers=buffers, search=search)
    assert wrong.cost_per_s > whole.cost_per_s * 1.001


def test_a_table_that_gets_faster_with_the_batch_is_planned_with_as_if_it_did_not() -> None:
    latency = TableLatency(((0.2, 0.1, 0.3),))
    family = Family("cpu", latency, np.ones(1), np.zeros(1), np.ones((1, 3)), np.full(1, 3.0))
    table = family.tabulated(SHEET).services
    assert table.worst_s[0].tolist() == [0.2, 0.2, 0.3]
    assert table.mean_s[0].tolist() == [0.2, 0.1, 0.3]


def test_a_stricter_percentile_of_a_patient_application_is_kept_too() -> None:
    _, configurations, buffer = drawn(40, applications=2)
    space = space_of(configurations)
    loose = percentile(space, buffer, np.array([0.5, 0.5]))
    mixed = percentile(space, buffer, np.array([0.5, 0.9999]))
    assert loose is not None
    assert mixed is not None
    assert loose.cost <= mixed.cost <= percentile(space, buffer, np.array([0.9999, 0.9999])).cost  # type: ignore[union-attr]
    assert mixed.cost == pytest.approx(cheapest(configurations, buffer, [0.5, 0.9999]), rel=1e-6)

"""Several shared buffers worked out together against one after the other."""

import numpy as np
import pytest

from scheduler.planner.catalogue.configurations import Configurations, Family
from scheduler.planner.catalogue.latency_models import ExponentialLatency, SliceLatency
from scheduler.planner.catalogue.prices import load_sheet
from scheduler.planner.functions.cost_bounds import space_of
from scheduler.planner.functions.shared_buffer_search import LATENCY_RESERVES, percentile, pruned
from scheduler.planner.queueing.multi_slo_batching import SharedBuffer, size_distributions

PERCENTILE = 0.95
FRACTIONS = np.arange(1, LATENCY_RESERVES + 1) / LATENCY_RESERVES


def drawn(rng: np.random.Generator, *, most: int) -> tuple[SharedBuffer, ...]:
    """Buffers of one to five applications, some with the same SLO."""
    buffers = []
    for _ in range(most):
        count = int(rng.integers(1, 6))
        slos_s = np.sort(rng.choice([0.3, 0.4, 0.55, 0.8, 1.2, 2.0, 6.0], count))
        buffers.append(SharedBuffer(slos_s, rng.uniform(0.2, 15.0, count)))
    return tuple(buffers)


def families() -> tuple[Configurations, ...]:
    """Two kinds, of which either may be the cheaper one; the worst case of the second is hardly ever in time."""
    vcpu = np.array([0.5, 1.0, 2.0, 4.0])
    rows = tuple((0.8 * b**0.9, 0.5, 0.06 * b) for b in range(1, 4))
    cpu = Family("cpu", ExponentialLatency(rows, rows), vcpu, np.zeros(4), np.full((4, 3), 2.0), np.full(4, 3.0))
    gpu_gb = np.array([1.0, 2.0, 4.0])
    latency = SliceLatency(slope_s=0.0017, constant_s=0.002, slice_s=0.002, card_gb=24, worst_factor=4.0)
    gpu = Family("gpu", latency, gpu_gb / 3, gpu_gb, np.full((3, 12), 0.5), np.full(3, 12.0))
    sheet = load_sheet("fc2-harmonybatch-cny")
    return cpu.tabulated(sheet), gpu.tabulated(sheet)


@pytest.mark.parametrize("max_batch", [1, 2, 20])
def test_sizes_of_several_buffers_are_those_of_each(max_batch: int) -> None:
    buffers = drawn(np.random.default_rng(max_batch), most=9)
    latency_reserves_s = np.array([buffer.strictest_s for buffer in buffers])[:, None] * FRACTIONS
    together = size_distributions(buffers, latency_reserves_s, max_batch=max_batch)
    alone = [
        one.size_distribution(row, max_batch=max_batch) for one, row in zip(buffers, latency_reserves_s, strict=True)
    ]
    for name in ("latency_reserves_s", "below", "waiting", "early"):
        np.testing.assert_allclose(
            getattr(together, name), np.concatenate([getattr(distribution, name) for distribution in alone]), atol=1e-13
        )


@pytest.mark.parametrize(("reserve_full_batch", "only"), [(False, 0), (False, 1), (True, 1)])
def test_no_buffer_is_pruned_whose_search_would_find_a_cheaper_choice(reserve_full_batch: bool, only: int) -> None:
    space = space_of(families()[only:], reserve_full_batch=reserve_full_batch)
    rng = np.random.default_rng(3)
    ruled_out = tried = 0
    for _ in range(12):
        buffers = drawn(rng, most=6)
        wanted = np.full(5, PERCENTILE)
        best = [percentile(space, buffer, wanted[: len(buffer.slos_s)]) for buffer in buffers]
        costs = np.array([np.inf if choice is None else choice.cost for choice in best])
        below = np.where(np.isfinite(costs), costs, 1.0) * rng.choice([0.5, 0.7, 0.9, 1.0, 1 + 1e-9, 1.1], len(buffers))
        latency_reserves_s = np.array([buffer.strictest_s for buffer in buffers])[:, None] * FRACTIONS
        out = pruned(
            space, buffers, wanted[:1].repeat(len(buffers)), below=below, latency_reserves_s=latency_reserves_s
        )
        assert not (out & (costs < below)).any()
        ruled_out, tried = ruled_out + int(out.sum()), tried + int((costs >= below).sum())
    # A buffer whose worst-case choice, which is not on the grid, may be cheap enough is left to the search.
    assert ruled_out > (tried / 4 if only else 0)


def test_a_warm_start_changes_nothing() -> None:
    space, rng = space_of(families()), np.random.default_rng(5)
    warm_start = None
    for buffer in drawn(rng, most=30):
        wanted = np.full(len(buffer.slos_s), PERCENTILE)
        plain = percentile(space, buffer, wanted)
        hinted = percentile(space, buffer, wanted, warm_start=warm_start)
        assert (plain is None) == (hinted is None)
        if plain is not None and hinted is not None:
            assert hinted.cost == pytest.approx(plain.cost, rel=1e-12)
        warm_start = plain or warm_start

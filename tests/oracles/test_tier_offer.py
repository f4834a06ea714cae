"""Deployed tiers as functions to plan with: bills of mixed sizes against enumeration, services behind the uplink."""

import itertools
import math

import numpy as np
import pytest

from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.planner.catalogue.function_path import FunctionPath
from scheduler.planner.functions.size_classes import largest_of_batch
from scheduler.planner.site.deployed_tiers import TierOffer

TIER = FunctionTier("cpu", "f", LatencyModel(0.2, 0.05, 4), Price(per_s=1e-5, per_call=1e-6))
SHARES, FACTORS = (0.6, 0.3, 0.1), (0.8, 1.1, 2.5)
SIZES = (1e4, 1e5, 1e6)


def offer(*, sigma: float = 0.0, bytes_per_s: float | None = None) -> TierOffer:
    path = FunctionPath(bytes_per_s, rtt_s=0.03, item_bytes=2e4)
    factors = {"cpu": dict(zip(SIZES, FACTORS, strict=True))}
    return TierOffer("tiers", (TIER,), {}, sigma, path, 3, factors, SHARES)


@pytest.mark.parametrize("items", [1, 2, 3, 4])
def test_the_largest_of_a_batch_is_that_of_all_ways_to_draw_it(items: int) -> None:
    counted = [0.0, 0.0, 0.0]
    for drawn in itertools.product(range(3), repeat=items):
        counted[max(drawn)] += math.prod(SHARES[size] for size in drawn)
    assert largest_of_batch(SHARES, np.array([items]))[:, 0] == pytest.approx(counted)


def test_a_batch_of_all_sizes_is_billed_by_its_largest_and_as_late_as_the_largest_can_be() -> None:
    together = offer()
    [mixed] = together.tabulated(together.sheet)
    for items in (1, 2, 3):
        bill_s = 0.0
        for drawn in itertools.product(range(3), repeat=items):
            seconds = TIER.latency.predict_s(items) * FACTORS[max(drawn)]
            bill_s += math.prod(SHARES[size] for size in drawn) * seconds
        # The provider rounds up to a millisecond.
        assert mixed.services.billed_s[0, items - 1] == pytest.approx(bill_s, abs=0.001)
        assert mixed.services.worst_s[0, items - 1] == pytest.approx(
            0.03 + 2.5 * TIER.latency.predict_s(items), abs=1e-6
        )
        cost = mixed.cost(0, items)[items - 1]
        assert cost == pytest.approx(1e-5 * bill_s + 1e-6, rel=0.01)
    assert mixed.max_batch == 3


@pytest.mark.parametrize(("size_bytes", "factor"), list(zip(SIZES, FACTORS, strict=True)))
def test_a_batch_of_one_size_takes_what_its_size_makes_of_the_latency_behind_the_uplink(
    size_bytes: float, factor: float
) -> None:
    apart = offer(bytes_per_s=1e6)
    [one] = apart.tabulated_for(size_bytes, apart.sheet)
    assert one.kind == "cpu"
    # The path is that of the mean item: 20 KB at 1 MB/s, and a round trip.
    expected = [factor * TIER.latency.predict_s(items) + items * 0.02 + 0.03 for items in (1, 2, 3)]
    assert one.services.mean_s[0] == pytest.approx(expected)


def test_a_learned_latency_counts_before_the_tiers_own() -> None:
    learned = TierOffer("tiers", (TIER,), {"cpu": TIER.latency.slower(2.0)}, 0.0, offer().path, 8)
    [found] = learned.tabulated(learned.sheet)
    assert found.max_batch == TIER.latency.max_batch
    assert found.services.billed_s[0, 0] == pytest.approx(0.5)

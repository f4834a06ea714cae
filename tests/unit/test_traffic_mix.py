"""Shares of classes and sizes, the effect of sizes, and who belongs to which buffer."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.dispatch.function_buffer import Buffer, Routes
from scheduler.dispatch.lateness_price import LatenessPrice
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import BufferPlan, ModelSettings, SizeShare
from scheduler.domain.requests import Request
from scheduler.estimators.size_effect import SizeEffect
from scheduler.estimators.traffic_mix import MEMORY, MOST_SIZES, TrafficMix

seen = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 8), st.floats(0.0, 1e8)), min_size=1, max_size=60
)


@given(seen)
def test_shares_are_fractions_of_one_and_sizes_ascend(requests: list[tuple[str, int, float]]) -> None:
    mix = TrafficMix()
    for request in requests:
        mix.update(*request)
    sizes, shares = mix.item_sizes(), mix.class_shares()
    assert math.isclose(sum(shares.values()), 1.0)
    assert set(shares) == {name for name, _, _ in requests}
    assert math.isclose(sum(size.share for size in sizes), 1.0)
    assert 1 <= len(sizes) <= MOST_SIZES
    ends = [size.up_to_bytes for size in sizes]
    assert ends == sorted(set(ends))
    assert ends[-1] >= max(item_bytes for _, _, item_bytes in requests)
    lower = [0.0, *ends]
    for size, below in zip(sizes, lower, strict=False):
        assert below * (1 - 1e-9) <= max(size.mean_bytes, 1.0) <= max(size.up_to_bytes, 1.0) * (1 + 1e-9)


def test_old_traffic_fades_and_the_counts_stay_small() -> None:
    mix = TrafficMix()
    for _ in range(60_000):
        mix.update("before", 1, 1e4)
    for _ in range(int(3 * MEMORY)):
        mix.update("after", 1, 1e6)
    assert 0.94 < mix.class_shares()["after"] < 0.96
    assert [round(size.share, 2) for size in mix.item_sizes()] == [0.05, 0.95]


def test_nothing_seen_is_nothing_known() -> None:
    assert TrafficMix().class_shares() == {}
    assert TrafficMix().item_sizes() == ()


SIZES = (SizeShare(2.0**14, 15_000.0, 0.8), SizeShare(2.0**19, 400_000.0, 0.2))


def learned(factor: float, sigma: float, batches: int, *, seed: int = 1) -> SizeEffect:
    effect, rng = SizeEffect(), np.random.default_rng(seed)
    for number in range(batches):
        large = number % 3 == 0
        effect.update(4e5 if large else 1.5e4, math.log(factor if large else 1.0) + rng.normal(0, sigma))
    return effect


@settings(max_examples=40, deadline=None)
@given(st.floats(1.5, 8.0), st.floats(0.0, 0.3), st.integers(0, 2**31))
def test_a_factor_that_matters_is_found_with_its_scatter(factor: float, sigma: float, seed: int) -> None:
    found = learned(factor, sigma, 300, seed=seed).factors(SIZES)
    assert found is not None
    small, large = found.factors
    assert abs(math.log(large / small / factor)) < 5 * sigma * math.sqrt(2 / 100) + 1e-9
    assert abs(found.sigma - sigma) < 0.3 * sigma + 1e-6


def test_what_is_noise_or_not_yet_known_is_no_effect() -> None:
    assert all(learned(1.0, 0.3, 300, seed=seed).factors(SIZES) is None for seed in range(40))
    assert learned(5.0, 0.1, 30).factors(SIZES) is None
    assert learned(5.0, 0.1, 300).factors(SIZES[:1]) is None
    # A size of which no batch was seen.
    assert learned(5.0, 0.1, 300).factors((*SIZES, SizeShare(2.0**22, 4e6, 0.0))) is None


TIER = FunctionTier("t", "f", LatencyModel(0.1, 0.1, 8), Price(1e-5, 1e-6))
limits = st.lists(st.floats(1.0, 1e6), max_size=3, unique=True).map(sorted)


@given(st.dictionaries(st.sampled_from(["a", "b"]), limits, min_size=1), st.integers(0, 10**6), st.integers(1, 8))
def test_a_request_belongs_to_the_first_buffer_of_its_class_that_takes_its_size(
    ends: dict[str, list[float]], item_bytes: int, items: int
) -> None:
    plans = [
        BufferPlan((name,), "t", 1, {name: 0.1}, {name: 1.0}, 0.99, up_to_bytes=end)
        for name, most in ends.items()
        for end in [*most, None]
    ]
    buffers = tuple(Buffer(ModelSettings("m"), plan, TIER, LatenessPrice()) for plan in plans)
    routes = Routes(buffers)
    for name, most in ends.items():
        request = Request(1, "m", 0.0, 1.0, items=items, body_bytes=item_bytes * items, class_name=name)
        found = routes.find(QueuedRequest(request))
        assert found is not None
        assert found.plan.classes == (name,)
        assert found.plan.up_to_bytes == next((end for end in most if item_bytes <= end), None)
    stranger = Request(2, "m", 0.0, 1.0, class_name="reloaded away")
    assert routes.find(QueuedRequest(stranger)) is buffers[0]
    assert Routes(()).find(QueuedRequest(stranger)) is None

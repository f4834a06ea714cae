"""The shared link: no byte arrives before the link could carry it, and none later."""

from __future__ import annotations

import doctest
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serverless_fn.local_fc import routes, shaping
from serverless_fn.local_fc.limits import TokenBucket
from serverless_fn.local_fc.shaping import SharedLink


@pytest.mark.parametrize("module", [shaping, routes])
def test_the_examples_in_the_docstrings_hold(module: object) -> None:
    failed, attempted = doctest.testmod(module)  # type: ignore[arg-type]
    assert attempted > 0
    assert failed == 0


def arrivals(link: SharedLink[int], pushes: list[tuple[float, int]], look_every_s: float | None) -> list[float]:
    """Push chunks at their times and return when each came out; looking late must not change when it was due."""
    out: dict[int, float] = {}
    for index, (at_s, size) in enumerate(pushes):
        while (due_s := link.next_at_s()) <= at_s:
            out |= dict.fromkeys(link.pop_due(due_s), due_s)
        link.push(index, size, now_s=at_s)
    while (due_s := link.next_at_s()) < math.inf:
        late_s = due_s if look_every_s is None else math.ceil(due_s / look_every_s) * look_every_s
        for index in link.pop_due(late_s):
            out[index] = late_s
    return [out[index] for index in range(len(pushes))]


gaps = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5000)), min_size=1, max_size=30)


@given(gaps=gaps, rate=st.floats(10, 1e5))
def test_chunks_leave_as_a_queue_with_one_server_would_let_them(gaps: list[tuple[float, int]], rate: float) -> None:
    now_s, free_s, pushes, expected = 0.0, 0.0, [], []
    for gap_s, size in gaps:
        now_s += gap_s
        pushes.append((now_s, size))
        free_s = max(free_s, now_s) + size / rate
        expected.append(free_s)
    assert arrivals(SharedLink[int](rate), pushes, None) == pytest.approx(expected)


def test_a_late_look_does_not_slow_the_link() -> None:
    link = SharedLink[int](1000.0)
    on_time = arrivals(link, [(0.0, 100)] * 10, look_every_s=0.25)
    assert on_time[-1] == pytest.approx(1.0)
    assert link.carried_bytes == 1000


@given(before=st.floats(1, 1e4), after=st.floats(1, 1e4), at_s=st.floats(0, 5))
def test_a_change_of_rate_keeps_what_was_carried(before: float, after: float, at_s: float) -> None:
    link = SharedLink[str](before)
    link.push("a", 10_000, now_s=0.0)
    if at_s < link.next_at_s():
        link.set_rate(after, now_s=at_s)
        assert link.next_at_s() == pytest.approx(at_s + (10_000 - at_s * before) / after)


def test_a_rate_of_zero_holds_everything_until_it_is_lifted() -> None:
    link = SharedLink[str](1000.0)
    link.push("a", 1000, now_s=0.0)
    link.set_rate(0.0, now_s=0.5)
    assert link.next_at_s() == math.inf
    assert link.pop_due(1e9) == []
    link.set_rate(1000.0, now_s=10.0)
    assert link.next_at_s() == pytest.approx(10.5)


def test_without_a_limit_everything_is_there_at_once() -> None:
    link = SharedLink[str](None)
    link.push("a", 10**9, now_s=3.0)
    assert link.pop_due(3.0) == ["a"]


@given(
    capacity=st.integers(1, 20),
    per_s=st.floats(0, 5),
    gaps=st.lists(st.floats(0, 0.1), min_size=30, max_size=60),
)
def test_the_growth_limit_lets_through_the_burst_and_then_its_rate(
    capacity: int, per_s: float, gaps: list[float]
) -> None:
    bucket, now_s, taken = TokenBucket(capacity=capacity, per_s=per_s), 0.0, 0
    for gap_s in gaps:
        now_s += gap_s
        taken += bucket.try_take(now_s)
        assert taken <= capacity + per_s * now_s + 1e-6
    assert taken >= min(capacity, len(gaps))

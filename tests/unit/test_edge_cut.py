"""Where an edge batch is cut, against brute force over all lengths."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.edge_cut import cut
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.requests import Request
from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import service_times

TIMES = service_times([0.05 + 0.01 * n for n in range(1, 41)], margin=1.2, scatter=Scatter(sigma=0.1))


def waiting(left_s: list[float]) -> list[QueuedRequest]:
    return [QueuedRequest(Request(n, "m", 0.0, at_s, 1, 1000)) for n, at_s in enumerate(sorted(left_s))]


def costs(members: list[QueuedRequest], count: int, weight: float, saves: float) -> float:
    late = sum(TIMES.late_probability(count, q.request.deadline_s) for q in members[:count])
    return weight * late + saves * (len(members) - count)


@given(
    st.lists(st.floats(0.2, 1.0), min_size=1, max_size=30),
    st.integers(1, 30),
    st.floats(0.1, 60.0),
    st.floats(0.05, 2.0),
)
def test_the_batch_costs_no_more_than_as_it_was_chosen(
    left_s: list[float], chosen: int, weight: float, saves: float
) -> None:
    members = waiting(left_s)
    most = TIMES.largest_within(members[0].request.deadline_s, safe=False)
    chosen = min(chosen, len(members), most)
    count = cut(members, chosen, TIMES, now_s=0.0, cap=30, late_cost=lambda _: weight, saves=lambda _: saves)
    assert 1 <= count <= max(most, chosen), "no member is late on purpose"
    assert costs(members, count, weight, saves) <= costs(members, chosen, weight, saves) + 1e-3 * weight


@pytest.mark.parametrize(("weight", "saves"), [(1.0, 0.5), (10.0, 0.5), (60.0, 1.0)])
def test_with_equal_deadlines_it_is_the_cheapest_of_all_lengths(weight: float, saves: float) -> None:
    members = waiting([0.35] * 25)
    count = cut(members, 10, TIMES, now_s=0.0, cap=25, late_cost=lambda _: weight, saves=lambda _: saves)
    best = min(range(1, 26), key=lambda n: costs(members, n, weight, saves))
    assert math.isclose(costs(members, count, weight, saves), costs(members, best, weight, saves), rel_tol=1e-6)

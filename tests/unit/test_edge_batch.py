"""The edge's next batch: nobody late where that is possible, the most goodput where it is not."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.edge_batch import compose, fill_up
from scheduler.dispatch.queue import QueuedRequest
from scheduler.domain.requests import Request
from scheduler.domain.service_times import ServiceTimes, service_times

CAP = 32


def orin(margin: float = 1.0) -> ServiceTimes:
    return service_times([0.04234 + 0.008165 * items for items in range(1, CAP + 1)], margin=margin)


def waiting(*deadlines_s: float, items: int = 1) -> list[QueuedRequest]:
    return [
        QueuedRequest(Request(i, "m", 0.0, deadline_s, items=items)) for i, deadline_s in enumerate(sorted(deadlines_s))
    ]


def test_everybody_goes_when_everybody_can_be_in_time() -> None:
    result = compose(waiting(*[1.0] * 20), orin(), now_s=0.0, cap=CAP, drop_penalty=5)
    assert len(result.chosen) == 20
    assert not result.dropped


def test_one_old_request_does_not_shrink_a_large_batch() -> None:
    # The oldest would allow a batch of 4; 30 others could ride together. A fifth of the goodput is not worth one.
    result = compose(waiting(0.076, *[1.0] * 29), orin(), now_s=0.0, cap=CAP, drop_penalty=5)
    assert [q.request.request_id for q in result.dropped] == [0]
    assert len(result.chosen) == 29


def test_a_slightly_smaller_batch_is_accepted_to_keep_the_oldest() -> None:
    # 18 of 20 fit with the oldest: giving it up would gain two served items and lose one.
    result = compose(waiting(0.19, *[1.0] * 19), orin(), now_s=0.0, cap=CAP, drop_penalty=5)
    assert result.chosen[0].request.request_id == 0
    assert len(result.chosen) == 18


def test_items_of_one_request_stay_together() -> None:
    result = compose(waiting(1.0, 1.0, 1.0, items=12), orin(), now_s=0.0, cap=CAP, drop_penalty=5)
    assert [q.request.items for q in result.chosen] == [12, 12]


@given(
    st.lists(st.floats(0.0, 0.5), max_size=7),
    st.floats(0.0, 6.0),
    st.integers(1, 8),
)
def test_the_choice_is_the_best_of_all_runs_of_consecutive_deadlines(
    deadlines_s: list[float], drop_penalty: float, cap: int
) -> None:
    queue, times = waiting(*deadlines_s), orin()
    result = compose(queue, times, now_s=0.0, cap=cap, drop_penalty=drop_penalty)
    assert [*result.dropped, *result.chosen] == queue[: len(result.dropped) + len(result.chosen)]
    for q in result.chosen:
        assert times.safe_s[len(result.chosen)] <= q.request.deadline_s

    def score(k: int, end: int) -> float:
        return (end - k - drop_penalty * k) / times.median_s[end - k]

    feasible = [
        score(k, end)
        for k, end in combinations(range(len(queue) + 1), 2)
        if end - k <= cap and times.safe_s[end - k] <= queue[k].request.deadline_s
    ]
    if result.chosen:
        k = len(result.dropped)
        # For a given k a larger batch has the higher score unless the penalty makes it negative.
        full = [s for s in feasible if s > 0]
        if full:
            assert score(k, k + len(result.chosen)) >= max(full) - 1e-9
    else:
        assert not feasible


def test_free_riders_make_nobody_late() -> None:
    times = orin()
    chosen = waiting(*[0.25] * 20)
    riders = fill_up(chosen, waiting(0.22, 0.24, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9), times, now_s=0.0, cap=CAP)
    size = len(chosen) + len(riders)
    assert riders
    assert times.safe_s[size] <= min(q.request.deadline_s for q in (*chosen, *riders))


def test_nobody_waiting_is_an_empty_batch() -> None:
    assert compose([], orin(), now_s=0.0, cap=CAP, drop_penalty=5).chosen == []

"""The economics of a function batch, against brute force."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.engine_kit import FUNCTION, TIER, settings

from scheduler.dispatch.batch_economics import BatchEconomics
from scheduler.dispatch.function_buffer import FunctionBuffer
from scheduler.dispatch.model_queues import ModelQueues
from scheduler.dispatch.pricing import make_prices
from scheduler.dispatch.queue import QueuedRequest
from scheduler.dispatch.uplink import UplinkOccupancy
from scheduler.domain.batches import BatchReport
from scheduler.domain.plans import BufferPlan, GroupPlan
from scheduler.domain.requests import Request
from scheduler.domain.scatter import Scatter
from scheduler.domain.service_times import service_times
from scheduler.domain.uplink import UplinkEstimate
from scheduler.estimators.warm_instances import WarmInstances

RTT_S, SIGMA = 0.02, 0.2
NOW_S = 100.0


def buffer_with(
    slacks_s: Sequence[float], *, rate_rps: float = 30.0, warm: WarmInstances | None = None
) -> tuple[BatchEconomics, FunctionBuffer]:
    """A buffer in which requests are gathered with so much time left, and the economics of its batches."""
    [model] = settings().models
    plan = BufferPlan(("default",), "1gb", 3, {"default": math.inf}, {}, 0.99)
    queues = ModelQueues(model, GroupPlan("m", ("default",), 64, {}, 0.99, (plan,), 0.0, 1.0, 0.5))
    queues.adopt(model, queues.plan, lambda _: warm)
    [buffer] = queues.buffers
    predicted_s = [FUNCTION.predict_s(items) for items in range(1, FUNCTION.max_batch + 1)]
    queues.learn([None], [service_times(predicted_s, margin=1.5, scatter=Scatter(sigma=SIGMA))])
    queues.expect(rate_rps=rate_rps, item_bytes=10_000.0)
    gathering = BatchEconomics(UplinkOccupancy(UplinkEstimate(rtt_s=RTT_S)))
    queues.reprice(*make_prices(queues, gathering))
    for number, slack_s in enumerate(slacks_s):
        buffer.join(queued(number, slack_s), now_s=NOW_S)
    return gathering, buffer


def queued(number: int, slack_s: float) -> QueuedRequest:
    return QueuedRequest(Request(number, "m", NOW_S + slack_s - 1.0, NOW_S + slack_s, body_bytes=10_000))


def late(items: int, slack_s: float) -> float:
    """Probability that so many items take longer than is left of `slack_s` after the way: lognormal."""
    left_s = slack_s - RTT_S
    if left_s <= 0:
        return 1.0
    return 0.5 * math.erfc(math.log(left_s / FUNCTION.predict_s(items)) / (SIGMA * math.sqrt(2)))


def money(buffer: FunctionBuffer, slacks_s: Sequence[float]) -> float:
    """A batch's price and what the lateness of each of its members weighs, one by one."""
    items = len(slacks_s)
    each = sum(late(items, slack_s) for slack_s in slacks_s)
    return TIER.price.cost(FUNCTION.predict_s(items)) + buffer.lateness.late_cost("default") * each


slacks = st.lists(st.floats(0.25, 1.5), min_size=1, max_size=5).map(sorted)
narrow = st.tuples(st.floats(0.25, 1.4), st.lists(st.floats(0.0, 0.02), min_size=1, max_size=5)).map(
    lambda drawn: sorted(drawn[0] + more for more in drawn[1])
)


@given(slacks)
def test_the_batch_that_leaves_is_the_first_few_by_deadline_that_cost_least_each(slacks_s: list[float]) -> None:
    gathering, buffer = buffer_with(slacks_s)
    members = buffer.queue.members
    chosen = gathering.cheapest_prefix(buffer, members, now_s=NOW_S)
    begins_s = NOW_S + RTT_S
    averages = [
        gathering.cost(buffer, members[:count], items=count, begins_s=begins_s) / count
        for count in range(1, len(members) + 1)
    ]
    assert chosen == members[: len(chosen)]
    assert averages[len(chosen) - 1] == min(averages)


@given(narrow)
def test_a_batchs_cost_is_its_price_and_each_members_lateness(slacks_s: list[float]) -> None:
    """Of members whose deadlines are close: the mean of the first and the last stands for all."""
    gathering, buffer = buffer_with(slacks_s)
    found = gathering.cost(buffer, buffer.queue.members, items=len(slacks_s), begins_s=NOW_S + RTT_S)
    one_late = buffer.lateness.late_cost("default")
    spread = late(len(slacks_s), slacks_s[0]) - late(len(slacks_s), slacks_s[-1])
    assert found == pytest.approx(money(buffer, slacks_s), abs=len(slacks_s) * one_late * (spread + 1e-9))


@given(narrow.filter(lambda slacks_s: len(slacks_s) > 1))
def test_joining_costs_what_the_batch_costs_more_with_the_newcomer(slacks_s: list[float]) -> None:
    gathering, buffer = buffer_with(slacks_s[:-1])
    newcomer = queued(99, slacks_s[-1])
    exact = money(buffer, slacks_s) - money(buffer, slacks_s[:-1])
    sizes = (len(slacks_s) - 1, len(slacks_s))
    spread = max(late(size, slacks_s[0]) - late(size, slacks_s[-1]) for size in sizes)
    tolerance = 2 * len(slacks_s) * buffer.lateness.late_cost("default") * (spread + 1e-9)
    assert gathering.joining(buffer, newcomer, now_s=NOW_S) == pytest.approx(exact, abs=tolerance)


def test_a_batch_that_is_full_takes_nobody() -> None:
    gathering, buffer = buffer_with([1.0] * 5)
    assert gathering.joining(buffer, queued(99, 1.0), now_s=NOW_S) == math.inf


@given(slacks, st.floats(0.0, 1.0))
def test_members_with_more_time_left_let_the_batch_wait_longer(slacks_s: list[float], more_s: float) -> None:
    gathering, buffer = buffer_with(slacks_s)
    later_gathering, later = buffer_with([slack_s + more_s for slack_s in slacks_s])
    # A full batch leaves now; else up to a hundredth of the time it could be held at most is lost.
    closes_s = gathering.closes_at_s(buffer, now_s=NOW_S)
    resolution_s = 0.02 * (slacks_s[0] + more_s)
    assert later_gathering.closes_at_s(later, now_s=NOW_S) >= closes_s - resolution_s


@given(slacks)
def test_nobody_is_held_beyond_the_moment_at_which_the_first_could_still_be_in_time(slacks_s: list[float]) -> None:
    gathering, buffer = buffer_with(slacks_s)
    last_s = NOW_S + slacks_s[0] - RTT_S - FUNCTION.predict_s(len(slacks_s))
    assert gathering.closes_at_s(buffer, now_s=NOW_S) <= last_s + 1e-9


@given(slacks)
def test_where_nobody_comes_nobody_is_waited_for(slacks_s: list[float]) -> None:
    gathering, buffer = buffer_with(slacks_s, rate_rps=0.0)
    assert gathering.closes_at_s(buffer, now_s=NOW_S) <= NOW_S


@given(st.floats(5.0, 200.0))
def test_the_size_that_is_gathered_for_is_the_cheapest_of_all_sizes(rate_rps: float) -> None:
    _, buffer = buffer_with([], rate_rps=rate_rps)

    def each(size: int) -> float:
        wait_s = (size - 1) / rate_rps
        risk = late(size, 1.0 - 0.5 * wait_s) if wait_s < 1.0 else 1.0
        return TIER.price.cost(FUNCTION.predict_s(size)) / size + buffer.lateness.highest_late_cost(["default"]) * risk

    assert each(buffer.prices.cheapest_size) == pytest.approx(min(each(size) for size in range(1, 6)))
    assert buffer.lateness.prices.spill_cost == pytest.approx(each(buffer.prices.cheapest_size))


def pool_that(*, started_s: float, idle_since_s: float, starts: int = 40) -> WarmInstances:
    """A pool whose starts all took so long, with one instance, idle since then; it is reclaimed after 240 s or so."""
    pool, before_s = WarmInstances(), idle_since_s - 1000.0 * starts
    for number in range(starts):
        before_s += 1000.0
        pool.sent(-number - 1, now_s=before_s - started_s - 0.4)
        report = BatchReport(started_s + 0.4, service_s=0.4, cold_start=True)
        pool.came_back(-number - 1, report, now_s=before_s, expected_path_s=0.0)
    return pool


def with_pool(pool: WarmInstances, slacks_s: Sequence[float], **how: float) -> tuple[BatchEconomics, FunctionBuffer]:
    gathering, buffer = buffer_with(slacks_s, warm=pool, **how)
    buffer.refresh_cold_risk(now_s=NOW_S, overdue_s=math.inf)
    return gathering, buffer


def test_a_lone_request_leaves_while_a_cold_start_can_still_be_over_in_time() -> None:
    pool = pool_that(started_s=3.0, idle_since_s=NOW_S - 1000.0)
    gathering, buffer = with_pool(pool, [8.0], rate_rps=0.5)
    assert buffer.cold > 0.95
    assert gathering.closes_at_s(buffer, now_s=NOW_S) <= NOW_S + 8.0 - pool.start_s(0.99) - FUNCTION.predict_s(1)


def test_with_a_warm_instance_it_waits_beyond_that_as_ever() -> None:
    pool = pool_that(started_s=3.0, idle_since_s=NOW_S - 1.0)
    gathering, buffer = with_pool(pool, [8.0], rate_rps=0.5)
    assert gathering.closes_at_s(buffer, now_s=NOW_S) > NOW_S + 6.0


def test_an_instance_that_may_be_gone_by_then_is_not_taken_for_warm() -> None:
    """Just used long enough ago: now it is there, at the last moment it may be gone."""
    pool = pool_that(started_s=12.0, idle_since_s=NOW_S - 200.0)
    gathering, buffer = with_pool(pool, [60.0], rate_rps=0.5)
    assert buffer.cold < buffer.cold_at(NOW_S + 55.0, now_s=NOW_S)
    assert gathering.closes_at_s(buffer, now_s=NOW_S) <= NOW_S + 60.0 - 12.0


def test_where_an_instance_comes_back_in_time_it_is_waited_for() -> None:
    """A start would be late whenever the batch leaves; the instance that is busy now is back before the deadline."""
    pool = pool_that(started_s=3.0, idle_since_s=NOW_S - 1.0)
    pool.sent(1, now_s=NOW_S, back_s=NOW_S + 0.5)
    gathering, buffer = with_pool(pool, [2.0], rate_rps=0.5)
    assert buffer.cold > 0.9
    assert gathering.closes_at_s(buffer, now_s=NOW_S) >= NOW_S + 0.5


@given(st.floats(0.5, 20.0), st.floats(2.0, 40.0), st.floats(0.0, 400.0), st.integers(1, 4))
def test_no_moment_is_much_better_than_the_one_that_is_chosen(
    started_s: float, slack_s: float, idle_s: float, members: int
) -> None:
    """Brute force over a fine grid, without newcomers: only lateness counts, and it is least at the chosen moment."""
    pool = pool_that(started_s=started_s, idle_since_s=NOW_S - idle_s)
    gathering, buffer = with_pool(pool, [slack_s] * members, rate_rps=0.5)
    last_s = NOW_S + slack_s - RTT_S - FUNCTION.predict_s(members)
    if not gathering._start_matters(buffer, now_s=NOW_S, last_s=last_s):
        return

    def late_at(at_s: float) -> float:
        cold = buffer.cold_at(at_s, now_s=NOW_S)
        left_s = NOW_S + slack_s - RTT_S - at_s
        return gathering.late_probability(buffer, members, left_s, cold=cold)

    least = min(late_at(NOW_S + (last_s - NOW_S) * part / 200) for part in range(201))
    assert late_at(gathering.closes_at_s(buffer, now_s=NOW_S)) <= least + 0.01


@given(st.floats(0.1, 1.0), st.floats(0.5, 30.0), st.sampled_from([2, 40]))
def test_a_cold_batch_is_late_as_often_as_its_start_and_service_together_say(
    cold: float, left_s: float, starts: int
) -> None:
    pool = pool_that(started_s=3.0, idle_since_s=NOW_S - 1000.0, starts=starts)
    gathering, buffer = with_pool(pool, [40.0])
    # The start's distribution in a thousand equal parts, each with the service's own.
    parts = [pool.start_s((part + 0.5) / 1000) for part in range(1000)]
    service = buffer.known_times
    if_cold = sum(service.late_probability(1, left_s - start_s) for start_s in parts) / 1000
    exact = (1 - cold) * service.late_probability(1, left_s) + cold * if_cold
    assert gathering.late_probability(buffer, 1, left_s, cold=cold) == pytest.approx(exact, abs=0.12 * cold)


def test_whoever_would_meet_a_cold_start_alone_goes_along() -> None:
    """One warm instance: what does not leave with it starts another, too late. With two it had better wait."""
    pools = [pool_that(started_s=3.0, idle_since_s=NOW_S - 1.0) for _ in range(2)]
    for number in (1, 2):
        pools[1].sent(number, now_s=NOW_S - 2.0)
    for number in (1, 2):
        report = BatchReport(1.0, service_s=0.4, cold_start=number == 2)
        pools[1].came_back(number, report, now_s=NOW_S - 1.0, expected_path_s=0.0)
    left = []
    for pool in pools:
        gathering, buffer = with_pool(pool, [0.5, 0.9], rate_rps=0.5)
        left.append(len(gathering.cheapest_prefix(buffer, buffer.queue.members, now_s=NOW_S)))
    assert left == [2, 1]

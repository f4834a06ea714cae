"""Symphony starts batches within their windows; the SMDP's policy is the best of all, and agrees with a closed form."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_kit import finish, give, requests_at, scenario_of, site

from scheduler.domain.messages import RefuseRequest, RequestArrived, SendBatch
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.simulator.policies.site import site_of
from scheduler.simulator.policies.smdp import BatchPlan, Process, Smdp, control_limits, solve, tabulate
from scheduler.simulator.policies.symphony import Symphony
from scheduler.simulator.scenario import SimulatedClass
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson


def test_a_free_edge_waits_until_one_more_request_could_not_join_any_longer() -> None:
    policy, seconds = Symphony(site()), site().edge_s
    assert give(policy, requests_at(0.0), 0.0) == []
    assert policy.next_wakeup_s() == pytest.approx(1.0 - seconds[2])
    assert give(policy, requests_at(0.3, first=2), 0.3) == []
    assert policy.next_wakeup_s() == pytest.approx(1.0 - seconds[3])
    [batch] = give(policy, [], 1.0 - seconds[3])
    assert (batch.backend, batch.request_ids) == (Backend.EDGE, (1, 2))


def test_a_candidate_that_its_first_deadline_limits_starts_at_once() -> None:
    policy, seconds = Symphony(site(slo_s=0.5)), site().edge_s
    most = max(items for items, service_s in enumerate(seconds) if service_s <= 0.5)
    [batch] = give(policy, requests_at(*[0.0] * (most + 9), slo_s=0.5), 0.0)
    assert (batch.backend, batch.items) == (Backend.EDGE, most)


def test_what_the_next_batch_has_no_room_for_waits_for_another_until_a_function_must_begin() -> None:
    policy = Symphony(site())
    [first] = give(policy, requests_at(*[0.0] * 120), 0.0)
    assert first.items == 117
    given = [*requests_at(*[0.0] * 3, first=121)]
    assert give(policy, given, 0.0) == []
    # Six are left: five cost 0.921 s by function, and a sixth would not fit into the call.
    assert policy.next_wakeup_s() == pytest.approx(1.0 - 0.921)
    [spilled] = give(policy, [], policy.next_wakeup_s() or 0.0)
    assert (spilled.backend, spilled.items) == (Backend.FUNCTION, 5)
    # A second member would still fit until then.
    assert policy.next_wakeup_s() == pytest.approx(1.0 - 0.498)
    [last] = give(policy, [], policy.next_wakeup_s() or 0.0)
    assert (last.backend, last.items) == (Backend.FUNCTION, 1)


@pytest.mark.parametrize(
    ("slo_s", "serve_late", "sent"),
    [(0.4, False, True), (0.3, False, False), (0.3, True, True)],
    ids=["its median is in time", "too late", "too late, but served late"],
)
def test_beside_a_busy_edge_a_request_goes_to_a_function_alone_if_that_helps(
    slo_s: float, serve_late: bool, sent: bool
) -> None:
    """One item takes 0.357 s by function in the median, and 0.639 s in one of a hundred cases."""
    noisy = site(slo_s=slo_s, noise=0.25)
    classes = (SimulatedClass(ServiceClass(slo_s=slo_s, serve_late=serve_late)),)
    policy = Symphony(replace(noisy, model=replace(noisy.model, classes=classes)))
    [busy] = give(policy, requests_at(*[0.0] * 200, slo_s=9.0), 0.0)
    assert (busy.backend, busy.items) == (Backend.EDGE, len(noisy.edge_s) - 1)
    commands = policy.handle([RequestArrived(one) for one in requests_at(0.0, slo_s=slo_s, first=201)], 0.0)
    batches = [command.batch for command in commands if isinstance(command, SendBatch)]
    assert [(batch.backend, batch.request_ids) for batch in batches] == [(Backend.FUNCTION, (201,))] * sent
    refused = [command.request_id for command in commands if isinstance(command, RefuseRequest)]
    assert refused == [201] * (not sent)


@settings(max_examples=20, deadline=None)
@given(rate_rps=st.floats(5, 200), slo_s=st.floats(0.4, 1.5), seed=st.integers(0, 3))
def test_every_edge_batch_starts_within_its_window(rate_rps: float, slo_s: float, seed: int) -> None:
    scenario = replace(scenario_of("symphony", slo_s=slo_s), seed=seed)
    requests = make_requests(scenario, poisson(rate_rps, rng=generators(seed)[0], requests=400))
    journal = make_simulation(scenario, requests).run()
    seconds = (*site_of(scenario, requests).edge_s, math.inf)
    deadlines_s = {request.request_id: request.deadline_s for request in requests}
    for sent in journal.batches.values():
        batch = sent.batch
        if batch.backend is Backend.EDGE:
            first_s = min(deadlines_s[number] for number in batch.request_ids)
            assert first_s - seconds[batch.items + 1] <= batch.sent_at_s + 1e-9
            assert batch.sent_at_s <= first_s - seconds[batch.items] + 1e-9
    # A function takes 0.357 s for one item: with hardly more than that left, what the edge gives back is lost.
    assert slo_s < 0.6 or not journal.refusals


def average(process: Process, sizes: tuple[int, ...]) -> float:
    """The average cost of a policy by the stationary distribution of its decisions; infinite if it never decides."""
    table, states = tabulate(process), np.arange(len(sizes))
    moves = table.next_state[states, list(sizes)]
    equations = np.vstack([moves.T - np.eye(len(sizes)), np.ones(len(sizes))])
    share = np.linalg.lstsq(equations, np.array([*[0.0] * len(sizes), 1.0]), rcond=None)[0]
    return float(share @ table.cost[states, list(sizes)]) / float(share @ table.seconds[states, list(sizes)])


processes = st.builds(
    Process,
    rate_rps=st.floats(1.0, 200.0),
    service_s=st.tuples(st.floats(0.001, 0.1), st.floats(0.0001, 0.02)).map(
        lambda law: tuple(law[0] + law[1] * size for size in range(1, 5))
    ),
    overflow=st.floats(0.1, 10.0),
    per_s=st.floats(0.001, 10.0),
)


@settings(max_examples=15, deadline=None)
@given(processes)
def test_no_other_policy_costs_less(process: Process) -> None:
    actions = [(0,), *(range(waiting + 1) for waiting in range(1, 4)), range(1, 5)]
    found = solve(process)
    assert average(process, found.sizes) == pytest.approx(found.cost_per_s, rel=1e-6, abs=1e-9)
    least = min(average(process, sizes) for sizes in itertools.product(*actions))
    assert found.cost_per_s == pytest.approx(least, rel=1e-6, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(processes)
def test_relative_value_iteration_comes_to_the_same_average(process: Process) -> None:
    """As in the paper: the process in equal steps of time, shorter than every action."""
    table = tabulate(process)
    allowed = np.isfinite(table.cost)
    step_s = 0.5 * table.seconds[allowed].min()
    cost_per_s = np.where(allowed, table.cost / table.seconds, np.inf)
    part = step_s / table.seconds
    values = np.zeros(len(table.cost))
    for _ in range(20_000):
        stays = (1.0 - part) * values[:, None]
        new = (cost_per_s * step_s + part * (table.next_state @ values) + stays).min(axis=1)
        change, values = new - values, new - new[0]
        if np.ptp(change) < 1e-10:
            break
    assert solve(process).cost_per_s * step_s == pytest.approx(change.mean(), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("load", [0.2, 0.9, 2.0])
def test_one_at_a_time_with_one_waiting_spills_what_the_formula_says(load: float) -> None:
    """M/D/1 with room for two: of all arrivals 1 - 1 / (load + exp(-load)) find none."""
    found = solve(Process(rate_rps=load / 0.1, service_s=(0.1,), overflow=1.0, per_s=0.0))
    assert found.cost_per_s / (load / 0.1) == pytest.approx(1.0 - 1.0 / (load + math.exp(-load)))


@pytest.mark.parametrize(("rate_rps", "limit"), [(1.0, 1), (60.0, 2), (112.0, 3), (187.0, 4)])
def test_the_policy_is_a_control_limit(rate_rps: float, limit: int) -> None:
    plan = control_limits(site(rate_rps=rate_rps))
    assert [size > 0 for size in plan.sizes] == [waiting >= limit for waiting in range(57)]
    assert plan.sizes[limit] == limit


def test_without_a_rate_the_edge_takes_whatever_waits() -> None:
    plan = control_limits(site(rate_rps=0.0))
    assert plan.sizes == tuple(range(len(plan.sizes)))
    [batch] = give(Smdp(site(), plan), requests_at(0.0, 0.0), 0.0)
    assert batch.items == 2


def test_dearer_time_starts_batches_earlier() -> None:
    process = Process(100.0, tuple(0.04 + 0.008 * size for size in range(1, 31)), overflow=1.0, per_s=0.001)
    limits = [solve(replace(process, per_s=per_s)).limit for per_s in (0.001, 0.01, 0.1, 1.0)]
    assert limits == sorted(limits, reverse=True)
    assert limits[-1] < limits[0]


def test_the_edge_waits_for_its_limit_but_not_beyond_a_deadline_and_spills_what_has_no_room() -> None:
    plan = BatchPlan((0, 0, 0, 3, 4), 0.0)
    policy = Smdp(site(), plan)
    assert give(policy, requests_at(0.0, 0.0), 0.0) == []
    assert policy.next_wakeup_s() == pytest.approx(1.0 - site().edge_s[3])
    [batch] = give(policy, requests_at(0.1, first=3), 0.1)
    assert batch.items == 3
    # Four may wait, five fill a call.
    [spilled] = give(policy, requests_at(*[0.1] * 9, first=4), 0.1)
    assert (spilled.backend, spilled.items) == (Backend.FUNCTION, 5)
    [second] = finish(policy, batch, 0.2)
    assert second.request_ids == (4, 5, 6, 7)
    assert give(policy, requests_at(0.2, first=13), 0.2) == []
    assert finish(policy, second, 0.3) == []
    [alone] = give(policy, [], 1.2 - site().edge_s[2])
    assert alone.request_ids == (13,)

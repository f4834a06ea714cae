"""The policies to compare with: each keeps its source's rules, none loses a request, none is cheaper than the bound."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.policy_kit import finish, give, requests_at, scenario_of, site

from scheduler import cli
from scheduler.domain.batches import Batch
from scheduler.domain.latency import FunctionTier, LatencyModel, Price
from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Backend
from scheduler.planner.queueing.map_process import mmpp2
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.bound_note import noted_bound, noted_limit
from scheduler.simulator.faults import Fault
from scheduler.simulator.network import constant, steps
from scheduler.simulator.policies.aimd import Aimd
from scheduler.simulator.policies.batch import best_batch
from scheduler.simulator.policies.catalogue import BASELINES
from scheduler.simulator.policies.critical_rate import plan
from scheduler.simulator.policies.edf import EarliestDeadlineFirst
from scheduler.simulator.policies.edge_only import EdgeOnly
from scheduler.simulator.policies.function_only import FunctionOnly, FunctionParameters
from scheduler.simulator.policies.search import TrialResult, descend, rank
from scheduler.simulator.policies.site import site_of
from scheduler.simulator.policies.static import Static, StaticParameters
from scheduler.simulator.report import rows, summarise
from scheduler.simulator.scenario import (
    FUNCTION_LATENCY,
    FUNCTION_PRICE,
    ORACLES,
    ORIN_LATENCY,
    POLICIES,
    SEPARATE,
    EdgeServer,
    Scenario,
    ScenarioError,
    SimulatedClass,
)
from scheduler.simulator.shell import Journal, Simulation
from scheduler.simulator.world import generators, make_backends, make_requests, make_simulation
from scheduler.workloads import markovian, poisson

TIER = FunctionTier("function", "function", FUNCTION_LATENCY, FUNCTION_PRICE)
SEARCHED = ("static", "batch")


def run(scenario: Scenario, *, rate_rps: float, requests: int, keep_commands: bool = False) -> Journal:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    return make_simulation(scenario, make_requests(scenario, workload), keep_commands=keep_commands).run()


def test_the_command_line_knows_every_policy() -> None:
    assert set(POLICIES) == {"edgeburst", *ORACLES, *SEPARATE, *BASELINES}


windows = st.tuples(st.floats(0, 4), st.floats(0.1, 3)).map(lambda x: (x[0], x[0] + x[1]))


@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(sorted(set(BASELINES) - set(SEARCHED))),
    rate_rps=st.floats(2, 250),
    slo_s=st.floats(0.05, 3),
    late=st.booleans(),
    stays=st.booleans(),
    noise=st.floats(0, 0.5),
    down=st.lists(windows, max_size=2),
    throttled=st.lists(windows, max_size=2),
    bandwidth=st.lists(st.floats(0, 3), min_size=1, max_size=3),
    concurrency=st.integers(1, 40),
)
def test_every_request_ends_exactly_once_whatever_fails(
    policy: str,
    rate_rps: float,
    slo_s: float,
    late: bool,
    stays: bool,
    noise: float,
    down: list[tuple[float, float]],
    throttled: list[tuple[float, float]],
    bandwidth: list[float],
    concurrency: int,
) -> None:
    scenario = Scenario(
        policy=policy,
        classes=(
            SimulatedClass(ServiceClass(name="here", slo_s=slo_s, serve_late=late, edge_only=stays)),
            SimulatedClass(ServiceClass(name="there", slo_s=2 * slo_s)),
        ),
        edge_noise=noise,
        function_noise=noise,
        edge_faults=tuple(Fault("down", *window) for window in down),
        function_faults=tuple(Fault("throttle", *window) for window in throttled),
        bandwidth=steps([(3.0 * i, rate) for i, rate in enumerate([*bandwidth, 1.0])]),
        cold_starts=ColdStarts(start_s=1.0, idle_s=5.0),
        concurrency=concurrency,
        rtt_s=0.02,
    )
    journal = run(scenario, rate_rps=rate_rps, requests=250)
    ids = {request.request_id for request in journal.requests}
    assert set(journal.ended_at_s) == ids
    assert set(journal.answered_by) | set(journal.refusals) == ids
    assert not set(journal.answered_by) & set(journal.refusals)
    sent = [request_id for batch in journal.batches.values() for request_id in batch.batch.request_ids]
    assert len(sent) == len(set(sent)), "nothing is sent twice"
    if stays:
        assert "here" not in classes_that_left(journal)


def classes_that_left(journal: Journal) -> set[str]:
    class_of = {request.request_id: request.class_name for request in journal.requests}
    return {class_of[i] for s in journal.batches.values() if s.batch.tier for i in s.batch.request_ids}


@pytest.mark.parametrize("policy", sorted(set(BASELINES) - {"edge-only"}))
def test_in_overload_requests_that_must_stay_stay_and_others_leave(policy: str) -> None:
    scenario = Scenario(
        policy=policy,
        classes=(
            SimulatedClass(ServiceClass(name="here", slo_s=0.7, edge_only=True)),
            SimulatedClass(ServiceClass(name="there", slo_s=0.7)),
        ),
    )
    assert classes_that_left(run(scenario, rate_rps=220, requests=500)) == {"there"}


@pytest.mark.parametrize("policy", sorted(BASELINES))
def test_same_seed_gives_the_same_commands_at_the_same_times(policy: str) -> None:
    scenario = replace(scenario_of(policy), edge_noise=0.1, function_noise=0.25, bandwidth=constant(4.0), seed=3)
    first, second = (run(scenario, rate_rps=130, requests=250, keep_commands=True) for _ in range(2))
    assert first.commands == second.commands
    other = run(replace(scenario, seed=4), rate_rps=130, requests=250, keep_commands=True)
    assert other.commands != first.commands


@pytest.mark.parametrize("policy", sorted(BASELINES))
@pytest.mark.parametrize(("rate_rps", "slo_s"), [(60, 0.6), (120, 0.6), (180, 1.0)])
def test_without_noise_none_is_cheaper_than_the_bound(policy: str, rate_rps: float, slo_s: float) -> None:
    """A late or refused request could be served alone by a function: then the bound holds for what that would cost."""
    scenario = scenario_of(policy, slo_s=slo_s)
    journal = run(scenario, rate_rps=rate_rps, requests=600)
    found = summarise(journal, scenario, wall_s=0.0)
    outside = 600 * (1 - found["within_slo"])  # type: ignore[operator]
    bound = noted_bound(scenario, journal.requests).cny
    assert bound is not None
    assert journal.cost() + outside * FUNCTION_PRICE.cost(FUNCTION_LATENCY.predict_s(1)) >= bound - 1e-12


@pytest.mark.parametrize("policy", sorted(BASELINES))
def test_a_light_load_is_served_in_time(policy: str) -> None:
    scenario = scenario_of(policy)
    found = summarise(run(scenario, rate_rps=20, requests=300), scenario, wall_s=0.0)
    # BATCH plans for its percentile, and not for more.
    assert found["within_slo"] >= (0.99 if policy == "batch" else 1.0)  # type: ignore[operator]
    if policy not in ("function-only", "batch", "critical-rate"):
        assert found["cost_cny"] == 0.0


class TestEdgeOnly:
    def test_a_free_edge_takes_all_that_the_oldest_deadline_allows(self) -> None:
        policy = EdgeOnly(site(slo_s=0.3))
        [first] = give(policy, requests_at(0.0, slo_s=0.3), 0.0)
        waiting = requests_at(*[0.01] * 60, slo_s=0.3, first=2)
        assert give(policy, waiting, 0.01) == []
        [second] = finish(policy, first, 0.0505)
        # 0.0505 + 0.04234 + 0.008165 n <= 0.31 up to n = 26.
        assert second.items == 26

    def test_what_cannot_be_in_time_any_more_is_dropped(self) -> None:
        policy = EdgeOnly(site(slo_s=0.3))
        [first] = give(policy, requests_at(0.0, slo_s=0.3), 0.0)
        give(policy, [replace(requests_at(0.01, slo_s=0.3)[0], request_id=2)], 0.01)
        assert finish(policy, first, 0.27) == []


def test_a_function_batch_leaves_when_full_or_so_long_after_its_first_request() -> None:
    policy = FunctionOnly(site(), FunctionParameters(TIER, 3, 0.1))
    a, b, c, d = requests_at(0.0, 0.05, 0.2, 0.25)
    assert give(policy, [a], 0.0) == []
    assert policy.next_wakeup_s() == pytest.approx(0.1)
    assert give(policy, [b], 0.05) == []
    assert policy.next_wakeup_s() == pytest.approx(0.1)
    [batch] = give(policy, [], 0.1)
    assert batch.request_ids == (1, 2)
    assert policy.next_wakeup_s() is None
    give(policy, [c], 0.2)
    [full] = give(policy, [d, replace(d, request_id=5)], 0.25)
    assert full.items == 3


def test_static_fills_the_edge_queue_first_and_keeps_its_sizes() -> None:
    policy = Static(site(), StaticParameters(4, 0.0, 6, TIER, 2, 0.5))
    [first] = give(policy, requests_at(0.0), 0.0)
    assert first.backend is Backend.EDGE
    waiting = requests_at(*[0.01] * 9, first=2)
    spilled = give(policy, waiting, 0.01)
    assert [(batch.backend, batch.items) for batch in spilled] == [(Backend.FUNCTION, 2)]
    [second] = finish(policy, first, 0.05)
    assert (second.backend, second.items) == (Backend.EDGE, 4)


def test_static_waits_for_a_full_batch_no_longer_than_its_timeout() -> None:
    policy = Static(site(), StaticParameters(4, 0.1, 6, TIER, 2, 0.5))
    assert give(policy, requests_at(0.0), 0.0) == []
    assert policy.next_wakeup_s() == pytest.approx(0.1)
    [batch] = give(policy, [], 0.1)
    assert batch.items == 1


class TestCriticalRate:
    def test_below_the_critical_rate_the_edge_serves_alone(self) -> None:
        """As its own log says: at SLO 1 s batches of 50 give 100 a second, and 82 a second are served in 40s."""
        found = plan(site(), rate_rps=81.985, bandwidth_bytes_per_s=math.inf)
        assert (found.edge_batch, found.function_batch) == (40, 0)

    def test_where_no_batch_keeps_up_it_falls_to_one(self) -> None:
        """At SLO 0.25 s and 62 a second five take 0.083 s and gather in 0.081 s; ten would be late."""
        found = plan(site(slo_s=0.25), rate_rps=62.0, bandwidth_bytes_per_s=math.inf)
        assert (found.edge_batch, found.function_batch) == (1, 0)

    def test_above_it_functions_take_the_rest(self) -> None:
        found = plan(site(), rate_rps=140.0, bandwidth_bytes_per_s=math.inf)
        # 40 a second are left; five gather in 0.125 s and take 0.921 s, four in 0.1 s and take 0.78 s.
        assert (found.edge_batch, found.function_batch) == (50, 4)

    def test_where_nothing_is_in_time_it_takes_the_smallest(self) -> None:
        found = plan(site(slo_s=0.04), rate_rps=140.0, bandwidth_bytes_per_s=0.0)
        assert (found.edge_batch, found.function_batch) == (1, 1)

    def test_batches_alternate_and_a_plan_is_made_every_five_seconds(self) -> None:
        scenario = scenario_of("critical-rate")
        journal = run(scenario, rate_rps=140, requests=2100)
        sent = sorted(journal.batches.values(), key=lambda s: s.batch.batch_id)
        backends = [s.batch.backend for s in sent]
        assert all(a is not b for a, b in zip(backends, backends[1:], strict=False))
        made_at_s = [plan.made_at_s for plan in journal.plans]
        assert len(made_at_s) >= 2
        assert all(b - a >= 5.0 for a, b in zip(made_at_s, made_at_s[1:], strict=False))


class TestAimd:
    def test_a_full_batch_in_time_allows_one_more_and_a_slow_one_a_tenth_less(self) -> None:
        policy, sizes, now_s, number = Aimd(site()), [], 0.0, 0
        for service_s in (0.1, 0.1, 0.6, 0.1):
            more = [replace(r, request_id=number + r.request_id) for r in requests_at(*[now_s] * 40)]
            number += 40
            [batch, *_] = [b for b in give(policy, more, now_s) if b.backend is Backend.EDGE]
            now_s += service_s
            policy = self.emptied(policy, batch, now_s)
            sizes.append(policy._size)
        assert sizes == pytest.approx([2.0, 3.0, 2.7, 3.7])

    @staticmethod
    def emptied(policy: Aimd, batch: Batch, now_s: float) -> Aimd:
        policy._queue.clear()
        finish(policy, batch, now_s)
        return policy

    def test_a_head_that_the_edge_would_answer_too_late_overflows(self) -> None:
        policy = Aimd(site())
        [first] = give(policy, requests_at(0.0), 0.0)
        assert first.backend is Backend.EDGE
        policy.edge_free_at_s = 0.97
        # The second in the queue has time: it would be served with the next batch.
        head, behind = requests_at(0.0)[0], requests_at(0.0, slo_s=3.0)[0]
        assert give(policy, [replace(head, request_id=2), replace(behind, request_id=3)], 0.01) == []
        assert policy.next_wakeup_s() == pytest.approx(1.0 - 0.357)
        [spilled] = give(policy, [], 1.0 - 0.357)
        assert (spilled.backend, spilled.request_ids) == (Backend.FUNCTION, (2,))


class TestEarliestDeadlineFirst:
    def test_the_most_urgent_go_first(self) -> None:
        policy = EarliestDeadlineFirst(site())
        [first] = give(policy, requests_at(0.0), 0.0)
        slow, urgent = requests_at(0.0)[0], requests_at(0.0, slo_s=0.2)[0]
        give(policy, [replace(slow, request_id=n, deadline_s=3.0) for n in range(2, 40)], 0.01)
        give(policy, [replace(urgent, request_id=99)], 0.02)
        [second] = finish(policy, first, 0.06)
        # What the most urgent allows: 0.06 + 0.04234 + 0.008165 n <= 0.2 up to n = 11.
        assert (second.request_ids[0], second.items) == (99, 11)

    def test_what_waits_leaves_at_the_last_moment_with_the_next_most_urgent(self) -> None:
        policy = EarliestDeadlineFirst(site())
        give(policy, requests_at(0.0), 0.0)
        give(policy, requests_at(0.0, 0.0, 0.0, first=2), 0.0)
        assert policy.next_wakeup_s() == pytest.approx(1.0 - 0.498), "two take 0.498 s, just below half the SLO"
        batches = give(policy, [], 1.0 - 0.498)
        assert [batch.items for batch in batches] == [2, 1]


class TestHindsight:
    def test_whatever_keeps_the_target_comes_before_what_is_cheap(self) -> None:
        good, cheap, worse = TrialResult(0.995, 2.0), TrialResult(0.98, 1.0), TrialResult(0.9, 0.5)
        assert sorted([worse, cheap, good], key=lambda tried: rank(tried, 0.99)) == [good, cheap, worse]

    def test_the_search_finds_the_best_of_a_grid_it_can_walk(self) -> None:
        def trial(parameters: StaticParameters, *, whole: bool) -> TrialResult:
            assert isinstance(whole, bool)
            return TrialResult(1.0, abs(parameters.edge_batch - 7) + abs(parameters.function_timeout_s - 0.3))

        start = StaticParameters(1, 0.0, 1, TIER, 1, 0.0)
        axes: list[list[dict[str, object]]] = [
            [{"edge_batch": items} for items in range(1, 12)],
            [{"function_timeout_s": tenths / 10} for tenths in range(10)],
        ]
        found = descend(start, axes, trial, target=0.99)
        assert (found.edge_batch, found.function_timeout_s) == (7, 0.3)

    @pytest.mark.slow
    def test_the_best_static_parameters_keep_the_percentile_for_less_than_functions_alone(self) -> None:
        scenario = replace(scenario_of("static"), edge_noise=0.1, function_noise=0.25)
        found = summarise(run(scenario, rate_rps=125, requests=1000), scenario, wall_s=0.0)
        assert found["within_slo"] >= 0.99  # type: ignore[operator]
        assert found["cost_cny"] < 0.5 * found["all_function_cny"]  # type: ignore[operator]
        assert set(found["parameters"]) == {  # type: ignore[call-overload]
            "edge_batch",
            "edge_timeout_s",
            "edge_queue",
            "tier",
            "function_batch",
            "function_timeout_s",
        }

    def test_batch_finds_what_a_rule_of_thumb_does_not(self) -> None:
        costs = {}
        for policy in ("function-only", "batch"):
            scenario = scenario_of(policy)
            found = summarise(run(scenario, rate_rps=12, requests=400), scenario, wall_s=0.0)
            assert found["within_slo"] >= 0.99  # type: ignore[operator]
            costs[policy] = found["cost_cny"]
        assert costs["batch"] < costs["function-only"]  # type: ignore[operator]

    def test_batch_says_how_it_was_planned_and_chooses_the_cheaper_tier(self) -> None:
        fast = FunctionTier("fast", "fast", LatencyModel(0.05, 0.02, 8), Price(per_s=1.3e-5, per_call=9e-7))
        scenario = replace(scenario_of("batch"), tiers=(TIER, fast))
        found = summarise(run(scenario, rate_rps=50, requests=400), scenario, wall_s=0.0)
        assert found["planner"] == "exact"
        assert found["parameters"]["tier"] == "fast"  # type: ignore[index]
        assert found["within_slo"] >= 0.99  # type: ignore[operator]

    @pytest.mark.slow
    @pytest.mark.parametrize("noise", [0.0, 0.25])
    def test_no_other_static_buffer_that_keeps_the_percentile_is_much_cheaper_than_what_batch_plans(
        self, noise: float
    ) -> None:
        scenario = replace(scenario_of("batch"), function_noise=noise)
        process = mmpp2(rates_rps=(4.0, 60.0), leave_per_s=(0.2, 0.4))
        workload = markovian(process, rng=generators(0)[0], requests=2500)
        requests = make_requests(scenario, workload)
        place = site_of(scenario, requests)

        def tried(parameters: FunctionParameters) -> tuple[float, float]:
            edge, functions = make_backends(scenario, scenario.engine_settings())
            policy = FunctionOnly(place, parameters)
            journal = Simulation(engine=policy, requests=requests, edge=edge, functions=functions).run()
            return summarise(journal, scenario, wall_s=0.0)["within_slo"], journal.cost()  # type: ignore[return-value]

        within, cost = tried(best_batch(place, requests))
        assert within >= 0.985, "planned for 0.99; so many requests scatter around it"
        others = [tried(FunctionParameters(TIER, b, tenths / 10)) for b in range(2, 6) for tenths in (0, 1, 2, 3, 4, 6)]
        assert cost <= 1.05 * min(other for kept, other in others if kept >= 0.99)

    @pytest.mark.parametrize("arrivals_s", [(), (1.0,), (1.0, 1.0), (1.0, 2.0)])
    def test_batch_plans_with_however_few_arrivals(self, arrivals_s: tuple[float, ...]) -> None:
        assert best_batch(site(), requests_at(*arrivals_s)).tier.name == "function"

    def test_batch_sends_single_requests_where_nothing_keeps_the_percentile(self) -> None:
        in_time = [0.1 * number for number in range(100)]
        found = best_batch(site(slo_s=0.3), requests_at(*in_time, slo_s=0.3))
        assert (found.function_batch, found.function_timeout_s) == (1, 0.0)


@pytest.mark.parametrize("policy", ["static", "edge-only", "critical-rate"])
def test_a_policy_without_what_it_needs_is_told_in_one_sentence(policy: str) -> None:
    scenario = scenario_of(policy)
    [model] = scenario.served()
    requests = make_requests(scenario, poisson(10, rng=generators(0)[0], requests=5))
    with pytest.raises(ScenarioError, match="needs an edge"):
        make_simulation(replace(scenario, models=(replace(model, edge_latency=None),)), requests)
    with pytest.raises(ScenarioError, match="supports one model only, the scenario has 2"):
        make_simulation(replace(scenario, models=(model, replace(model, name="other"))), requests)


class TestBoundNote:
    def test_several_slos_are_taken_for_the_longest(self) -> None:
        scenario = scenario_of("edf", slo_s=0.3)
        requests = make_requests(scenario, poisson(130, rng=generators(0)[0], requests=500))
        short, long = noted_bound(scenario, requests), noted_bound(scenario_of("edf", slo_s=0.9), requests)
        both = replace(scenario, classes=(*scenario.classes, SimulatedClass(ServiceClass(name="b", slo_s=0.9))))
        mixed = noted_bound(both, requests)
        assert (mixed.cny, short.cny) == (long.cny, None)
        assert "ignores noise, uplink, round trip, cold starts" in long.note
        assert "gives every request the longest of the 2 SLOs, 0.9 s" in mixed.note
        assert "no schedule serves request" in short.note

    def test_several_models_have_none(self) -> None:
        scenario = scenario_of("edgeburst")
        [model] = scenario.served()
        two = noted_bound(replace(scenario, models=(model, replace(model, name="other"))), ())
        assert two.cny is None
        assert "several models" in two.note

    def test_several_batches_at_once_count_as_one_machine_and_unlike_servers_as_at_least_their_sum(self) -> None:
        scenario = scenario_of("edgeburst", slo_s=0.6)
        requests = make_requests(scenario, poisson(300, rng=generators(0)[0], requests=1500))
        one, two = (noted_bound(replace(scenario, edge_parallel=parallel), requests) for parallel in (1, 2))
        named = [EdgeServer(name) for name in ("a", "b")]
        slow = LatencyModel(2 * ORIN_LATENCY.alpha_s, 2 * ORIN_LATENCY.beta_s, 128)
        pair = noted_bound(replace(scenario, edges=tuple(named)), requests)
        mixed = noted_bound(replace(scenario, edges=(named[0], EdgeServer("b", slow))), requests)
        assert pair.cny == two.cny
        costs = [0.0, *(bound.cny or math.nan for bound in (two, mixed, one))]
        assert all(less < more for less, more in pairwise(costs))
        assert "takes all that the edge does at once for one" in mixed.note
        assert "at once" not in one.note
        limit = noted_limit(replace(scenario, edge_parallel=2), requests)
        assert limit.cny is None
        assert "several batches at once" in limit.note


KEYS = [
    *("policy", "requests", "answered", "refused", "late", "within_slo", "edge", "function", "edge_batches"),
    "edge_busy",
    *("function_batches", "cost_cny", "bound_cny", "all_function_cny", "latency_s", "plans", "replan_causes"),
    *("wall_s", "seed"),
]


@pytest.mark.parametrize("policy", sorted(BASELINES))
def test_the_command_line_prints_one_object_with_every_figure(policy: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(["simulate", "--policy", policy, "--poisson", "90", "--requests", "120", "--bound", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == 0
    assert [key for key in found if key in KEYS] == KEYS
    assert set(found) - set(KEYS) <= {"bound_note", "parameters", "planner"}
    assert found["policy"] == policy
    assert found["answered"] + found["refused"] == 120
    assert set(found["latency_s"]) == {"p50", "p95", "p99"}


def test_rows_tell_the_same_as_the_figures() -> None:
    scenario = scenario_of("edf")
    journal = run(scenario, rate_rps=150, requests=800)
    found, table = summarise(journal, scenario, wall_s=0.0), list(rows(journal))
    assert sum(row.backend == "function" for row in table) == found["function"]
    assert sum(row.cost for row in table) == pytest.approx(found["cost_cny"])

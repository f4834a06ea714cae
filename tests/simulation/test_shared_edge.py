"""Two daemons on one edge server: what it reports of waits lets them share it, and changes nothing for one alone."""

from dataclasses import replace

import pytest

from scheduler.domain.messages import SendBatch
from scheduler.domain.plans import ServiceClass
from scheduler.simulator.report import by_daemon, summarise
from scheduler.simulator.report import rows as rows_of
from scheduler.simulator.scenario import Scenario, ScenarioError, SimulatedClass
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson

SEEDS = range(2)


def of_slo(slo_s: float) -> Scenario:
    classes = (SimulatedClass(ServiceClass(slo_s=slo_s)),)
    return Scenario(classes=classes, edge_noise=0.1, function_noise=0.25, daemons=(1.0, 1.0))


NO_FUNCTIONS = replace(of_slo(1.0), tiers=())


def run(scenario: Scenario, *, rate_rps: float, requests: int, keep_commands: bool = False) -> Journal:
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=requests)
    return make_simulation(scenario, make_requests(scenario, workload), keep_commands=keep_commands).run()


def within(scenario: Scenario, *, rate_rps: float, requests: int) -> float:
    """The part of all requests within the SLO, over several seeds."""
    runs = [run(replace(scenario, seed=seed), rate_rps=rate_rps, requests=requests) for seed in SEEDS]
    in_time = [daemon["in_time"] for journal in runs for daemon in by_daemon(journal, scenario)]
    return sum(in_time) / (len(SEEDS) * requests)


def test_without_functions_reports_keep_two_daemons_from_collapsing_near_saturation() -> None:
    silent = within(replace(NO_FUNCTIONS, edge_silent=True), rate_rps=95.0, requests=2000)
    told = within(NO_FUNCTIONS, rate_rps=95.0, requests=2000)
    assert told > silent + 0.03
    assert told > 0.95


def test_with_functions_more_are_in_time_and_the_daemons_share_the_edge() -> None:
    scenario = of_slo(0.6)
    silent = within(replace(scenario, edge_silent=True), rate_rps=80.0, requests=2000)
    told = within(scenario, rate_rps=80.0, requests=2000)
    assert told > silent
    assert told > 0.99


@pytest.mark.slow
def test_a_daemon_with_a_third_of_the_others_requests_keeps_its_part_of_the_edge() -> None:
    for seed in SEEDS:
        scenario = replace(of_slo(1.0), daemons=(3.0, 1.0), seed=seed)
        large, small = by_daemon(run(scenario, rate_rps=120.0, requests=3000), scenario)
        assert small["edge"] / small["requests"] > 0.5 * large["edge"] / large["requests"]


def test_one_daemon_alone_sends_the_same_whether_the_edge_reports_or_not() -> None:
    alone = replace(of_slo(0.6), daemons=(1.0,), edge_ahead=0)
    sent = [
        [
            (at_s, command.batch.place, command.batch.request_ids)
            for at_s, command in journal.commands
            if isinstance(command, SendBatch)
        ]
        for journal in (
            run(replace(alone, edge_silent=silent), rate_rps=120.0, requests=1500, keep_commands=True)
            for silent in (False, True)
        )
    ]
    assert sent[0] == sent[1]


def test_the_report_has_a_row_for_each_daemon_and_only_the_engine_can_be_several() -> None:
    scenario = replace(of_slo(1.0), daemons=(2.0, 1.0, 1.0))
    journal = run(scenario, rate_rps=60.0, requests=400)
    rows = summarise(journal, scenario, wall_s=0.0)["daemons"]
    assert isinstance(rows, list)
    assert sum(row["requests"] for row in rows) == 400
    assert rows[0]["requests"] > 1.4 * rows[1]["requests"]
    assert sum(row["in_time"] for row in rows) == sum(row.within_slo for row in rows_of(journal))
    with pytest.raises(ScenarioError, match="several daemons need the policy edgeburst"):
        run(replace(scenario, policy="slots"), rate_rps=60.0, requests=10)

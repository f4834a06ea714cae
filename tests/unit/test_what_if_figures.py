"""What a simulation of recorded traffic counts: clients that give up, instances that never end, money in vain."""

from typing import Any

import numpy as np
import pytest

from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.recordings.layout import Kind, RecordingError
from scheduler.recordings.traffic import plain_traffic
from scheduler.simulator.backends import ColdStarts, InstancePool
from scheduler.simulator.report import Row, rows, summarise, within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.shell import Journal, Simulation
from scheduler.simulator.world import make_backends
from scheduler.whatif.comparison import compared
from scheduler.whatif.requests import make_requests
from scheduler.whatif.running import GROUPS, Outcome, figures


def test_a_client_that_gives_up_is_neither_answered_nor_refused() -> None:
    scenario = Scenario(classes=(SimulatedClass(ServiceClass(slo_s=5.0)),))
    requests = [Request(n, "simulated", 0.001 * n, 5.0 + 0.001 * n) for n in range(1, 41)]
    edge, functions = make_backends(scenario, scenario.engine_settings())
    journal = Simulation(
        engine=Engine(scenario.engine_settings()),
        requests=requests,
        edge=edge,
        functions=functions,
        give_ups=[(0.05, 40), (0.0500001, 1), (90.0, 2)],
    ).run()
    assert {1, 40} >= journal.cancelled >= {40}
    assert journal.ended_at_s[40] == 0.05
    assert not journal.cancelled & (set(journal.answered_by) | set(journal.refusals))
    assert len(journal.answered_by) + len(journal.cancelled) == 40
    assert within_slo(journal) == summarise(journal, scenario, wall_s=0.0)["within_slo"] == 1.0
    everyone = list(rows(journal))
    assert figures(everyone)["within_slo"] == 1.0
    assert figures([row for row in everyone if row.outcome == "cancelled"])["within_slo"] is None


def test_the_money_of_all_holds_what_no_answer_paid() -> None:
    journal = Journal([])
    row = Row(1, "m", "c", 0.0, 1.0, 0.5, 0.5, outcome="answered", within_slo=True, cost=2.0)
    groups: dict[str, Any] = {name: {} for name in GROUPS}
    before, after = (Outcome({"cost_cny": cost, **groups}, (row,), journal) for cost in (2.0, 3.5))
    both = compared(before, after)["all"]
    assert (both["configured"]["cost_cny"], both["changed"]["cost_cny"]) == (2.0, 3.5)


def test_provisioned_instances_never_end_and_others_do() -> None:
    pool = InstancePool(ColdStarts(start_s=3.0, idle_s=10.0), provisioned=1)
    assert pool.start_s(100.0) == 0.0
    pool.release(101.0)
    assert pool.start_s(100.5) == 3.0
    pool.release(104.0)
    assert pool.start_s(500.0) == 0.0


def test_what_came_at_another_time_need_not_be_configured() -> None:
    scenario = Scenario(classes=(SimulatedClass(ServiceClass(slo_s=5.0)),))
    kinds = (Kind("gone", "", "", 0), Kind("simulated", "", "", 0))
    whole = plain_traffic(np.array([0.0, 10.0]), dated=False, kinds=kinds, kind=np.array([0, 1]))
    found = make_requests(whole.between(5.0, 20.0), scenario.engine_settings(), reserve_s=0.0, request_bytes=1)
    assert [request.model for request in found.requests] == ["simulated"]
    with pytest.raises(RecordingError, match="model 'gone', which is not configured"):
        make_requests(whole, scenario.engine_settings(), reserve_s=0.0, request_bytes=1)

"""An edge that goes away under traffic: functions that nothing is known of take over within the objective."""

import pytest

from scheduler.simulator import report
from scheduler.simulator.world import generators, make_requests, make_simulation
from scripts.evaluation.measures import around_change
from scripts.evaluation.options import OURS, Options
from scripts.evaluation.suites import changes

SEEDS = (0, 1, 2, 3, 4)
ASKED = 0.02
"""Part of the requests of the first ten seconds that may be answered late or refused."""


def outside(seed: int) -> tuple[int, int]:
    cases = changes(Options(policies=(OURS,), seeds=(seed,)))
    case = next(case for case in cases if case.name.startswith("edge out"))
    workload = case.traffic.workload(generators(case.scenario.seed)[0])
    assert case.change_at_s is not None
    requests = make_requests(case.scenario, workload)
    # The minute after it is not looked at.
    hit = [request for request in requests if request.arrived_at_s < case.change_at_s + 11.0]
    journal = make_simulation(case.scenario, hit).run()
    row = around_change(list(report.rows(journal)), case)
    late, all_requests = row["hit_outside"], row["hit_requests"]
    assert isinstance(late, int)
    assert isinstance(all_requests, int)
    return late, all_requests


@pytest.mark.slow
def test_hardly_a_request_is_late_or_refused_when_the_edge_goes_away() -> None:
    late, all_requests = map(sum, zip(*map(outside, SEEDS), strict=True))
    assert late <= ASKED * all_requests, f"{late} of {all_requests}"

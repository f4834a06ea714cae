"""`simulate --limit`: no policy pays less under noise, and a note says what the limit takes for granted."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from scheduler import cli
from scheduler.domain.plans import ServiceClass
from scheduler.simulator.bound_note import noisy_site, noted_bound, noted_limit
from scheduler.simulator.limit import NoisyProblem, least_costs
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.evaluation.options import NOISY, with_slo


@pytest.mark.parametrize("policy", ["edgeburst", "log-oracle", "aimd", "edf", "function-only"])
def test_no_policy_pays_less_whatever_lateness_costs(policy: str) -> None:
    scenario = replace(with_slo(NOISY, 0.6), policy=policy)
    requests = make_requests(scenario, poisson(140, rng=generators(0)[0], requests=1000))
    journal = make_simulation(scenario, requests).run()
    [model] = scenario.served()
    arrivals_s = np.array([request.arrived_at_s for request in requests])
    problem = NoisyProblem(arrivals_s, noisy_site(scenario, model), steps=100)
    prices = [2e-6, 9e-6, 4e-5]
    missed = len(requests) * (1 - within_slo(journal))
    for price, least in zip(prices, least_costs(problem, prices).tolist(), strict=True):
        assert journal.cost() + price * missed > least


def test_the_note_says_what_it_holds_for() -> None:
    scenario = replace(with_slo(NOISY, 0.6), max_items=64)
    requests = make_requests(scenario, poisson(140, rng=generators(0)[0], requests=300))
    strict = SimulatedClass(ServiceClass(name="strict", slo_s=0.4, percentile=0.999, edge_only=True))
    alone, mixed = (
        noted_limit(scenario, requests),
        noted_limit(replace(scenario, classes=(*scenario.classes, strict)), requests),
    )
    assert alone.cny is not None
    assert "with 0.99 of the requests within their SLO; ignores uplink" in alone.note
    assert float(re.findall(r"one late request more would save (\S+) CNY", alone.note)[0]) > 1e-6
    assert mixed.cny == pytest.approx(alone.cny)
    assert "with 0.99 of the requests" in mixed.note
    assert "gives every request the longest of the 2 SLOs, 0.6 s; lets edge-only requests use functions" in mixed.note


def test_several_models_have_none() -> None:
    [model] = Scenario().served()
    two = noted_limit(replace(Scenario(), models=(model, replace(model, name="other"))), ())
    assert (two.cny, two.note) == (None, "there is no limit for several models on one edge, and the scenario has 2")


def test_what_no_policy_can_keep_is_said_in_the_note() -> None:
    strict = SimulatedClass(ServiceClass(slo_s=0.6, percentile=0.99))
    scenario = replace(with_slo(NOISY, 0.6), classes=(strict,), tiers=())
    found = noted_limit(scenario, make_requests(scenario, poisson(200, rng=generators(0)[0], requests=200)))
    assert found.cny is None
    assert "no policy is known to answer 0.99 of the requests within 0.6 s" in found.note


def test_without_noise_it_is_below_the_bound_by_what_may_be_late() -> None:
    scenario = with_slo(Scenario(), 0.6)
    requests = make_requests(scenario, poisson(140, rng=generators(0)[0], requests=500))
    limit, bound = noted_limit(scenario, requests).cny, noted_bound(scenario, requests).cny
    assert limit is not None
    assert bound is not None
    assert 0.8 * bound < limit < bound


def test_the_command_line_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--poisson",
        "140",
        "--requests",
        "200",
        "--slo-s",
        "0.6",
        "--edge-noise",
        "0.1",
        "--function-noise",
        "0.25",
    ]
    assert cli.main(["simulate", "--policy", "edgeburst", *words, "--limit", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["limit_cny"] < found["all_function_cny"]
    assert found["limit_note"].startswith("expected, with 0.99 of the requests within their SLO; ignores uplink")
    assert "bound_cny" not in found

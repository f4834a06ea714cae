"""The budget of a class in simulations: what may miss is spent on purpose where the operator says so."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler.domain.plans import ServiceClass
from scheduler.domain.requests import Request
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import Scenario, SimulatedClass
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson


def run(rate_rps: float, *, spends: bool, serve_late: bool = False) -> Journal:
    """At an SLO of 0.6 s the edge serves 107 requests a second; nothing varies."""
    service = ServiceClass(slo_s=0.6, percentile=0.99, spends=spends, serve_late=serve_late)
    scenario = replace(Scenario(), classes=(SimulatedClass(service),))
    workload = poisson(rate_rps, rng=generators(scenario.seed)[0], requests=4000)
    return make_simulation(scenario, make_requests(scenario, workload)).run()


def test_a_patient_class_that_may_miss_more_leaves_the_edge_as_full() -> None:
    """Its weight falls to the least; batches are not cut for that, which would send twice as many to functions."""
    classes = (ServiceClass("quick", slo_s=0.6), ServiceClass("patient", slo_s=2.0, percentile=0.95))
    scenario = replace(Scenario(), classes=tuple(map(SimulatedClass, classes)), edge_noise=0.1, function_noise=0.25)
    workload = poisson(120.0, rng=generators(scenario.seed)[0], requests=6000)
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    batches = [sent.batch for sent in journal.batches.values()]
    assert sum(batch.items for batch in batches if batch.tier) < 0.22 * 6000


def test_what_may_miss_is_spent_on_purpose_and_saves_money() -> None:
    keeps, spends = (run(140.0, spends=spends) for spends in (False, True))
    assert within_slo(keeps) >= 0.999, "without noise no request misses by chance"
    assert 0.988 <= within_slo(spends) < 0.996
    assert spends.cost() < 0.99 * keeps.cost()
    assert {refusal.reason for refusal in spends.refusals.values()} == {"budget"}


def test_a_class_that_is_served_late_waits_for_room_on_the_edge() -> None:
    keeps, spends = (run(108.0, spends=spends, serve_late=True) for spends in (False, True))
    assert within_slo(keeps) == 1.0 > within_slo(spends) >= 0.99
    assert spends.cost() < 0.97 * keeps.cost()
    assert not spends.refusals
    late = [r for r in spends.requests if spends.ended_at_s[r.request_id] > r.deadline_s]
    assert late
    assert all(spends.ended_at_s[r.request_id] <= r.arrived_at_s + 3 * 0.6 + 1.0 for r in late)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_class_that_no_side_can_keep_does_not_hurry_the_other(seed: int) -> None:
    """Nothing answers within 20 ms. The other class costs what it costs alone, and is in time as often."""
    kept = SimulatedClass(ServiceClass("kept", slo_s=0.6), share=0.8)
    hopeless = SimulatedClass(ServiceClass("hopeless", slo_s=0.02), share=0.2)
    both = replace(Scenario(), classes=(kept, hopeless), edge_noise=0.1, function_noise=0.25, seed=seed)
    requests = make_requests(both, poisson(190.0, rng=generators(seed)[0], requests=4000))
    those_kept = [request for request in requests if request.class_name == "kept"]
    beside = make_simulation(both, requests).run()
    alone = make_simulation(replace(both, classes=(kept,)), those_kept).run()
    assert beside.cost() < 1.05 * alone.cost()
    assert missed(beside, those_kept) <= missed(alone, those_kept) + 0.005 * len(those_kept)


def missed(journal: Journal, requests: Sequence[Request]) -> int:
    ended_s, refused = journal.ended_at_s, journal.refusals
    return sum(r.request_id in refused or ended_s[r.request_id] > r.deadline_s for r in requests)

"""Under overload each tenant is served by its weight: water-filling is the oracle; nothing changes without overload."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from scheduler.domain.latency import LatencyModel
from scheduler.domain.messages import ComputePlan
from scheduler.domain.plans import EngineSettings, ModelSettings, ServiceClass
from scheduler.domain.requests import Request
from scheduler.domain.tenants import TenantSettings
from scheduler.engine import Engine
from scheduler.simulator.backends import SimulatedEdge, noise
from scheduler.simulator.faults import Faults
from scheduler.simulator.report import rows
from scheduler.simulator.scenario import Scenario, SimulatedTenant
from scheduler.simulator.shell import Journal, Simulation
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.evaluation.tenants import ALONE, CAPPED, EDGE_RPS, TenantCase, figures, tenants

OFF = Scenario()


def shares(scenario: Scenario, load: float, *, until_s: float = 14.0, first_s: float = 3.0) -> dict[str, object]:
    """Runs an overload and returns its figures."""
    workload = poisson(load * EDGE_RPS, rng=generators(scenario.seed)[0], duration_s=until_s)
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    return figures(TenantCase("", scenario, load * EDGE_RPS, (first_s, until_s - 1.0), until_s), journal)


@pytest.mark.parametrize(
    "each",
    [
        (("a", 3.0, 1.0), ("b", 1.0, 1.0)),
        (("a", 1.0, 9.0), ("b", 3.0, 3.0)),
        (("a", 5.0, 1.0), ("b", 2.0, 1.0), ("c", 1.0, 1.0)),
        (("a", 3.0, 0.0), ("b", 2.0, 1.0), ("c", 1.0, 1.0)),
        (("a", 3.0, 0.6), ("b", 1.0, 3.4)),
    ],
    ids=["3 : 1", "1 : 3, offered 3 : 1", "5 : 2 : 1", "the first idle", "the first within its share"],
)
def test_the_edge_is_shared_as_water_filling_shares_it(each: Sequence[tuple[str, float, float]]) -> None:
    found = shares(replace(ALONE, tenants=tenants(*each)), 4.0)
    assert float(str(found["worst_difference"])) <= 0.05, found


def test_without_tenants_the_larger_offer_gets_more() -> None:
    """The oracle would notice: without fairness who offers three times as much is served three times as much."""
    blind = replace(ALONE, tenants=tenants(("a", 1, 3), ("b", 3, 1)))
    workload = poisson(4 * EDGE_RPS, rng=generators(0)[0], duration_s=14.0)
    requests = make_requests(blind, workload)
    journal = make_simulation(replace(blind, tenants=()), requests).run()
    served = Counter(row.tenant for row in rows(journal) if row.within_slo)
    assert served["a"] / served["b"] == pytest.approx(3.0, rel=0.2)


def test_money_and_edge_are_shared_once_the_cap_is_spent() -> None:
    scenario = replace(CAPPED, tenants=tenants(("a", 3, 1), ("b", 1, 1)))
    found = shares(replace(scenario, caps=replace(scenario.caps, per_hour_cny=0.002)), 4.0, first_s=8.0, until_s=20.0)
    assert float(str(found["worst_difference"])) <= 0.05, found
    a, b = map(float, str(found["paid"]).split(" : "))
    assert a / b == pytest.approx(3.0, rel=0.05)


def run(settings: EngineSettings, requests: Sequence[Request]) -> Journal:
    edge = SimulatedEdge(
        latencies={model.name: model.edge_latency for model in settings.models if model.edge_latency is not None},
        faults=Faults(()),
        noise=noise(0.0, generators(0)[2]),
    )
    return Simulation(engine=Engine(settings), requests=requests, edge=edge, functions=None).run()


def mixed(*streams: tuple[str, str, str, float, float]) -> list[Request]:
    """Returns 9 s of Poisson requests of (tenant, model, class, rate, SLO)."""
    arrivals = []
    for number, (tenant, model, class_name, rate_rps, slo_s) in enumerate(streams):
        times_s = poisson(rate_rps, rng=generators(number)[0], duration_s=9.0).times_s.tolist()
        arrivals += [(at_s, at_s + slo_s, model, class_name, tenant) for at_s in times_s]
    return [
        Request(number, model, at_s, deadline_s, 1, 10_000, class_name, 2, tenant)
        for number, (at_s, deadline_s, model, class_name, tenant) in enumerate(sorted(arrivals), start=1)
    ]


def model(name: str, *classes: ServiceClass) -> ModelSettings:
    return ModelSettings(name, max_items=64, classes=classes, edge_latency=LatencyModel(0.04234, 0.008165, 64))


BOTH = (TenantSettings("a"), TenantSettings("b"))


def in_time(journal: Journal) -> dict[str, float]:
    sent = Counter(row.tenant for row in rows(journal))
    served = Counter(row.tenant for row in rows(journal) if row.within_slo)
    return {tenant: served[tenant] / count for tenant, count in sent.items()}


def test_tight_deadlines_are_not_starved_by_a_backlog_with_loose_ones() -> None:
    settings = EngineSettings(
        models=(model("m", ServiceClass("tight", slo_s=0.4), ServiceClass("loose", slo_s=2.5)),), uplink_rtt_s=0.0
    )
    requests = mixed(("b", "m", "tight", 20.0, 0.4), ("a", "m", "loose", 250.0, 2.5))
    blind = in_time(run(settings, requests))
    fair = in_time(run(replace(settings, tenants=BOTH), requests))
    assert fair["b"] >= 0.9, (blind, fair)
    assert fair["b"] > blind["b"] + 0.2, (blind, fair)


def test_a_backlog_of_one_model_leaves_the_edge_to_the_tenant_of_another() -> None:
    settings = EngineSettings(
        models=(model("x", ServiceClass("default", slo_s=1.0)), model("y", ServiceClass("default", slo_s=1.5))),
        tenants=BOTH,
    )
    found = in_time(run(settings, mixed(("a", "x", "default", 300.0, 1.0), ("b", "y", "default", 30.0, 1.5))))
    assert found["b"] >= 0.8, found


def test_requests_of_one_tenant_get_the_same_commands_as_without_tenants() -> None:
    workload = poisson(130.0, rng=generators(1)[0], requests=1500)
    alone = replace(OFF, edge_noise=0.1, function_noise=0.2, seed=1, tenants=tenants(("a", 3, 1), ("b", 1, 0)))
    requests = make_requests(alone, workload)
    journals = [
        make_simulation(scenario, requests, keep_commands=True).run()
        for scenario in (alone, replace(alone, tenants=()))
    ]
    # What a plan is asked for with holds the settings, tenants included.
    told, blind = ([c for c in journal.commands if not isinstance(c[1], ComputePlan)] for journal in journals)
    assert told == blind


def test_a_tenants_own_cap_is_never_passed() -> None:
    capped = SimulatedTenant(TenantSettings("a", 1.0, per_hour=0.0005), 1.0)
    scenario = replace(
        CAPPED, edge_noise=0.1, function_noise=0.25, caps=Scenario().caps, tenants=(capped, *tenants(("b", 1, 1)))
    )
    workload = poisson(2.0 * EDGE_RPS, rng=generators(0)[0], duration_s=14.0)
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    paid = Counter[str]()
    for row in rows(journal):
        paid[row.tenant] += row.cost
    assert 0.0004 <= paid["a"] <= 0.0005 * 1.02
    assert paid["b"] > 2 * paid["a"]

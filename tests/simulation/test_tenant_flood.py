"""Beside a tenant that sends far more than edge and functions can do, one within its share is served as if alone."""

from dataclasses import replace

import pytest

from scheduler.simulator.report import rows
from scheduler.simulator.scenario import ORIN_LATENCY, Scenario
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.evaluation.tenants import tenants

UNTIL_S, FIRST_S = 16.0, 5.0


def within(*, slo_s: float, late: bool, ward_rps: float, flood_rps: float) -> dict[str, float]:
    """Simulates an edge that serves 75 requests a second and four function instances; returns each one's share in time.

    As in `make demo-failures`: the flood's backlog is on the edge, in its next batch, and before the functions.
    """
    base, rate_rps = Scenario(), ward_rps + flood_rps
    classes = tuple(
        replace(each, service_class=replace(each.service_class, slo_s=slo_s, serve_late=late)) for each in base.classes
    )
    scenario = replace(
        base,
        classes=classes,
        edge_latency=ORIN_LATENCY.slower(1.5),
        tiers=tuple(replace(tier, max_in_flight=4) for tier in base.tiers),
        concurrency=4,
        max_function_in_flight=4,
        edge_noise=0.02,
        function_noise=0.02,
        rtt_s=0.02,
        tenants=tenants(("ward", 1, ward_rps / rate_rps), ("flood", 1, flood_rps / rate_rps)),
    )
    requests = make_requests(scenario, poisson(rate_rps, rng=generators(0)[0], duration_s=UNTIL_S))
    journal = make_simulation(scenario, requests).run()
    found = {}
    for tenant in ("ward", "flood"):
        own = [
            row for row in rows(journal) if row.tenant == tenant and FIRST_S < row.arrived_at_s < UNTIL_S - 2 * slo_s
        ]
        found[tenant] = sum(row.within_slo for row in own) / len(own)
    return found


@pytest.mark.parametrize(
    ("slo_s", "late", "ward_rps", "flood_rps", "least"),
    [(1.0, False, 20.0, 190.0, 0.99), (1.0, True, 20.0, 190.0, 0.99), (2.0, False, 10.0, 140.0, 0.95)],
    ids=["refused where late", "served late", "patient"],
)
def test_a_tenant_within_its_share_keeps_its_objective(
    *, slo_s: float, late: bool, ward_rps: float, flood_rps: float, least: float
) -> None:
    found = within(slo_s=slo_s, late=late, ward_rps=ward_rps, flood_rps=flood_rps)
    assert found["ward"] >= least, found
    # What the edge does all in all is none the less for it.
    assert found["flood"] > 0.2, found

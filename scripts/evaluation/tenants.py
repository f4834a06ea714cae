"""The suite `tenants`: what each tenant is served under overload, beside weighted max-min fairness by water-filling."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from scheduler.dispatch.tenant_money import water_filling
from scheduler.domain.tenants import TenantSettings
from scheduler.simulator.report import rows
from scheduler.simulator.scenario import ORIN_LATENCY, Burst, Scenario, SimulatedTenant, SpendCaps
from scheduler.simulator.shell import Journal
from scheduler.simulator.world import generators, make_requests, make_simulation
from scheduler.workloads import poisson
from scripts.evaluation.case import Result, Row
from scripts.evaluation.tables import Table

SUITE = "tenants"
MAX_ITEMS = 118
"""The edge's largest batch within an SLO of a second."""
EDGE_RPS = MAX_ITEMS / ORIN_LATENCY.predict_s(MAX_ITEMS)
"""What the edge serves a second, 117."""
ALONE = Scenario(tiers=(), max_items=MAX_ITEMS, edge_latency=replace(ORIN_LATENCY, max_batch=MAX_ITEMS))
CAPPED = replace(ALONE, tiers=Scenario().tiers, caps=SpendCaps(per_hour_cny=0.006))
"""Functions whose cap is spent within 20 s of twice the edge's load."""


@dataclass(frozen=True, slots=True)
class TenantCase:
    """One overload.

    Attributes:
        name: in words.
        scenario: tenants, edge, functions and caps.
        rate_rps: requests a second of all tenants, bursts apart.
        counted_s: requests that arrive in this time are counted.
        duration_s: length.
    """

    name: str
    scenario: Scenario
    rate_rps: float
    counted_s: tuple[float, float] = (5.0, 45.0)
    duration_s: float = 50.0


def tenants(*each: tuple[str, float, float]) -> tuple[SimulatedTenant, ...]:
    """Returns tenants from (name, share, part of the rate)."""
    return tuple(SimulatedTenant(TenantSettings(name, share), rate) for name, share, rate in each)


def _case(
    name: str,
    base: Scenario,
    load: float,
    *each: tuple[str, float, float],
    counted_s: tuple[float, float] = (5.0, 45.0),
) -> TenantCase:
    return TenantCase(name, replace(base, tenants=tenants(*each)), load * EDGE_RPS, counted_s)


def cases() -> Iterator[TenantCase]:
    """Yields the cases; the load is in multiples of what the edge serves."""
    noisy = replace(ALONE, edge_noise=0.1)
    yield _case("edge, 3 : 1, each offers twice the capacity", ALONE, 4.0, ("a", 3, 1), ("b", 1, 1))
    yield _case("the same with noise", noisy, 4.0, ("a", 3, 1), ("b", 1, 1))
    yield _case("edge, 1 : 1", ALONE, 4.0, ("a", 1, 1), ("b", 1, 1))
    yield _case("edge, 10 : 1", ALONE, 4.0, ("a", 10, 1), ("b", 1, 1))
    yield _case("edge, 1 : 3 with offers of 9 : 1", ALONE, 5.0, ("a", 1, 9), ("b", 3, 1))
    yield _case("edge, 5 : 2 : 1", ALONE, 6.0, ("a", 5, 1), ("b", 2, 1), ("c", 1, 1))
    yield _case("edge, 3 : 2 : 1, the first idle", ALONE, 4.0, ("a", 3, 0), ("b", 2, 1), ("c", 1, 1))
    yield _case("edge, 3 : 1, the first offers 0.6 of the capacity", ALONE, 4.6, ("a", 3, 0.6), ("b", 1, 4))
    yield _case("edge, 2 : 1 : 1, the last offers 0.1", noisy, 4.1, ("a", 2, 2), ("b", 1, 2), ("c", 1, 0.1))
    steady, bursty = tenants(("a", 1, 1), ("b", 1, 0))
    bursty = replace(bursty, bursts=(Burst(20.0, 15.0, 3.0 * EDGE_RPS),))
    bursts = replace(ALONE, tenants=(steady, bursty))
    yield TenantCase("edge, 1 : 1, a burst of three times the capacity beside 0.45", bursts, 0.45 * EDGE_RPS, (20, 35))
    spent = (25.0, 45.0)
    yield _case("functions, cap spent, 3 : 1", CAPPED, 4.0, ("a", 3, 1), ("b", 1, 1), counted_s=spent)
    three = (("a", 3, 1.0), ("b", 1, 1.0), ("c", 2, 0.0))
    yield _case("functions, cap spent, 3 : 1 : 2, the last idle", CAPPED, 4.0, *three, counted_s=spent)


def run_case(case: TenantCase, seed: int) -> Result:
    """Returns the figures of a case."""
    scenario = replace(case.scenario, seed=seed)
    workload = poisson(case.rate_rps, rng=generators(seed)[0], duration_s=case.duration_s)
    journal = make_simulation(scenario, make_requests(scenario, workload)).run()
    row: Row = {"suite": SUITE, "case": case.name, "policy": scenario.policy, "variant": "", "seed": seed}
    return Result(row | figures(case, journal))


def figures(case: TenantCase, journal: Journal) -> Row:
    """Returns by tenant what was offered, served in time and fair, the cost, and the largest difference.

    Fair is what water-filling gives of all that was served in the same time.
    """
    shares = {tenant.settings.name: tenant.settings.share for tenant in case.scenario.tenants}
    offered, served, cost = (dict.fromkeys(shares, 0.0) for _ in range(3))
    first_s, last_s = case.counted_s
    for row in rows(journal):
        cost[row.tenant] += row.cost
        if first_s <= row.arrived_at_s < last_s:
            offered[row.tenant] += 1
            served[row.tenant] += row.within_slo
    fair = water_filling(sum(served.values()), offered, shares)
    paid = sum(cost.values())
    return {
        "tenants": ", ".join(shares),
        "shares": " : ".join(f"{share:g}" for share in shares.values()),
        "offered": " : ".join(f"{offered[name]:.0f}" for name in shares),
        "served": " : ".join(f"{served[name]:.0f}" for name in shares),
        "fair": " : ".join(f"{fair[name]:.0f}" for name in shares),
        "paid": " : ".join(f"{cost[name] / paid:.3f}" for name in shares) if paid else "",
        "worst_difference": max(abs(served[name] / fair[name] - 1.0) for name in shares if fair[name]),
    }


def tasks(seeds: tuple[int, ...]) -> Iterator[partial[Result]]:
    """Yields a task for each case and seed."""
    for case in cases():
        for seed in seeds:
            yield partial(run_case, case, seed)


def table(found: list[Row]) -> Table:
    """Returns the table of the suite's rows."""
    lines = tuple(
        (
            *(str(row[column]) for column in ("case", "seed", "shares", "offered", "served", "fair")),
            f"{100 * float(str(row['worst_difference'])):.1f} %",
            str(row["paid"]),
        )
        for row in found
    )
    header = ("overload", "seed", "shares", "offered", "served in time", "water-filling", "largest difference", "money")
    note = (
        f"Requests; the edge serves {EDGE_RPS:.0f} a second. Asked: within 5 % of weighted max-min fairness, which is "
        "worked out by water-filling from all that was served. Money: part of the whole cost, of the whole run."
    )
    return Table("Tenants under overload", note, header, lines)

"""Runs a site over requests in virtual time, and counts what came of it: by class, model and tenant too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scheduler.control import Control
from scheduler.domain.requests import Backend
from scheduler.engine import Engine
from scheduler.simulator.backends import InstancePool, SimulatedEdge, SimulatedEdges, SimulatedFunctions, drawn, noise
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import Uplink
from scheduler.simulator.report import Row, rows, summarise
from scheduler.simulator.scenario import EdgeServer
from scheduler.simulator.shell import Journal, Simulation
from scheduler.simulator.world import edge_generator, generators, make_simulation
from scheduler.whatif.requests import Requests
from scheduler.whatif.site import Site

GROUPS: Mapping[str, Callable[[Row], str]] = {
    "classes": lambda row: row.class_name,
    "models": lambda row: row.model,
    "tenants": lambda row: row.tenant,
}
"""What figures are split by."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a site.

    Attributes:
        summary: figures of all requests, and of each class, model and tenant.
        rows: one for each request.
        journal: of the run.
        currency: of the money.
        notes: sentences about the requests.
    """

    summary: Mapping[str, Any]
    rows: tuple[Row, ...]
    journal: Journal
    currency: str = "CNY"
    notes: tuple[str, ...] = ()


def run_site(site: Site, requests: Requests) -> Outcome:
    """Simulates a site; equal seeds give equal outcomes."""
    started_s = time.perf_counter()
    journal = _simulation(site, requests).run()
    wall_s = time.perf_counter() - started_s
    all_rows = tuple(rows(journal))
    # Tenants are those that requests name, whatever is configured.
    summary = summarise(journal, replace(site.scenario, tenants=()), wall_s=wall_s)
    split = {name: by_group(all_rows, of) for name, of in GROUPS.items()}
    tiers = [tier for model in site.scenario.served() for tier in model.tiers]
    currency = next((tier.price.currency for tier in tiers), "CNY")
    return Outcome({**summary, "cancelled": len(journal.cancelled), **split}, all_rows, journal, currency)


def _simulation(site: Site, requests: Requests) -> Simulation:
    scenario = site.scenario
    if scenario.policy != "edgeburst":
        return make_simulation(scenario, requests.requests)
    settings = site.engine_settings()
    engine = Engine(settings, Control(settings, None, site.memory))
    return Simulation(
        engine=engine,
        requests=requests.requests,
        edge=_edges(site),
        functions=_functions(site),
        give_ups=requests.give_ups,
    )


def _edges(site: Site) -> SimulatedEdges | None:
    servers = []
    for number, server in enumerate(site.scenario.edge_servers()):
        laws = {model.name: server.latency_of(model) for model in site.scenario.served()}
        latencies = {name: law for name, law in laws.items() if law is not None}
        if latencies:
            servers.append(
                SimulatedEdge(
                    latencies=latencies,
                    faults=Faults(server.faults),
                    noise=_edge_noise(site, server, edge_generator(site.scenario.seed, number)),
                    parallel=server.parallel,
                    name=server.name,
                    lan_s=server.lan_s,
                )
            )
    return SimulatedEdges(servers) if servers else None


def _edge_noise(site: Site, server: EdgeServer, rng: np.random.Generator) -> Iterator[float]:
    observed = site.scatter.edges.get(server.name)
    return drawn(observed, rng) if observed else noise(server.noise, rng)


def _functions(site: Site) -> SimulatedFunctions | None:
    scenario = site.scenario
    tiers = {tier.name: tier for model in scenario.served() for tier in model.tiers}
    if not tiers:
        return None
    observed, rng = site.scatter, generators(scenario.seed)[3]
    services = drawn(observed.functions, rng) if observed.functions else _function_noise(site, rng)
    pools = {
        name: InstancePool(scenario.cold_starts, concurrency=scenario.concurrency, provisioned=site.warm.get(name, 0))
        for name in tiers
    }
    return SimulatedFunctions(
        tiers=tiers,
        uplink=Uplink(scenario.bandwidth, rtt_s=scenario.rtt_s),
        faults=Faults(scenario.function_faults),
        noise=services,
        pools=pools,
        excess_s=drawn(observed.path_s, generators(scenario.seed)[6]) if observed.path_s else None,
    )


def _function_noise(site: Site, rng: np.random.Generator) -> Iterator[float]:
    return noise(site.scenario.function_noise, rng, tail=site.scenario.function_tail)


def by_group(all_rows: Iterable[Row], of: Callable[[Row], str]) -> dict[str, dict[str, Any]]:
    """Returns the figures of each group of requests, by its name; nothing where all have an empty one."""
    groups: dict[str, list[Row]] = {}
    for row in all_rows:
        groups.setdefault(of(row), []).append(row)
    return {} if set(groups) == {""} else {name: figures(groups[name]) for name in sorted(groups)}


def figures(group: Iterable[Row]) -> dict[str, Any]:
    """Returns the figures of some requests; a share or percentile without requests is None."""
    members = list(group)
    answered = [row for row in members if row.outcome == "answered"]
    latencies_s = [row.latency_s for row in answered]
    return {
        "requests": len(members),
        "within_slo": sum(row.within_slo for row in members) / len(members) if members else None,
        "refused": sum(row.outcome not in ("answered", "cancelled") for row in members),
        "p99_s": float(np.quantile(latencies_s, 0.99)) if latencies_s else None,
        "function": sum(row.backend == Backend.FUNCTION.value for row in answered),
        "cost_cny": math.fsum(row.cost for row in members),
    }

"""Runs a site over requests in virtual time, and counts what came of it: by class, model and tenant too."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from scheduler.control import Control
from scheduler.domain.batches import Batch
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier
from scheduler.domain.messages import ProbeMeasured
from scheduler.domain.requests import Backend
from scheduler.engine import Engine
from scheduler.simulator.backends import InstancePool, SimulatedEdge, SimulatedEdges, SimulatedFunctions, drawn, noise
from scheduler.simulator.backends import Outcome as BatchOutcome
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import Uplink
from scheduler.simulator.report import Row, rows, summarise
from scheduler.simulator.scenario import EdgeServer, Scenario
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
_LEFT_OUT = (
    "the policy {policy} knows no caps and no tenants' shares, answers clients that gave up, and is simulated without"
    " provisioned instances; services scatter as a fit says"
)


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
    policy = site.scenario.policy
    notes = () if policy == "edgeburst" else (_LEFT_OUT.format(policy=policy),)
    summary = {**summary, "cancelled": len(journal.cancelled), **split}
    return Outcome(summary, all_rows, journal, currency_of(site) or "CNY", notes)


def currency_of(site: Site) -> str:
    """Returns the currency of a site's prices; empty without functions."""
    tiers = [tier for model in site.scenario.served() for tier in model.tiers]
    return next((tier.price.currency for tier in tiers), "")


class ModelsFunctions:
    """The functions of several models, whose tiers may have the same names: each has its own laws and instances."""

    def __init__(self, of_models: Mapping[str, SimulatedFunctions]) -> None:
        """Stores the functions of each model, at least one; they share the way."""
        self._of_models = of_models

    def send(self, batch: Batch, *, now_s: float) -> BatchOutcome:
        """Returns the outcome of a batch sent at `now_s`."""
        return self._of_models[batch.model].send(batch, now_s=now_s)

    def probe(self, *, now_s: float) -> tuple[float, ProbeMeasured]:
        """Returns the time at which a probe of the way ends, and its result."""
        return next(iter(self._of_models.values())).probe(now_s=now_s)


def _simulation(site: Site, requests: Requests) -> Simulation:
    scenario = site.scenario
    if scenario.policy != "edgeburst":
        _check_tiers(scenario)
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


def _check_tiers(scenario: Scenario) -> None:
    """Checks that no two models have a tier of one name: other policies count instances by tier.

    Raises:
        EdgeburstError: two have.
    """
    tiers: dict[str, FunctionTier] = {}
    for tier in (tier for model in scenario.served() for tier in model.tiers):
        if tiers.setdefault(tier.name, tier) != tier:
            raise EdgeburstError(
                f"--policy {scenario.policy} needs tiers of unlike names, and {tier.name!r} is one of two models;"
                " rename it in the configuration, or leave --policy out"
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


def _functions(site: Site) -> ModelsFunctions | None:
    scenario, observed = site.scenario, site.scatter
    rng = generators(scenario.seed)[3]
    services = drawn(observed.functions, rng) if observed.functions else _function_noise(site, rng)
    uplink, faults = Uplink(scenario.bandwidth, rtt_s=scenario.rtt_s), Faults(scenario.function_faults)
    excess_s = drawn(observed.path_s, generators(scenario.seed)[6]) if observed.path_s else None
    of_models = {
        model.name: SimulatedFunctions(
            tiers={tier.name: tier for tier in model.tiers},
            uplink=uplink,
            faults=faults,
            noise=services,
            pools={tier.name: _pool(site, model.name, tier.name) for tier in model.tiers},
            excess_s=excess_s,
            billed_beside_s=partial(_billed_beside_s, site, model.name),
        )
        for model in scenario.served()
        if model.tiers
    }
    return ModelsFunctions(of_models) if of_models else None


def _billed_beside_s(site: Site, model: str, tier: str) -> float:
    return site.billed_beside_s.get((model, tier), 0.0)


def _pool(site: Site, model: str, tier: str) -> InstancePool:
    scenario, warm = site.scenario, site.warm.get((model, tier), 0)
    return InstancePool(scenario.cold_starts, concurrency=scenario.concurrency, provisioned=warm)


def _function_noise(site: Site, rng: np.random.Generator) -> Iterator[float]:
    return noise(site.scenario.function_noise, rng, tail=site.scenario.function_tail)


def by_group(all_rows: Iterable[Row], of: Callable[[Row], str]) -> dict[str, dict[str, Any]]:
    """Returns the figures of each group of requests, by its name; nothing where all have an empty one."""
    groups: dict[str, list[Row]] = {}
    for row in all_rows:
        groups.setdefault(of(row), []).append(row)
    return {} if set(groups) == {""} else {name: figures(groups[name]) for name in sorted(groups)}


def figures(group: Iterable[Row]) -> dict[str, Any]:
    """Returns the figures of some requests; a share or percentile without requests is None.

    Requests whose clients gave up do not count for the share, as in a daemon. Money is of batches that answered.
    """
    members = list(group)
    answered = [row for row in members if row.outcome == "answered"]
    counted = [row for row in members if row.outcome != "cancelled"]
    latencies_s = [row.latency_s for row in answered]
    return {
        "requests": len(members),
        "within_slo": sum(row.within_slo for row in counted) / len(counted) if counted else None,
        "refused": len(counted) - len(answered),
        "p99_s": float(np.quantile(latencies_s, 0.99)) if latencies_s else None,
        "function": sum(row.backend == Backend.FUNCTION.value for row in answered),
        "cost_cny": math.fsum(row.cost for row in members),
    }

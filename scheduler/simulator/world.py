"""Builds a simulation from a scenario: requests from arrival times, engine or policy, backends, uplink."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scheduler.dispatch.decision_ring import DecisionRing
from scheduler.domain.plans import EngineSettings
from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.simulator.backends import SimulatedEdge, SimulatedEdges, SimulatedFunctions, noise
from scheduler.simulator.clients import Clients, ClosedLoop
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import Uplink
from scheduler.simulator.policies.catalogue import Chosen, choose
from scheduler.simulator.policies.daemons import daemons
from scheduler.simulator.policies.oracle_control import oracle_control, told_control
from scheduler.simulator.policies.search import TrialResult
from scheduler.simulator.policies.separate import separate
from scheduler.simulator.report import within_slo
from scheduler.simulator.scenario import ORACLES, SEPARATE, Scenario, ScenarioError, SimulatedClass, SimulatedModel
from scheduler.simulator.shell import EngineLike, Simulation
from scheduler.workloads import RateSteps, Workload, with_bursts


def generators(seed: int) -> tuple[np.random.Generator, ...]:
    """Returns independent generators for arrivals, classes, edge noise, function noise, bursts, tenants and shapes.

    In a closed loop the first draws the times between answers and requests.

    They are independent so that two policies are simulated with the same arrivals and the same noise.
    """
    return tuple(np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(7))


def edge_generator(seed: int, number: int) -> np.random.Generator:
    """Returns the generator for the noise of an edge server, counted from 0; the first has that of `generators`."""
    return (
        generators(seed)[2]
        if not number
        else np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, number)))
    )


@dataclass(frozen=True, slots=True)
class _Kind:
    """Kind of request: its model, its class and its share of all requests."""

    model: SimulatedModel
    kind: SimulatedClass
    share: float


def _kinds(scenario: Scenario) -> list[_Kind]:
    kinds = []
    for model in scenario.served():
        shares = sum(kind.share for kind in model.classes)
        kinds += [_Kind(model, kind, model.share * kind.share / shares) for kind in model.classes]
    return kinds


def make_requests(scenario: Scenario, workload: Workload) -> list[Request]:
    """Returns the requests of a workload, and the bursts of single tenants; ids ascend from 1.

    Models, classes, tenants and shapes are drawn by their shares.
    """
    kinds, arrivals = _kinds(scenario), _arrivals(scenario, workload)
    if len(kinds) == 1:
        drawn = [0] * len(arrivals)
    else:
        shares = np.array([kind.share for kind in kinds])
        drawn = generators(scenario.seed)[1].choice(len(kinds), len(arrivals), p=shares / shares.sum()).tolist()
    shapes = generators(scenario.seed)[6]
    return [
        _request(request_id, arrived_at_s, kinds[which], tenant, _shape_id(kinds[which].model.shapes, shapes))
        for request_id, ((arrived_at_s, tenant), which) in enumerate(zip(arrivals, drawn, strict=True), start=1)
    ]


def make_clients(scenario: Scenario, loop: ClosedLoop, *, first_id: int = 1) -> Clients:
    """Returns the clients of a closed loop; models, classes, tenants and shapes are drawn by their shares."""
    arrivals, drawing, _, _, _, naming, shaping = generators(scenario.seed)
    kinds, tenants = _kinds(scenario), scenario.tenants
    which = _drawn([kind.share for kind in kinds], drawing)
    whose = _drawn([tenant.rate for tenant in tenants], naming)

    def make(request_id: int, arrived_at_s: float) -> Request:
        kind, tenant = kinds[which()], tenants[whose()].settings.name if tenants else ""
        return _request(request_id, arrived_at_s, kind, tenant, _shape_id(kind.model.shapes, shaping))

    return Clients(loop, make=make, rng=arrivals, first_id=first_id)


def _drawn(shares: Sequence[float], rng: np.random.Generator) -> Callable[[], int]:
    """Returns what draws an index by shares."""
    if len(shares) < 2:
        return lambda: 0
    parts = np.array(shares) / sum(shares)
    return lambda: int(rng.choice(len(parts), p=parts))


def _shape_id(shares: Sequence[float], rng: np.random.Generator) -> int:
    return int(rng.choice(len(shares), p=np.array(shares) / sum(shares))) if len(shares) > 1 else 0


def _arrivals(scenario: Scenario, workload: Workload) -> list[tuple[float, str]]:
    """Returns arrival times with their tenants, ascending."""
    tenants, times_s = scenario.tenants, workload.times_s.tolist()
    if not tenants:
        return [(arrived_at_s, "") for arrived_at_s in times_s]
    rng, names = generators(scenario.seed)[5], [tenant.settings.name for tenant in tenants]
    rates = np.array([tenant.rate for tenant in tenants])
    drawn = rng.choice(len(tenants), len(times_s), p=rates / rates.sum()).tolist()
    arrivals = [(arrived_at_s, names[which]) for arrived_at_s, which in zip(times_s, drawn, strict=True)]
    nothing = Workload(workload.times_s[:0], workload.duration_s)
    for name, tenant in zip(names, tenants, strict=True):
        parts = [(burst.start_s, burst.duration_s, burst.rate_rps) for burst in tenant.bursts]
        arrivals += [(at_s, name) for at_s in with_bursts(nothing, parts, rng=rng).times_s.tolist()]
    return sorted(arrivals)


def _request(request_id: int, arrived_at_s: float, kind: _Kind, tenant: str, shape_id: int) -> Request:
    service_class = kind.kind.service_class
    return Request(
        request_id=request_id,
        model=kind.model.name,
        arrived_at_s=arrived_at_s,
        deadline_s=arrived_at_s + service_class.slo_s,
        body_bytes=kind.model.request_bytes,
        class_name=service_class.name,
        priority=kind.kind.priority,
        tenant=tenant,
        shape_id=shape_id,
    )


def make_simulation(
    scenario: Scenario,
    requests: Sequence[Request],
    *,
    keep_commands: bool = False,
    ring: DecisionRing | None = None,
    rate: RateSteps | None = None,
    clients: Clients | None = None,
) -> Simulation:
    """Returns a simulation that is ready to run.

    Args:
        scenario: all but the arrivals.
        requests: that will arrive, in order.
        keep_commands: whether the journal keeps every command.
        ring: records the decisions of an engine; None for none.
        rate: that the requests were drawn from, for `oracle-laws`; None if it is not known.
        clients: a closed loop beside the requests; None for none.

    Raises:
        ScenarioError: the policy is set up for arrivals that are known beforehand, and there is a closed loop.
    """
    if clients is not None and scenario.policy != "edgeburst":
        raise ScenarioError(
            f"the policy {scenario.policy} is set up for arrivals that are known beforehand, which clients that wait "
            "for their answers have not; use --policy edgeburst"
        )
    chosen = choose_policy(scenario, requests, ring, rate)
    return _simulation(scenario, chosen, requests, keep_commands=keep_commands, clients=clients)


def choose_policy(
    scenario: Scenario,
    requests: Sequence[Request],
    ring: DecisionRing | None = None,
    rate: RateSteps | None = None,
) -> Chosen:
    """Returns the engine, or the policy that the scenario names, set up for these requests."""
    if len(scenario.daemons) > 1:
        return Chosen(daemons(scenario, requests))
    if scenario.policy == "edgeburst" and not scenario.told:
        control = told_control(scenario, requests) if scenario.told_changes else None
        return Chosen(Engine(scenario.engine_settings(), control, ring))
    if scenario.policy in ORACLES or scenario.told:
        return Chosen(Engine(scenario.engine_settings(), oracle_control(scenario, requests, rate=rate), ring))
    if scenario.policy in SEPARATE:
        return Chosen(separate(scenario, requests))

    def rehearse(policy: EngineLike, part: Sequence[Request]) -> TrialResult:
        journal = _simulation(scenario, Chosen(policy), part).run()
        return TrialResult(within_slo(journal), journal.cost())

    return choose(scenario, requests, rehearse)


def _simulation(
    scenario: Scenario,
    chosen: Chosen,
    requests: Sequence[Request],
    *,
    keep_commands: bool = False,
    clients: Clients | None = None,
) -> Simulation:
    edge, functions = make_backends(scenario, scenario.engine_settings())
    return Simulation(
        engine=chosen.policy,
        requests=requests,
        edge=edge,
        functions=functions,
        keep_commands=keep_commands,
        facts=chosen.facts,
        clients=clients,
    )


def make_backends(
    scenario: Scenario, settings: EngineSettings
) -> tuple[SimulatedEdges | None, SimulatedFunctions | None]:
    """Returns the simulated edge servers and functions; None for a backend that serves no model."""
    _, _, _, function_rng, *_ = generators(scenario.seed)
    tiers = {tier.name: tier for model in settings.models for tier in model.tiers}
    functions = None
    if tiers:
        functions = SimulatedFunctions(
            tiers=tiers,
            uplink=Uplink(scenario.bandwidth, rtt_s=scenario.rtt_s),
            faults=Faults(scenario.function_faults),
            noise=noise(scenario.function_noise, function_rng, tail=scenario.function_tail),
            cold_starts=scenario.cold_starts,
            concurrency=scenario.concurrency,
        )
    return _edges(scenario, settings), functions


def _edges(scenario: Scenario, settings: EngineSettings) -> SimulatedEdges | None:
    servers = []
    for number, server in enumerate(scenario.edge_servers()):
        laws = {model.name: model.edge_latency_on(server.name) for model in settings.models}
        latencies = {name: law for name, law in laws.items() if law is not None}
        if latencies:
            servers.append(
                SimulatedEdge(
                    latencies=latencies,
                    faults=Faults(server.faults),
                    noise=noise(server.noise, edge_generator(scenario.seed, number)),
                    parallel=server.parallel,
                    name=server.name,
                    lan_s=server.lan_s,
                    silent=server.silent,
                )
            )
    return SimulatedEdges(servers) if servers else None

"""Puts a scenario together: requests from arrival times, engine, backends, uplink."""

from collections.abc import Sequence

import numpy as np

from scheduler.domain.requests import Request
from scheduler.engine import Engine
from scheduler.simulator.backends import SimulatedEdge, SimulatedFunctions, noise
from scheduler.simulator.faults import Faults
from scheduler.simulator.network import Uplink
from scheduler.simulator.scenario import MODEL, Scenario
from scheduler.simulator.shell import Simulation
from scheduler.workloads import Workload


def generators(seed: int) -> tuple[np.random.Generator, ...]:
    """Returns independent generators for arrivals, classes, edge noise and function noise.

    Each has its own, so that two policies meet the same arrivals and the same noise.
    """
    return tuple(np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))


def make_requests(scenario: Scenario, workload: Workload) -> list[Request]:
    """Returns the requests of a workload, with classes drawn by their shares; ids count up from 1."""
    classes = scenario.classes
    if len(classes) == 1:
        kinds = [0] * len(workload.times_s)
    else:
        shares = np.array([c.share for c in classes])
        kinds = (
            generators(scenario.seed)[1].choice(len(classes), len(workload.times_s), p=shares / shares.sum()).tolist()
        )
    return [
        Request(
            request_id=request_id,
            model=MODEL,
            arrived_at_s=arrived_at_s,
            deadline_s=arrived_at_s + classes[kind].service_class.slo_s,
            body_bytes=scenario.request_bytes,
            class_name=classes[kind].service_class.name,
            priority=classes[kind].priority,
        )
        for request_id, (arrived_at_s, kind) in enumerate(zip(workload.times_s.tolist(), kinds, strict=True), start=1)
    ]


def make_simulation(scenario: Scenario, requests: Sequence[Request], *, keep_commands: bool = False) -> Simulation:
    """Returns a simulation that is ready to run."""
    settings = scenario.engine_settings()
    _, _, edge_rng, function_rng = generators(scenario.seed)
    model = settings.models[0]
    edge = functions = None
    if model.edge_law is not None:
        edge = SimulatedEdge(
            laws={MODEL: model.edge_law},
            faults=Faults(scenario.edge_faults),
            noise=noise(scenario.edge_noise, edge_rng),
        )
    if model.tiers:
        functions = SimulatedFunctions(
            tiers={tier.name: tier for tier in model.tiers},
            uplink=Uplink(scenario.bandwidth, rtt_s=scenario.rtt_s),
            faults=Faults(scenario.function_faults),
            noise=noise(scenario.function_noise, function_rng),
            cold_starts=scenario.cold_starts,
            concurrency=scenario.concurrency,
        )
    return Simulation(
        engine=Engine(settings), requests=requests, edge=edge, functions=functions, keep_commands=keep_commands
    )

"""A site to simulate: what the engine is told, and how its places really are as far as a daemon has learned it."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from scheduler.beliefs import LearnedBeliefs
from scheduler.control import Control
from scheduler.daemon.config.config import Config
from scheduler.domain.errors import EdgeburstError
from scheduler.domain.latency import FunctionTier, LatencyModel
from scheduler.domain.memory import Memory, Part, entries, finites
from scheduler.domain.plans import EngineSettings, ModelSettings
from scheduler.domain.requests import EDGE_NAME
from scheduler.estimates import Estimates
from scheduler.estimators.edge_service import EdgeService
from scheduler.estimators.service_time import ServiceTime
from scheduler.simulator import network
from scheduler.simulator.backends import ColdStarts
from scheduler.simulator.scenario import EdgeServer, Scenario, SimulatedClass, SimulatedModel

DATABASE = "state.sqlite3"
LEAST_OBSERVED = 30
"""Of fewer services the fitted scatter is used. Judgement: their tail is not seen yet."""
LEARNING_PART = 4
"""The first quarter of the errors is not drawn from. Judgement: a profile that is off is learned in a few dozen."""
OWN_S = 0.001
"""The daemon's own work between an answer of an edge and the next batch. Judgement: what `make bench` adds at the
median."""
IDLE_S = 240.0
"""After which an instance that is not provisioned is taken to end. Judgement: what estimates begin with."""


@dataclass(frozen=True, slots=True)
class Observed:
    """What was observed of services and of the way to the functions.

    Attributes:
        edges: factors on the services of each edge server.
        functions: factors on those of the functions.
        path_s: seconds that the way to the functions took besides upload and round trip.
    """

    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    functions: tuple[float, ...] = ()
    path_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """One configuration as it is simulated.

    Attributes:
        scenario: how the places really are: laws, scatter, uplink, instances.
        settings: what the engine is told; None: the scenario's own.
        memory: what a daemon knew, for the engine to begin with.
        reserve_s: part of each deadline that the daemon keeps for its own work.
        warm: instances by model and tier that never end.
        billed_beside_s: seconds of each call, by model and tier, that are billed and are no service.
        scatter: what was observed of the places, which is drawn from; empty: the scenario's sigmas.
        notes: sentences about where the laws come from.
    """

    scenario: Scenario
    settings: EngineSettings | None = None
    memory: Memory = Memory()
    reserve_s: float = 0.0
    warm: Mapping[tuple[str, str], int] = field(default_factory=dict)
    billed_beside_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    scatter: Observed = field(default_factory=Observed)
    notes: tuple[str, ...] = ()

    def engine_settings(self) -> EngineSettings:
        """Returns what the engine is told."""
        return self.scenario.engine_settings() if self.settings is None else self.settings


def configured_site(config: Config, *, request_bytes: int, seed: int) -> Site:
    """Returns the site of a configuration, with the laws that its daemon has learned where it has a state folder.

    Args:
        config: of the daemon.
        request_bytes: size of requests whose size is not known.
        seed: of every random number.

    Raises:
        EdgeburstError: the configuration has a model without a measured latency, or its state cannot be read.
    """
    settings = replace(config.engine_settings(), spend_leased="")
    unmeasured = sorted(config.measured_later())
    if unmeasured:
        raise EdgeburstError(
            f"nothing is known yet of how long {', '.join(unmeasured)} takes on the edge; let the daemon measure it"
            " with `state` in [daemon], or name `edge_profile`"
        )
    memory, where = learned_memory(config.state_folder())
    scenario = _scenario(settings, request_bytes=request_bytes, seed=seed)
    site = Site(scenario, settings, memory, config.daemon.answer_reserve_s)
    warm = {(model.name, tier.name): tier.provisioned for model in settings.models for tier in model.tiers}
    return with_learned_laws(replace(site, warm=warm), where)


def learned_memory(folder: Path | None) -> tuple[Memory, str]:
    """Returns what a daemon has saved, which is only read, and where; nothing where there is nothing.

    Raises:
        EdgeburstError: the file cannot be read.
    """
    path = None if folder is None else folder / DATABASE
    if path is None:
        return Memory(), ""
    try:
        if not path.exists():
            return Memory(), ""
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as connection:
            rows = connection.execute("SELECT name, version, fingerprint, content FROM parts").fetchall()
        return Memory({row[0]: Part(row[0], row[1], row[2], json.loads(row[3])) for row in rows}), str(path)
    except OSError as error:
        raise EdgeburstError(
            f"what was learned cannot be read from {path} ({error.strerror}); be the daemon's user, or name a copy of"
            " the folder as `state`"
        ) from None
    except (sqlite3.Error, ValueError, RecursionError) as error:
        raise EdgeburstError(
            f"what was learned cannot be read from {path} ({error}); copy the folder while the daemon is stopped"
        ) from None


def _scenario(settings: EngineSettings, *, request_bytes: int, seed: int) -> Scenario:
    several = [edge.name for edge in settings.edges] != [EDGE_NAME]
    servers = tuple(
        EdgeServer(
            edge.name,
            latencies=_laws_on(settings, edge.name),
            models=tuple(m.name for m in settings.models if m.edge_latency_on(edge.name) is not None),
            parallel=edge.parallel or 1,
            lan_s=settings.edge_overhead_s,
            ahead=edge.ahead,
            told=edge.parallel is not None,
        )
        for edge in settings.edges
    )
    rate = settings.uplink_bytes_per_s
    first = servers[0]
    return Scenario(
        models=tuple(_model(model, settings, request_bytes) for model in settings.models),
        edges=servers if several else (),
        edge_parallel=first.parallel,
        edge_told=first.told,
        edge_lan_s=first.lan_s,
        edge_ahead=first.ahead,
        bandwidth=network.AMPLE if rate is None else network.constant(rate / 2**20),
        rtt_s=settings.uplink_rtt_s,
        concurrency=max(300, settings.max_function_in_flight),
        max_function_in_flight=settings.max_function_in_flight,
        request_bytes=request_bytes,
        seed=seed,
    )


def _laws_on(settings: EngineSettings, edge: str) -> tuple[tuple[str, LatencyModel], ...]:
    laws = ((model.name, model.edge_latency_on(edge)) for model in settings.models)
    return tuple((name, law) for name, law in laws if law is not None)


def _model(model: ModelSettings, settings: EngineSettings, request_bytes: int) -> SimulatedModel:
    laws = (model.edge_latency_on(edge.name) for edge in settings.edges)
    return SimulatedModel(
        name=model.name,
        share=1.0,
        classes=tuple(SimulatedClass(each, model.default_priority) for each in model.classes),
        edge_latency=next((law for law in laws if law is not None), None),
        tiers=model.tiers,
        request_bytes=request_bytes,
        max_items=model.max_items,
    )


def with_learned_laws(site: Site, where: str) -> Site:
    """Returns the site with laws, scatter and uplink as they were learned, where anything was.

    Args:
        site: with the memory of a daemon.
        where: it was read, for the note.
    """
    settings = site.engine_settings()
    control = Control(settings, None, site.memory)
    control.begin(0.0)
    beliefs = control.beliefs
    parts = [name for name in control.recalled if name.startswith(("edge:", "function:", "uplink"))]
    if not parts or not isinstance(beliefs, LearnedBeliefs):
        return replace(site, notes=(*site.notes, "services take what the profiles say: no learned ones are kept"))
    known = beliefs.estimates
    note = f"services, their scatter and the uplink are those that the daemon has learned ({where})"
    return replace(
        site,
        scenario=_learned_scenario(site.scenario, known),
        scatter=_observed(known),
        warm={at: max(count, _always_warm(known, *at)) for at, count in site.warm.items()},
        billed_beside_s={
            (name, tier): pool.billed_beside_s
            for name, model in known.models.items()
            for tier, pool in model.warm.items()
        },
        notes=(*site.notes, note),
    )


def _learned_scenario(scenario: Scenario, known: Estimates) -> Scenario:
    """Returns the scenario with the laws of an engine's estimates.

    What an edge takes is learned as the time from the send to the answer; the daemon's own work is added to it.
    """
    models = tuple(_learned_model(model, known) for model in scenario.models)
    edges = tuple(
        replace(
            server,
            latencies=tuple((name, _on_edge(known, name, server.name, law)) for name, law in server.latencies),
            lan_s=OWN_S,
            noise=_edge_sigma(known, server.name),
        )
        for server in scenario.edges
    )
    uplink = known.uplink
    bandwidth = scenario.bandwidth if uplink.bytes_per_s is None else network.constant(uplink.bytes_per_s / 2**20)
    pools = [pool for model in known.models.values() for pool in model.warm.values()]
    start_s = max((pool.start_s(0.5) for pool in pools if pool.starts_seen), default=0.0)
    return replace(
        scenario,
        models=models,
        edges=edges,
        edge_lan_s=OWN_S,
        edge_noise=_edge_sigma(known, EDGE_NAME),
        function_noise=_function_sigma(known),
        bandwidth=bandwidth,
        rtt_s=uplink.rtt_s,
        cold_starts=ColdStarts(start_s=start_s, idle_s=IDLE_S),
    )


def _learned_model(model: SimulatedModel, known: Estimates) -> SimulatedModel:
    law = model.edge_latency
    return replace(
        model,
        edge_latency=None if law is None else _on_edge(known, model.name, EDGE_NAME, law),
        tiers=tuple(replace(tier, latency=_on_tier(known, model.name, tier)) for tier in model.tiers),
    )


def _on_edge(known: Estimates, model: str, edge: str, law: LatencyModel) -> LatencyModel:
    service = known.models[model].edges.get(edge)
    if service is None:
        return law
    return replace(law, rows=tuple(enumerate(service.predict_all_s(law.max_batch), start=1)), decode_s=0.0)


def _on_tier(known: Estimates, model: str, tier: FunctionTier) -> LatencyModel:
    service, law = known.models[model].functions.get(tier.name), tier.latency
    return law if service is None else replace(law, rows=tuple(enumerate(service.predict_all_s(law.max_batch), 1)))


def _edge_sigma(known: Estimates, edge: str) -> float:
    found = [model.edges[edge] for model in known.models.values() if edge in model.edges]
    return max((service.scatter().sigma for service in found if service.lessons), default=0.0)


def _function_sigma(known: Estimates) -> float:
    found = [service for model in known.models.values() for service in model.functions.values()]
    return max((service.scatter().sigma for service in found if service.lessons), default=0.0)


def _observed(known: Estimates) -> Observed:
    edges: dict[str, tuple[float, ...]] = {}
    functions: tuple[float, ...] = ()
    for model in known.models.values():
        for name, service in model.edges.items():
            edges[name] = edges.get(name, ()) + _factors(service)
        for tier in model.functions.values():
            functions += _factors(tier)
    return Observed(edges, functions, _settled(known.path_excess.snapshot()))


def _factors(service: ServiceTime | EdgeService) -> tuple[float, ...]:
    settled = _settled(service.snapshot()["residuals"])
    return tuple(map(math.exp, settled)) if len(settled) >= LEAST_OBSERVED else ()


def _settled(window: object) -> tuple[float, ...]:
    """Returns the residuals of a window without the first of them, which tell what was learned, not what scatters."""
    residuals = finites(entries(window)["residuals"])
    return tuple(residuals[len(residuals) // LEARNING_PART :])


def _always_warm(known: Estimates, model: str, tier: str) -> int:
    pools = known.models[model].warm
    return pools[tier].always_warm if tier in pools else 0
